// The embedding: rows of three tables, LayerNorm and dropout, and the way back to the tables' gradients. sum, out, d_*
// (T, H); weight, bias (H,); mean, rstd, ids, positions, global_rows (T,).
#include "layer_norm.cuh"
#include "segments.cuh"

template <class E, int Steps>
__device__ inline void forward(E* sum, E* out, float* mean, float* rstd, const i32* ids, const i32* positions,
                               const i32* global_rows, const E* word, const E* position, const E* token_type,
                               const E* weight, const E* bias, float eps, const Dropout& dropout, i64 rows_per_block,
                               i64 n_rows, int width) {
    constexpr int N = Steps * PAIRS;
    STAGED(E, staged_type, N);
    STAGED(E, staged_weight, N);
    STAGED(E, staged_bias, N);
    stage<E, N>(staged_type, token_type, width);
    stage<E, N>(staged_weight, weight, width);
    stage<E, N>(staged_bias, bias, width);
    __syncthreads();
    const int first = first_column();
    const Rows rows = rows_of_warp(rows_per_block, n_rows);
    for (int row = rows.first; row < rows.end; row += WARPS) {
        const i64 at = i64(row) * width, id = read_by_one(ids + row), place = read_by_one(positions + row);
        const Pairs<E, N> raw_word = load_pairs<E, N>(word + id * width, first, width);
        const Pairs<E, N> raw_position = load_pairs<E, N>(position + place * width, first, width);
        const i32 global_row = dropout.threshold == 0 ? 0 : read_by_one(global_rows + row);
        const Pair<E>* t = staged(staged_type);
        float x[2 * N];
#pragma unroll
        for (int i = 0; i < N; ++i) {
            float v[2], p[2], type[2];
            widen<2>(raw_word.of[i], v);
            widen<2>(raw_position.of[i], p);
            widen<2>(t[i * WARP], type);
            v[0] += p[0] + type[0];
            v[1] += p[1] + type[1];
            const Pair<E> stored = narrow<E, 2>(v);
            if (pair_column(first, i) < width) store_raw<2>(sum + at + pair_column(first, i), stored);
            // Backward sees the sum as it was stored, so forward normalizes that too.
            widen<2>(stored, v);
            x[2 * i] = v[0];
            x[2 * i + 1] = v[1];
        }
        const Moments m = moments<N>(x, first, width, eps);
        if (lane() == 0) {
            mean[row] = m.mean;
            rstd[row] = m.rstd;
        }
        normalize<E, N>(out + at, x, m, staged(staged_weight), staged(staged_bias), first, width, dropout, global_row);
    }
}

template <class E>
__device__ inline void forward_any(E* sum, E* out, float* mean, float* rstd, const i32* ids, const i32* positions,
                                   const i32* global_rows, const E* word, const E* position, const E* token_type,
                                   const E* weight, const E* bias, float eps, const Dropout& dropout, i64 rows_per_block,
                                   i64 n_rows, int width) {
    const Rows rows = rows_of_warp(rows_per_block, n_rows);
    for (int row = rows.first; row < rows.end; row += WARPS) {
        E* x = sum + i64(row) * width;
        const E *w = word + i64(ids[row]) * width, *p = position + i64(positions[row]) * width;
        for_columns(width, [&](int column) {
            x[column] = from_float<E>(to_float(w[column]) + (to_float(p[column]) + to_float(token_type[column])));
        });
        const Moments m = moments_any(x, width, eps);
        if (lane() == 0) {
            mean[row] = m.mean;
            rstd[row] = m.rstd;
        }
        for_columns(dropout, global_rows[row], width, [&](int column, float factor) {
            const float normal = (to_float(x[column]) - m.mean) * m.rstd;
            const float result = fmaf(normal, to_float(weight[column]), to_float(bias[column]));
            out[i64(row) * width + column] = from_float<E>(result * factor);
        });
    }
}

template <class E, int Steps>
__device__ inline void backward(E* d_sum, float* partials, const E* d_out, const E* sum, const float* mean,
                                const float* rstd, const E* weight, const i32* global_rows, const Dropout& dropout,
                                i64 rows_per_block, i64 n_rows, int width) {
    constexpr int N = Steps * PAIRS;
    STAGED(E, staged_weight, N);
    SHARED(float, sums, WARPS * Steps * STEP);
    stage<E, N>(staged_weight, weight, width);
    __syncthreads();
    const int first = first_column();
    float d_weight[2 * N] = {}, d_bias[2 * N] = {};
    const Rows rows = rows_of_warp(rows_per_block, n_rows);
    for (int row = rows.first; row < rows.end; row += WARPS) {
        const i64 at = i64(row) * width;
        const Pairs<E, N> raw_g = load_pairs<E, N>(d_out + at, first, width);
        const Pairs<E, N> raw_x = load_pairs<E, N>(sum + at, first, width);
        const Moments m = {read_by_one(mean + row), read_by_one(rstd + row)};
        const i32 global_row = dropout.threshold == 0 ? 0 : read_by_one(global_rows + row);
        float g[2 * N], x[2 * N];
        widen_pairs<E, N>(raw_g, g);
        widen_pairs<E, N>(raw_x, x);
#pragma unroll
        for (int step = 0; step < Steps; ++step) {
            const Factors factor = factors(dropout, global_row, step);
#pragma unroll
            for (int i = 0; i < 2 * PAIRS; ++i) g[2 * step * PAIRS + i] *= factor.of[i];
        }
        const RowBackward back = row_backward<E, N>(g, x, staged(staged_weight), m, width, d_weight, d_bias);
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const int column = pair_column(first, i);
            const float d[2] = {back.gradient(g[2 * i], x[2 * i]), back.gradient(g[2 * i + 1], x[2 * i + 1])};
            if (column < width) store_raw<2>(d_sum + at + column, narrow<E, 2>(d));
        }
    }
    float* mine = partials + i64(blockIdx.x) * 2 * width;
    store_partials<N>(mine, sums, d_weight, first, width);
    store_partials<N>(mine + width, sums, d_bias, first, width);
}

// A row of partials for each warp.
template <class E>
__device__ inline void backward_any(E* d_sum, float* partials, const E* d_out, const E* sum, const float* mean,
                                    const float* rstd, const E* weight, const i32* global_rows, const Dropout& dropout,
                                    i64 rows_per_block, i64 n_rows, int width) {
    float* d_weight = partials + (i64(blockIdx.x) * WARPS + warp_of_block()) * 2 * width;
    float* d_bias = d_weight + width;
    for_columns(width, [&](int column) { d_weight[column] = d_bias[column] = 0.0f; });
    const Rows rows = rows_of_warp(rows_per_block, n_rows);
    for (int row = rows.first; row < rows.end; row += WARPS) {
        const E *g = d_out + i64(row) * width, *x = sum + i64(row) * width;
        const Moments m = {mean[row], rstd[row]};
        const i32 global_row = global_rows[row];
        const auto gradient = [&](int column, float factor) { return to_float(g[column]) * factor; };
        const RowBackward back = row_backward_any(gradient, x, weight, m, width, dropout, global_row, d_weight, d_bias);
        for_columns(dropout, global_row, width, [&](int column, float factor) {
            const float wg = gradient(column, factor) * to_float(weight[column]);
            d_sum[i64(row) * width + column] = from_float<E>(back.gradient(wg, (to_float(x[column]) - m.mean) * m.rstd));
        });
    }
}

// sum = word[id] + position[position] + token_type[0], out = dropout(LayerNorm(sum) weight + bias); mean and rstd of sum.
// One block for rows_per_block rows, one kernel for each number of steps that a row may take, as in layer_norm.cu.
#define FORWARD(columns, suffix, E, min_blocks, call)                                                                      \
    KERNEL_MIN_BLOCKS(embedding_forward_##columns##suffix, THREADS, min_blocks, E* sum, E* out, float* mean, float* rstd,  \
                      const i32* ids, const i32* positions, const i32* global_rows, const E* word, const E* position,      \
                      const E* token_type, const E* weight, const E* bias, float eps, Dropout dropout, i64 rows_per_block, \
                      i64 n_rows, i64 width) {                                                                             \
        call(sum, out, mean, rstd, ids, positions, global_rows, word, position, token_type, weight, bias, eps, dropout,    \
             rows_per_block, n_rows, width);                                                                               \
    }
// d_sum from d_out. partials (blocks, 2, H), or (warps, 2, H) of `_any`: sums of dropout(d_out) x_hat and of dropout(d_out)
// over the block's rows, or the warp's.
#define BACKWARD(columns, suffix, E, min_blocks, call)                                                                      \
    KERNEL_MIN_BLOCKS(embedding_backward_##columns##suffix, THREADS, min_blocks, E* d_sum, float* partials, const E* d_out, \
                      const E* sum, const float* mean, const float* rstd, const E* weight, const i32* global_rows,          \
                      Dropout dropout, i64 rows_per_block, i64 n_rows, i64 width) {                                         \
        call(d_sum, partials, d_out, sum, mean, rstd, weight, global_rows, dropout, rows_per_block, n_rows, width);         \
    }
#if WANTS_F32 && WANTS_WIDTH(0, 256)
FORWARD(256, _f32, float, 2, (forward<float, 1>))
BACKWARD(256, _f32, float, 2, (backward<float, 1>))
#endif
#if WANTS_BF16 && WANTS_WIDTH(0, 256)
FORWARD(256, _bf16, bf16, 8, (forward<bf16, 1>))
BACKWARD(256, _bf16, bf16, 6, (backward<bf16, 1>))
#endif
#if WANTS_F32 && WANTS_WIDTH(256, 512)
FORWARD(512, _f32, float, 2, (forward<float, 2>))
BACKWARD(512, _f32, float, 2, (backward<float, 2>))
#endif
#if WANTS_BF16 && WANTS_WIDTH(256, 512)
FORWARD(512, _bf16, bf16, 6, (forward<bf16, 2>))
BACKWARD(512, _bf16, bf16, 4, (backward<bf16, 2>))
#endif
#if WANTS_F32 && WANTS_WIDTH(512, 768)
FORWARD(768, _f32, float, 2, (forward<float, 3>))
BACKWARD(768, _f32, float, 2, (backward<float, 3>))
#endif
#if WANTS_BF16 && WANTS_WIDTH(512, 768)
FORWARD(768, _bf16, bf16, 4, (forward<bf16, 3>))
BACKWARD(768, _bf16, bf16, 3, (backward<bf16, 3>))
#endif
#if WANTS_F32 && WANTS_WIDTH(768, 1024)
FORWARD(1024, _f32, float, 1, (forward<float, 4>))
BACKWARD(1024, _f32, float, 1, (backward<float, 4>))
#endif
#if WANTS_BF16 && WANTS_WIDTH(768, 1024)
FORWARD(1024, _bf16, bf16, 3, (forward<bf16, 4>))
BACKWARD(1024, _bf16, bf16, 3, (backward<bf16, 4>))
#endif
#if WANTS_F32 && WANTS_ANY_WIDTH(1024)
FORWARD(any, _f32, float, 8, (forward_any<float>))
BACKWARD(any, _f32, float, 8, (backward_any<float>))
#endif
#if WANTS_BF16 && WANTS_ANY_WIDTH(1024)
FORWARD(any, _bf16, bf16, 8, (forward_any<bf16>))
BACKWARD(any, _bf16, bf16, 8, (backward_any<bf16>))
#endif

// Adds to d_weight and d_bias (H,) the sums in partials (n, 2, H). Twice as many blocks as it takes to have one for
// PARTIAL_COLUMNS columns.
KERNEL(embedding_backward_sums, PARTIAL_THREADS, float* d_weight, float* d_bias, const float* partials, i64 n_partials,
       i64 width) {
    add_layer_norm_partials({d_weight, d_bias, nullptr}, partials, n_partials, 2, width);
}

// out (rows, H) gets, at the rows that rows (n,) names, the sums of x (T, H) by segment. One block a segment, of a thread
// for each vector of columns as far as SEGMENT_THREADS go. `_scalar`: for rows that are not whole vectors of 16 bytes.
#define SEGMENT_SUM(name, E, N)                                                                             \
    KERNEL(segment_sum##name, SEGMENT_THREADS, float* out, const E* x, const i32* order, const i32* starts, \
           const i32* rows, i64 width) {                                                                    \
        add_segment<E, N>(out, x, order, starts, rows, width);                                              \
    }
// The sums of long segments' pieces: partials (2 windows, H) and heads (windows,), one block for each window of PIECE tokens.
#define SEGMENT_PIECES(name, E, N)                                                                                      \
    KERNEL(segment_sum_pieces##name, SEGMENT_THREADS, float* partials, const E* x, const i32* order, const i32* starts, \
           i64 n_segments, i64 n_tokens, i64 width) {                                                                   \
        i32* heads = reinterpret_cast<i32*>(partials + 2 * ((n_tokens + PIECE - 1) / PIECE) * width);                   \
        store_pieces<E, N>(partials, heads, x, order, starts, n_segments, n_tokens, width);                             \
    }
#if WANTS_F32
SEGMENT_SUM(_f32, float, Lanes<float>::n)
#endif
#if WANTS_BF16
SEGMENT_SUM(_bf16, bf16, Lanes<bf16>::n)
#endif
#if WANTS_F32
SEGMENT_SUM(_scalar_f32, float, 1)
#endif
#if WANTS_BF16
SEGMENT_SUM(_scalar_bf16, bf16, 1)
#endif
#if WANTS_F32
SEGMENT_PIECES(_f32, float, Lanes<float>::n)
#endif
#if WANTS_BF16
SEGMENT_PIECES(_bf16, bf16, Lanes<bf16>::n)
#endif
#if WANTS_F32
SEGMENT_PIECES(_scalar_f32, float, 1)
#endif
#if WANTS_BF16
SEGMENT_PIECES(_scalar_bf16, bf16, 1)
#endif

// out += what segment_sum_pieces left in partials. As many blocks a window as it takes to have one for PARTIAL_COLUMNS columns.
KERNEL(segment_sum_long, PARTIAL_THREADS, float* out, const float* partials, const i32* starts, const i32* rows,
       i64 n_tokens, i64 width) {
    const i32* heads = reinterpret_cast<const i32*>(partials + 2 * ((n_tokens + PIECE - 1) / PIECE) * width);
    add_pieces(out, partials, heads, starts, rows, n_tokens, width);
}
