// What every kernel starts from: types, vector access, and the three macros through which a kernel is declared.
//
// Kernels include nothing but headers of this folder, so NVRTC needs no CUDA include folder. Under g++ the same sources
// run on the stand-in (tests/simt), whose simt.h supplies what the CUDA compilers build in.
//
// What is declared here and in the files, build.rs reads and writes down in Rust (build/contract/): for each KERNEL a
// launcher whose fields are its parameters, by their names, and integer constants.
//
// Conventions: grids and blocks are one-dimensional. Parameters are outputs, inputs, scalars, sizes; sizes and row
// offsets are i64. Sums are f32. No kernel uses an atomic, so the same launch gives the same bytes.
#pragma once

#ifdef __CUDACC__
// A kernel by its name, as cuModuleGetFunction finds it; launched with at most `max_threads` threads a block.
#define KERNEL(name, max_threads, ...) extern "C" __global__ void __launch_bounds__(max_threads) name(__VA_ARGS__)
// The same for a kernel that has to leave registers for `min_blocks` blocks on a multiprocessor.
#define KERNEL_MIN_BLOCKS(name, max_threads, min_blocks, ...) \
    extern "C" __global__ void __launch_bounds__(max_threads, min_blocks) name(__VA_ARGS__)
// A struct among a kernel's parameters that is read where it lies: the compiler need not copy it to index its arrays.
#define GRID_CONSTANT __grid_constant__
// An array in the block's shared memory. Holds garbage until it is written.
#define SHARED(T, name, count) __shared__ T name[count]
// The block's dynamic shared memory, aligned to 128 bytes: `most` bytes, a constant, or, where a third argument says how
// many this launch has to ask for, at most that. The stand-in refuses other launches; kernels/RESOURCES.md tells `most`.
#define DYNAMIC_SHARED(name, most, ...)                    \
    extern __shared__ __align__(128) unsigned char name[]; \
    note_dynamic_shared<most>()
#else
#include "simt.h"
#endif
// A pointer among a kernel's parameters that may be null: an Option in Rust.
#define NULLABLE

// Which instances of the templates a file declares, at its end: all of them, unless NVRTC, which compiles on first use
// and takes its time, is told what a run computes with (src/backend/cuda/workload.rs): -DHBT_TYPE=16 or 32, the bits of
// an element; -DHBT_HEAD=64, the head size; -DHBT_WIDTH=768, the hidden size. Whatever else is asked for then, such as a
// kernel that is missing here, takes a compilation of the whole file.
#ifndef HBT_TYPE
#define HBT_TYPE 0
#endif
#ifndef HBT_HEAD
#define HBT_HEAD 0
#endif
#ifndef HBT_WIDTH
#define HBT_WIDTH 0
#endif
#define WANTS_F32 (HBT_TYPE == 0 || HBT_TYPE == 32)
#define WANTS_BF16 (HBT_TYPE == 0 || HBT_TYPE == 16)
#define WANTS_HEAD(size) (HBT_HEAD == 0 || HBT_HEAD == (size))
// Even widths above `above`, up to `most`; and all that no such kernel takes.
#define WANTS_WIDTH(above, most) (HBT_WIDTH == 0 || (HBT_WIDTH > (above) && HBT_WIDTH <= (most) && HBT_WIDTH % 2 == 0))
#define WANTS_ANY_WIDTH(most) (HBT_WIDTH == 0 || HBT_WIDTH > (most) || HBT_WIDTH % 2 != 0)

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;
typedef long long i64;

// The upper half of an f32.
struct bf16 {
    u16 bits;
};

#include "mma.cuh"

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(bf16 x) { return __uint_as_float(u32(x.bits) << 16); }

// Rounds to nearest, ties to even.
template <class E> __device__ inline E from_float(float x);
template <> __device__ inline float from_float<float>(float x) { return x; }
template <> __device__ inline bf16 from_float<bf16>(float x) { return bf16{u16(pack_bf16x2(x, 0.0f) & 0xFFFF)}; }

// N neighbours, read or written by one instruction: N * sizeof(T) is 2, 4, 8 or 16 bytes, and so is the alignment.
template <class T, int N> struct alignas(sizeof(T) * N) Vector {
    T v[N];
};

// Elements that 16 bytes hold.
template <class E> struct Lanes {
    static constexpr int n = 16 / sizeof(E);
};

template <int N, class T> __device__ inline Vector<T, N> load_vector(const T* from) {
    static_assert(sizeof(T) * N <= 16 && 16 % (sizeof(T) * N) == 0, "one instruction's worth");
    Vector<T, N> out;
#ifdef __CUDACC__
    // Through words of the full width, as the compiler may take an array of halves apart.
    if constexpr (sizeof(out) == 16) {
        *reinterpret_cast<uint4*>(&out) = *reinterpret_cast<const uint4*>(from);
    } else if constexpr (sizeof(out) == 8) {
        *reinterpret_cast<uint2*>(&out) = *reinterpret_cast<const uint2*>(from);
    } else if constexpr (sizeof(out) == 4) {
        *reinterpret_cast<u32*>(&out) = *reinterpret_cast<const u32*>(from);
    } else {
        out.v[0] = *from;
    }
#else
    simt::load(&out, from, sizeof(out));
#endif
    return out;
}

template <int N, class T> __device__ inline void store_vector(T* to, const Vector<T, N>& x) {
#ifdef __CUDACC__
    if constexpr (sizeof(x) == 16) {
        *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(&x);
    } else if constexpr (sizeof(x) == 8) {
        *reinterpret_cast<uint2*>(to) = *reinterpret_cast<const uint2*>(&x);
    } else if constexpr (sizeof(x) == 4) {
        *reinterpret_cast<u32*>(to) = *reinterpret_cast<const u32*>(&x);
    } else {
        *to = x.v[0];
    }
#else
    simt::store(to, &x, sizeof(x));
#endif
}

// As store_vector, to global memory alone.
template <int N, class T> __device__ inline void store_global(T* to, const Vector<T, N>& x) {
#ifdef __CUDACC__
    if constexpr (sizeof(x) == 16) {
        store_global_16(to, *reinterpret_cast<const uint4*>(&x));
    } else if constexpr (sizeof(x) == 8) {
        store_global_8(to, *reinterpret_cast<const uint2*>(&x));
    } else {
        store_vector(to, x);
    }
#else
    simt::store_global(to, &x, sizeof(x));
#endif
}
