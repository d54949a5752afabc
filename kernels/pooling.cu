// From token vectors to one unit vector a sequence, and back.
#include "held_row.cuh"
#include "partials.cuh"

constexpr int THREADS = 256;
// Rows that a block of the normalization has: one a warp.
constexpr int ROWS = THREADS / WARP;

// Sums over rows: a block has a strip of columns, eight threads across, and deals the rows out to as many slices.
constexpr int ACROSS = 8;
constexpr int SLICES = THREADS / ACROSS;
// Columns of a strip.
template <int N> constexpr int STRIP = ACROSS * N;

// Adds up N sums of each thread over the slices, in their order: `across * N + l` of thread `across` is column l of its.
// The first STRIP<N> threads get one column each.
template <int N> __device__ inline float sum_of_slices(const float (&sums)[N]) {
    constexpr int SUMS = SLICES * STRIP<N>;
    SHARED(float, of_slice, SUMS);
#pragma unroll
    for (int l = 0; l < N; ++l) of_slice[threadIdx.x * N + l] = sums[l];
    __syncthreads();
    float total = 0.0f;
    if (threadIdx.x < STRIP<N>) {
        for (int slice = 0; slice < SLICES; ++slice) total += of_slice[slice * STRIP<N> + threadIdx.x];
    }
    return total;
}

// sums += the tokens first, first + step, ... before `end` of N columns of x (T, width).
template <class E, int N>
__device__ inline void add_tokens(float (&sums)[N], const E* x, i64 first, i64 step, i64 end, i64 width) {
#pragma unroll 8
    for (i64 token = first; token < end; token += step) {
        const Vector<E, N> values = load_vector<N>(x + token * width);
#pragma unroll
        for (int l = 0; l < N; ++l) sums[l] += to_float(values.v[l]);
    }
}

// The mean over each sequence's tokens, by a block for a strip of columns of a sequence. A sequence no longer than SLICES
// gets the bits of pool_few_forward, so its company in a batch makes no difference.
template <class E, int N> __device__ inline void pool_forward_strip(float* out, const E* x, const i32* cu_seqlens,
                                                                    i64 width) {
    const u32 n_strips = u32((width + STRIP<N> - 1) / STRIP<N>);
    const u32 sequence = blockIdx.x / n_strips, strip = blockIdx.x % n_strips * STRIP<N>;
    const i32 start = cu_seqlens[sequence], end = cu_seqlens[sequence + 1];
    const u32 column = strip + threadIdx.x % ACROSS * N;
    float sums[N] = {};
    if (column < width) add_tokens<E, N>(sums, x + column, start + threadIdx.x / ACROSS, SLICES, end, width);
    const float total = sum_of_slices<N>(sums);
    if (threadIdx.x < STRIP<N> && strip + threadIdx.x < width) {
        out[sequence * width + strip + threadIdx.x] = total * (1.0f / float(end - start));
    }
}

// The first token's vector (`cls`) or the mean of all: a thread for N columns of a sequence, and all its tokens.
template <class E, int N>
__device__ inline void pool_forward_few(float* out, const E* x, const i32* cu_seqlens, bool cls, i64 n_seqs, i64 width) {
    const i64 i = i64(blockIdx.x) * THREADS + threadIdx.x, sequence = i / (width / N), column = i % (width / N) * N;
    if (sequence >= n_seqs) return;
    const i64 start = cu_seqlens[sequence], end = cls ? start + 1 : cu_seqlens[sequence + 1];
    float sums[N] = {};
    add_tokens<E, N>(sums, x + column, start, 1, end, width);
    const float share = 1.0f / float(end - start);
    // A store takes four at a time.
    constexpr int STORED = N < 4 ? N : 4;
#pragma unroll
    for (int part = 0; part < N; part += STORED) {
        Vector<float, STORED> mean;
#pragma unroll
        for (int l = 0; l < STORED; ++l) mean.v[l] = sums[part + l] * share;
        store_global(out + sequence * width + column + part, mean);
    }
}

// d_x of the tokens first, first + step, ... of the sequence start .. end, in N columns: d_out (N,) times the token's share.
template <class E, int N>
__device__ inline void spread(E* d_x, const float* d_out, i64 first, i64 step, i64 start, i64 end, bool cls, i64 width) {
    const float share = cls ? 0.0f : 1.0f / float(end - start);
    constexpr int LOADED = N < 4 ? N : 4;
    float d[N];
    Vector<E, N> shared;
#pragma unroll
    for (int part = 0; part < N; part += LOADED) {
        const Vector<float, LOADED> values = load_vector<LOADED>(d_out + part);
#pragma unroll
        for (int l = 0; l < LOADED; ++l) {
            d[part + l] = values.v[l];
            shared.v[part + l] = from_float<E>(values.v[l] * share);
        }
    }
    for (i64 token = first; token < end; token += step) {
        Vector<E, N> out = shared;
        if (cls && token == start) {
#pragma unroll
            for (int l = 0; l < N; ++l) out.v[l] = from_float<E>(d[l]);
        }
        store_global(d_x + token * width, out);
    }
}

// A block for a strip of columns of a sequence. Nothing is added up, so strips are as wide as a warp and the tokens are
// dealt out to fewer threads, each of which reads d_out.
template <class E, int N>
__device__ inline void pool_backward_strip(E* d_x, const float* d_out, const i32* cu_seqlens, bool cls, i64 width) {
    const u32 n_strips = u32((width + WARP * N - 1) / (WARP * N));
    const i64 sequence = blockIdx.x / n_strips;
    const i64 column = (i64(blockIdx.x % n_strips) * WARP + threadIdx.x % WARP) * N;
    if (column >= width) return;
    const i64 start = cu_seqlens[sequence], end = cu_seqlens[sequence + 1], first = start + threadIdx.x / WARP;
    spread<E, N>(d_x + column, d_out + sequence * width + column, first, THREADS / WARP, start, end, cls, width);
}

// A thread for N columns of a sequence, as in pool_forward_few.
template <class E, int N>
__device__ inline void pool_backward_few(E* d_x, const float* d_out, const i32* cu_seqlens, bool cls, i64 n_seqs,
                                         i64 width) {
    const i64 i = i64(blockIdx.x) * THREADS + threadIdx.x, sequence = i / (width / N), column = i % (width / N) * N;
    if (sequence >= n_seqs) return;
    const i64 start = cu_seqlens[sequence], end = cu_seqlens[sequence + 1];
    spread<E, N>(d_x + column, d_out + sequence * width + column, start, 1, start, end, cls, width);
}

// out (S, width), x (T, width), cu_seqlens (S + 1,). N is as many elements as 16 bytes hold, or 1 where rows are not a
// multiple of that. The `strip` kernels are launched with S times ceil(width / STRIP<N>) blocks forward and
// ceil(width / (WARP N)) backward, the `few` ones with S * width / N threads.
#define POOL(suffix, E)                                                                                                    \
    KERNEL(pool_strip_forward_##suffix, THREADS, float* out, const E* x, const i32* cu_seqlens, i64 width) {               \
        if (width % Lanes<E>::n == 0) {                                                                                    \
            pool_forward_strip<E, Lanes<E>::n>(out, x, cu_seqlens, width);                                                 \
        } else {                                                                                                           \
            pool_forward_strip<E, 1>(out, x, cu_seqlens, width);                                                           \
        }                                                                                                                  \
    }                                                                                                                      \
    KERNEL(pool_few_forward_##suffix, THREADS, float* out, const E* x, const i32* cu_seqlens, i32 cls, i64 n_seqs,         \
           i64 width) {                                                                                                    \
        if (width % Lanes<E>::n == 0) {                                                                                    \
            pool_forward_few<E, Lanes<E>::n>(out, x, cu_seqlens, cls, n_seqs, width);                                      \
        } else {                                                                                                           \
            pool_forward_few<E, 1>(out, x, cu_seqlens, cls, n_seqs, width);                                                \
        }                                                                                                                  \
    }                                                                                                                      \
    KERNEL(pool_strip_backward_##suffix, THREADS, E* d_x, const float* d_out, const i32* cu_seqlens, i32 cls, i64 width) { \
        if (width % Lanes<E>::n == 0) {                                                                                    \
            pool_backward_strip<E, Lanes<E>::n>(d_x, d_out, cu_seqlens, cls, width);                                       \
        } else {                                                                                                           \
            pool_backward_strip<E, 1>(d_x, d_out, cu_seqlens, cls, width);                                                 \
        }                                                                                                                  \
    }                                                                                                                      \
    KERNEL(pool_few_backward_##suffix, THREADS, E* d_x, const float* d_out, const i32* cu_seqlens, i32 cls, i64 n_seqs,    \
           i64 width) {                                                                                                    \
        if (width % Lanes<E>::n == 0) {                                                                                    \
            pool_backward_few<E, Lanes<E>::n>(d_x, d_out, cu_seqlens, cls, n_seqs, width);                                 \
        } else {                                                                                                           \
            pool_backward_few<E, 1>(d_x, d_out, cu_seqlens, cls, n_seqs, width);                                           \
        }                                                                                                                  \
    }

#if WANTS_F32
POOL(f32, float)
#endif
#if WANTS_BF16
POOL(bf16, bf16)
#endif

// x (rows, width) = tanh(x + bias), a thread for N columns of a row; bias (width,).
template <class E, int N> __device__ inline void bias_tanh(float* x, const E* bias, i64 rows, i64 width) {
    const i64 at = (i64(blockIdx.x) * THREADS + threadIdx.x) * N;
    if (at >= rows * width) return;
    Vector<float, N> values = load_vector<N>(x + at);
    const Vector<E, N> b = load_vector<N>(bias + at % width);
#pragma unroll
    for (int l = 0; l < N; ++l) values.v[l] = tanhf(values.v[l] + to_float(b.v[l]));
    store_global(x + at, values);
}

// Launched with rows * width / 4 threads, or rows * width where width is not a multiple of 4.
#define BIAS_TANH(suffix, E)                                                                    \
    KERNEL(bias_tanh_forward_##suffix, THREADS, float* x, const E* bias, i64 rows, i64 width) { \
        if (width % 4 == 0) {                                                                   \
            bias_tanh<E, 4>(x, bias, rows, width);                                              \
        } else {                                                                                \
            bias_tanh<E, 1>(x, bias, rows, width);                                              \
        }                                                                                       \
    }

#if WANTS_F32
BIAS_TANH(f32, float)
#endif
#if WANTS_BF16
BIAS_TANH(bf16, bf16)
#endif

// d (rows, width) *= 1 - y^2, and the sums of its columns over `rows_per_block` rows into a row of partials.
template <int N>
__device__ inline void bias_tanh_backward_strip(float* d, float* partials, const float* y, i64 rows_per_block, i64 rows,
                                                i64 width) {
    const u32 n_strips = u32((width + STRIP<N> - 1) / STRIP<N>);
    const i64 block = blockIdx.x / n_strips, strip = i64(blockIdx.x % n_strips) * STRIP<N>;
    const i64 column = strip + threadIdx.x % ACROSS * N;
    const i64 first = block * rows_per_block, end = first + rows_per_block < rows ? first + rows_per_block : rows;
    float sums[N] = {};
    for (i64 row = first + threadIdx.x / ACROSS; column < width && row < end; row += SLICES) {
        Vector<float, N> values = load_vector<N>(d + row * width + column);
        const Vector<float, N> results = load_vector<N>(y + row * width + column);
#pragma unroll
        for (int l = 0; l < N; ++l) {
            values.v[l] *= 1.0f - results.v[l] * results.v[l];
            sums[l] += values.v[l];
        }
        store_global(d + row * width + column, values);
    }
    const float total = sum_of_slices<N>(sums);
    if (threadIdx.x < STRIP<N> && strip + threadIdx.x < width) partials[block * width + strip + threadIdx.x] = total;
}

// d (rows, width) in place, partials (ceil(rows / rows_per_block), width), y (rows, width). Launched with a block for each
// row of partials and strip of columns, which is 32 wide, or 8 where width is not a multiple of 4.
KERNEL(bias_tanh_backward, THREADS, float* d, float* partials, const float* y, i64 rows_per_block, i64 rows, i64 width) {
    if (width % 4 == 0) {
        bias_tanh_backward_strip<4>(d, partials, y, rows_per_block, rows, width);
    } else {
        bias_tanh_backward_strip<1>(d, partials, y, rows_per_block, rows, width);
    }
}

// d_bias (width,) += the sum of the rows of partials (n, width). Launched with a block for PARTIAL_COLUMNS columns.
KERNEL(bias_tanh_backward_bias, PARTIAL_THREADS, float* d_bias, const float* partials, i64 n, i64 width) {
    add_partials(d_bias, partials, n, width, i64(blockIdx.x) * PARTIAL_COLUMNS, width);
}

// Norms below this count as this, as in PyTorch's `normalize`.
constexpr float SMALLEST_NORM = 1e-12f;
// Values of a row that a thread holds: a warp holds 1,024.
constexpr int HELD = 32;

// One row (width,) by a warp. What the warp holds is read once; of a wider row, all but the last stretch are read again.
template <int N> __device__ inline void normalize_row(float* out, float* inv_norm, const float* x, i64 width) {
    using Stretch = HeldRow<N, WARP, HELD>;
    const i64 last = (width - 1) / Stretch::CAPACITY * Stretch::CAPACITY;
    Stretch held;
    float squares = 0.0f;
    for (i64 first = 0; first <= last; first += Stretch::CAPACITY) {
        const int n = Stretch::count(width - first);
        held.load(x + first, n);
        held.each(n, [&](float& v, int) { squares += v * v; });
    }
    const float inv = 1.0f / fmaxf(sqrtf(warp_sum(squares)), SMALLEST_NORM);
    for (i64 first = last; first >= 0; first -= Stretch::CAPACITY) {
        const int n = Stretch::count(width - first);
        if (first < last) held.load(x + first, n);
        held.each(n, [&](float& v, int) { v *= inv; });
        held.store(out + first, n);
    }
    if (threadIdx.x % WARP == 0) inv_norm[0] = inv;
}

// out (rows, width) = x / max(|x|, 1e-12), inv_norm (rows,). Launched with ROWS rows a block.
KERNEL(l2_normalize_forward, THREADS, float* out, float* inv_norm, const float* x, i64 rows, i64 width) {
    const i64 row = i64(blockIdx.x) * ROWS + threadIdx.x / WARP;
    if (row >= rows) return;
    if (width % 4 == 0) {
        normalize_row<4>(out + row * width, inv_norm + row, x + row * width, width);
    } else {
        normalize_row<1>(out + row * width, inv_norm + row, x + row * width, width);
    }
}

// As normalize_row: d = (d - (d . y) y) inv.
template <int N> __device__ inline void normalize_row_backward(float* d, const float* y, float inv, i64 width) {
    using Stretch = HeldRow<N, WARP, HELD>;
    const i64 last = (width - 1) / Stretch::CAPACITY * Stretch::CAPACITY;
    Stretch held_d, held_y;
    float along = 0.0f;
    for (i64 first = 0; first <= last; first += Stretch::CAPACITY) {
        const int n = Stretch::count(width - first);
        held_d.load(d + first, n);
        held_y.load(y + first, n);
        held_d.each_with(held_y, n, [&](float& g, float v) { along += g * v; });
    }
    along = warp_sum(along);
    for (i64 first = last; first >= 0; first -= Stretch::CAPACITY) {
        const int n = Stretch::count(width - first);
        if (first < last) {
            held_d.load(d + first, n);
            held_y.load(y + first, n);
        }
        held_d.each_with(held_y, n, [&](float& g, float v) { g = (g - along * v) * inv; });
        held_d.store(d + first, n);
    }
}

// d (rows, width) in place, y (rows, width) and inv_norm (rows,) from forward. Launched with ROWS rows a block.
KERNEL(l2_normalize_backward, THREADS, float* d, const float* y, const float* inv_norm, i64 rows, i64 width) {
    const i64 row = i64(blockIdx.x) * ROWS + threadIdx.x / WARP;
    if (row >= rows) return;
    if (width % 4 == 0) {
        normalize_row_backward<4>(d + row * width, y + row * width, inv_norm[row], width);
    } else {
        normalize_row_backward<1>(d + row * width, y + row * width, inv_norm[row], width);
    }
}
