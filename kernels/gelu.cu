// Bias + erf-GELU: gelu(x + bias), x (T, F), bias (F,). A thread owns N neighbouring columns, whose bias it holds, and
// walks down the rows of its block.
#include "partials.cuh"
#include "vectors.cuh"

constexpr int THREADS = 64;
// Rows that a thread has on their way at a time.
constexpr int AHEAD = 4;

// Of the normal distribution: cdf(-|v|), and exp(-v^2 / 2).
struct Normal {
    float tail;
    float bell;
};

// cdf(-z) = exp(-z^2 / 2) R(z) with R a polynomial in 1 / (1 + 0.3 z): the fit of `normal` in src/backend/cpu/math.rs, and
// its error bound. Both results are 0 where they are below 1.2e-38.
__device__ inline Normal normal(float v) {
    // Past 13.3 all is 0; up to here no infinity comes about.
    const float z = fminf(fabsf(v), 14.0f);
    const float t = reciprocal_fast(fmaf(0.3f, z, 1.0f));
    float r = 0.038334407f;
    r = fmaf(r, t, -0.168952615f);
    r = fmaf(r, t, 0.228218585f);
    r = fmaf(r, t, -0.076000965f);
    r = fmaf(r, t, 0.14218594f);
    r = fmaf(r, t, 0.09483263f);
    r = fmaf(r, t, 0.12188214f);
    r = fmaf(r, t, 0.11949305f);
    r = fmaf(r, t, 6.8534785e-6f);
    // As a power of two. The exponent reaches 141, whose rounding alone would cost 5e-6: what it lost is made good to first
    // order.
    constexpr float HALF_LOG2E = 0.72134752044448170f;
    constexpr float HALF_LOG2E_REST = float(0.72134752044448170 - double(HALF_LOG2E));
    const float square = z * z;
    const float exponent = HALF_LOG2E * square;
    const float lost = fmaf(HALF_LOG2E_REST, square, fmaf(HALF_LOG2E, square, -exponent));
    const float power = exp2_fast(-exponent);
    const float bell = fmaf(power * -0.69314718f, lost, power);
    return Normal{bell * r, bell};
}

// v cdf(v): the cdf above 0 is 1 - tail.
__device__ inline float gelu(float v, const Normal& normal) { return fmaf(-fabsf(v), normal.tail, fmaxf(v, 0.0f)); }

// cdf(v) + v density(v)
__device__ inline float gelu_slope(float v, const Normal& normal) {
    const float cdf = v < 0.0f ? normal.tail : 1.0f - normal.tail;
    return fmaf(v * 0.39894228f, normal.bell, cdf);
}

// Where a thread works: its first column, and the rows of its block.
struct Place {
    i64 column;
    i64 row;
    i64 end;
};

template <int N> __device__ inline Place place(i64 rows_per_block, i64 n_rows, i64 width, i64& row_block) {
    const i64 column_blocks = (width + N * THREADS - 1) / (N * THREADS);
    row_block = blockIdx.x / column_blocks;
    const i64 first = row_block * rows_per_block;
    const i64 end = first + rows_per_block;
    return Place{(blockIdx.x % column_blocks * THREADS + threadIdx.x) * N, first, end < n_rows ? end : n_rows};
}

template <class E, int N>
__device__ inline void forward(E* out, const E* x, const E* bias, i64 rows_per_block, i64 n_rows, i64 width) {
    i64 row_block;
    const Place at = place<N>(rows_per_block, n_rows, width, row_block);
    if (at.column >= width) return;
    float b[N];
    widen<N>(load_raw<N>(bias + at.column), b);
    for (i64 first = at.row; first < at.end; first += AHEAD) {
        Raw<E, N> raw[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) {
            if (first + i < at.end) raw[i] = load_raw<N>(x + (first + i) * width + at.column);
        }
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) {
            if (first + i >= at.end) break;
            float v[N];
            widen<N>(raw[i], v);
#pragma unroll
            for (int j = 0; j < N; ++j) {
                v[j] += b[j];
                v[j] = gelu(v[j], normal(v[j]));
            }
            store_raw<N>(out + (first + i) * width + at.column, narrow<E, N>(v));
        }
    }
}

template <class E, int N>
__device__ inline void backward(E* d, E* out, float* partials, const E* x, const E* bias, i64 rows_per_block, i64 n_rows,
                                i64 width) {
    i64 row_block;
    const Place at = place<N>(rows_per_block, n_rows, width, row_block);
    if (at.column >= width) return;
    float b[N], sums[N];
    widen<N>(load_raw<N>(bias + at.column), b);
#pragma unroll
    for (int j = 0; j < N; ++j) sums[j] = 0.0f;
    for (i64 first = at.row; first < at.end; first += AHEAD / 2) {
        Raw<E, N> raw_x[AHEAD / 2], raw_d[AHEAD / 2];
#pragma unroll
        for (int i = 0; i < AHEAD / 2; ++i) {
            if (first + i >= at.end) break;
            raw_x[i] = load_raw<N>(x + (first + i) * width + at.column);
            raw_d[i] = load_raw<N>(d + (first + i) * width + at.column);
        }
#pragma unroll
        for (int i = 0; i < AHEAD / 2; ++i) {
            if (first + i >= at.end) break;
            float v[N], g[N];
            widen<N>(raw_x[i], v);
            widen<N>(raw_d[i], g);
#pragma unroll
            for (int j = 0; j < N; ++j) {
                v[j] += b[j];
                const Normal parts = normal(v[j]);
                g[j] *= gelu_slope(v[j], parts);
                v[j] = gelu(v[j], parts);
                sums[j] += g[j];
            }
            store_raw<N>(out + (first + i) * width + at.column, narrow<E, N>(v));
            store_raw<N>(d + (first + i) * width + at.column, narrow<E, N>(g));
        }
    }
    store_floats<N>(partials + row_block * width + at.column, sums);
}

// out (T, F) = gelu(x + bias). One block for rows_per_block rows and THREADS vectors of columns; all column blocks of a row
// block follow one another. `_scalar`: for rows that are not whole vectors of 16 bytes.
#define BIAS_GELU_FORWARD(suffix, E, N)                                                                           \
    KERNEL(bias_gelu_forward##suffix, THREADS, E* out, const E* x, const E* bias, i64 rows_per_block, i64 n_rows, \
           i64 width) {                                                                                           \
        forward<E, N>(out, x, bias, rows_per_block, n_rows, width);                                               \
    }
#if WANTS_F32
BIAS_GELU_FORWARD(_f32, float, Lanes<float>::n)
BIAS_GELU_FORWARD(_scalar_f32, float, 1)
#endif
#if WANTS_BF16
BIAS_GELU_FORWARD(_bf16, bf16, Lanes<bf16>::n)
BIAS_GELU_FORWARD(_scalar_bf16, bf16, 1)
#endif

// d (T, F) *= gelu'(x + bias); out (T, F) = gelu(x + bias) again; partials (row blocks, F): sums of the new d over each
// block's rows. Launched as the forward.
#define BIAS_GELU_BACKWARD(suffix, E, N)                                                                  \
    KERNEL(bias_gelu_backward##suffix, THREADS, E* d, E* out, float* partials, const E* x, const E* bias, \
           i64 rows_per_block, i64 n_rows, i64 width) {                                                   \
        backward<E, N>(d, out, partials, x, bias, rows_per_block, n_rows, width);                         \
    }
#if WANTS_F32
BIAS_GELU_BACKWARD(_f32, float, Lanes<float>::n)
BIAS_GELU_BACKWARD(_scalar_f32, float, 1)
#endif
#if WANTS_BF16
BIAS_GELU_BACKWARD(_bf16, bf16, Lanes<bf16>::n)
BIAS_GELU_BACKWARD(_scalar_bf16, bf16, 1)
#endif

// d_bias (F,) += the sum of the rows of partials (n, F). One block for PARTIAL_COLUMNS columns.
KERNEL(bias_gelu_backward_bias, PARTIAL_THREADS, float* d_bias, const float* partials, i64 n_partials, i64 width) {
    add_partials(d_bias, partials, n_partials, width, i64(blockIdx.x) * PARTIAL_COLUMNS, width);
}
