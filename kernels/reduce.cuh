// Sums and maxima over a warp or a block. Every lane takes part and every lane gets the result, the same bits in each.
#pragma once

#include "common.cuh"

constexpr float LOG2_E = 1.44269504f;
constexpr int WARP = 32;
constexpr u32 ALL_LANES = 0xFFFFFFFF;

__device__ inline float warp_sum(float x) {
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(ALL_LANES, x, offset);
    return x;
}

__device__ inline float warp_max(float x) {
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, offset));
    return x;
}

// Over a block of Threads threads, a multiple of 32.
template <int Threads> __device__ inline float block_sum(float x) {
    SHARED(float, partial, Threads / WARP);
    x = warp_sum(x);
    if (threadIdx.x % WARP == 0) partial[threadIdx.x / WARP] = x;
    __syncthreads();
    x = warp_sum(threadIdx.x % WARP < Threads / WARP ? partial[threadIdx.x % WARP] : 0.0f);
    // The next call writes what this one reads.
    __syncthreads();
    return x;
}

template <int Threads> __device__ inline float block_max(float x) {
    SHARED(float, partial, Threads / WARP);
    x = warp_max(x);
    if (threadIdx.x % WARP == 0) partial[threadIdx.x / WARP] = x;
    __syncthreads();
    x = warp_max(partial[threadIdx.x % WARP < Threads / WARP ? threadIdx.x % WARP : 0]);
    __syncthreads();
    return x;
}
