// Gradients of attention_forward for sequences of any length: one kernel for dQ, whose warps own queries, and one for dK and
// dV, whose warps own keys. That makes seven products where attention_backward.cu has five, and no sum across blocks.

#include "attention_gradient.cuh"

// Takes a turn's keys, from k_row of the tiles on, into the gradients of a warp's queries, which start at q_row. `n_keys` of them
// belong to the sequence.
template <int Head, int M>
__device__ inline void take_keys(float (&d_q)[M][Head / 8][4], const Problem& problem, const float (&lse2)[M][2],
                                 const float (&delta)[M][2], const KeepBits<M, ITEM_ROWS>& keep, int first, Tile<Head> q,
                                 Tile<Head> d_out, int q_row, Tile<Head> k, Tile<Head> v, int n_keys, int lane) {
    constexpr int TURN = Shape<Head>::TURN;
    const float scale2 = problem.scale * LOG2_E, factor = problem.factor();
    float p[M][TURN / 8][4], d_p[M][TURN / 8][4];
    row_products(p, q, q_row, k, 0, lane);
    row_products(d_p, d_out, q_row, v, 0, lane);
#pragma unroll
    for (int m = 0; m < M; ++m) {
#pragma unroll
        for (int n = 0; n < TURN / 8; ++n) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float soft = exp2_fast(fmaf(p[m][n][i], scale2, -lse2[m][i / 2]));
                const bool keeps = !problem.drops() || keep.keeps(m, i / 2, first % ITEM_ROWS, n, i % 2);
                // A key past the end has a score of 0, whose exponential may be anything.
                const bool valid = 8 * n + lane % 4 * 2 + i % 2 < n_keys;
                d_p[m][n][i] = valid ? soft * ((keeps ? d_p[m][n][i] * factor : 0.0f) - delta[m][i / 2]) : 0.0f;
            }
        }
    }
    u32 d_s[M][TURN / 16][4];
    pack_rows(d_s, d_p);
    add_weighted_rows(d_q, d_s, k, 0, lane);
}

// Dynamic shared memory of both kernels: own rows, two turns of the others with two numbers and a bit for each key of 128,
// a number for each own row, and the warps' sums.
template <int Head, int Turn>
constexpr int LONG_BYTES = 2 * (2 * Shape<Head>::TILE + 4 * Turn * Head) + 2 * Turn * (2 * 4 + ITEM_ROWS / 32 * 4) +
                           ITEM_ROWS * 4 + Shape<Head>::WARPS * 3 * Head * 4;

// Longer sequences, dQ, and rowsum(dO O) for backward_keys: 128 queries a block; keys and values in turns, of which
// the next is on its way.
template <int Head>
__device__ inline void backward_queries(bf16* d_qkv, float* delta, float* partials, const Problem& problem, const i32* work,
                                        const i32* cu_seqlens, int n_items, int n_groups) {
    using S = Shape<Head>;
    constexpr int TURN = S::TURN, BYTES = LONG_BYTES<Head, TURN>;
    DYNAMIC_SHARED(shared, BYTES);
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, q_row = warp * S::WARP_ROWS;
    const i64 hidden = problem.n_heads * Head;
    const u32 head = problem.head();

    const Tile<Head> q{reinterpret_cast<bf16*>(shared)}, d_out{q.base + S::TILE};
    bf16* buffers = q.base + 2 * S::TILE;
    float* row_delta = reinterpret_cast<float*>(buffers + 4 * TURN * Head);
    float* all_sums = row_delta + ITEM_ROWS;
    float* sums = all_sums + warp * 3 * Head;
    for (int i = lane; i < 3 * Head; i += WARP) sums[i] = 0.0f;

    for (int index = problem.group(); index < n_items; index += n_groups) {
        const Item item = find_item(work, cu_seqlens, index, n_items);
        const int left = item.len - item.first;
        const i64 first_token = item.start + item.first;
        const bf16* from = problem.qkv + item.start * 3 * hidden + head * Head;
        const auto k_of = [&](int turn) { return Tile<Head>{buffers + turn % 2 * 2 * TURN * Head}; };
        const auto v_of = [&](int turn) { return Tile<Head>{k_of(turn).base + TURN * Head}; };
        const auto fetch = [&](int turn) {
            const bf16* keys = from + hidden + turn * TURN * 3 * hidden;
            copy_tile<TURN, S::THREADS>(k_of(turn), keys, 3 * hidden, item.len - turn * TURN, threadIdx.x);
            copy_tile<TURN, S::THREADS>(v_of(turn), keys + hidden, 3 * hidden, item.len - turn * TURN, threadIdx.x);
            cp_async_commit();
        };
        copy_tile<ITEM_ROWS, S::THREADS>(q, from + item.first * 3 * hidden, 3 * hidden, left, threadIdx.x);
        fetch(0);
        // All that is read is on its way before any of it is waited for.
        float lse2[S::M][2], delta_of[S::M][2], d_q[S::M][Head / 8][4];
        const auto row_of = [&](int m, int half) { return q_row + 16 * m + 8 * half + lane / 4; };
        const auto place_of = [&](int m, int half) { return (first_token + row_of(m, half)) * problem.n_heads + head; };
#pragma unroll
        for (int m = 0; m < S::M; ++m) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                lse2[m][half] = row_of(m, half) < left ? problem.lse[place_of(m, half)] * LOG2_E : infinity();
            }
        }
        load_d_out<ITEM_ROWS, S::THREADS>(d_out, row_delta, problem, first_token, left, threadIdx.x);
        __syncthreads();
#pragma unroll
        for (int m = 0; m < S::M; ++m) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                delta_of[m][half] = row_delta[row_of(m, half)];
                if (row_of(m, half) < left && lane % 4 == 0) delta[place_of(m, half)] = delta_of[m][half];
            }
#pragma unroll
            for (int n = 0; n < Head / 8; ++n) d_q[m][n][0] = d_q[m][n][1] = d_q[m][n][2] = d_q[m][n][3] = 0.0f;
        }
        KeepBits<S::M, ITEM_ROWS> keep;
        for (int turn = 0; turn * TURN < item.len; ++turn) {
            const int first = turn * TURN;
            cp_async_wait<0>();
            // What arrived is there for all, and all are done with what the next turn overwrites.
            __syncthreads();
            if (first + TURN < item.len) fetch(turn + 1);
            if (problem.drops() && first % ITEM_ROWS == 0) {
                keep.draw(problem.dropout, problem.global_rows, item, item.first + q_row, head, first / ITEM_ROWS, lane);
            }
            take_keys(d_q, problem, lse2, delta_of, keep, first, q, d_out, q_row, k_of(turn), v_of(turn), item.len - first,
                      lane);
        }
        add_column_sums(sums, d_q, problem.scale, lane);
        __syncwarp();
        put_rows(q, q_row, 0, d_q, problem.scale, lane);
        __syncwarp();
        bf16* to = d_qkv + first_token * 3 * hidden + head * Head;
        write_rows<S::WARP_ROWS>(to, 3 * hidden, q, q_row, left, lane);
        __syncthreads();
    }
    write_sums<Head, S::WARPS>(partials, all_sums, problem, 0, 1);
}

// Longer sequences, dK and dV: 128 keys a block; queries and the gradients of their results in turns, of which the
// next is on its way.
template <int Head>
__device__ inline void backward_keys(bf16* d_qkv, const float* delta, float* partials, const Problem& problem,
                                     const i32* work, const i32* cu_seqlens, int n_items, int n_groups) {
    using S = Shape<Head>;
    constexpr int TURN = S::TURN, WORDS = ITEM_ROWS / 32, BYTES = LONG_BYTES<Head, TURN>;
    DYNAMIC_SHARED(shared, BYTES);
    const i64 hidden = problem.n_heads * Head;

    const Tile<Head> k{reinterpret_cast<bf16*>(shared)}, v{k.base + S::TILE};
    bf16* buffers = k.base + 2 * S::TILE;
    float* scalars = reinterpret_cast<float*>(buffers + 4 * TURN * Head);
    u32* words = reinterpret_cast<u32*>(scalars + 4 * TURN);
    float* all_sums = reinterpret_cast<float*>(words + 2 * TURN * WORDS);
    // What of the block is the calling thread's is not worth registers all the time: it is found again where it is wanted.
    const auto my_thread = [] { return int(thread_index() % S::THREADS); };
    for (int i = my_thread() % WARP; i < 3 * Head; i += WARP) all_sums[my_thread() / WARP * 3 * Head + i] = 0.0f;

    for (int index = problem.group(); index < n_items; index += n_groups) {
        // Opaque, or addresses for the next item take up registers all along.
        const Item item = find_item(work, cu_seqlens, opaque(index), n_items);
        const bf16* from = problem.qkv + item.start * 3 * hidden + problem.head() * Head;
        // Queries, dO and the rest of a turn; two turns have room.
        const auto q_of = [&](int turn) { return Tile<Head>{buffers + turn % 2 * 2 * TURN * Head}; };
        const auto d_out_of = [&](int turn) { return Tile<Head>{q_of(turn).base + TURN * Head}; };
        const auto rows_of = [&](int turn) {
            return RowScalars{scalars + turn % 2 * 2 * TURN, scalars + turn % 2 * 2 * TURN + TURN};
        };
        const auto keep_of = [&](int turn) { return KeepWords{words + turn % 2 * TURN * WORDS, TURN}; };
        // What of a turn comes by way of registers, while the turn before is worked on.
        struct Incoming {
            float lse, delta;
            i32 global_row;
        };
        const auto fetch = [&](int turn) {
            const int first = turn * TURN, left = item.len - first, thread = my_thread();
            const i64 token = item.start + first;
            const u32 head = problem.head();
            copy_tile<TURN, S::THREADS>(q_of(turn), from + first * 3 * hidden, 3 * hidden, left, thread);
            copy_tile<TURN, S::THREADS>(d_out_of(turn), problem.d_out + token * hidden + head * Head, hidden, left, thread);
            cp_async_commit();
            Incoming incoming{infinity(), 0.0f, 0};
            if (thread < TURN && thread < left) {
                const i64 at = (token + thread) * problem.n_heads + head;
                incoming.lse = problem.lse[at];
                incoming.delta = delta[at];
            }
            if (problem.drops()) {
                incoming.global_row =
                    KeepWords::global_row<S::WARPS>(problem, item, first, first + TURN, thread / WARP, thread % WARP);
            }
            return incoming;
        };
        const auto settle = [&](int turn, const Incoming& incoming) {
            const int thread = my_thread();
            if (thread < TURN) {
                rows_of(turn).lse2[thread] = incoming.lse * LOG2_E;
                rows_of(turn).delta[thread] = incoming.delta;
            }
            if (problem.drops()) {
                keep_of(turn).template draw<WORDS, S::WARPS>(problem, incoming.global_row, TURN, item.first / 128,
                                                             thread / WARP, thread % WARP);
            }
        };
        const bf16* keys = from + item.first * 3 * hidden + hidden;
        copy_tile<ITEM_ROWS, S::THREADS>(k, keys, 3 * hidden, item.len - item.first, my_thread());
        copy_tile<ITEM_ROWS, S::THREADS>(v, keys + hidden, 3 * hidden, item.len - item.first, my_thread());
        Incoming incoming = fetch(0);
        settle(0, incoming);

        KeyGradients<Head, S::M> gradients;
        gradients.clear();
        for (int turn = 0; turn * TURN < item.len; ++turn) {
            cp_async_wait<0>();
            // What arrived is there for all, and all are done with what the next turn overwrites.
            __syncthreads();
            const bool more = (turn + 1) * TURN < item.len;
            if (more) incoming = fetch(turn + 1);
#pragma unroll 1
            for (int query = 0; query < TURN; query += 16) {
                const int thread = my_thread(), row = thread / WARP * S::WARP_ROWS;
                const RowScalars rows{rows_of(turn).lse2 + query, rows_of(turn).delta + query};
                u32 d_s[S::M][1][4];
                take_queries(gradients, d_s, problem, rows, keep_of(turn).words + row / 32 * TURN + query, k, v, row,
                             q_of(turn), d_out_of(turn), query, item.len - item.first - row, thread % WARP);
            }
            if (more) settle(turn + 1, incoming);
        }
        const int thread = my_thread(), lane = thread % WARP, warp = thread / WARP, row = warp * S::WARP_ROWS;
        float* sums = all_sums + warp * 3 * Head;
        add_column_sums(sums + Head, gradients.d_k, problem.scale, lane);
        add_column_sums(sums + 2 * Head, gradients.d_v, problem.factor(), lane);
        __syncwarp();
        put_rows(k, row, 0, gradients.d_k, problem.scale, lane);
        put_rows(v, row, 0, gradients.d_v, problem.factor(), lane);
        __syncwarp();
        bf16* to = d_qkv + (item.start + item.first) * 3 * hidden + problem.head() * Head + hidden;
        write_rows<S::WARP_ROWS>(to, 3 * hidden, k, row, item.len - item.first, lane);
        write_rows<S::WARP_ROWS>(to + hidden, 3 * hidden, v, row, item.len - item.first, lane);
        __syncthreads();
    }
    write_sums<Head, S::WARPS>(partials, all_sums, problem, 1, 3);
}

#define BACKWARD_OF_HEAD(head)                      \
    BACKWARD(head, queries, backward_queries<head>) \
    BACKWARD(head, keys, backward_keys<head>)

#if WANTS_HEAD(32)
BACKWARD_OF_HEAD(32)
#endif
#if WANTS_HEAD(64)
BACKWARD_OF_HEAD(64)
#endif
#if WANTS_HEAD(128)
BACKWARD_OF_HEAD(128)
#endif
