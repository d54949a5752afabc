// A stretch of a row of f32 in the registers of a group of threads, so that what goes over a row several times reads it
// from memory once.
#pragma once

#include "reduce.cuh"

// Values that a thread holds.
constexpr int HELD = 32;

// Columns in the order of the group's threads, N neighbours each, again and again. N > 1 needs rows that are a multiple
// of N long.
template <int N, int Threads> struct HeldRow {
    // Columns that the group holds.
    static constexpr int CAPACITY = HELD * Threads;

    Vector<float, N> parts[HELD / N];

    __device__ static inline i64 column(int part) { return i64(part * Threads + threadIdx.x % Threads) * N; }

    // The first `n` of `from`, or as many as there is room for.
    __device__ inline void load(const float* from, i64 n) {
#pragma unroll
        for (int i = 0; i < HELD / N; ++i) {
            if (column(i) < n) parts[i] = load_vector<N>(from + column(i));
        }
    }

    // f(value, column) of every value, which it may change.
    template <class F> __device__ inline void each(i64 n, F f) {
#pragma unroll
        for (int i = 0; i < HELD / N; ++i) {
            if (column(i) >= n) continue;
#pragma unroll
            for (int l = 0; l < N; ++l) f(parts[i].v[l], column(i) + l);
        }
    }

    // f(value, value of `other`) of every value, of which it may change the first.
    template <class F> __device__ inline void each_with(const HeldRow& other, i64 n, F f) {
#pragma unroll
        for (int i = 0; i < HELD / N; ++i) {
            if (column(i) >= n) continue;
#pragma unroll
            for (int l = 0; l < N; ++l) f(parts[i].v[l], other.parts[i].v[l]);
        }
    }

    template <class E> __device__ inline void store(E* to, i64 n) const {
#pragma unroll
        for (int i = 0; i < HELD / N; ++i) {
            if (column(i) >= n) continue;
            Vector<E, N> out;
#pragma unroll
            for (int l = 0; l < N; ++l) out.v[l] = from_float<E>(parts[i].v[l]);
            store_vector(to + column(i), out);
        }
    }
};
