// Softmax cross-entropy of scores, and its gradient: of rows, and of the columns of a matrix that comes in blocks of rows.
#include "held_row.cuh"
#include "info_nce.cuh"

// Scores that a thread of a block holds, with their masks in registers: 1024 threads have 64 each.
template <int Threads> constexpr int HELD = Threads < 1024 ? 16 : 8;

// A row of scores (n,) and what its gradient is scaled by.
struct Row {
    const float* scores;
    i64 n;
    float inv_temperature;
    float weight;
};

// Exponentials of differences of scores over the temperature, by powers of two.
struct Exponent {
    // Of log2(e) / t, in two parts: rounded to one, it would be off as often as a score's difference is long.
    float high, low;

    __device__ inline explicit Exponent(float inv_temperature) {
        const double exact = double(inv_temperature) * 1.4426950408889634;
        high = float(exact), low = float(exact - double(high));
    }

    __device__ inline float exp(float x) const { return exp2_fast(fmaf(x, high, x * low)); }
};

// What info_nce_columns leaves (3, m): the largest cosines, the shares of the others, the inverse sums.
struct Columns {
    const float* state;
    int m;

    // What the logit `s` in `column`, which is not the positive's, has to its column's gradient.
    __device__ inline float share(float s, int column, Exponent exponent) const {
        if (column >= m) return 0.0f;
        return exponent.exp(s - state[column]) * state[2 * m + column];
    }

    // The same of the positive, negated.
    __device__ inline float others(int column) const { return state[m + column]; }
};

// d_scores and the stats of a row.
//
// A stretch of the row that the block holds is read once; if the row is longer, all but its last stretch are read again
// for the gradient, and so is all of it where columns have a gradient, too. Each thread keeps exponentials against the
// largest score that it has met itself, so the block's largest is known at the same barrier as the sum, and a held score
// needs one exponential. The positive counts as left out until the end, where it is put in its place.
template <class E, int N, int Threads, bool WithColumns>
__device__ __forceinline__ void info_nce_row(float* stats, E* d_scores, const Row& row, const Mask& mask,
                                             const Columns& columns) {
    using Stretch = HeldRow<N, Threads, HELD<Threads>>;
    const float inv_t = row.inv_temperature;
    const Exponent exponent(inv_t);
    const int width = int(row.n);
    const int last = (width - 1) / Stretch::CAPACITY * Stretch::CAPACITY;
    const float positive_logit = row.scores[mask.positive] - mask.margin;
    Stretch held;
    const auto load = [&](int first, int n) {
        held.load(row.scores + first, n);
        held.each_beside(mask.column_labels + first, n, [&](float& s, i32 label, int column) {
            const int here = first + Stretch::first() + column;
            s = (here == mask.positive) | mask.leaves_out(s, label, here) ? left_out() : s;
        });
    };
    // Of the candidates but the positive: 1 - softmax of the positive is computed as their sum, so nothing cancels when it
    // is near 1. `moment`: their exponentials times how far they are above the positive.
    float largest = positive_logit, others = 0.0f, moment = 0.0f, sum = 0.0f;
    int count = 0;
    for (int first = 0; first <= last; first += Stretch::CAPACITY) {
        const int n = Stretch::count(width - first);
        load(first, n);
        const float before = largest;
        held.each(n, [&](float& s, int) { largest = fmaxf(largest, s); });
        const float factor = exponent.exp(before - largest);
        others *= factor;
        moment *= factor;
        held.each(n, [&](float& s, int) {
            const bool counts = s > LOWEST;
            const float over = counts ? s - positive_logit : 0.0f;
            const float p = exponent.exp(s - largest);
            sum += counts ? s : 0.0f;
            count += counts;
            others += p;
            moment = fmaf(p, over, moment);
            s = p;
        });
    }
    const float mine = largest;
    largest = block_max<Threads>(mine);
    // From exponentials against this thread's largest score to such against the row's.
    const float factor = exponent.exp(mine - largest);
    others = block_sum<Threads>(others * factor);
    moment = block_sum<Threads>(moment * factor);
    sum = block_sum<Threads>(sum);
    const float n_others = block_sum<Threads>(float(count));
    const float total = others + exponent.exp(positive_logit - largest);
    const float scale = row.weight * inv_t, share = scale / total;
    float of_columns = 0.0f;
    if (!WithColumns) {
        held.each(width - last, [&](float& p, int) { p *= factor * share; });
        held.store(d_scores + last, width - last);
    }
    for (int first = WithColumns ? last : last - Stretch::CAPACITY; first >= 0; first -= Stretch::CAPACITY) {
        const int n = Stretch::count(width - first);
        load(first, n);
        held.each(n, [&](float& s, int column) {
            float d = exponent.exp(s - largest) * share;
            if (WithColumns) {
                const float p = columns.share(s, first + Stretch::first() + column, exponent);
                of_columns += s > LOWEST ? p * s : 0.0f;
                d = fmaf(p, scale, d);
            }
            s = d;
        });
        held.store(d_scores + first, n);
    }
    if (WithColumns) of_columns = block_sum<Threads>(of_columns);
    // Whoever has written a zero to the positive's place has done so.
    __syncthreads();
    const float others_of_column = WithColumns ? columns.others(mask.positive) : 0.0f;
    if (threadIdx.x == 0) d_scores[mask.positive] = from_float<E>(-others * share - others_of_column * scale);
    // Each by a thread of its own: five neighbours are no vector.
    const int which = threadIdx.x;
    float stat = which == 0 ? logf(total) + (largest - positive_logit) * inv_t : positive_logit + mask.margin;
    if (which == 2) stat = sum;
    if (which == 3) stat = n_others;
    if (which == 4) stat = moment / total + of_columns - others_of_column * positive_logit;
    if (which < STATS) stats[which] = stat;
}

template <class E, int Threads, bool WithColumns>
__device__ inline void info_nce(float* stats, E* d_scores, const float* scores, const float* column_state,
                                const Masks& masks, float inv_temperature, float weight, i64 n, i64 m) {
    const i64 i = blockIdx.x;
    const Row row{scores + i * n, n, inv_temperature, weight};
    const Mask mask = masks.of(i, row.scores[masks.positive_of(i)]);
    const Columns columns{column_state, int(m)};
    if (n % 4 == 0) {
        info_nce_row<E, 4, Threads, WithColumns>(stats + STATS * i, d_scores + i * n, row, mask, columns);
    } else {
        info_nce_row<E, 1, Threads, WithColumns>(stats + STATS * i, d_scores + i * n, row, mask, columns);
    }
}

// stats (R, STATS), d_scores (R, n), scores (R, n); _rows: column_state is null and m is 0; _both: (3, m). Launched with R
// blocks of as many threads as the name says: 256, which is 16 times fewer than there are columns, or 1024.
#define INFO_NCE(suffix, E, directions, with_columns, threads)                                                             \
    KERNEL_MIN_BLOCKS(info_nce_##directions##_##threads##_##suffix, threads, 1, float* stats, E* d_scores,                 \
                      const float* scores, NULLABLE const float* column_state, MASKS, float inv_temperature, float weight, \
                      i64 n, i64 m) {                                                                                      \
        info_nce<E, threads, with_columns>(stats, d_scores, scores, column_state, MASKS_GIVEN, inv_temperature, weight, n, \
                                           m);                                                                             \
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
