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
__device__ inline void query_gradients(Tile<Head> q, float* sums, Tile<TURN> d_s, Tile<Head> k, int q_row, int len,
                                       float scale, int warp, int lane) {
    constexpr int PARTS = Warps / 2 > Head / 64 ? Warps / 2 : (Head + 63) / 64, N = Head / 8 / PARTS;
#pragma unroll 1
    for (int unit = warp; unit < 2 * PARTS; unit += Warps) {
        const int query = unit % 2 * 16, column = unit / 2 * (Head / PARTS);
        if (q_row + query >= len) continue;
        float d_q[1][N][4];
#pragma unroll
        for (int n = 0; n < N; ++n) d_q[0][n][0] = d_q[0][n][1] = d_q[0][n][2] = d_q[0][n][3] = 0.0f;
        // Eight products a turn keep the tensor cores busy; more at a time are not worth their registers.
#pragma unroll(N < 8 ? 4 : 1)
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

// What a thread has of a block: its place, and where its item's rows are in shared memory. 128 / Length sequences a block.
template <int Head, int Length> struct Share {
    using S = Shape<Head>;
    static constexpr int WARPS = Length / S::WARP_ROWS, THREADS = WARPS * WARP;
    // Tiles, dS, two numbers and a bit for each key of every row, and the warps' sums.
    static constexpr int BYTES =
        2 * (4 * S::TILE + ITEM_ROWS * TURN) + ITEM_ROWS * (2 * 4 + Length / 32 * 4) + S::WARPS * 3 * Head * 4;

    // Which of the block's items, and among those who share it: the thread, its warp, its lane, and the warp's first row.
    int place, thread, warp, lane, row;
    Tile<Head> q, k, v, d_out;
    Tile<TURN> d_s;
    RowScalars rows;
    KeepWords keep;
    // All warps' sums, and the warp's.
    float *all_sums, *sums;

    __device__ Share(unsigned char* shared, u32 index)
        : place(index / THREADS),
          thread(index % THREADS),
          warp(thread / WARP),
          lane(index % WARP),
          row(warp * S::WARP_ROWS) {
        q = Tile<Head>{reinterpret_cast<bf16*>(shared) + place * Length * Head};
        k = Tile<Head>{q.base + S::TILE}, v = Tile<Head>{q.base + 2 * S::TILE}, d_out = Tile<Head>{q.base + 3 * S::TILE};
        bf16* rest = reinterpret_cast<bf16*>(shared) + 4 * S::TILE;
        d_s = Tile<TURN>{rest + place * Length * TURN};
        float* scalars = reinterpret_cast<float*>(rest + ITEM_ROWS * TURN);
        rows = RowScalars{scalars + place * Length, scalars + ITEM_ROWS + place * Length};
        keep = KeepWords{reinterpret_cast<u32*>(scalars + 2 * ITEM_ROWS) + place * Length * (Length / 32), Length};
        all_sums = scalars + 2 * ITEM_ROWS + ITEM_ROWS * (Length / 32);
        sums = all_sums + index / WARP * 3 * Head;
    }
};

// Reads an item's rows, each once.
template <int Head, int Length>
__device__ inline void load_item(const Share<Head, Length>& my, const Problem& problem, const Item& item) {
    constexpr int THREADS = Share<Head, Length>::THREADS, WARPS = Share<Head, Length>::WARPS;
    const i64 hidden = problem.n_heads * Head;
    const u32 head = problem.head();
    const bf16* from = problem.qkv + item.start * 3 * hidden + head * Head;
    copy_tile<Length, THREADS>(my.q, from, 3 * hidden, item.len, my.thread);
    copy_tile<Length, THREADS>(my.k, from + hidden, 3 * hidden, item.len, my.thread);
    copy_tile<Length, THREADS>(my.v, from + 2 * hidden, 3 * hidden, item.len, my.thread);
    cp_async_commit();
    // All that is read is on its way before any of it is waited for.
    static_assert(THREADS >= Length, "a thread takes one row's log-sum-exp");
    const float lse = my.thread < item.len ? problem.lse[i64(item.start + my.thread) * problem.n_heads + head] : infinity();
    const i32 global_row = problem.drops() ? KeepWords::global_row<WARPS>(problem, item, 0, item.len, my.warp, my.lane) : 0;
    load_d_out<Length, THREADS>(my.d_out, my.rows.delta, problem, item.start, item.len, my.thread);
    if (my.thread < Length) my.rows.lse2[my.thread] = lse * LOG2_E;
    if (problem.drops()) my.keep.template draw<Length / 32, WARPS>(problem, global_row, item.len, 0, my.warp, my.lane);
    cp_async_wait<0>();
}

// Writes the gradients of an item's rows: those of its queries are in their tile.
template <int Head, int Length>
__device__ inline void write_item(bf16* d_qkv, const Share<Head, Length>& my, const Problem& problem, const Item& item,
                                  const KeyGradients<Head, Shape<Head>::M>& gradients) {
    constexpr int ROWS = Shape<Head>::WARP_ROWS;
    const i64 hidden = problem.n_heads * Head;
    add_column_sums(my.sums + Head, gradients.d_k, problem.scale, my.lane);
    add_column_sums(my.sums + 2 * Head, gradients.d_v, problem.factor(), my.lane);
    put_rows(my.k, my.row, 0, gradients.d_k, problem.scale, my.lane);
    put_rows(my.v, my.row, 0, gradients.d_v, problem.factor(), my.lane);
    __syncwarp();
    // Opaque, or the offset that it was read from is kept all along.
    bf16* to = d_qkv + i32(opaque(item.start)) * 3 * hidden + problem.head() * Head;
    write_rows<ROWS>(to, 3 * hidden, my.q, my.row, item.len, my.lane);
    write_rows<ROWS>(to + hidden, 3 * hidden, my.k, my.row, item.len, my.lane);
    write_rows<ROWS>(to + 2 * hidden, 3 * hidden, my.v, my.row, item.len, my.lane);
}

// Sequences of at most Length tokens: everything is read once and stays in shared memory.
template <int Head, int Length>
__device__ inline void backward_short(bf16* d_qkv, float*, float* partials, const Problem& problem, const i32* work,
                                      const i32* cu_seqlens, int n_items, int n_groups) {
    using S = Shape<Head>;
    using Mine = Share<Head, Length>;
    constexpr int WARPS = Mine::WARPS, ITEMS = ITEM_ROWS / Length, BYTES = Mine::BYTES;
    DYNAMIC_SHARED(shared, BYTES);
    // Not worth registers all the time, so found again for each of what follows.
    const auto mine = [&] { return Mine(shared, thread_index()); };
    for (int i = mine().lane; i < 3 * Head; i += WARP) mine().sums[i] = 0.0f;

    for (int turn = problem.group(); turn * ITEMS < n_items; turn += n_groups) {
        const Item item = find_item(work, cu_seqlens, turn * ITEMS + mine().place, n_items);
        load_item(mine(), problem, item);
        sync_group<WARPS>();

        KeyGradients<Head, S::M> gradients;
        gradients.clear();
        // All of a block take as many turns, so that they meet; a block of one item can stop at its end.
        const int end = ITEMS == 1 ? item.len : Length;
#pragma unroll 1
        for (int first = 0; first < end; first += TURN) {
            if (mine().row < item.len) {
#pragma unroll 1
                for (int query = first; query < first + TURN && query < item.len; query += 16) {
                    const Mine my = mine();
                    u32 d_s_rows[S::M][1][4];
                    take_queries(gradients, d_s_rows, problem, RowScalars{my.rows.lse2 + query, my.rows.delta + query},
                                 my.keep.words + my.row / 32 * Length + query, my.k, my.v, my.row, my.q, my.d_out, query,
                                 item.len - my.row, my.lane);
                    put_fragments(my.d_s, my.row, query - first, d_s_rows, my.lane);
                }
            }
            sync_group<WARPS>();
            if (first < item.len) {
                const Mine my = mine();
                query_gradients<Head, WARPS>(my.q, my.sums, my.d_s, my.k, first, item.len, problem.scale, my.warp, my.lane);
            }
            sync_group<WARPS>();
        }
        write_item(d_qkv, mine(), problem, item, gradients);
        sync_group<WARPS>();
    }
    write_sums<Head, S::WARPS>(partials, mine().all_sums, problem, 0, 3);
}

#define BACKWARD_OF_HEAD(head)                         \
    BACKWARD(head, up_to_32, backward_short<head, 32>) \
    BACKWARD(head, up_to_64, backward_short<head, 64>) \
    BACKWARD(head, up_to_128, backward_short<head, 128>)

#if WANTS_HEAD(32)
BACKWARD_OF_HEAD(32)
#endif
#if WANTS_HEAD(64)
BACKWARD_OF_HEAD(64)
#endif
#if WANTS_HEAD(128)
BACKWARD_OF_HEAD(128)
#endif

// d_bias (width) += the rows (width) of partial sums that the kernels above left.
KERNEL(attention_backward_bias, PARTIAL_THREADS, float* __restrict__ d_bias, const float* __restrict__ scratch, i64 n_delta,
       i64 n_rows, i64 width) {
    add_partials(d_bias, scratch + n_delta, n_rows, width, i64(blockIdx.x) * PARTIAL_COLUMNS, width);
}
