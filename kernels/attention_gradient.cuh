// What the backward kernels of attention for tensor cores share. With P the softmax, M the dropout factors and O = (P M) V:
// dV = (P M)^T dO, dS = P (M (dO V^T) - rowsum(dO O)), dQ = dS K scale, dK = dS^T Q scale.
//
// Tensor cores take bf16, so P and dS are rounded to bf16 for the products with them, and for nothing else.
//
// The sums of the gradients over all tokens come from the f32 values: blocks of one head take items one after another,
// each group of them adds up its own in shared memory, and attention_backward_bias adds up the groups'.
#pragma once

#include "attention.cuh"

// What a block works on, as the kernels' parameters give it: one head of the items of a group.
struct Problem {
    const bf16* qkv;
    const bf16* out;
    const bf16* d_out;
    const float* lse;
    const i32* global_rows;
    Dropout dropout;
    float scale;
    i64 n_heads;

    // Neither is worth a register all the time, so each is found again where it is wanted.
    __device__ u32 head() const { return block_index() % u32(n_heads); }
    __device__ int group() const { return block_index() / u32(n_heads); }
    __device__ bool drops() const { return dropout.threshold != 0; }
    // Of the product of the dropped softmax with the values.
    __device__ float factor() const { return drops() ? dropout.scale : 1.0f; }
};

// What of a row of queries is known before its scores: log2(e) times its log-sum-exp, infinite past the end of the
// sequence, where everything is zero then; and rowsum(dO O).
struct RowScalars {
    float* lse2;
    float* delta;
};

// Which keys dropout keeps: words[w * stride + i] is about the keys 32 w .. 32 w + 32 of 128, key c being bit
// c % 2 * 16 + c / 2 of them, for the i-th query.
struct KeepWords {
    u32* words;
    int stride;

    // The i-th row of a warp's turn, as `draw` takes them: two rows a warp at a time.
    template <int Warps> static __device__ int row_of(int turn, int half, int warp) {
        return 2 * (Warps * turn + warp) + half;
    }

    // What the rows of up to 32 Warps queries from `first` on are called by dropout: of the lane's row among the warp's.
    template <int Warps> static __device__ i32 global_row(const Problem& problem, const Item& item, int first, int end,
                                                          int warp, int lane) {
        const int query = first + row_of<Warps>(lane / 2, lane % 2, warp);
        return query < end && query < item.len ? problem.global_rows[item.start + query] : 0;
    }

    // For the queries `first` .. `end` of the sequence, at most 32 Warps, and 32 Words keys. `global_row` is what the function
    // of that name gave the lane.
    template <int Words, int Warps>
    __device__ void draw(const Problem& problem, i32 global_row, int n_queries, int block, int warp, int lane) const {
        const u32 threshold = problem.dropout.threshold, head = problem.head();
        for (int turn = 0; row_of<Warps>(turn, 0, warp) < n_queries; ++turn) {
            const i32 mine = __shfl_sync(ALL_LANES, global_row, 2 * turn + lane / 16);
            const PhiloxWords random = dropout_words(problem.dropout, mine, head, block * 16 + lane % 16);
            const int i = row_of<Warps>(turn, lane / 16, warp);
#pragma unroll
            for (int w = 0; w < Words; ++w) {
                const u32 even = __ballot_sync(ALL_LANES, (random.w[w] & 0xFFFF) >= threshold) >> (lane & 16);
                const u32 odd = __ballot_sync(ALL_LANES, (random.w[w] >> 16) >= threshold) >> (lane & 16);
                if (lane % 16 == w) words[w * stride + i] = (even & 0xFFFF) | odd << 16;
            }
        }
    }
};

// Adds up values of the lanes that are `Offset` and smaller powers of two, down to 4, apart; each lane has N, for N
// columns. Each step halves the columns that a lane has; afterwards its first registers hold those from the result on.
template <int N, int Offset> __device__ inline int scatter_sums(float* x, int lane) {
    constexpr int HALF = N / 2;
    const bool upper = (lane & Offset) != 0;
    if constexpr (HALF == 0) {
        x[0] += __shfl_xor_sync(ALL_LANES, x[0], Offset);
    } else {
#pragma unroll
        for (int i = 0; i < HALF; ++i) {
            const float other = __shfl_xor_sync(ALL_LANES, upper ? x[i] : x[i + HALF], Offset);
            x[i] = (upper ? x[i + HALF] : x[i]) + other;
        }
    }
    int first = upper ? HALF : 0;
    if constexpr (Offset > 4) first += scatter_sums<(HALF > 0 ? HALF : 1), Offset / 2>(x, lane);
    return first;
}

// sums[column] += the sum of a warp's rows of `x`, times `factor`. Each warp has sums of its own.
template <int M, int N>
__device__ inline void add_column_sums(float* sums, const float (&x)[M][N][4], float factor, int lane) {
    float columns[2 * N];
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            columns[2 * n + i] = x[0][n][i] + x[0][n][i + 2];
            if (M == 2) columns[2 * n + i] += x[M - 1][n][i] + x[M - 1][n][i + 2];
        }
    }
    const int first = scatter_sums<2 * N, 16>(columns, lane);
    if (2 * N < 8 && (lane & 4) != 0) return;
#pragma unroll
    for (int i = 0; i < (2 * N + 7) / 8; ++i) {
        const int column = (first + i) / 2 * 8 + lane % 4 * 2 + (first + i) % 2;
        sums[column] += columns[i] * factor;
    }
}

template <int Head, int M> struct KeyGradients {
    float d_k[M][Head / 8][4];
    float d_v[M][Head / 8][4];

    __device__ void clear() {
#pragma unroll
        for (int m = 0; m < M; ++m) {
#pragma unroll
            for (int n = 0; n < Head / 8; ++n) {
#pragma unroll
                for (int i = 0; i < 4; ++i) d_k[m][n][i] = d_v[m][n][i] = 0.0f;
            }
        }
    }
};

// P M and dS of a warp's keys and 16 queries, transposed, from the scores and from dO V^T: `p` and `d_p` are replaced.
// `row` is the first key within the item, `keep` the word of the warp's keys for the first query, `n_keys` what is left of the
// sequence.
template <int M>
__device__ inline void softmax_gradient(float (&p)[M][2][4], float (&d_p)[M][2][4], const Problem& problem,
                                        RowScalars scalars, const u32* keep, int row, int n_keys, int lane) {
    const float scale2 = problem.scale * LOG2_E, factor = problem.factor();
    const int g = lane / 4, t = lane % 4, bit = row % 32 / 2 + g % 2 * 16 + g / 2;
#pragma unroll
    for (int n = 0; n < 2; ++n) {
        const Vector<float, 2> lse2 = load_vector<2>(scalars.lse2 + 8 * n + 2 * t);
        const Vector<float, 2> delta = load_vector<2>(scalars.delta + 8 * n + 2 * t);
        Vector<u32, 2> kept{{~0u, ~0u}};
        if (problem.drops()) kept = load_vector<2>(keep + 8 * n + 2 * t);
#pragma unroll
        for (int m = 0; m < M; ++m) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float soft = exp2_fast(fmaf(p[m][n][i], scale2, -lse2.v[i % 2]));
                const bool keeps = kept.v[i % 2] >> bit >> (8 * m + i / 2 * 4) & 1;
                // A key past the end has a score of 0, whose exponential may be anything.
                const bool valid = 16 * m + i / 2 * 8 + g < n_keys;
                d_p[m][n][i] = valid ? soft * ((keeps ? d_p[m][n][i] * factor : 0.0f) - delta.v[i % 2]) : 0.0f;
                p[m][n][i] = valid && keeps ? soft : 0.0f;
            }
        }
    }
}

// Takes 16 queries, from q_row of the tiles on, into the gradients of a warp's keys, which start at k_row. Leaves the
// keys' rows of dS in `d_s`.
template <int Head, int M>
__device__ inline void take_queries(KeyGradients<Head, M>& sums, u32 (&d_s)[M][1][4], const Problem& problem,
                                    RowScalars scalars, const u32* keep, Tile<Head> k, Tile<Head> v, int k_row, Tile<Head> q,
                                    Tile<Head> d_out, int q_row, int n_keys, int lane) {
    float p[M][2][4], d_p[M][2][4];
    row_products(p, k, k_row, q, q_row, lane);
    row_products(d_p, v, k_row, d_out, q_row, lane);
    softmax_gradient(p, d_p, problem, scalars, keep, k_row, n_keys, lane);
    pack_rows(d_s, p);
    add_weighted_rows(sums.d_v, d_s, d_out, q_row, lane);
    pack_rows(d_s, d_p);
    add_weighted_rows(sums.d_k, d_s, q, q_row, lane);
}

// Loads rows of dO to a tile, and rowsum(dO O) of each to `delta`.
template <int Rows, int Threads, int Head>
__device__ inline void load_d_out(Tile<Head> to, float* delta, const Problem& problem, i64 first_token, int n_rows,
                                  int thread) {
    constexpr int PIECES = Head / 8;
    const i64 hidden = problem.n_heads * Head, offset = first_token * hidden + problem.head() * Head;
#pragma unroll
    for (int i = thread; i < Rows * PIECES; i += Threads) {
        const int row = i / PIECES, piece = i % PIECES;
        Vector<bf16, 8> d_out{}, out{};
        if (row < n_rows) {
            d_out = load_vector<8>(problem.d_out + offset + row * hidden + piece * 8);
            out = load_vector<8>(problem.out + offset + row * hidden + piece * 8);
        }
        store_vector(to.piece(row, piece), d_out);
        float sum = 0.0f;
#pragma unroll
        for (int j = 0; j < 8; ++j) sum = fmaf(to_float(d_out.v[j]), to_float(out.v[j]), sum);
#pragma unroll
        for (int lanes = 1; lanes < PIECES; lanes *= 2) sum += __shfl_xor_sync(ALL_LANES, sum, lanes);
        if (piece == 0) delta[row] = sum;
    }
}

// Writes the sums over a block's tokens, of the parts of qkv from `part` up to `end`, as part of its group's row of
// `partials`. The warps' sums are Head columns a part.
template <int Head, int Warps>
__device__ inline void write_sums(float* partials, const float* sums, const Problem& problem, int part, int end) {
    __syncthreads();
    partials += problem.group() * 3 * problem.n_heads * Head;
    const u32 head = problem.head();
    for (int i = thread_index() % (Warps * WARP); i < (end - part) * Head; i += Warps * WARP) {
        float sum = 0.0f;
        for (int warp = 0; warp < Warps; ++warp) sum += sums[warp * 3 * Head + part * Head + i];
        partials[((part + i / Head) * problem.n_heads + head) * Head + i % Head] = sum;
    }
}

// The compiler for sm_120 aims at three blocks of heads of 32 on a multiprocessor, whose shared memory has room for two, and
// spills for it.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
#define BACKWARD_KERNEL_32(name, max_threads, ...) KERNEL_MIN_BLOCKS(name, max_threads, 2, __VA_ARGS__)
#else
#define BACKWARD_KERNEL_32 KERNEL
#endif
#define BACKWARD_KERNEL_64 KERNEL
#define BACKWARD_KERNEL_128 KERNEL

// A kernel of both files. `scratch` holds rowsum(dO O) of the long sequences, n_delta of them, and rows (3 H) of partial
// sums, of which a launch writes those from first_row on, one a group. A launch works on n_items items from first_item on.
#define BACKWARD(head, name, ...)                                                                                       \
    BACKWARD_KERNEL_##head(attention_backward_##head##_##name, Shape<head>::THREADS, bf16* __restrict__ d_qkv,          \
                           float* __restrict__ scratch, const bf16* __restrict__ qkv, const bf16* __restrict__ out,     \
                           const bf16* __restrict__ d_out, const float* __restrict__ lse, const i32* __restrict__ work, \
                           const i32* __restrict__ cu_seqlens, const i32* __restrict__ global_rows, Dropout dropout,    \
                           float scale, i64 n_heads, i64 first_item, i64 n_items, i64 n_groups, i64 n_delta,            \
                           i64 first_row) {                                                                             \
        const Problem problem{qkv, out, d_out, lse, global_rows, dropout, scale, n_heads};                              \
        float* delta = scratch;                                                                                         \
        float* partials = scratch + n_delta + first_row * 3 * n_heads * head;                                           \
        __VA_ARGS__(d_qkv, delta, partials, problem, work + 2 * first_item, cu_seqlens, n_items, n_groups);             \
    }
