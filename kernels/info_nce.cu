// Softmax cross-entropy of scores, and its gradient: of rows, and of the columns of a matrix that comes in blocks of rows.
#include "info_nce_row.cuh"

// stats (R, STATS), d_scores (R, n), scores (R, n); _rows: column_state is null and m is 0; _both: (3, m). Launched with R
// blocks of as many threads as the name says: 256, which is 16 times fewer than there are columns, or 1024.
#define INFO_NCE(suffix, E, directions, with_columns, threads)                                                             \
    KERNEL_MIN_BLOCKS(info_nce_##directions##_##threads##_##suffix, threads, 1, float* stats, E* d_scores,                 \
                      const float* scores, NULLABLE const float* column_state, MASKS, float inv_temperature, float weight, \
                      i64 n, i64 m) {                                                                                      \
        info_nce<E, threads, with_columns, false>(stats, d_scores, scores, column_state, MASKS_GIVEN, Teacher{},           \
                                                  inv_temperature, weight, n, m);                                          \
    }

#if WANTS_F32
INFO_NCE(f32, float, rows, false, 256)
INFO_NCE(f32, float, rows, false, 1024)
#endif
#if WANTS_BF16
INFO_NCE(bf16, bf16, rows, false, 256)
INFO_NCE(bf16, bf16, rows, false, 1024)
#endif
#if WANTS_F32
INFO_NCE(f32, float, both, true, 256)
INFO_NCE(f32, float, both, true, 1024)
#endif
#if WANTS_BF16
INFO_NCE(bf16, bf16, both, true, 256)
INFO_NCE(bf16, bf16, both, true, 1024)
#endif

// Rows that a block of info_nce_columns reads at a time: one a warp, each lane a column.
constexpr int ROWS_AT_ONCE = 8;
constexpr int COLUMNS_THREADS = ROWS_AT_ONCE * WARP;

// state (3, m), loss (m,), scores (rows, n); see InfoNceColumns in src/backend/ops/info_nce.rs. Launched with a block for
// every WARP columns.
KERNEL_MIN_BLOCKS(info_nce_columns, COLUMNS_THREADS, 5, float* state, float* loss, const float* scores, MASKS,
                  float inv_temperature, i64 rows, i64 n, i64 m, i32 is_first, i32 is_last) {
    SHARED(float, largest_of, COLUMNS_THREADS);
    SHARED(float, others_of, COLUMNS_THREADS);
    const Masks masks = MASKS_GIVEN;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int column = int(blockIdx.x) * WARP + lane;
    float largest = LOWEST, others = 0.0f;
#pragma unroll 1
    for (i64 row = warp; row < rows; row += ROWS_AT_ONCE) {
        if (column >= m) break;
        const Mask mask = masks.of(row, scores[row * n + masks.positive_of(row)]);
        const float s = mask.logit(scores[row * n + column], column);
        if (s > largest) {
            others *= expf((largest - s) * inv_temperature);
            largest = s;
        }
        if (column == mask.positive) {
            state[2 * m + column] = s;
        } else {
            others += expf((s - largest) * inv_temperature);
        }
    }
    largest_of[threadIdx.x] = largest;
    others_of[threadIdx.x] = others;
    // Also for the positive, which any warp may have written.
    __syncthreads();
    if (warp > 0 || column >= m) return;
    // Those of the rows before are the first.
    largest = is_first ? LOWEST : state[column];
    others = is_first ? 0.0f : state[m + column];
    for (int i = 0; i < ROWS_AT_ONCE; ++i) {
        const float other = largest_of[i * WARP + lane], both = fmaxf(largest, other);
        others = others * expf((largest - both) * inv_temperature) +
                 others_of[i * WARP + lane] * expf((other - both) * inv_temperature);
        largest = both;
    }
    state[column] = largest;
    if (!is_last) {
        state[m + column] = others;
        return;
    }
    const float positive = state[2 * m + column];
    const float total = others + expf((positive - largest) * inv_temperature);
    loss[column] = logf(total) + (largest - positive) * inv_temperature;
    state[m + column] = others / total;
    state[2 * m + column] = 1.0f / total;
}
