// Zeros, casts, and copies of some rows.
#include "reduce.cuh"
#include "tensor_list.cuh"

constexpr int THREADS = 256;
// Elements that a thread of a cast has.
constexpr int CAST = 4;
// Rows that a block of a copy has: one a warp.
constexpr int ROWS = THREADS / WARP;

// Every tensor of the list = 0.
KERNEL(zero_all, LIST_THREADS, GRID_CONSTANT const TensorList list) {
    const u32 t = tensor_of_block(list.blocks);
    float* const x = list.x[t];
    const i64 n = list.blocks.len[t];
#pragma unroll
    for (int step = 0; step < LIST_SPAN; step += 4 * LIST_THREADS) {
        const i64 first = i64(blockIdx.x - list.blocks.first[t]) * LIST_SPAN + step + 4 * threadIdx.x;
        if (first + 4 <= n) {
            store_global(x + first, Vector<float, 4>{});
        } else {
#pragma unroll 1
            for (i64 i = first; i < n; ++i) x[i] = 0.0f;
        }
    }
}

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
#pragma unroll 1
    for (i64 i = first; i < n; ++i) out[i] = from_float<E>(x[i]);
}

KERNEL(cast_f32, THREADS, float* out, const float* x, i64 n) { cast(out, x, n); }
KERNEL(cast_bf16, THREADS, bf16* out, const float* x, i64 n) { cast(out, x, n); }

// One row (width,), times `scale` and rounded, by a warp; `wide`: rows on both sides begin at 16 bytes and are as long as a
// multiple of that.
template <class E> __device__ inline void copy_row(E* to, const float* from, i64 width, bool wide, float scale) {
    const int lane = threadIdx.x % WARP;
    if (wide) {
        for (i64 at = lane * 4; at < width; at += WARP * 4) {
            const Vector<float, 4> x = load_vector<4>(from + at);
            Vector<E, 4> rounded;
#pragma unroll
            for (int l = 0; l < 4; ++l) rounded.v[l] = from_float<E>(scale * x.v[l]);
            store_global(to + at, rounded);
        }
    } else {
        for (i64 at = lane; at < width; at += WARP) to[at] = from_float<E>(scale * from[at]);
    }
}

// The row of a warp; ROWS rows a block.
__device__ inline i64 row_of_warp() { return i64(blockIdx.x) * ROWS + threadIdx.x / WARP; }

// out[i] = [scale[i]] x[rows[i]] for rows (n,) of x (anything, width); `scale` may be null. Launched with ROWS rows a block.
template <class E>
__device__ inline void gather_rows(E* out, const float* x, const i32* rows, const float* scale, i64 n, i64 width) {
    const i64 i = row_of_warp();
    if (i < n) copy_row(out + i * width, x + rows[i] * width, width, width % 4 == 0, scale ? scale[i] : 1.0f);
}

KERNEL(gather_rows_f32, THREADS, float* out, const float* x, const i32* rows, NULLABLE const float* scale, i64 n,
       i64 width) {
    gather_rows(out, x, rows, scale, n, width);
}
KERNEL(gather_rows_bf16, THREADS, bf16* out, const float* x, const i32* rows, NULLABLE const float* scale, i64 n,
       i64 width) {
    gather_rows(out, x, rows, scale, n, width);
}

// out[rows[i]] = [scale[i]] x[i] for rows (n,), all different, of out (anything, width); `scale` may be null. Launched with
// ROWS rows a block.
KERNEL(scatter_rows, THREADS, float* out, const float* x, const i32* rows, NULLABLE const float* scale, i64 n, i64 width) {
    const i64 i = row_of_warp();
    if (i < n) copy_row(out + rows[i] * width, x + i * width, width, width % 4 == 0, scale ? scale[i] : 1.0f);
}

// out (n, to) = the first columns of x (n, from). Launched with ROWS rows a block.
KERNEL(copy_columns, THREADS, float* out, const float* x, i64 n, i64 to, i64 from) {
    const i64 i = row_of_warp();
    if (i < n) copy_row(out + i * to, x + i * from, to, to % 4 == 0 && from % 4 == 0, 1.0f);
}

// The first columns of out (n, to) += x (n, from). Launched with ROWS rows a block.
KERNEL(add_columns, THREADS, float* out, const float* x, i64 n, i64 to, i64 from) {
    const i64 i = row_of_warp();
    if (i >= n) return;
    for (i64 at = threadIdx.x % WARP; at < from; at += WARP) out[i * to + at] += x[i * from + at];
}
