// Bias + dropout + residual + LayerNorm, there and back, in one pass over memory each. x, residual, out, d_* (T, H);
// weight, bias, branch_bias (H,); mean, rstd, global_rows (T,).
#include "layer_norm.cuh"

template <class E, int Steps>
__device__ inline void forward(E* x, E* out, float* mean, float* rstd, const E* residual, const E* branch_bias,
                               const E* weight, const E* bias, const i32* global_rows, float eps, const Dropout& dropout,
                               i64 rows_per_block, i64 n_rows, int width) {
    constexpr int N = Steps * PAIRS;
    STAGED(E, staged_branch_bias, N);
    STAGED(E, staged_weight, N);
    STAGED(E, staged_bias, N);
    stage<E, N>(staged_branch_bias, branch_bias, width);
    stage<E, N>(staged_weight, weight, width);
    stage<E, N>(staged_bias, bias, width);
    __syncthreads();
    const int first = first_column();
    const Rows rows = rows_of_warp(rows_per_block, n_rows);
    for (int row = rows.first; row < rows.end; row += WARPS) {
        const i64 at = i64(row) * width;
        const Pairs<E, N> raw_x = load_pairs<E, N>(x + at, first, width);
        const Pairs<E, N> raw_residual = load_pairs<E, N>(residual + at, first, width);
        const i32 global_row = dropout.threshold == 0 ? 0 : read_by_one(global_rows + row);
        const Pair<E>* b = staged(staged_branch_bias);
        float sum[2 * N];
#pragma unroll
        for (int step = 0; step < Steps; ++step) {
            const Factors factor = factors(dropout, global_row, step);
#pragma unroll
            for (int i = 0; i < PAIRS; ++i) {
                const int p = step * PAIRS + i, column = pair_column(first, p);
                float v[2], bias[2], r[2];
                widen<2>(raw_x.of[p], v);
                widen<2>(b[p * WARP], bias);
                widen<2>(raw_residual.of[p], r);
                v[0] = fmaf(v[0] + bias[0], factor.of[2 * i], r[0]);
                v[1] = fmaf(v[1] + bias[1], factor.of[2 * i + 1], r[1]);
                const Pair<E> stored = narrow<E, 2>(v);
                if (column < width) store_raw<2>(x + at + column, stored);
                // Backward sees the sum as it was stored, so forward normalizes that too.
                widen<2>(stored, v);
                sum[2 * p] = v[0];
                sum[2 * p + 1] = v[1];
            }
        }
        const Moments m = moments<N>(sum, first, width, eps);
        if (lane() == 0) {
            mean[row] = m.mean;
            rstd[row] = m.rstd;
        }
        normalize<E, N>(out + at, sum, m, staged(staged_weight), staged(staged_bias), first, width, Dropout{}, 0);
    }
}

template <class E>
__device__ inline void forward_any(E* x, E* out, float* mean, float* rstd, const E* residual, const E* branch_bias,
                                   const E* weight, const E* bias, const i32* global_rows, float eps, const Dropout& dropout,
                                   i64 rows_per_block, i64 n_rows, int width) {
    const Rows rows = rows_of_warp(rows_per_block, n_rows);
    for (int row = rows.first; row < rows.end; row += WARPS) {
        E* sum = x + i64(row) * width;
        for_columns(dropout, global_rows[row], width, [&](int column, float factor) {
            const float branch = to_float(sum[column]) + to_float(branch_bias[column]);
            sum[column] = from_float<E>(fmaf(branch, factor, to_float(residual[i64(row) * width + column])));
        });
        const Moments m = moments_any(sum, width, eps);
        if (lane() == 0) {
            mean[row] = m.mean;
            rstd[row] = m.rstd;
        }
        for_columns(width, [&](int column) {
            const float normal = (to_float(sum[column]) - m.mean) * m.rstd;
            out[i64(row) * width + column] = from_float<E>(fmaf(normal, to_float(weight[column]), to_float(bias[column])));
        });
    }
}

// What backward reads of one row, as it comes from memory.
template <class E, int N> struct Incoming {
    Pairs<E, N> g, x;
    // Mean, rstd and the number that dropout knows the row by, in lanes 0, 1 and 2.
    u32 scalars;
};

// Ahead: the next row is on its way while the present one is worked on, where there are registers for it.
template <class E, int Steps, bool Ahead>
__device__ inline void backward(E* d_residual, E* d_x, float* partials, const E* d_out, const E* sum, const float* mean,
                                const float* rstd, const E* weight, const i32* global_rows, const Dropout& dropout,
                                i64 rows_per_block, i64 n_rows, int width) {
    constexpr int N = Steps * PAIRS;
    STAGED(E, staged_weight, N);
    SHARED(float, sums, WARPS * Steps * STEP);
    stage<E, N>(staged_weight, weight, width);
    __syncthreads();
    float d_branch_bias[2 * N] = {}, d_weight[2 * N] = {}, d_bias[2 * N] = {};
    // Where a row and the lane's columns are is not worth registers all the time, so it is found again where it is wanted.
    const auto place = [&](int row) { return i64(opaque(row)) * width; };
    const auto column_of_lane = [] { return first_column(thread_index() % WARP); };
    const auto fetch = [&](int row) {
        u32 scalar = 0;
        if (lane() == 0) scalar = __float_as_uint(mean[row]);
        if (lane() == 1) scalar = __float_as_uint(rstd[row]);
        if (lane() == 2 && dropout.threshold != 0) scalar = u32(global_rows[row]);
        const i64 at = place(row);
        const int first = column_of_lane();
        return Incoming<E, N>{load_pairs<E, N>(d_out + at, first, width), load_pairs<E, N>(sum + at, first, width), scalar};
    };
    const Rows rows = rows_of_warp(rows_per_block, n_rows);
    Incoming<E, N> incoming{};
    if (Ahead && rows.first < rows.end) incoming = fetch(rows.first);
    for (int row = rows.first; row < rows.end; row += WARPS) {
        if (!Ahead) incoming = fetch(row);
        float g[2 * N], x[2 * N];
        widen_pairs<E, N>(incoming.g, g);
        widen_pairs<E, N>(incoming.x, x);
        const u32 scalars = incoming.scalars;
        const Moments m = {__uint_as_float(__shfl_sync(ALL_LANES, scalars, 0)),
                           __uint_as_float(__shfl_sync(ALL_LANES, scalars, 1))};
        const i32 global_row = i32(__shfl_sync(ALL_LANES, scalars, 2));
        if (Ahead && row + WARPS < rows.end) incoming = fetch(row + WARPS);
        const RowBackward back = row_backward<E, N>(g, x, staged(staged_weight), m, width, d_weight, d_bias);
        const i64 at = place(row);
        const int first = column_of_lane();
#pragma unroll
        for (int step = 0; step < Steps; ++step) {
            const Factors factor = factors(dropout, global_row, step);
#pragma unroll
            for (int i = 0; i < PAIRS; ++i) {
                const int p = step * PAIRS + i, column = pair_column(first, p);
                if (column >= width) continue;
                float d[2] = {back.gradient(g[2 * p], x[2 * p]), back.gradient(g[2 * p + 1], x[2 * p + 1])};
                store_raw<2>(d_residual + at + column, narrow<E, 2>(d));
#pragma unroll
                for (int j = 0; j < 2; ++j) {
                    d[j] *= factor.of[2 * i + j];
                    d_branch_bias[2 * p + j] += d[j];
                }
                store_raw<2>(d_x + at + column, narrow<E, 2>(d));
            }
        }
    }
    float* mine = partials + i64(blockIdx.x) * 3 * width;
    const int first = first_column();
    store_partials<N>(mine, sums, d_branch_bias, first, width);
    store_partials<N>(mine + width, sums, d_weight, first, width);
    store_partials<N>(mine + 2 * width, sums, d_bias, first, width);
}

// A row of partials for each warp.
template <class E>
__device__ inline void backward_any(E* d_residual, E* d_x, float* partials, const E* d_out, const E* sum, const float* mean,
                                    const float* rstd, const E* weight, const i32* global_rows, const Dropout& dropout,
                                    i64 rows_per_block, i64 n_rows, int width) {
    float* d_branch_bias = partials + (i64(blockIdx.x) * WARPS + warp_of_block()) * 3 * width;
    float *d_weight = d_branch_bias + width, *d_bias = d_weight + width;
    for_columns(width, [&](int column) { d_branch_bias[column] = d_weight[column] = d_bias[column] = 0.0f; });
    const Rows rows = rows_of_warp(rows_per_block, n_rows);
    for (int row = rows.first; row < rows.end; row += WARPS) {
        const E *g = d_out + i64(row) * width, *x = sum + i64(row) * width;
        const Moments m = {mean[row], rstd[row]};
        const auto gradient = [&](int column, float) { return to_float(g[column]); };
        const RowBackward back = row_backward_any(gradient, x, weight, m, width, Dropout{}, 0, d_weight, d_bias);
        for_columns(dropout, global_rows[row], width, [&](int column, float factor) {
            const float wg = to_float(g[column]) * to_float(weight[column]);
            const float d = back.gradient(wg, (to_float(x[column]) - m.mean) * m.rstd);
            d_residual[i64(row) * width + column] = from_float<E>(d);
            d_x[i64(row) * width + column] = from_float<E>(d * factor);
            d_branch_bias[column] += d * factor;
        });
    }
}

// x = residual + dropout(x + branch_bias), out = LayerNorm(x) weight + bias; mean and rstd of x. One block for
// rows_per_block rows, one kernel for each number of steps that a row may take: `_256` serves even widths up to 256.
#define FORWARD(columns, suffix, E, min_blocks, call)                                                                    \
    KERNEL_MIN_BLOCKS(residual_layer_norm_forward_##columns##suffix, THREADS, min_blocks, E* x, E* out, float* mean,     \
                      float* rstd, const E* residual, const E* branch_bias, const E* weight, const E* bias,              \
                      const i32* global_rows, float eps, Dropout dropout, i64 rows_per_block, i64 n_rows, i64 width) {   \
        call(x, out, mean, rstd, residual, branch_bias, weight, bias, global_rows, eps, dropout, rows_per_block, n_rows, \
             width);                                                                                                     \
    }
// d_residual = the gradient of x as it was normalized, `sum`; d_x = dropout(d_residual). partials (blocks, 3, H), or
// (warps, 3, H) of `_any`: sums of d_x, of d_out x_hat and of d_out over the block's rows, or the warp's.
#define BACKWARD(columns, suffix, E, min_blocks, call)                                                                      \
    KERNEL_MIN_BLOCKS(residual_layer_norm_backward_##columns##suffix, THREADS, min_blocks, E* d_residual, E* d_x,           \
                      float* partials, const E* d_out, const E* sum, const float* mean, const float* rstd, const E* weight, \
                      const i32* global_rows, Dropout dropout, i64 rows_per_block, i64 n_rows, i64 width) {                 \
        call(d_residual, d_x, partials, d_out, sum, mean, rstd, weight, global_rows, dropout, rows_per_block, n_rows,       \
             width);                                                                                                        \
    }
// Three steps of bf16 and four of f32 fill the registers that their blocks have, so that their backward is not ahead; nor is
// that of two steps of bf16 on sm_100 and later, for which the compiler needs more of them.
#if WANTS_F32 && WANTS_WIDTH(0, 256)
FORWARD(256, _f32, float, 2, (forward<float, 1>))
BACKWARD(256, _f32, float, 2, (backward<float, 1, true>))
#endif
#if WANTS_BF16 && WANTS_WIDTH(0, 256)
FORWARD(256, _bf16, bf16, 8, (forward<bf16, 1>))
BACKWARD(256, _bf16, bf16, 6, (backward<bf16, 1, true>))
#endif
#if WANTS_F32 && WANTS_WIDTH(256, 512)
FORWARD(512, _f32, float, 2, (forward<float, 2>))
BACKWARD(512, _f32, float, 2, (backward<float, 2, true>))
#endif
#if WANTS_BF16 && WANTS_WIDTH(256, 512)
FORWARD(512, _bf16, bf16, 6, (forward<bf16, 2>))
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
BACKWARD(512, _bf16, bf16, 4, (backward<bf16, 2, false>))
#else
BACKWARD(512, _bf16, bf16, 4, (backward<bf16, 2, true>))
#endif
#endif
#if WANTS_F32 && WANTS_WIDTH(512, 768)
FORWARD(768, _f32, float, 2, (forward<float, 3>))
BACKWARD(768, _f32, float, 2, (backward<float, 3, true>))
#endif
#if WANTS_BF16 && WANTS_WIDTH(512, 768)
FORWARD(768, _bf16, bf16, 4, (forward<bf16, 3>))
BACKWARD(768, _bf16, bf16, 3, (backward<bf16, 3, false>))
#endif
#if WANTS_F32 && WANTS_WIDTH(768, 1024)
FORWARD(1024, _f32, float, 1, (forward<float, 4>))
BACKWARD(1024, _f32, float, 1, (backward<float, 4, false>))
#endif
#if WANTS_BF16 && WANTS_WIDTH(768, 1024)
FORWARD(1024, _bf16, bf16, 3, (forward<bf16, 4>))
BACKWARD(1024, _bf16, bf16, 2, (backward<bf16, 4, true>))
#endif
#if WANTS_F32 && WANTS_ANY_WIDTH(1024)
FORWARD(any, _f32, float, 8, (forward_any<float>))
BACKWARD(any, _f32, float, 8, (backward_any<float>))
#endif
#if WANTS_BF16 && WANTS_ANY_WIDTH(1024)
FORWARD(any, _bf16, bf16, 8, (forward_any<bf16>))
BACKWARD(any, _bf16, bf16, 8, (backward_any<bf16>))
#endif

// Adds to d_branch_bias, d_weight and d_bias (H,) the sums in partials (n, 3, H). Three times as many blocks as it takes to
// have one for PARTIAL_COLUMNS columns.
KERNEL(residual_layer_norm_backward_sums, PARTIAL_THREADS, float* d_branch_bias, float* d_weight, float* d_bias,
       const float* partials, i64 n_partials, i64 width) {
    add_layer_norm_partials({d_branch_bias, d_weight, d_bias}, partials, n_partials, 3, width);
}
