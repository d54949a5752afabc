// What the embedding's and the residual's LayerNorm share.
//
// A warp owns a row of up to 1,024 columns, an even number of them, and keeps it in registers. In every 256 columns a lane
// has the eight that one Philox call decides: four pairs, 32 columns apart (philox.cuh). So the half-warps access 64
// bytes (bf16) or 128 (f32) in a row with each instruction, which memory likes as well as 16 bytes a lane, and no word of
// a call is thrown away or sent to another lane: that would take 20 instructions a call and save 12.
//
// Rows that are wider or odd go through memory instead of registers: the functions that end in `_any`.
#pragma once

#include "partials.cuh"
#include "philox.cuh"
#include "reduce.cuh"
#include "vectors.cuh"

// Columns that a warp's lanes have with one Philox call each.
constexpr int STEP = 256;
// Pairs of columns that a lane has in each step.
constexpr int PAIRS = 4;
constexpr int WARPS = 4;
constexpr int THREADS = WARPS * WARP;

// Two neighbouring columns as they are stored.
template <class E> using Pair = Raw<E, 2>;

__device__ inline int warp_of_block() { return threadIdx.x / WARP; }
__device__ inline int lane() { return threadIdx.x % WARP; }

// Column of a lane's first pair.
__device__ inline int first_column(int lane) { return lane / 16 * 128 + lane % 16 * 2; }
__device__ inline int first_column() { return first_column(lane()); }
// Column of its pair `i`.
__device__ inline int pair_column(int first, int i) { return i / PAIRS * STEP + i % PAIRS * 32 + first; }

// What lane 0 reads, in all lanes.
template <class T> __device__ inline T read_by_one(const T* from) {
    T value = T();
    if (lane() == 0) value = *from;
    return __shfl_sync(ALL_LANES, value, 0);
}

// A lane's pairs of one row; zeros beyond its width.
template <class E, int N> struct Pairs {
    Pair<E> of[N];
};

template <class E, int N> __device__ inline Pairs<E, N> load_pairs(const E* row, int first, int width) {
    Pairs<E, N> pairs;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const int column = pair_column(first, i);
        pairs.of[i] = column < width ? load_raw<2>(row + column) : Pair<E>();
    }
    return pairs;
}

template <class E, int N> __device__ inline void widen_pairs(const Pairs<E, N>& pairs, float (&out)[2 * N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
        float pair[2];
        widen<2>(pairs.of[i], pair);
        out[2 * i] = pair[0];
        out[2 * i + 1] = pair[1];
    }
}

// A parameter's pairs in shared memory, for all of a block's warps: pair `i` of lane l at i * WARP + l, zeros beyond the
// width. The lanes' registers are needed for the rows.
#define STAGED(E, name, n_pairs) SHARED(Pair<E>, name, (n_pairs) * WARP)

template <class E, int N> __device__ inline void stage(Pair<E>* shared, const E* from, int width) {
    for (int i = warp_of_block(); i < N; i += WARPS) {
        const int column = pair_column(first_column(), i);
        shared[i * WARP + lane()] = column < width ? load_raw<2>(from + column) : Pair<E>();
    }
}

// The lane's pairs of what was staged, `i` at i * WARP. Asked for anew for each row, or the compiler reads them all ahead.
template <class E> __device__ inline const Pair<E>* staged(const Pair<E>* shared) { return shared + lane() + opaque(0); }

// Dropout's factors of a lane's eight columns in a step, in the order of its pairs.
struct Factors {
    float of[2 * PAIRS];
};

__device__ inline Factors factors(const Dropout& dropout, i32 row, i64 step) {
    Factors factors;
    if (dropout.threshold == 0) {
#pragma unroll
        for (int i = 0; i < 2 * PAIRS; ++i) factors.of[i] = 1.0f;
        return factors;
    }
    const PhiloxWords words = dropout_words(dropout, row, 0, u32(step) * WARP + lane());
#pragma unroll
    for (int i = 0; i < PAIRS; ++i) {
        factors.of[2 * i] = dropout_low(dropout, words.w[i]);
        factors.of[2 * i + 1] = dropout_high(dropout, words.w[i]);
    }
    return factors;
}

struct Moments {
    float mean;
    float rstd;
};

// Mean and 1 / sqrt(variance + eps) of a row of which the lane has N pairs.
template <int N> __device__ inline Moments moments(const float (&x)[2 * N], int first, int width, float eps) {
    const float inverse = 1.0f / width;
    float low = 0.0f, high = 0.0f;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        low += x[2 * i];
        high += x[2 * i + 1];
    }
    const float mean = warp_sum(low + high) * inverse;
    low = high = 0.0f;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        if (pair_column(first, i) < width) {
            low = fmaf(x[2 * i] - mean, x[2 * i] - mean, low);
            high = fmaf(x[2 * i + 1] - mean, x[2 * i + 1] - mean, high);
        }
    }
    return Moments{mean, 1.0f / sqrtf(fmaf(warp_sum(low + high), inverse, eps))};
}

// out = dropout((x - mean) rstd scale + shift)
template <class E, int N>
__device__ inline void normalize(E* out, const float (&x)[2 * N], Moments m, const Pair<E>* scale, const Pair<E>* shift,
                                 int first, int width, const Dropout& dropout, i32 global_row) {
#pragma unroll
    for (int step = 0; step < N / PAIRS; ++step) {
        const Factors factor = factors(dropout, global_row, step);
#pragma unroll
        for (int i = 0; i < PAIRS; ++i) {
            const int p = step * PAIRS + i;
            if (pair_column(first, p) >= width) continue;
            float w[2], b[2];
            widen<2>(scale[p * WARP], w);
            widen<2>(shift[p * WARP], b);
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                w[j] = fmaf((x[2 * p + j] - m.mean) * m.rstd, w[j], b[j]) * factor.of[2 * i + j];
            }
            store_raw<2>(out + pair_column(first, p), narrow<E, 2>(w));
        }
    }
}

// A LayerNorm on the way back through one row. With g the gradient of its result, x_hat what it normalized and w its
// weight, the gradient of the row is rstd (w g - mean(w g) - x_hat mean(w g x_hat)).
struct RowBackward {
    float mean_wg;
    float mean_wgx;
    float rstd;

    __device__ inline float gradient(float wg, float x_hat) const { return (wg - fmaf(x_hat, mean_wgx, mean_wg)) * rstd; }
};

// Turns g into w g and x, what the forward kept, into x_hat; adds up d_weight and d_bias by column.
template <class E, int N>
__device__ inline RowBackward row_backward(float (&g)[2 * N], float (&x)[2 * N], const Pair<E>* weight, Moments moments,
                                           int width, float (&d_weight)[2 * N], float (&d_bias)[2 * N]) {
    float sum = 0.0f, sum_x = 0.0f;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        float w[2];
        widen<2>(weight[i * WARP], w);
#pragma unroll
        for (int j = 2 * i; j < 2 * i + 2; ++j) {
            // Beyond the row's width g is 0.
            x[j] = (x[j] - moments.mean) * moments.rstd;
            d_weight[j] = fmaf(g[j], x[j], d_weight[j]);
            d_bias[j] += g[j];
            g[j] *= w[j % 2];
            sum += g[j];
            sum_x = fmaf(g[j], x[j], sum_x);
        }
    }
    const float inverse = 1.0f / width;
    return RowBackward{warp_sum(sum) * inverse, warp_sum(sum_x) * inverse, moments.rstd};
}

// Sums of a block's warps by column, from its lanes' sums, for a row of partials. All of the block's threads take part.
template <int N>
__device__ inline void store_partials(float* partials, float* shared, const float (&sums)[2 * N], int first, int width) {
    constexpr int COLUMNS = N / PAIRS * STEP;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        shared[warp_of_block() * COLUMNS + pair_column(first, i)] = sums[2 * i];
        shared[warp_of_block() * COLUMNS + pair_column(first, i) + 1] = sums[2 * i + 1];
    }
    __syncthreads();
    for (int column = threadIdx.x; column < width; column += THREADS) {
        float sum = shared[column];
#pragma unroll
        for (int warp = 1; warp < WARPS; ++warp) sum += shared[warp * COLUMNS + column];
        partials[column] = sum;
    }
    __syncthreads();
}

// f(column, factor) for each of the lane's columns in a row of any width.
template <class F> __device__ inline void for_columns(const Dropout& dropout, i32 row, int width, F f) {
    for (int base = 0; base + first_column() < width; base += STEP) {
        const Factors factor = factors(dropout, row, base / STEP);
#pragma unroll
        for (int i = 0; i < 2 * PAIRS; ++i) {
            const int column = base + pair_column(first_column(), i / 2) + i % 2;
            if (column < width) f(column, factor.of[i]);
        }
    }
}
template <class F> __device__ inline void for_columns(int width, F f) {
    for_columns(Dropout{}, 0, width, [&](int column, float) { f(column); });
}

// As `moments`, of a row in memory that each lane itself has written.
template <class E> __device__ inline Moments moments_any(const E* row, int width, float eps) {
    float sum = 0.0f, squares = 0.0f;
    for_columns(width, [&](int column) { sum += to_float(row[column]); });
    const float mean = warp_sum(sum) / width;
    for_columns(width, [&](int column) {
        const float centred = to_float(row[column]) - mean;
        squares = fmaf(centred, centred, squares);
    });
    return Moments{mean, 1.0f / sqrtf(warp_sum(squares) / width + eps)};
}

// As `row_backward`, for the row whose gradient at a column is gradient(column) and whose kept value is x[column]; the sums
// by column are in memory that the warp has for itself, d_weight and then d_bias.
template <class E, class F>
__device__ inline RowBackward row_backward_any(F gradient, const E* x, const E* weight, Moments moments, int width,
                                               const Dropout& dropout, i32 row, float* d_weight, float* d_bias) {
    float sum = 0.0f, sum_x = 0.0f;
    for_columns(dropout, row, width, [&](int column, float factor) {
        const float g = gradient(column, factor), wg = g * to_float(weight[column]);
        const float x_hat = (to_float(x[column]) - moments.mean) * moments.rstd;
        d_weight[column] = fmaf(g, x_hat, d_weight[column]);
        d_bias[column] += g;
        sum += wg;
        sum_x = fmaf(wg, x_hat, sum_x);
    });
    return RowBackward{warp_sum(sum) / width, warp_sum(sum_x) / width, moments.rstd};
}

// The rows of a block, dealt out to its warps in turn.
struct Rows {
    int first;
    int end;
};

__device__ inline Rows rows_of_warp(i64 rows_per_block, i64 n_rows) {
    const i64 first = blockIdx.x * rows_per_block, end = first + rows_per_block;
    return Rows{int(first) + warp_of_block(), int(end < n_rows ? end : n_rows)};
}

// One of the sums that a backward kernel left in rows of `n_sums` times `width`: block b adds up columns of the sum
// b / column blocks.
__device__ inline void add_layer_norm_partials(float* const (&sums)[3], const float* partials, i64 n_partials, i64 n_sums,
                                               i64 width) {
    const i64 column_blocks = (width + PARTIAL_COLUMNS - 1) / PARTIAL_COLUMNS;
    const i64 sum = blockIdx.x / column_blocks;
    add_partials(sum == 0   ? sums[0]
                 : sum == 1 ? sums[1]
                            : sums[2],
                 partials + sum * width, n_partials, n_sums * width, blockIdx.x % column_blocks * PARTIAL_COLUMNS, width);
}
