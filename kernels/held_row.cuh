// A stretch of a row of f32 in the registers of a group of threads, so that what goes over a row several times reads it
// from memory once.
#pragma once

#include "reduce.cuh"

// Each of Threads threads holds Values values. They take N neighbours each in their order, again and again: thread t has
// the columns N t + STEP i + l, l < N. N > 1 needs rows that are a multiple of N long. Columns are counted from first()
// on, which makes constants of them.
template <int N, int Threads, int Values> struct HeldRow {
    // Columns that the group holds.
    static constexpr int CAPACITY = Values * Threads;
    static constexpr int STEP = N * Threads;

    Vector<float, N> parts[Values / N];

    // How many of `n` columns the group holds.
    __device__ static inline int count(i64 n) { return n < CAPACITY ? int(n) : CAPACITY; }

    // The thread's first column.
    __device__ static inline int first() { return int(threadIdx.x) % Threads * N; }

    // A column as `each` counts it; below zero if no thread or another one holds it.
    __device__ static inline int position(i64 column) {
        return column >= 0 && column < CAPACITY ? int(column) - first() : -1;
    }

    // The first `n` of `from`.
    __device__ inline void load(const float* from, int n) {
        from += first();
        n -= first();
#pragma unroll
        for (int i = 0; i < Values / N; ++i) {
            if (i * STEP < n) parts[i] = load_vector<N>(from + i * STEP);
        }
    }

    // f(value, column - first()) of every value, which it may change.
    template <class F> __device__ inline void each(int n, F f) {
        n -= first();
#pragma unroll
        for (int i = 0; i < Values / N; ++i) {
            if (i * STEP >= n) continue;
#pragma unroll
            for (int l = 0; l < N; ++l) f(parts[i].v[l], i * STEP + l);
        }
    }

    // f(value, element of `beside`, column - first()) of every value, which it may change.
    template <class T, class F> __device__ inline void each_beside(const T* beside, int n, F f) {
        beside += first();
        n -= first();
#pragma unroll
        for (int i = 0; i < Values / N; ++i) {
            if (i * STEP >= n) continue;
            const Vector<T, N> there = load_vector<N>(beside + i * STEP);
#pragma unroll
            for (int l = 0; l < N; ++l) f(parts[i].v[l], there.v[l], i * STEP + l);
        }
    }

    // f(value, value of `other`) of every value, of which it may change the first.
    template <class F> __device__ inline void each_with(const HeldRow& other, int n, F f) {
        n -= first();
#pragma unroll
        for (int i = 0; i < Values / N; ++i) {
            if (i * STEP >= n) continue;
#pragma unroll
            for (int l = 0; l < N; ++l) f(parts[i].v[l], other.parts[i].v[l]);
        }
    }

    // The first `n` of `to`, rounded.
    template <class E> __device__ inline void store(E* to, int n) const {
        to += first();
        n -= first();
#pragma unroll
        for (int i = 0; i < Values / N; ++i) {
            if (i * STEP >= n) continue;
            Vector<E, N> out;
#pragma unroll
            for (int l = 0; l < N; ++l) out.v[l] = from_float<E>(parts[i].v[l]);
            store_global(to + i * STEP, out);
        }
    }
};
