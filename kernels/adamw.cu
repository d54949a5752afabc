// AdamW in one pass over every parameter, and the sums of squares for gradient clipping.
#include "adamw.cuh"
#include "tensor_list.cuh"

// Elements that a thread of adamw updates, and threads of its blocks.
constexpr int UPDATED = 4;
constexpr int UPDATE_THREADS = 512;
constexpr int MOST_PARAMETERS = 76;

// Parameters with their gradients and moments. `copy` is null where the weights are f32 themselves; `keep` is
// 1 - lr weight_decay.
struct AdamWList {
    float* w[MOST_PARAMETERS];
    bf16* copy[MOST_PARAMETERS];
    float* m[MOST_PARAMETERS];
    float* v[MOST_PARAMETERS];
    const float* grad[MOST_PARAMETERS];
    float keep[MOST_PARAMETERS];
    TensorBlocks<MOST_PARAMETERS> blocks;
};

// One update of all of `list`, given the sums of squares of all gradients (n_squares,). A block of it has
// UPDATED * UPDATE_THREADS elements.
KERNEL(adamw, UPDATE_THREADS, GRID_CONSTANT const AdamWList list, const float* squares, float beta1, float beta2, float eps,
       float rate, float inv_sqrt_c2, float max_grad_norm, i64 n_squares) {
    const u32 t = tensor_of_block(list.blocks);
    const i64 first = (i64(blockIdx.x - list.blocks.first[t]) * UPDATE_THREADS + threadIdx.x) * UPDATED;
    const i64 n = list.blocks.len[t];
    float *const w = list.w[t], *const m = list.m[t], *const v = list.v[t];
    bf16* const copy = list.copy[t];
    const float* const grad = list.grad[t];
    const bool whole = first + UPDATED <= n;
    AdamWElements<UPDATED> elements;
    // On its way while the block waits for the norm.
    if (whole) elements.load(w + first, grad + first, m + first, v + first);
    const float scale = grad_scale(squares, max_grad_norm, n_squares);
    const AdamWScalars scalars{beta1, beta2, beta1, beta2, eps, list.keep[t], rate, inv_sqrt_c2, scale};
    if (whole) {
        elements.update(scalars);
        store_global(m + first, elements.m);
        store_global(v + first, elements.v);
        store_weights(w + first, copy == nullptr ? nullptr : copy + first, elements.w);
        return;
    }
#pragma unroll 1
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
constexpr int RUNS_AT_ONCE = LIST_THREADS / RUN_LANES;

// The sum of one f64 from every thread of a block, added up in pairs in `sums`, which has room for all of them.
__device__ inline double sum_of_threads(double x, double* sums) {
    sums[threadIdx.x] = x;
    __syncthreads();
    for (u32 half = LIST_THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    return sums[0];
}

// partials (blocks of the list,) = the sum of x^2 over the elements of each block.
KERNEL(sum_of_squares, LIST_THREADS, double* partials, GRID_CONSTANT const TensorList list) {
    SHARED(double, sums, LIST_THREADS);
    const u32 t = tensor_of_block(list.blocks);
    const float* const x = list.x[t];
    const i64 start = i64(blockIdx.x - list.blocks.first[t]) * LIST_SPAN, n = list.blocks.len[t];
    const int lane = threadIdx.x % RUN_LANES;
    double sum = 0.0;
    for (int run = threadIdx.x / RUN_LANES; run < LIST_SPAN / RUN; run += RUNS_AT_ONCE) {
        const i64 first = start + run * RUN + lane;
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
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

// out[t] = the sum of the partials of tensor t of the list. One block a tensor.
KERNEL(add_squares, LIST_THREADS, float* out, const double* partials, GRID_CONSTANT const TensorList list) {
    SHARED(double, sums, LIST_THREADS);
    const u32 end = list.blocks.first[blockIdx.x + 1];
    double sum = 0.0;
    for (u32 i = list.blocks.first[blockIdx.x] + threadIdx.x; i < end; i += LIST_THREADS) sum += partials[i];
    sum = sum_of_threads(sum, sums);
    if (threadIdx.x == 0) out[blockIdx.x] = float(sum);
}
