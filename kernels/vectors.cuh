// Neighbouring elements as floats: read and written by as few instructions as there can be, whatever their type.
// N is 1, or as many as fill 16 bytes or a part of them; the address is aligned to all N.
#pragma once

#include "common.cuh"

template <int N> __device__ inline void load_floats(const float* from, float (&out)[N]) {
    if constexpr (N == 1) {
        out[0] = *from;
    } else {
        constexpr int n = N < 4 ? N : 4;
#pragma unroll
        for (int i = 0; i < N; i += n) {
            const Vector<float, n> x = load_vector<n>(from + i);
#pragma unroll
            for (int j = 0; j < n; ++j) out[i + j] = x.v[j];
        }
    }
}

template <int N> __device__ inline void store_floats(float* to, const float (&x)[N]) {
    if constexpr (N == 1) {
        *to = x[0];
    } else {
        constexpr int n = N < 4 ? N : 4;
#pragma unroll
        for (int i = 0; i < N; i += n) {
            Vector<float, n> out;
#pragma unroll
            for (int j = 0; j < n; ++j) out.v[j] = x[i + j];
            store_global(to + i, out);
        }
    }
}

// The two bf16 of a word.
__device__ inline float low_half(u32 word) { return __uint_as_float(word << 16); }
__device__ inline float high_half(u32 word) { return __uint_as_float(word & 0xFFFF0000u); }

// What N elements of a type are between memory and arithmetic: two bf16 a word, so that they take half the registers.
template <class E, int N> struct Raw {
    float x[N];
};
template <int N> struct Raw<bf16, N> {
    u32 words[N / 2];
};
template <> struct Raw<bf16, 1> {
    bf16 x;
};

template <int N> __device__ inline Raw<float, N> load_raw(const float* from) {
    Raw<float, N> raw;
    load_floats<N>(from, raw.x);
    return raw;
}

template <int N> __device__ inline Raw<bf16, N> load_raw(const bf16* from) {
    Raw<bf16, N> raw;
    if constexpr (N == 1) {
        raw.x = *from;
    } else {
        const Vector<u32, N / 2> words = load_vector<N / 2>(reinterpret_cast<const u32*>(from));
#pragma unroll
        for (int i = 0; i < N / 2; ++i) raw.words[i] = words.v[i];
    }
    return raw;
}

template <int N> __device__ inline void store_raw(float* to, const Raw<float, N>& raw) { store_floats<N>(to, raw.x); }

template <int N> __device__ inline void store_raw(bf16* to, const Raw<bf16, N>& raw) {
    if constexpr (N == 1) {
        *to = raw.x;
    } else {
        Vector<u32, N / 2> words;
#pragma unroll
        for (int i = 0; i < N / 2; ++i) words.v[i] = raw.words[i];
        store_global(reinterpret_cast<u32*>(to), words);
    }
}

// As floats; exact.
template <int N> __device__ inline void widen(const Raw<float, N>& raw, float (&out)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) out[i] = raw.x[i];
}
template <int N> __device__ inline void widen(const Raw<bf16, N>& raw, float (&out)[N]) {
    if constexpr (N == 1) {
        out[0] = to_float(raw.x);
    } else {
#pragma unroll
        for (int i = 0; i < N; i += 2) {
            out[i] = low_half(raw.words[i / 2]);
            out[i + 1] = high_half(raw.words[i / 2]);
        }
    }
}

// Rounded to nearest, ties to even.
template <class E, int N> struct Narrow;
template <int N> struct Narrow<float, N> {
    static __device__ inline Raw<float, N> of(const float (&x)[N]) {
        Raw<float, N> raw;
#pragma unroll
        for (int i = 0; i < N; ++i) raw.x[i] = x[i];
        return raw;
    }
};
template <int N> struct Narrow<bf16, N> {
    static __device__ inline Raw<bf16, N> of(const float (&x)[N]) {
        Raw<bf16, N> raw;
        if constexpr (N == 1) {
            raw.x = from_float<bf16>(x[0]);
        } else {
#pragma unroll
            for (int i = 0; i < N; i += 2) raw.words[i / 2] = pack_bf16x2(x[i], x[i + 1]);
        }
        return raw;
    }
};
template <class E, int N> __device__ inline Raw<E, N> narrow(const float (&x)[N]) { return Narrow<E, N>::of(x); }
