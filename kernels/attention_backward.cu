// Gradients of attention_forward for sequences of up to 128 tokens, each read once.
//
// A warp owns rows of keys: it computes scores transposed, so that P and dS are in its registers what the products for dV
// and dK want, and hands dS on through shared memory, 32 queries at a time, for dQ.

#include "attention_gradient.cuh"
#include "partials.cuh"

// Queries whose dS is in shared memory at a time.
constexpr int TURN = 32;

// Puts a warp's rows of dS of 16 queries into a tile, from (row, column) on.
template <int M>
__device__ inline void put_fragments(Tile<TURN> to, int row, int column, const u32 (&x)[M][1][4], int lane) {
#pragma unroll
    for (int m = 0; m < M; ++m) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const u32 word = x[m][0][i];
            bf16* at = to.piece(row + 16 * m + i % 2 * 8 + lane / 4, column / 8 + i / 2) + lane % 4 * 2;
            store_vector(at, Vector<bf16, 2>{{{u16(word & 0xFFFF)}, {u16(word >> 16)}}});
        }
    }
}

// dQ of 32 queries from dS, one row of `d_s` a key, of a sequence of `len`. Warps share it: 16 queries each and some columns.
// The result, rounded, replaces the queries, which start at q_row of their tile.
template <int Head, int Warps>
__device__ inline void query_gradients(Tile<Head> q, float* sums, Tile<TURN> d_s, Tile<Head> k, int q_row, int len, float scale,
                                       int warp, int lane) {
    constexpr int PARTS = Warps / 2 > Head / 64 ? Warps / 2 : (Head + 63) / 64, N = Head / 8 / PARTS;
#pragma unroll 1
    for (int unit = warp; unit < 2 * PARTS; unit += Warps) {
        const int query = unit % 2 * 16, column = unit / 2 * (Head / PARTS);
        if (q_row + query >= len) continue;
        float d_q[1][N][4];
#pragma unroll
        for (int n = 0; n < N; ++n) d_q[0][n][0] = d_q[0][n][1] = d_q[0][n][2] = d_q[0][n][3] = 0.0f;
        for (int key = 0; key < len; key += 16) {
            u32 weights[4];
            ldmatrix_x4_trans(weights, right_then_down(d_s, key, query, lane));
#pragma unroll
            for (int n = 0; n < N; n += 2) {
                u32 columns[4];
                ldmatrix_x4_trans(columns, down_then_right(k, key, column + 8 * n, lane));
                mma_pair(d_q[0][n], d_q[0][n + 1], weights, columns);
            }
        }
        add_column_sums(sums + column, d_q, scale, lane);
        put_rows(q, q_row + query, column, d_q, scale, lane);
    }
}

// Sequences of at most Length tokens: everything is read once and stays in shared memory, 128 / Length sequences a block.
template <int Head, int Length>
__device__ inline void backward_short(bf16* d_qkv, float*, float* partials, const Problem& problem, const i32* work,
                                      const i32* cu_seqlens, int n_items, int n_groups) {
    using S = Shape<Head>;
    constexpr int WARPS = Length / S::WARP_ROWS, THREADS = WARPS * WARP, ITEMS = ITEM_ROWS / Length;
    // Tiles, dS, two numbers and a bit for each key of every row, and the warps' sums.
    DYNAMIC_SHARED(shared, 2 * (4 * S::TILE + ITEM_ROWS * TURN) + ITEM_ROWS * (2 * 4 + Length / 32 * 4) + S::WARPS * 3 * Head * 4);
    const int lane = threadIdx.x % WARP, place = threadIdx.x / THREADS, thread = threadIdx.x % THREADS, warp = thread / WARP;
    const i64 hidden = problem.n_heads * Head;
    const int group = blockIdx.x / u32(problem.n_heads);
    const int row = warp * S::WARP_ROWS;

    const Tile<Head> q{reinterpret_cast<bf16*>(shared) + place * Length * Head};
    const Tile<Head> k{q.base + S::TILE}, v{q.base + 2 * S::TILE}, d_out{q.base + 3 * S::TILE};
    bf16* rest = reinterpret_cast<bf16*>(shared) + 4 * S::TILE;
    const Tile<TURN> d_s{rest + place * Length * TURN};
    float* scalars = reinterpret_cast<float*>(rest + ITEM_ROWS * TURN);
    const RowScalars rows{scalars + place * Length, scalars + ITEM_ROWS + place * Length};
    const KeepWords keep{reinterpret_cast<u32*>(scalars + 2 * ITEM_ROWS) + place * Length * (Length / 32), Length};
    float* all_sums = scalars + 2 * ITEM_ROWS + ITEM_ROWS * (Length / 32);
    float* sums = all_sums + threadIdx.x / WARP * 3 * Head;
    for (int i = lane; i < 3 * Head; i += WARP) sums[i] = 0.0f;

    for (int turn = group; turn * ITEMS < n_items; turn += n_groups) {
        const int at_thread = recomputed(thread);
        const Item item = find_item(work, cu_seqlens, turn * ITEMS + place, n_items);
        const bf16* from = problem.qkv + item.start * 3 * hidden + problem.head * Head;
        copy_tile<Length, THREADS>(q, from, 3 * hidden, item.len, at_thread);
        copy_tile<Length, THREADS>(k, from + hidden, 3 * hidden, item.len, at_thread);
        copy_tile<Length, THREADS>(v, from + 2 * hidden, 3 * hidden, item.len, at_thread);
        cp_async_commit();
        load_d_out<Length, THREADS>(d_out, rows.delta, problem, item.start, item.len, at_thread);
        for (int i = at_thread; i < Length; i += THREADS) {
            const i64 at = i64(item.start + i) * problem.n_heads + problem.head;
            rows.lse2[i] = i < item.len ? problem.lse[at] * LOG2_E : infinity();
        }
        if (problem.drops()) keep.draw<Length / 32, WARPS>(problem, item, 0, item.len, 0, warp, recomputed(lane));
        cp_async_wait<0>();
        sync_group<WARPS>();

        KeyGradients<Head, S::M> gradients;
        gradients.clear();
        // All of a block take as many turns, so that they meet; a block of one item can stop at its end.
        const int end = ITEMS == 1 ? item.len : Length;
#pragma unroll 1
        for (int first = 0; first < end; first += TURN) {
            if (row < item.len) {
#pragma unroll 1
                for (int query = first; query < first + TURN && query < item.len; query += 16) {
                    u32 d_s_rows[S::M][1][4];
                    take_queries(gradients, d_s_rows, problem, RowScalars{rows.lse2 + query, rows.delta + query},
                                 keep.words + row / 32 * Length + query, k, v, row, q, d_out, query, item.len - row, recomputed(lane));
                    put_fragments(d_s, row, query - first, d_s_rows, lane);
                }
            }
            sync_group<WARPS>();
            if (first < item.len) {
                query_gradients<Head, WARPS>(q, sums, d_s, k, first, item.len, problem.scale, warp, lane);
            }
            sync_group<WARPS>();
        }
        // Addresses from here on are not worth registers during the loop.
        const int late = recomputed(lane);
        add_column_sums(sums + Head, gradients.d_k, problem.scale, late);
        add_column_sums(sums + 2 * Head, gradients.d_v, problem.factor(), late);
        put_rows(k, row, 0, gradients.d_k, problem.scale, late);
        put_rows(v, row, 0, gradients.d_v, problem.factor(), late);
        __syncwarp();
        bf16* to = d_qkv + item.start * 3 * hidden + problem.head * Head;
        write_rows<S::WARP_ROWS>(to, 3 * hidden, q, row, item.len, late);
        write_rows<S::WARP_ROWS>(to + hidden, 3 * hidden, k, row, item.len, late);
        write_rows<S::WARP_ROWS>(to + 2 * hidden, 3 * hidden, v, row, item.len, late);
        sync_group<WARPS>();
    }
    write_sums<Head, S::WARPS>(partials + group * 3 * hidden, all_sums, problem, 0, 3);
}

#define BACKWARD_OF_HEAD(head)                                                                                                  \
    BACKWARD(head, up_to_32, backward_short<head, 32>)                                                                          \
    BACKWARD(head, up_to_64, backward_short<head, 64>)                                                                          \
    BACKWARD(head, up_to_128, backward_short<head, 128>)

BACKWARD_OF_HEAD(32)
BACKWARD_OF_HEAD(64)
BACKWARD_OF_HEAD(128)

// d_bias (width) += the rows (width) of partial sums that the kernels above left.
KERNEL(attention_backward_bias, PARTIAL_THREADS, float* __restrict__ d_bias, const float* __restrict__ scratch, i64 n_delta,
       i64 n_rows, i64 width) {
    add_partials(d_bias, scratch + n_delta, n_rows, width, i64(blockIdx.x) * PARTIAL_COLUMNS, width);
}
