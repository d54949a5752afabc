// Lists of tensors in a kernel's parameters, so that one launch works on all of them. Drivers before CUDA 12.1 take 4 KiB of
// parameters: a list that needs more takes several launches.
#pragma once

#include "common.cuh"

// Which blocks of a grid work on which of up to N tensors.
template <int N> struct TensorBlocks {
    // Tensors in the list.
    u32 n;
    // Elements of each.
    u32 len[N];
    // The blocks of tensor t are first[t] to first[t + 1]; none where it is empty.
    u32 first[N + 1];
};

// The tensor that this block works on: the last one that begins no later.
template <int N> __device__ inline u32 tensor_of_block(const TensorBlocks<N>& blocks) {
    u32 low = 0, high = blocks.n;
    while (high - low > 1) {
        const u32 middle = (low + high) / 2;
        if (blocks.first[middle] <= blockIdx.x) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

// Elements in a block of a kernel on a TensorList, and its threads.
constexpr int LIST_SPAN = 1 << 14;
constexpr int LIST_THREADS = 256;
constexpr int MOST_TENSORS = 240;

struct TensorList {
    float* x[MOST_TENSORS];
    TensorBlocks<MOST_TENSORS> blocks;
};
