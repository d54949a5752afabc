// The loss's scores inside their own product: what leaves a block is exponentials in bf16 and a few sums, never a score.
//
// With the shift c_i of a row, exps_ij = exp((s_ij - c_i) / t) of every candidate j but the positive, for which it is minus
// the sum of the others. The gradient of the score s_ij is exps_ij times the row's scale weight / (t sum), so whoever
// multiplies with it scales the other factor, or the result, by rows. The shift is known before the product: see
// info_nce_shift.
#include "info_nce.cuh"
#include "tiles.cuh"
#include "vectors.cuh"

// Rows and columns of a block's tile, those of a warp's part of it, and how far along the dimensions a turn goes.
constexpr int ROWS = 128, COLUMNS = 256, PART = 64, DEPTH = 32;
constexpr int WARPS = ROWS / PART * (COLUMNS / PART), THREADS = WARPS * WARP;
// Turns in shared memory: one is multiplied while the others arrive.
constexpr int STAGES = 3;
constexpr int STAGE_BYTES = (ROWS + COLUMNS) * DEPTH * 2;
// 16-byte pieces of a tile's row, and rows that a block copies at a time; the next ones lie alike in Tile's order.
constexpr int PIECES = DEPTH / 8, COPIED = THREADS / PIECES;
static_assert(COPIED % 8 == 0, "as the order has it");
// Rows of tiles that run together: theirs and the columns' operands stay in the second-level cache meanwhile.
constexpr int GROUP = 16;

// Rows of a block of the kernels that take a row a warp.
constexpr int ROWS_A_BLOCK = 8;
constexpr int ROWS_THREADS = ROWS_A_BLOCK * WARP;

// Largest exponent that a shift leaves: exp(70) is 2^101, and sums of 2^26 such numbers are finite.
constexpr float REACH = 70.0f;

// What the product needs of a row.
struct RowMask {
    float shift;
    // Larger cosines are left out.
    float limit;
    i32 label;
    u32 rejected_from, n_rejected;
    // Whether the row has bits of columns that are left out; rows beyond the last have none.
    bool has_bits;
};

// Sums over a row's candidates but the positive: of exponentials, of those times how far they are above the shift, of how
// far they are above it, and of ones.
struct Sums {
    static constexpr int N = 4;
    float others, moment, above, count;

    __device__ static inline Sums load(const float* from) {
        const Vector<float, N> x = load_vector<N>(from);
        return Sums{x.v[0], x.v[1], x.v[2], x.v[3]};
    }
    __device__ inline Vector<float, N> vector() const { return Vector<float, N>{{others, moment, above, count}}; }

    __device__ inline void add(const Sums& x) {
        others += x.others;
        moment += x.moment;
        above += x.above;
        count += x.count;
    }
};

__device__ inline float warp_dot(const bf16* a, const bf16* b, i64 d) {
    float sum = 0.0f;
    for (i64 at = threadIdx.x % WARP * 8; at < d; at += WARP * 8) {
        float x[8], y[8];
        widen<8>(load_raw<8>(a + at), x);
        widen<8>(load_raw<8>(b + at), y);
#pragma unroll
        for (int i = 0; i < 8; ++i) sum = fmaf(x[i], y[i], sum);
    }
    return warp_sum(sum);
}

// stats (rows, STATS) of queries (rows, d) and candidates (n, d): the positive's cosine in its place and, where the loss will
// be, the shift. The shift is the positive's logit where no cosine, which is 1 at most, can be so far above that its
// exponential overflows: then the loss is ln(1 + sum of the others). Otherwise it is as far below 1 as that allows, and where
// the positive's own exponential would be lost then, the row's largest logit, found by going through all columns. Launched
// with ROWS_A_BLOCK rows a block.
KERNEL_MIN_BLOCKS(info_nce_shift, ROWS_THREADS, 4, float* stats, const bf16* queries, const bf16* candidates, MASKS,
                  float inv_temperature, i64 rows, i64 n, i64 d) {
    const i64 row = i64(blockIdx.x) * ROWS_A_BLOCK + threadIdx.x / WARP;
    if (row >= rows) return;
    const Masks masks = MASKS_GIVEN;
    const bf16* query = queries + row * d;
    const float positive = warp_dot(query, candidates + masks.positive_of(row) * d, d);
    const float logit = positive - margin, reach = REACH / inv_temperature;
    float c = fmaxf(logit, 1.0f - reach);
    if (c - logit > reach) {
        const Mask mask = masks.of(row, positive);
        c = logit;
#pragma unroll 1
        for (i64 column = 0; column < n; ++column) {
            c = fmaxf(c, mask.logit(warp_dot(query, candidates + column * d, d), int(column)));
        }
    }
    const int lane = threadIdx.x % WARP;
    if (lane < 2) stats[STATS * row + lane] = lane == 0 ? c : positive;
}

// Labels of two columns.
using Pair = Vector<i32, 2>;

// Leaves out those of a lane's scores in a row whose bits are set. Before anything is added up: registers are few.
__device__ __forceinline__ void take_bits(float (&s)[PART / 8][4], int half, const i32* bits, i64 column, i64 n) {
#pragma unroll
    for (int j = 0; j < PART / 8; ++j) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
            const i64 at = column + 8 * j + i % 2;
            if (at < n && is_set(bits, int(at), 0)) s[j][i] = left_out();
        }
    }
}

// Turns a lane's scores in 16 rows, from rows `row` and `row` + 8 of the tile and its column `column` on, into exponentials,
// and adds them up. Masked: one by one, as some are left out. `first_row` and `first_column` are those of the tile.
template <bool Masked>
__device__ __forceinline__ void take_rows(float (&s)[PART / 8][4], Sums (&sums)[2], const RowMask* rows, const Pair* labels,
                                          const Masks& masks, float factor, int row, int column, i64 first_row,
                                          i64 first_column, i64 n) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const RowMask mask = rows[row + 8 * half];
        const u32 positive = u32(masks.positive_of(first_row + row + 8 * half));
        if (Masked && mask.has_bits) take_bits(s, half, masks.bits_of(first_row + row + 8 * half), first_column + column, n);
        Sums sum{0.0f, 0.0f, 0.0f, Masked ? 0.0f : float(PART / 4)};
#pragma unroll
        for (int j = 0; j < PART / 8; ++j) {
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; ++i) {
                const float above = s[j][i] - mask.shift;
                float p = exp2_fast(above * factor);
                if (Masked) {
                    const int here = column + 8 * j + i % 2;
                    const u32 at = u32(first_column) + here;
                    const bool counts = (at < u32(n)) & (at != positive) & (labels[here / 2].v[i % 2] != mask.label) &
                                        !(s[j][i] > mask.limit) & (at - mask.rejected_from >= mask.n_rejected) &
                                        (at - u32(masks.skipped_from) >= u32(masks.skipped_to - masks.skipped_from)) &
                                        (s[j][i] > LOWEST);
                    p = counts ? p : 0.0f;
                    sum.above += counts ? above : 0.0f;
                    sum.count += counts ? 1.0f : 0.0f;
                } else {
                    sum.above += above;
                }
                sum.others += p;
                sum.moment = fmaf(p, above, sum.moment);
                s[j][i] = p;
            }
        }
        sums[half] = sum;
    }
}

// Copies a thread's 16 bytes of every COPIED-th of Rows rows, `stride` elements long, as far as there are rows, and zeros
// beyond. Finished after a wait.
template <int Rows> __device__ inline void copy_rows(bf16* to, const bf16* from, i64 stride, int n_rows) {
#pragma unroll
    for (int i = 0; i < Rows; i += COPIED) cp_async_16(to + i * DEPTH, from + i * stride, i < n_rows);
}

// exps (rows, n), sums (rows, tiles across, Sums::N), queries (rows, d), candidates (n, d), stats as of info_nce_shift; d is
// a multiple of 8. Launched with a block for every tile.
KERNEL_MIN_BLOCKS(info_nce_exps, THREADS, 1, bf16* exps, float* sums, const bf16* queries, const bf16* candidates,
                  const float* stats, MASKS, float inv_temperature, i64 rows, i64 n, i64 d) {
    // The last turn's tiles make room for the results, (PART, PART) a warp, and the warps' sums.
    constexpr int RESULT_BYTES = WARPS * PART * PART * 2;
    constexpr int SUMS_BYTES = COLUMNS / PART * ROWS * Sums::N * int(sizeof(float));
    static_assert(RESULT_BYTES + SUMS_BYTES <= STAGES * STAGE_BYTES, "results lie where operands did");
    DYNAMIC_SHARED(memory, STAGES * STAGE_BYTES);
    SHARED(RowMask, row_masks, ROWS);
    SHARED(Pair, labels, COLUMNS / 2);
    const Masks masks = MASKS_GIVEN;
    const int thread = threadIdx.x, lane = thread % WARP, warp = thread / WARP;
    const i64 across = (n + COLUMNS - 1) / COLUMNS, down = (rows + ROWS - 1) / ROWS;
    const i64 group = blockIdx.x / (GROUP * across), in_group = blockIdx.x % (GROUP * across);
    const i64 height = min(i64(GROUP), down - group * GROUP);
    const i64 tile = in_group / height;
    const i64 first_row = (group * GROUP + in_group % height) * ROWS, first_column = tile * COLUMNS;
    const int n_rows = int(min(i64(ROWS), rows - first_row)), n_columns = int(min(i64(COLUMNS), n - first_column));

    const auto left = [&](int turn) { return Tile<DEPTH>{reinterpret_cast<bf16*>(memory + turn % STAGES * STAGE_BYTES)}; };
    const auto right = [&](int turn) { return Tile<DEPTH>{left(turn).base + ROWS * DEPTH}; };
    const int n_turns = int((d + DEPTH - 1) / DEPTH);
    // A thread's row, and its piece of that.
    const int copied_row = thread / PIECES, copied = thread % PIECES;
    const bf16* const query = queries + (first_row + copied_row) * d + copied * 8;
    const bf16* const candidate = candidates + (first_column + copied_row) * d + copied * 8;
    const auto copy = [&](int turn) {
        if (turn < n_turns) {
            const int at = turn * DEPTH;
            const bool is_there = at + copied * 8 < d;
            copy_rows<ROWS>(left(turn).piece(copied_row, copied), query + at, d, is_there ? n_rows - copied_row : 0);
            copy_rows<COLUMNS>(right(turn).piece(copied_row, copied), candidate + at, d,
                               is_there ? n_columns - copied_row : 0);
        }
        cp_async_commit();
    };
#pragma unroll
    for (int turn = 0; turn < STAGES - 1; ++turn) copy(turn);
    for (int i = thread; i < ROWS; i += THREADS) {
        RowMask mask{0.0f, 0.0f, 0, 0, 0, false};
        if (i < n_rows) {
            const i64 row = first_row + i;
            const Mask of_row = masks.of(row, stats[STATS * row + 1]);
            mask = RowMask{stats[STATS * row],   of_row.limit,      of_row.label,
                           of_row.rejected_from, of_row.n_rejected, left_out != nullptr};
        }
        row_masks[i] = mask;
    }
    for (int i = thread; i < COLUMNS; i += THREADS) {
        labels[i / 2].v[i % 2] = i < n_columns ? column_labels[first_column + i] : 0;
    }

    const int part_row = warp / (COLUMNS / PART) * PART, part_column = warp % (COLUMNS / PART) * PART;
    float s[PART / 16][PART / 8][4];
    clear(s);
    for (int turn = 0; turn < n_turns; ++turn) {
        cp_async_wait<STAGES - 2>();
        // Everybody's copies are there, and nobody reads any more what the next ones overwrite.
        __syncthreads();
        copy(turn + STAGES - 1);
        add_row_products(s, left(turn), part_row, right(turn), part_column, lane);
    }
    cp_async_wait<0>();
    __syncthreads();

    // Whether any column may be left out for another reason than its label and its cosine, or is a positive.
    const i64 row = first_row + part_row, column = first_column + part_column;
    bool special = column + PART > n || (skipped_from < min(skipped_to, column + PART) && skipped_to > column) ||
                   (first_positive + row < column + PART && first_positive + row + PART > column);
    for (int i = lane; i < PART; i += WARP) {
        const RowMask& mask = row_masks[part_row + i];
        special |= mask.n_rejected > 0 && i64(mask.rejected_from) < column + PART &&
                   i64(mask.rejected_from) + mask.n_rejected > column;
        // The part's columns are whole words.
        for (int word = 0; mask.has_bits && word < PART / WORD_BITS; ++word) {
            const i64 at = column / WORD_BITS + word;
            special |= at < words_a_row && masks.bits_of(row + i)[at] != 0;
        }
    }
    special = __any_sync(ALL_LANES, special);

    const float factor = inv_temperature * LOG2_E;
    const int my_row = part_row + lane / 4, my_column = part_column + lane % 4 * 2;
    float* const of_parts = reinterpret_cast<float*>(memory + RESULT_BYTES);
    float* const of_part = of_parts + part_column / PART * ROWS * Sums::N;
#pragma unroll
    for (int m = 0; m < PART / 16; ++m) {
        bool masked = special;
        if (!special) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const i32 label = row_masks[my_row + 16 * m + 8 * half].label;
                const float limit = row_masks[my_row + 16 * m + 8 * half].limit;
#pragma unroll
                for (int j = 0; j < PART / 8; ++j) {
                    const Pair two = load_vector<2>(labels[my_column / 2 + 4 * j].v);
#pragma unroll
                    for (int i = 0; i < 2; ++i) masked |= (two.v[i] == label) | (s[m][j][2 * half + i] > limit);
                }
            }
            masked = __any_sync(ALL_LANES, masked);
        }
        Sums of_lane[2];
        if (masked) {
            take_rows<true>(s[m], of_lane, row_masks, labels, masks, factor, my_row + 16 * m, my_column, first_row,
                            first_column, n);
        } else {
            take_rows<false>(s[m], of_lane, row_masks, labels, masks, factor, my_row + 16 * m, my_column, first_row,
                             first_column, n);
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            Sums sum = of_lane[half];
#pragma unroll
            for (int lanes = 1; lanes < 4; lanes *= 2) {
                sum.add(Sums{__shfl_xor_sync(ALL_LANES, sum.others, lanes), __shfl_xor_sync(ALL_LANES, sum.moment, lanes),
                             __shfl_xor_sync(ALL_LANES, sum.above, lanes), __shfl_xor_sync(ALL_LANES, sum.count, lanes)});
            }
            if (lane % 4 == 0) store_vector(of_part + (my_row + 16 * m + 8 * half) * Sums::N, sum.vector());
        }
    }

    const Tile<PART> results{reinterpret_cast<bf16*>(memory) + warp * PART * PART};
    put_rows(results, 0, 0, s, 1.0f, lane);
    __syncwarp();
    const int rows_here = n_rows - part_row, columns_here = n_columns - part_column;
    bf16* to = exps + row * n + column;
    if (n % 8 == 0) {
        write_rows<PART>(to, n, results, 0, rows_here, lane, columns_here);
    } else {
#pragma unroll 1
        for (int i = lane; i < PART * PART; i += WARP) {
            const int r = i / PART, c = i % PART;
            if (r < rows_here && c < columns_here) to[r * n + c] = results.piece(r, c / 8)[c % 8];
        }
    }
    __syncthreads();
    if (thread < n_rows) {
        Sums sum = Sums::load(of_parts + thread * Sums::N);
#pragma unroll
        for (int i = 1; i < COLUMNS / PART; ++i) sum.add(Sums::load(of_parts + (i * ROWS + thread) * Sums::N));
        store_global(sums + ((first_row + thread) * across + tile) * Sums::N, sum.vector());
    }
}

// stats (rows, STATS), of which there is what info_nce_shift wrote, scale (rows,) and the positives' places in exps
// (rows, n), from sums (rows, tiles, Sums::N). Launched with ROWS_A_BLOCK rows a block.
KERNEL(info_nce_finish, ROWS_THREADS, float* stats, float* scale, bf16* exps, const float* sums, float margin,
       i64 first_positive, float inv_temperature, float weight, i64 rows, i64 n, i64 tiles) {
    const i64 row = i64(blockIdx.x) * ROWS_A_BLOCK + threadIdx.x / WARP;
    if (row >= rows) return;
    Sums sum{0.0f, 0.0f, 0.0f, 0.0f};
    for (i64 tile = threadIdx.x % WARP; tile < tiles; tile += WARP)
        sum.add(Sums::load(sums + (row * tiles + tile) * Sums::N));
    const float others = warp_sum(sum.others), moment = warp_sum(sum.moment);
    const float above = warp_sum(sum.above), count = warp_sum(sum.count);
    // Read by the lane that writes it, before it does.
    const int lane = threadIdx.x % WARP;
    float* const of_row = stats + STATS * row;
    const float c = __shfl_sync(ALL_LANES, lane == 0 ? of_row[0] : 0.0f, 0);
    const float positive = __shfl_sync(ALL_LANES, lane == 0 ? of_row[1] : 0.0f, 0);
    const float logit = positive - margin, excess = (c - logit) * inv_temperature;
    const float total = others + exp2_fast((logit - c) * inv_temperature * LOG2_E);
    const float loss = others == 0.0f ? 0.0f : excess == 0.0f ? log1pf(others) : logf(total) + excess;
    const float sum_of_cosines = fmaf(count, c, above), derivative = fmaf(others, c - logit, moment) / total;
    if (lane < STATS && lane != 1) {
        of_row[lane] = lane == 0 ? loss : lane == 2 ? sum_of_cosines : lane == 3 ? count : derivative;
    }
    if (lane == 0) {
        scale[row] = weight * inv_temperature / total;
        exps[row * n + first_positive + row] = from_float<bf16>(-others);
    }
}
