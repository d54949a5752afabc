// out = dropout(softmax(q k^T scale)) v for every sequence and head, and lse, the log-sum-exp of each row of scores.
//
// Tensor cores take bf16, so the exponentials, at most 1, are rounded to bf16 for the product with v; their sum is not.

#include "attention.cuh"

// The softmax of a warp's rows so far: `out` and `total` are off by the factor exp(largest * scale).
template <int Head, int M> struct Rows {
    float largest[M][2];
    // The lane's share.
    float total[M][2];
    float out[M][Head / 8][4];

    __device__ void clear() {
#pragma unroll
        for (int m = 0; m < M; ++m) {
            largest[m][0] = largest[m][1] = -infinity();
            total[m][0] = total[m][1] = 0.0f;
#pragma unroll
            for (int n = 0; n < Head / 8; ++n) out[m][n][0] = out[m][n][1] = out[m][n][2] = out[m][n][3] = 0.0f;
        }
    }

    // Raises `largest` to that of new scores, and turns those into exponentials.
    template <int N> __device__ void take(float (&s)[M][N][4], float scale) {
#pragma unroll
        for (int m = 0; m < M; ++m) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float top = largest[m][half];
#pragma unroll
                for (int n = 0; n < N; ++n) top = fmaxf(top, fmaxf(s[m][n][2 * half], s[m][n][2 * half + 1]));
                top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, 1));
                top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, 2));
                const float shift = top * scale;
                const float correction = exp2_fast(fmaf(largest[m][half], scale, -shift));
                largest[m][half] = top;
                float sum = total[m][half] * correction;
#pragma unroll
                for (int n = 0; n < N; ++n) {
#pragma unroll
                    for (int i = 2 * half; i < 2 * half + 2; ++i) {
                        s[m][n][i] = exp2_fast(fmaf(s[m][n][i], scale, -shift));
                        sum += s[m][n][i];
                    }
                }
                total[m][half] = sum;
#pragma unroll
                for (int n = 0; n < Head / 8; ++n) {
                    out[m][n][2 * half] *= correction;
                    out[m][n][2 * half + 1] *= correction;
                }
            }
        }
    }
};

// One head of the batch, as the kernels' parameters give it.
struct Problem {
    const bf16* qkv;
    const i32* global_rows;
    Dropout dropout;
    float scale;
    i64 n_heads;
    u32 head;
};

// Takes 8 N keys, from key `first` of the sequence on, into a warp's rows. In the tiles they start at k_row.
template <int N, int Keys, int Head, int M>
__device__ inline void take_keys(Rows<Head, M>& rows, KeepBits<M, Keys>& keep, const Problem& problem, const Item& item,
                                 int row, Tile<Head> q, int q_row, Tile<Head> k, Tile<Head> v, int k_row, int first,
                                 int lane) {
    const bool drops = problem.dropout.threshold != 0;
    if (drops && first % 128 == 0) {
        keep.draw(problem.dropout, problem.global_rows, item, row, problem.head, first / 128, lane);
    }
    float s[M][N][4];
    row_products(s, q, q_row, k, k_row, lane);
    if (first + 8 * N > item.len) {
#pragma unroll
        for (int n = 0; n < N; ++n) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const bool past = first + 8 * n + 2 * (lane % 4) + i % 2 >= item.len;
#pragma unroll
                for (int m = 0; m < M; ++m) {
                    if (past) s[m][n][i] = -infinity();
                }
            }
        }
    }
    rows.take(s, problem.scale * LOG2_E);
    if (drops) {
        // What is kept gets dropout's scale at the end.
#pragma unroll
        for (int m = 0; m < M; ++m) {
#pragma unroll
            for (int n = 0; n < N; ++n) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    if (!keep.keeps(m, i / 2, first % 128, n, i % 2)) s[m][n][i] = 0.0f;
                }
            }
        }
    }
    u32 weights[M][N / 2][4];
    pack_rows(weights, s);
    add_weighted_rows(rows.out, weights, v, k_row, lane);
}

// Writes a warp's rows, which start at `row` of the sequence and at q_row of the tile, which they overwrite.
template <int Head, int M>
__device__ inline void finish(bf16* out, float* lse, Rows<Head, M>& rows, const Problem& problem, Tile<Head> q, int q_row,
                              const Item& item, int row, int lane) {
#pragma unroll
    for (int m = 0; m < M; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float total = rows.total[m][half];
            total += __shfl_xor_sync(ALL_LANES, total, 1);
            total += __shfl_xor_sync(ALL_LANES, total, 2);
            const int mine = row + 16 * m + 8 * half + lane / 4;
            if (lane % 4 == 0 && mine < item.len) {
                lse[(item.start + mine) * problem.n_heads + problem.head] =
                    rows.largest[m][half] * problem.scale + logf(total);
            }
            const float factor = (problem.dropout.threshold != 0 ? problem.dropout.scale : 1.0f) / total;
#pragma unroll
            for (int n = 0; n < Head / 8; ++n) {
                rows.out[m][n][2 * half] *= factor;
                rows.out[m][n][2 * half + 1] *= factor;
            }
        }
    }
    // Other lanes' reads of the queries are over.
    __syncwarp();
    put_rows(q, q_row, 0, rows.out, 1.0f, lane);
    __syncwarp();
    const i64 hidden = problem.n_heads * Head;
    bf16* to = out + (item.start + row - q_row) * hidden + problem.head * Head;
    write_rows<16 * M>(to, hidden, q, q_row, q_row + item.len - row, lane);
}

// Sequences of at most Rows tokens: their queries, keys and values are read once and stay in shared memory, 128 / Rows
// sequences a block.
template <int Head, int Length>
__device__ inline void forward_short(bf16* out, float* lse, const bf16* qkv, const i32* work, const i32* cu_seqlens,
                                     const i32* global_rows, Dropout dropout, float scale, i64 n_heads, int n_items) {
    using S = Shape<Head>;
    constexpr int WARPS = Length / S::WARP_ROWS, THREADS = WARPS * WARP, KEYS = 32;
    DYNAMIC_SHARED(shared, S::FORWARD_BYTES);
    const int lane = threadIdx.x % WARP, group = threadIdx.x / THREADS, thread = threadIdx.x % THREADS;
    const Problem problem{qkv, global_rows, dropout, scale, n_heads, blockIdx.x % u32(n_heads)};
    const Item item = find_item(work, cu_seqlens, blockIdx.x / u32(n_heads) * (ITEM_ROWS / Length) + group, n_items);

    const Tile<Head> q{reinterpret_cast<bf16*>(shared) + group * Length * Head};
    const Tile<Head> k{q.base + S::TILE}, v{q.base + 2 * S::TILE};
    const i64 hidden = n_heads * Head;
    const bf16* from = qkv + item.start * 3 * hidden + problem.head * Head;
    copy_tile<Length, THREADS>(q, from, 3 * hidden, item.len, thread);
    copy_tile<Length, THREADS>(k, from + hidden, 3 * hidden, item.len, thread);
    copy_tile<Length, THREADS>(v, from + 2 * hidden, 3 * hidden, item.len, thread);
    cp_async_commit();
    cp_async_wait<0>();
    sync_group<WARPS>();

    const int row = thread / WARP * S::WARP_ROWS;
    if (row >= item.len) return;
    Rows<Head, S::M> rows;
    rows.clear();
    KeepBits<S::M, Length> keep;
    // Length is a bound as well, so that there is no loop, and nothing to keep for a next turn, where all fits one.
    for (int first = 0; first < Length && first < item.len; first += KEYS) {
        take_keys<KEYS / 8>(rows, keep, problem, item, row, q, row, k, v, first, first, lane);
    }
    finish(out, lse, rows, problem, q, row, item, row, lane);
}

// Longer sequences: 128 queries a block, keys and values in turns of 64, of which the next is on its way.
template <int Head>
__device__ inline void forward_long(bf16* out, float* lse, const bf16* qkv, const i32* work, const i32* cu_seqlens,
                                    const i32* global_rows, Dropout dropout, float scale, i64 n_heads, int n_items) {
    using S = Shape<Head>;
    constexpr int KEYS = 64;
    DYNAMIC_SHARED(shared, S::FORWARD_BYTES);
    const int lane = threadIdx.x % WARP, q_row = threadIdx.x / WARP * S::WARP_ROWS;
    const Problem problem{qkv, global_rows, dropout, scale, n_heads, blockIdx.x % u32(n_heads)};
    const Item item = find_item(work, cu_seqlens, blockIdx.x / u32(n_heads), n_items);

    const Tile<Head> q{reinterpret_cast<bf16*>(shared)};
    const i64 hidden = n_heads * Head;
    const bf16* from = qkv + item.start * 3 * hidden + problem.head * Head;
    // Turn i's keys, and its values after them.
    const auto place = [&](int turn) { return Tile<Head>{q.base + S::TILE + turn % 2 * 2 * KEYS * Head}; };
    const auto fetch = [&](int turn) {
        const int first = turn * KEYS;
        const bf16* rows = from + hidden + first * 3 * hidden;
        copy_tile<KEYS, S::THREADS>(place(turn), rows, 3 * hidden, item.len - first, threadIdx.x);
        copy_tile<KEYS, S::THREADS>(Tile<Head>{place(turn).base + KEYS * Head}, rows + hidden, 3 * hidden, item.len - first,
                                    threadIdx.x);
        cp_async_commit();
    };
    copy_tile<ITEM_ROWS, S::THREADS>(q, from + item.first * 3 * hidden, 3 * hidden, item.len - item.first, threadIdx.x);
    fetch(0);

    Rows<Head, S::M> rows;
    rows.clear();
    KeepBits<S::M, 128> keep;
    const int row = item.first + q_row;
    for (int turn = 0; turn * KEYS < item.len; ++turn) {
        cp_async_wait<0>();
        // What arrived is there for all, and all are done with what the next turn overwrites.
        __syncthreads();
        if ((turn + 1) * KEYS < item.len) fetch(turn + 1);
        const Tile<Head> k = place(turn), v{k.base + KEYS * Head};
        take_keys<KEYS / 8>(rows, keep, problem, item, row, q, q_row, k, v, 0, turn * KEYS, lane);
    }
    finish(out, lse, rows, problem, q, q_row, item, row, lane);
}

// A launch works on n_items items from first_item on.
#define FORWARD(head, name, blocks, body)                                                                       \
    KERNEL_MIN_BLOCKS(attention_forward_##head##_##name, Shape<head>::THREADS, blocks, bf16* __restrict__ out,  \
                      float* __restrict__ lse, const bf16* __restrict__ qkv, const i32* __restrict__ work,      \
                      const i32* __restrict__ cu_seqlens, const i32* __restrict__ global_rows, Dropout dropout, \
                      float scale, i64 n_heads, i64 first_item, i64 n_items) {                                  \
        body(out, lse, qkv, work + 2 * first_item, cu_seqlens, global_rows, dropout, scale, n_heads, n_items);  \
    }
#define FORWARD_OF_HEAD(head, short_blocks, long_blocks)               \
    FORWARD(head, up_to_32, short_blocks, (forward_short<head, 32>))   \
    FORWARD(head, up_to_64, short_blocks, (forward_short<head, 64>))   \
    FORWARD(head, up_to_128, short_blocks, (forward_short<head, 128>)) \
    FORWARD(head, long, long_blocks, forward_long<head>)

#if WANTS_HEAD(32)
FORWARD_OF_HEAD(32, 4, 3)
#endif
#if WANTS_HEAD(64)
FORWARD_OF_HEAD(64, 3, 2)
#endif
#if WANTS_HEAD(128)
FORWARD_OF_HEAD(128, 1, 1)
#endif
