// Attention as in attention_forward.cu and attention_backward.cu, for any head size up to 256 and both types, in f32
// throughout: what --precision f32 runs on, and bf16 models with unusual heads. No tensor cores.
//
// A block takes one head of its items one after another, four rows a warp at a time, queries or keys. A warp
// goes through the rows of the other kind 32 at a time: a lane computes the scores of one, then has a share of the columns.

#include "common.cuh"
#include "philox.cuh"
#include "reduce.cuh"

// At most; as many warps as the longest sequence has work for.
constexpr int THREADS = 128;
// Rows of a warp.
constexpr int R = 4;
// Rows of the item; as in attention_work of src/backend/ops.rs.
constexpr int ITEM_ROWS = 128;
// Columns of a lane: head sizes up to 256.
constexpr int COLUMNS = 8;
constexpr int MAX_HEAD_SIZE = COLUMNS * WARP;

// Dynamic shared memory for `rows` of a block: their weights, `own` tensors' rows, and twice 32 of the other kind.
__device__ constexpr int shared_bytes(int rows, int own, int head_size) {
    return 4 * (WARP * rows + own * rows * head_size + 2 * WARP * (head_size | 1));
}
constexpr int MAX_ROWS = THREADS / WARP * R;

// One head of the batch, as the kernels' parameters give it.
template <class E> struct Problem {
    const E* qkv;
    const E* out;
    const E* d_out;
    const float* lse;
    const i32* global_rows;
    Dropout dropout;
    float scale;
    i64 n_heads;
    int head_size;
    u32 head;

    __device__ i64 hidden() const { return n_heads * head_size; }
    // Part 0, 1, 2: query, key, value.
    __device__ i64 qkv_offset(i64 token, int part) const { return (token * 3 + part) * hidden() + head * head_size; }
    __device__ i64 out_offset(i64 token) const { return token * hidden() + head * head_size; }
    __device__ i64 scalar_offset(i64 token) const { return token * n_heads + head; }

    __device__ float factor(i64 query_token, int key) const {
        return dropout.threshold == 0 ? 1.0f : dropout_factor(dropout, global_rows[query_token], head, key);
    }
};

// The tokens of an item: those of the sequence, and the rows first .. end of it.
struct Item {
    i64 start;
    int len;
    int first;
    int end;
};

__device__ inline Item find_item(const i32* work, const i32* cu_seqlens, i64 index) {
    const i32 sequence = work[2 * index], start = cu_seqlens[sequence], len = cu_seqlens[sequence + 1] - start;
    const int first = work[2 * index + 1];
    return Item{start, len, first, len < first + ITEM_ROWS ? len : first + ITEM_ROWS};
}

// Rows in shared memory, an odd number of floats apart where lanes read one row each.
struct Rows {
    float* base;
    int stride;

    __device__ float* row(int i) const { return base + i * stride; }

    // Rows `stride` elements apart, times `scale`; zeros beyond `n_valid`.
    template <class E>
    __device__ void load(const E* from, i64 from_stride, int n_rows, int n_valid, int width, float scale) const {
        for (int i = threadIdx.x; i < n_rows * width; i += blockDim.x) {
            const int r = i / width, column = i % width;
            row(r)[column] = r < n_valid ? to_float(from[r * from_stride + column]) * scale : 0.0f;
        }
    }
};

__device__ inline float dot(const float* a, const float* b, int n) {
    float sum = 0.0f;
    for (int i = 0; i < n; ++i) sum = fmaf(a[i], b[i], sum);
    return sum;
}

__device__ inline void clear(float (&x)[R][COLUMNS]) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
#pragma unroll
        for (int i = 0; i < COLUMNS; ++i) x[r][i] = 0.0f;
    }
}

// A number of each lane for each of its warp's rows, for the warp's other lanes.
struct Weights {
    float* base;

    __device__ void put(const float (&x)[R]) const {
        // Others' reads of what was there are over.
        __syncwarp();
        Vector<float, R> mine;
#pragma unroll
        for (int r = 0; r < R; ++r) mine.v[r] = x[r];
        store_vector(base + threadIdx.x * R, mine);
        __syncwarp();
    }

    __device__ Vector<float, R> of(int lane) const { return load_vector<R>(base + (threadIdx.x / WARP * WARP + lane) * R); }
};

// out[r] += the sum over the first n lanes of their weights[r] times their rows of x. Lane l has columns l, l + 32, ...
__device__ inline void add_weighted_rows(float (&out)[R][COLUMNS], const Weights& weights, const float (&mine)[R],
                                         const Rows& x, int n, int width) {
    const int lane = threadIdx.x % WARP;
    weights.put(mine);
    for (int j = 0; j < n; ++j) {
        const Vector<float, R> w = weights.of(j);
#pragma unroll
        for (int i = 0; i < COLUMNS; ++i) {
            const int column = lane + WARP * i;
            if (column < width) {
                const float value = x.row(j)[column];
#pragma unroll
                for (int r = 0; r < R; ++r) out[r][i] = fmaf(w.v[r], value, out[r][i]);
            }
        }
    }
}

template <class E>
__device__ inline void forward(E* out, float* lse, const Problem<E>& problem, const i32* work, const i32* cu_seqlens,
                               i64 n_items, i64 n_groups) {
    const int block_rows = blockDim.x / WARP * R;
    DYNAMIC_SHARED(shared, shared_bytes(MAX_ROWS, 1, MAX_HEAD_SIZE), shared_bytes(block_rows, 1, problem.head_size));
    const int width = problem.head_size, lane = threadIdx.x % WARP, row = threadIdx.x / WARP * R;
    const i64 stride = 3 * problem.hidden();
    const Weights weights{reinterpret_cast<float*>(shared)};
    const Rows k{weights.base + blockDim.x * R, width | 1}, v{k.row(WARP), width | 1}, q{v.row(WARP), width};

    for (i64 index = blockIdx.x / u32(problem.n_heads); index < n_items; index += n_groups) {
        const Item item = find_item(work, cu_seqlens, index);
        for (int first = item.first; first < item.end; first += block_rows) {
            const i64 token = item.start + first;
            q.load(problem.qkv + problem.qkv_offset(token, 0), stride, block_rows, item.end - first, width, problem.scale);
            float sums[R][COLUMNS], largest[R], total[R];
            clear(sums);
#pragma unroll
            for (int r = 0; r < R; ++r) largest[r] = __uint_as_float(0xFF800000), total[r] = 0.0f;
            for (int key = 0; key < item.len; key += WARP) {
                const int n = item.len - key < WARP ? item.len - key : WARP;
                k.load(problem.qkv + problem.qkv_offset(item.start + key, 1), stride, WARP, n, width, 1.0f);
                v.load(problem.qkv + problem.qkv_offset(item.start + key, 2), stride, WARP, n, width, 1.0f);
                __syncthreads();
                float p[R];
#pragma unroll
                for (int r = 0; r < R; ++r) {
                    p[r] = 0.0f;
                    if (first + row + r >= item.end) continue;
                    const float score = lane < n ? dot(q.row(row + r), k.row(lane), width) : __uint_as_float(0xFF800000);
                    const float top = fmaxf(largest[r], warp_max(score)), correction = expf(largest[r] - top);
                    largest[r] = top;
                    p[r] = expf(score - top);
                    total[r] = fmaf(total[r], correction, p[r]);
                    if (lane < n) p[r] *= problem.factor(token + row + r, key + lane);
#pragma unroll
                    for (int i = 0; i < COLUMNS; ++i) sums[r][i] *= correction;
                }
                if (first + row < item.end) add_weighted_rows(sums, weights, p, v, n, width);
                __syncthreads();
            }
#pragma unroll
            for (int r = 0; r < R; ++r) {
                if (first + row + r >= item.end) continue;
                const float sum = warp_sum(total[r]);
                const i64 mine = token + row + r;
                if (lane == 0) lse[problem.scalar_offset(mine)] = largest[r] + logf(sum);
#pragma unroll
                for (int i = 0; i < COLUMNS; ++i) {
                    const int column = lane + WARP * i;
                    if (column < width) out[problem.out_offset(mine) + column] = from_float<E>(sums[r][i] / sum);
                }
            }
        }
    }
}

// Writes a warp's rows of part `part` of the gradient, times `scale`, and adds them to the lane's sums over rows.
template <class E>
__device__ inline void write_gradient(E* d_qkv, float (&sums)[COLUMNS], const float (&x)[R][COLUMNS],
                                      const Problem<E>& problem, i64 token, int n_rows, int part, float scale) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
        if (r >= n_rows) continue;
#pragma unroll
        for (int i = 0; i < COLUMNS; ++i) {
            const int column = threadIdx.x % WARP + WARP * i;
            if (column >= problem.head_size) continue;
            sums[i] += x[r][i] * scale;
            d_qkv[problem.qkv_offset(token + r, part) + column] = from_float<E>(x[r][i] * scale);
        }
    }
}

// The block's sums over rows, to its place among the partial sums.
template <class E>
__device__ inline void write_sums(float* partials, const float (&sums)[COLUMNS], float* shared, const Problem<E>& problem,
                                  int part) {
    const int width = problem.head_size;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < COLUMNS; ++i) {
        const int column = threadIdx.x % WARP + WARP * i;
        if (column < width) shared[threadIdx.x / WARP * width + column] = sums[i];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        float sum = 0.0f;
        for (int warp = 0; warp < int(blockDim.x) / WARP; ++warp) sum += shared[warp * width + i];
        partials[problem.qkv_offset(0, part) + i] = sum;
    }
}

// P of a score, and dS; `factor` is dropout's.
struct SoftmaxGradient {
    float p;
    float d_s;
};
__device__ inline SoftmaxGradient softmax_gradient(float score, float d_p, float lse, float delta, float factor) {
    const float soft = expf(score - lse);
    return SoftmaxGradient{soft * factor, soft * (d_p * factor - delta)};
}

// dQ, and delta = rowsum(dO O).
template <class E>
__device__ inline void backward_queries(E* d_qkv, float* delta, float* partials, const Problem<E>& problem, const i32* work,
                                        const i32* cu_seqlens, i64 n_items, i64 n_groups) {
    const int block_rows = blockDim.x / WARP * R;
    DYNAMIC_SHARED(shared, shared_bytes(MAX_ROWS, 2, MAX_HEAD_SIZE), shared_bytes(block_rows, 2, problem.head_size));
    const int width = problem.head_size, lane = threadIdx.x % WARP, row = threadIdx.x / WARP * R;
    const i64 stride = 3 * problem.hidden(), group = blockIdx.x / u32(problem.n_heads);
    const Weights weights{reinterpret_cast<float*>(shared)};
    const Rows k{weights.base + blockDim.x * R, width | 1}, v{k.row(WARP), width | 1}, q{v.row(WARP), width},
        d_out{q.row(block_rows), width};
    float column_sums[COLUMNS] = {};

    for (i64 index = group; index < n_items; index += n_groups) {
        const Item item = find_item(work, cu_seqlens, index);
        for (int first = item.first; first < item.end; first += block_rows) {
            const i64 token = item.start + first;
            const int n_rows = item.end - first;
            q.load(problem.qkv + problem.qkv_offset(token, 0), stride, block_rows, n_rows, width, problem.scale);
            d_out.load(problem.d_out + problem.out_offset(token), problem.hidden(), block_rows, n_rows, width, 1.0f);
            __syncthreads();
            float d_q[R][COLUMNS], row_lse[R], row_delta[R];
            clear(d_q);
#pragma unroll
            for (int r = 0; r < R; ++r) {
                row_lse[r] = row_delta[r] = 0.0f;
                if (row + r >= n_rows) continue;
                const i64 at = problem.scalar_offset(token + row + r);
                row_lse[r] = problem.lse[at];
                const E* out = problem.out + problem.out_offset(token + row + r);
                float sum = 0.0f;
                for (int i = lane; i < width; i += WARP) sum = fmaf(d_out.row(row + r)[i], to_float(out[i]), sum);
                row_delta[r] = warp_sum(sum);
                if (lane == 0) delta[at] = row_delta[r];
            }
            for (int key = 0; key < item.len; key += WARP) {
                const int n = item.len - key < WARP ? item.len - key : WARP;
                k.load(problem.qkv + problem.qkv_offset(item.start + key, 1), stride, WARP, n, width, 1.0f);
                v.load(problem.qkv + problem.qkv_offset(item.start + key, 2), stride, WARP, n, width, 1.0f);
                __syncthreads();
                float d_s[R];
#pragma unroll
                for (int r = 0; r < R; ++r) {
                    d_s[r] = 0.0f;
                    if (row + r < n_rows && lane < n) {
                        const float score = dot(q.row(row + r), k.row(lane), width);
                        const float d_p = dot(d_out.row(row + r), v.row(lane), width);
                        const float factor = problem.factor(token + row + r, key + lane);
                        d_s[r] = softmax_gradient(score, d_p, row_lse[r], row_delta[r], factor).d_s;
                    }
                }
                if (row < n_rows) add_weighted_rows(d_q, weights, d_s, k, n, width);
                __syncthreads();
            }
            write_gradient(d_qkv, column_sums, d_q, problem, token + row, n_rows - row, 0, problem.scale);
        }
    }
    write_sums(partials + group * stride, column_sums, reinterpret_cast<float*>(shared), problem, 0);
}

// dK and dV.
template <class E>
__device__ inline void backward_keys(E* d_qkv, const float* delta, float* partials, const Problem<E>& problem,
                                     const i32* work, const i32* cu_seqlens, i64 n_items, i64 n_groups) {
    const int block_rows = blockDim.x / WARP * R;
    DYNAMIC_SHARED(shared, shared_bytes(MAX_ROWS, 2, MAX_HEAD_SIZE), shared_bytes(block_rows, 2, problem.head_size));
    const int width = problem.head_size, lane = threadIdx.x % WARP, row = threadIdx.x / WARP * R;
    const i64 stride = 3 * problem.hidden(), group = blockIdx.x / u32(problem.n_heads);
    const Weights weights{reinterpret_cast<float*>(shared)};
    const Rows q{weights.base + blockDim.x * R, width | 1}, d_out{q.row(WARP), width | 1}, k{d_out.row(WARP), width},
        v{k.row(block_rows), width};
    float k_sums[COLUMNS] = {}, v_sums[COLUMNS] = {};

    for (i64 index = group; index < n_items; index += n_groups) {
        const Item item = find_item(work, cu_seqlens, index);
        for (int first = item.first; first < item.end; first += block_rows) {
            const i64 token = item.start + first;
            const int n_rows = item.end - first;
            k.load(problem.qkv + problem.qkv_offset(token, 1), stride, block_rows, n_rows, width, 1.0f);
            v.load(problem.qkv + problem.qkv_offset(token, 2), stride, block_rows, n_rows, width, 1.0f);
            float d_k[R][COLUMNS], d_v[R][COLUMNS];
            clear(d_k);
            clear(d_v);
            for (int query = 0; query < item.len; query += WARP) {
                const int n = item.len - query < WARP ? item.len - query : WARP;
                const i64 mine = item.start + query + lane;
                q.load(problem.qkv + problem.qkv_offset(item.start + query, 0), stride, WARP, n, width, problem.scale);
                d_out.load(problem.d_out + problem.out_offset(item.start + query), problem.hidden(), WARP, n, width, 1.0f);
                __syncthreads();
                float p[R], d_s[R];
#pragma unroll
                for (int r = 0; r < R; ++r) {
                    p[r] = d_s[r] = 0.0f;
                    if (row + r < n_rows && lane < n) {
                        const i64 at = problem.scalar_offset(mine);
                        const float score = dot(k.row(row + r), q.row(lane), width);
                        const float d_p = dot(v.row(row + r), d_out.row(lane), width);
                        const float factor = problem.factor(mine, first + row + r);
                        const SoftmaxGradient result = softmax_gradient(score, d_p, problem.lse[at], delta[at], factor);
                        p[r] = result.p;
                        d_s[r] = result.d_s;
                    }
                }
                if (row < n_rows) {
                    add_weighted_rows(d_v, weights, p, d_out, n, width);
                    add_weighted_rows(d_k, weights, d_s, q, n, width);
                }
                __syncthreads();
            }
            // The scale came with the queries.
            write_gradient(d_qkv, k_sums, d_k, problem, token + row, n_rows - row, 1, 1.0f);
            write_gradient(d_qkv, v_sums, d_v, problem, token + row, n_rows - row, 2, 1.0f);
        }
    }
    write_sums(partials + group * stride, k_sums, reinterpret_cast<float*>(shared), problem, 1);
    write_sums(partials + group * stride, v_sums, reinterpret_cast<float*>(shared), problem, 2);
}

#define ANY(E, suffix)                                                                                                 \
    KERNEL(attention_any_forward_##suffix, THREADS, E* __restrict__ out, float* __restrict__ lse,                      \
           const E* __restrict__ qkv, const i32* __restrict__ work, const i32* __restrict__ cu_seqlens,                \
           const i32* __restrict__ global_rows, Dropout dropout, float scale, i64 n_heads, i64 head_size, i64 n_items, \
           i64 n_groups) {                                                                                             \
        const u32 head = blockIdx.x % u32(n_heads);                                                                    \
        const Problem<E> problem{                                                                                      \
            qkv, nullptr, nullptr, nullptr, global_rows, dropout, scale, n_heads, int(head_size), head};               \
        forward(out, lse, problem, work, cu_seqlens, n_items, n_groups);                                               \
    }                                                                                                                  \
    ANY_BACKWARD(E, suffix, queries)                                                                                   \
    ANY_BACKWARD(E, suffix, keys)

// `scratch` as in attention_backward.cu.
#define ANY_BACKWARD(E, suffix, name)                                                                                  \
    KERNEL(attention_any_backward_##name##_##suffix, THREADS, E* __restrict__ d_qkv, float* __restrict__ scratch,      \
           const E* __restrict__ qkv, const E* __restrict__ out, const E* __restrict__ d_out,                          \
           const float* __restrict__ lse, const i32* __restrict__ work, const i32* __restrict__ cu_seqlens,            \
           const i32* __restrict__ global_rows, Dropout dropout, float scale, i64 n_heads, i64 head_size, i64 n_items, \
           i64 n_groups, i64 n_delta) {                                                                                \
        const u32 head = blockIdx.x % u32(n_heads);                                                                    \
        const Problem<E> problem{qkv, out, d_out, lse, global_rows, dropout, scale, n_heads, int(head_size), head};    \
        backward_##name(d_qkv, scratch, scratch + n_delta, problem, work, cu_seqlens, n_items, n_groups);              \
    }

#if WANTS_F32
ANY(float, f32)
#endif
#if WANTS_BF16
ANY(bf16, bf16)
#endif
