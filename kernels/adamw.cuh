// AdamW's arithmetic, one copy for whole parameters and for rows of a table: a row that has a gradient in every update
// gets the bits that the dense update gives it. The operations and their order are those of src/backend/cpu/adamw.rs and
// none are fused, so the CPU gives the same bits too.
#pragma once

#include "common.cuh"
#include "reduce.cuh"

// What all elements of an update share.
struct AdamWScalars {
    // What is left of the first moment, and of the second.
    float m_decay;
    float v_decay;
    float beta1;
    float beta2;
    float eps;
    // 1 - lr weight_decay, lr / c1 and 1 / sqrt(c2)
    float keep;
    float rate;
    float inv_sqrt_c2;
    // min(1, max_grad_norm / norm)
    float grad_scale;
};

// N neighbours of a parameter, of its gradient and of its moments.
template <int N> struct AdamWElements {
    Vector<float, N> w, grad, m, v;

    __device__ inline void load(const float* w_from, const float* grad_from, const float* m_from, const float* v_from) {
        w = load_vector<N>(w_from);
        grad = load_vector<N>(grad_from);
        m = load_vector<N>(m_from);
        v = load_vector<N>(v_from);
    }

    __device__ inline void update(const AdamWScalars& s) {
#pragma unroll
        for (int l = 0; l < N; ++l) {
            const float g = grad.v[l] * s.grad_scale;
            m.v[l] = s.m_decay * m.v[l] + (1.0f - s.beta1) * g;
            v.v[l] = s.v_decay * v.v[l] + (1.0f - s.beta2) * g * g;
            w.v[l] = w.v[l] * s.keep - s.rate * m.v[l] / (sqrtf(v.v[l]) * s.inv_sqrt_c2 + s.eps);
        }
    }
};

// Writes f32 weights, and their rounded copy where there is one.
template <int N> __device__ inline void store_weights(float* to, bf16* copy, const Vector<float, N>& w) {
    store_global(to, w);
    if (copy == nullptr) return;
    Vector<bf16, N> rounded;
#pragma unroll
    for (int l = 0; l < N; ++l) rounded.v[l] = from_float<bf16>(w.v[l]);
    store_global(copy, rounded);
}

// min(1, max_grad_norm / (norm + 1e-6)), where the sum of squares (n_squares,) is the square of the norm; 1 if
// max_grad_norm is 0. For a whole block of at least one warp: every thread calls it and gets the same bits.
//
// In f64, as on the CPU but in another order: the difference is far below what the rounding to f32 leaves.
__device__ inline float grad_scale(const float* squares, float max_grad_norm, i64 n_squares) {
    if (max_grad_norm == 0.0f) return 1.0f;
    SHARED(double, partial, WARP);
    SHARED(float, scale, 1);
    if (threadIdx.x < WARP) {
        double sum = 0.0;
        for (i64 i = threadIdx.x; i < n_squares; i += WARP) sum += double(squares[i]);
        partial[threadIdx.x] = sum;
        __syncwarp();
        if (threadIdx.x == 0) {
            for (int lane = 1; lane < WARP; ++lane) sum += partial[lane];
            const float norm = float(sqrt(sum));
            scale[0] = fminf(max_grad_norm / (norm + 1e-6f), 1.0f);
        }
    }
    __syncthreads();
    return scale[0];
}
