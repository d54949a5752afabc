// Casts, and copies of some rows.
#include "reduce.cuh"

constexpr int THREADS = 256;
// Elements that a thread of a cast has.
constexpr int CAST = 4;
// Rows that a block of a copy has: one a warp.
constexpr int ROWS = THREADS / WARP;

// out (n,) = x (n,) rounded. Launched with n / CAST threads, rounded up.
template <class E> __device__ inline void cast(E* out, const float* x, i64 n) {
    const i64 first = (i64(blockIdx.x) * THREADS + threadIdx.x) * CAST;
    if (first + CAST <= n) {
        const Vector<float, CAST> values = load_vector<CAST>(x + first);
        Vector<E, CAST> rounded;
#pragma unroll
        for (int l = 0; l < CAST; ++l) rounded.v[l] = from_float<E>(values.v[l]);
        store_global(out + first, rounded);
        return;
    }
    for (i64 i = first; i < n; ++i) out[i] = from_float<E>(x[i]);
}

KERNEL(cast_f32, THREADS, float* out, const float* x, i64 n) { cast(out, x, n); }
KERNEL(cast_bf16, THREADS, bf16* out, const float* x, i64 n) { cast(out, x, n); }

// One row (width,), by a warp.
__device__ inline void copy_row(float* to, const float* from, i64 width) {
    const int lane = threadIdx.x % WARP;
    if (width % 4 == 0) {
        for (i64 at = lane * 4; at < width; at += WARP * 4) store_global(to + at, load_vector<4>(from + at));
    } else {
        for (i64 at = lane; at < width; at += WARP) to[at] = from[at];
    }
}

// out[i] = x[rows[i]] for rows (n,) of x (anything, width). Launched with ROWS rows a block.
KERNEL(gather_rows, THREADS, float* out, const float* x, const i32* rows, i64 n, i64 width) {
    const i64 i = i64(blockIdx.x) * ROWS + threadIdx.x / WARP;
    if (i < n) copy_row(out + i * width, x + rows[i] * width, width);
}

// out[rows[i]] = x[i] for rows (n,), all different, of out (anything, width). Launched with ROWS rows a block.
KERNEL(scatter_rows, THREADS, float* out, const float* x, const i32* rows, i64 n, i64 width) {
    const i64 i = i64(blockIdx.x) * ROWS + threadIdx.x / WARP;
    if (i < n) copy_row(out + rows[i] * width, x + i * width, width);
}
