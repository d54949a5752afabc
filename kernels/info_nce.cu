// Softmax cross-entropy of rows of scores, and its gradient. A block has a row.
#include "held_row.cuh"

// Below every score, and finite, so that the difference of two is a number.
constexpr float LOWEST = -3.0e38f;

// Scores that a thread holds: as many as leave room for two blocks of 512 threads on a multiprocessor.
constexpr int HELD = 16;

// A row of scores (n,) and what its gradient is scaled by.
struct Candidates {
    const float* scores;
    i64 n;
    i64 positive;
    float inv_temperature;
    float weight;
};

// The one door through which scores come in: `n` of a row from column `first` on.
template <class Stretch> __device__ inline void load_scores(Stretch& held, const Candidates& row, i64 first, int n) {
    held.load(row.scores + first, n);
}

// d_scores[j] = (softmax_j - [j = positive]) weight inv_temperature, the loss, and as `cosines` the score of the positive
// and the mean of the others.
//
// A stretch of the row that the block holds is read once; if the row is longer, all but its last stretch are read again
// for the gradient. Each thread keeps exponentials against the largest score that it has met itself, so the block's
// largest is known at the same barrier as the sum, and a held score needs one exponential.
template <class E, int N, int Threads>
__device__ inline void info_nce_row(float* loss, float* cosines, E* d_scores, const Candidates& row) {
    using Stretch = HeldRow<N, Threads, HELD>;
    SHARED(float, positive_cosine, 1);
    const float inv_t = row.inv_temperature;
    const int width = int(row.n);
    const int last = (width - 1) / Stretch::CAPACITY * Stretch::CAPACITY;
    Stretch held;
    // Of the candidates but the positive: 1 - softmax of the positive is computed as their sum, so nothing cancels when it
    // is near 1.
    float largest = LOWEST, others = 0.0f, sum = 0.0f;
    for (int first = 0; first <= last; first += Stretch::CAPACITY) {
        const int n = Stretch::count(width - first), positive = Stretch::position(row.positive - first);
        load_scores(held, row, first, n);
        const float before = largest;
        held.each(n, [&](float& s, int) { largest = fmaxf(largest, s); });
        others *= expf((before - largest) * inv_t);
        held.each(n, [&](float& s, int column) {
            const bool other = column != positive;
            if (!other) positive_cosine[0] = s;
            sum += other ? s : 0.0f;
            s = expf((s - largest) * inv_t);
            others += other ? s : 0.0f;
        });
    }
    const float mine = largest;
    largest = block_max<Threads>(mine);
    // From exponentials against this thread's largest score to such against the row's.
    const float factor = expf((mine - largest) * inv_t);
    others = block_sum<Threads>(others * factor);
    sum = block_sum<Threads>(sum);
    const float cosine = positive_cosine[0];
    const float total = others + expf((cosine - largest) * inv_t);
    const float share = row.weight * inv_t / total;
    const int n = width - last, positive = Stretch::position(row.positive - last);
    held.each(n, [&](float& p, int column) { p = column == positive ? -others * share : p * (factor * share); });
    held.store(d_scores + last, n);
    for (int first = last - Stretch::CAPACITY; first >= 0; first -= Stretch::CAPACITY) {
        const int n = Stretch::CAPACITY, positive = Stretch::position(row.positive - first);
        load_scores(held, row, first, n);
        held.each(n, [&](float& s, int column) {
            s = column == positive ? -others * share : expf((s - largest) * inv_t) * share;
        });
        held.store(d_scores + first, n);
    }
    if (threadIdx.x == 0) {
        loss[0] = logf(total) + (largest - cosine) * inv_t;
        cosines[0] = cosine;
        cosines[1] = row.n > 1 ? sum / float(row.n - 1) : 0.0f;
    }
}

template <class E, int Threads>
__device__ inline void info_nce(float* loss, float* cosines, E* d_scores, const float* scores, const i32* positives,
                                float inv_temperature, float weight, i64 n) {
    const i64 row = blockIdx.x;
    const Candidates candidates{scores + row * n, n, positives[row], inv_temperature, weight};
    if (n % 4 == 0) {
        info_nce_row<E, 4, Threads>(loss + row, cosines + 2 * row, d_scores + row * n, candidates);
    } else {
        info_nce_row<E, 1, Threads>(loss + row, cosines + 2 * row, d_scores + row * n, candidates);
    }
}

// loss (R,), cosines (R, 2), d_scores (R, n), scores (R, n), positives (R,). Launched with R blocks of as many threads as
// the name says, which is HELD times fewer than there are columns, or 1024.
#define INFO_NCE(suffix, E, threads)                                                                                      \
    KERNEL(info_nce_rows_##threads##_##suffix, threads, float* loss, float* cosines, E* d_scores, const float* scores,    \
           const i32* positives, float inv_temperature, float weight, i64 n) {                                            \
        info_nce<E, threads>(loss, cosines, d_scores, scores, positives, inv_temperature, weight, n);                     \
    }

INFO_NCE(f32, float, 256)
INFO_NCE(f32, float, 512)
INFO_NCE(f32, float, 1024)
INFO_NCE(bf16, bf16, 256)
INFO_NCE(bf16, bf16, 512)
INFO_NCE(bf16, bf16, 1024)
