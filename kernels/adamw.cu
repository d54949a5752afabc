// AdamW in one pass over a parameter, and the sum of squares for gradient clipping.
#include "adamw.cuh"

// Elements that a thread of adamw updates.
constexpr int UPDATED = 4;

// One update of `w`, `m` and `v` (n,), and of the copy (n,) of `w`, null where the weights are f32 themselves, from `grad`
// (n,) and the sums of squares of all gradients (n_squares,). Launched with n / UPDATED threads, rounded up.
KERNEL(adamw, 512, float* w, bf16* copy, float* m, float* v, const float* grad, const float* squares, float beta1, float beta2,
       float eps, float keep, float rate, float inv_sqrt_c2, float max_grad_norm, i64 n, i64 n_squares) {
    const i64 first = (i64(blockIdx.x) * blockDim.x + threadIdx.x) * UPDATED;
    const bool whole = first + UPDATED <= n;
    AdamWElements<UPDATED> elements;
    // On its way while the block waits for the norm.
    if (whole) elements.load(w + first, grad + first, m + first, v + first);
    const float scale = grad_scale(squares, max_grad_norm, n_squares);
    const AdamWScalars scalars{beta1, beta2, beta1, beta2, eps, keep, rate, inv_sqrt_c2, scale};
    if (whole) {
        elements.update(scalars);
        store_global(m + first, elements.m);
        store_global(v + first, elements.v);
        store_weights(w + first, copy == nullptr ? nullptr : copy + first, elements.w);
        return;
    }
    for (i64 i = first; i < n; ++i) {
        AdamWElements<1> element;
        element.load(w + i, grad + i, m + i, v + i);
        element.update(scalars);
        m[i] = element.m.v[0];
        v[i] = element.v.v[0];
        store_weights(w + i, copy == nullptr ? nullptr : copy + i, element.w);
    }
}

// The sum of squares is grouped as on the CPU: runs of RUN elements in f32, in the lanes of sum_of in
// src/backend/cpu/math.rs, and everything above in f64. Both then give the same f32 but for the rarest of ties.
constexpr int RUN_LANES = 16;
constexpr int RUN = 256;
constexpr int SQUARES_THREADS = 256;
constexpr int RUNS_AT_ONCE = SQUARES_THREADS / RUN_LANES;
// Elements in a block.
constexpr int SPAN = 64 * RUN;

// The sum of one f64 from every thread of a block, added up in pairs in `sums`, which has room for all of them.
__device__ inline double sum_of_threads(double x, double* sums) {
    sums[threadIdx.x] = x;
    __syncthreads();
    for (u32 half = SQUARES_THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    return sums[0];
}

// Sums x^2 of SPAN elements of `x` (n,) a block into partials (blocks,), or, if there is one block only, into out[slot].
KERNEL(sum_of_squares, SQUARES_THREADS, double* partials, float* out, const float* x, i64 slot, i64 n) {
    SHARED(double, sums, SQUARES_THREADS);
    const int lane = threadIdx.x % RUN_LANES;
    double sum = 0.0;
    for (int run = threadIdx.x / RUN_LANES; run < SPAN / RUN; run += RUNS_AT_ONCE) {
        const i64 first = i64(blockIdx.x) * SPAN + run * RUN + lane;
        float values[RUN / RUN_LANES];
#pragma unroll
        for (int i = 0; i < RUN / RUN_LANES; ++i) {
            const i64 at = first + i * RUN_LANES;
            values[i] = at < n ? x[at] : 0.0f;
        }
        float acc = 0.0f;
#pragma unroll
        for (int i = 0; i < RUN / RUN_LANES; ++i) acc += values[i] * values[i];
#pragma unroll
        for (int offset = RUN_LANES / 2; offset > 0; offset /= 2) acc += __shfl_xor_sync(ALL_LANES, acc, offset);
        sum += double(acc);
    }
    sum = sum_of_threads(lane == 0 ? sum : 0.0, sums);
    if (threadIdx.x > 0) return;
    if (gridDim.x == 1) {
        out[slot] = float(sum);
    } else {
        partials[blockIdx.x] = sum;
    }
}

// out[slot] = the sum of partials (n,), by one block.
KERNEL(add_squares, SQUARES_THREADS, float* out, const double* partials, i64 slot, i64 n) {
    SHARED(double, sums, SQUARES_THREADS);
    double sum = 0.0;
    for (i64 i = threadIdx.x; i < n; i += SQUARES_THREADS) sum += partials[i];
    sum = sum_of_threads(sum, sums);
    if (threadIdx.x == 0) out[slot] = float(sum);
}
