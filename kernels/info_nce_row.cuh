// Softmax cross-entropy of a row of scores, and its gradient; what the row learns from a teacher may join it.
#pragma once

#include "distillation.cuh"
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
    i64 number;
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
//
// What the row learns from a teacher concerns few columns. One warp computes their gradient once more and overwrites it
// with the sum of both, so that what is stored is rounded once.
template <class E, int N, int Threads, bool WithColumns, bool WithTeacher>
__device__ __forceinline__ void info_nce_row(float* stats, E* d_scores, const Row& row, const Mask& mask,
                                             const Columns& columns, const Teacher& teacher) {
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
    const float d_positive = -others * share - others_of_column * scale;
    if (threadIdx.x == 0) d_scores[mask.positive] = from_float<E>(d_positive);
    if (WithTeacher && threadIdx.x < WARP) {
        const float factor = teacher.weight * teacher.inv_temperature;
        const auto add = [&](int column, float learned) {
            float d = d_positive;
            if (column != mask.positive) {
                const float s = mask.logit(row.scores[column], column);
                d = exponent.exp(s - largest) * share;
                if (WithColumns) d = fmaf(columns.share(s, column, exponent), scale, d);
            }
            d_scores[column] = from_float<E>(fmaf(learned, factor, d));
        };
        const OwnCandidates own(teacher, mask, row.scores, row.number);
        const Learned learned = teacher.is_margin_mse ? learn_margins(own, add) : learn_softmax(own, add);
        float* const to = teacher.stats + DISTILL_STATS * row.number;
        if (threadIdx.x < DISTILL_STATS) to[threadIdx.x] = threadIdx.x == 0 ? learned.loss : learned.derivative;
    }
    // Each by a thread of its own: five neighbours are no vector.
    const int which = threadIdx.x;
    float stat = which == 0 ? logf(total) + (largest - positive_logit) * inv_t : positive_logit + mask.margin;
    if (which == 2) stat = sum;
    if (which == 3) stat = n_others;
    if (which == 4) stat = moment / total + of_columns - others_of_column * positive_logit;
    if (which < STATS) stats[which] = stat;
}

template <class E, int Threads, bool WithColumns, bool WithTeacher>
__device__ inline void info_nce(float* stats, E* d_scores, const float* scores, const float* column_state,
                                const Masks& masks, const Teacher& teacher, float inv_temperature, float weight, i64 n,
                                i64 m) {
    const i64 i = blockIdx.x;
    const Row row{scores + i * n, n, inv_temperature, weight, i};
    const Mask mask = masks.of(i, row.scores[masks.positive_of(i)]);
    const Columns columns{column_state, int(m)};
    if (n % 4 == 0) {
        info_nce_row<E, 4, Threads, WithColumns, WithTeacher>(stats + STATS * i, d_scores + i * n, row, mask, columns,
                                                              teacher);
    } else {
        info_nce_row<E, 1, Threads, WithColumns, WithTeacher>(stats + STATS * i, d_scores + i * n, row, mask, columns,
                                                              teacher);
    }
}
