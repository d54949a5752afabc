// The second half of a sum over rows: each block leaves a row of partial sums in scratch, and these are added up here, in
// an order that their number alone decides.
#pragma once

#include "common.cuh"

// Columns that one block adds up, and shares that their partial sums are dealt out in.
constexpr int PARTIAL_COLUMNS = 32;
constexpr int PARTIAL_SHARES = 8;
constexpr int PARTIAL_THREADS = PARTIAL_COLUMNS * PARTIAL_SHARES;

// out[j] += sum over p < n of partials[p, j], for PARTIAL_COLUMNS columns j < width from `first` on. Rows of `partials` are
// `stride` apart. All of a block's threads take part.
__device__ inline void add_partials(float* out, const float* partials, i64 n, i64 stride, i64 first, i64 width) {
    SHARED(float, shares, PARTIAL_THREADS);
    const int share = threadIdx.x / PARTIAL_COLUMNS;
    const i64 column = first + threadIdx.x % PARTIAL_COLUMNS;
    float sum = 0.0f;
    if (column < width) {
#pragma unroll 8
        for (i64 p = share; p < n; p += PARTIAL_SHARES) sum += partials[p * stride + column];
    }
    shares[threadIdx.x] = sum;
    __syncthreads();
    if (share == 0 && column < width) {
#pragma unroll
        for (int i = 1; i < PARTIAL_SHARES; ++i) sum += shares[i * PARTIAL_COLUMNS + threadIdx.x];
        out[column] += sum;
    }
}
