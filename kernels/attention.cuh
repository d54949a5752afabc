// What the attention kernels for tensor cores share: who computes what, and products with what tensor cores gave.
//
// A batch is packed: sequence s is the tokens cu_seqlens[s] .. cu_seqlens[s + 1]. `qkv` (T, 3 H) holds every token's query,
// key and value, head h of each in columns h * Head and on. The work list has an item for every 128 tokens of a sequence:
// (sequence, first row within it), longest sequence first. Kernels get a range of it whose sequences are of one class of
// length, and a block takes one head of one or a few items.
//
// A warp owns 16 M rows, of queries or of keys, against 32 or 64 of the other at a time. Scores are computed twice or
// three times rather than kept; exponentials are powers of two, the factor log2 e being part of the scores' scale.
#pragma once

#include "common.cuh"
#include "philox.cuh"
#include "tiles.cuh"

// Rows of an item; as in attention_work of src/backend/ops.rs.
constexpr int ITEM_ROWS = 128;

__device__ inline float infinity() { return __uint_as_float(0x7F800000); }

// Sizes for one head size: tiles of 16 rows that a warp owns, and threads in a block, which together own 128 rows.
template <int Head> struct Shape {
    static constexpr int M = Head <= 64 ? 2 : 1;
    static constexpr int WARP_ROWS = 16 * M;
    static constexpr int WARPS = ITEM_ROWS / WARP_ROWS;
    static constexpr int THREADS = WARPS * WARP;
    // Elements of a tile of 128 rows.
    static constexpr int TILE = ITEM_ROWS * Head;
    // Dynamic shared memory forward: q, k and v; or q, and twice k and v of 64 rows.
    static constexpr int FORWARD_BYTES = 3 * TILE * sizeof(bf16);
    // Rows of the other kind that backward takes at a time from long sequences, so that 99 KiB of shared memory are enough.
    static constexpr int TURN = Head <= 64 ? 32 : 16;
};

// Where an item's tokens are.
struct Item {
    // First token of the sequence.
    i32 start;
    // Tokens of the sequence; 0: there is nothing to do.
    int len;
    // First row of the item within the sequence.
    int first;
};

__device__ inline Item find_item(const i32* work, const i32* cu_seqlens, int index, int n_items) {
    if (index >= n_items) return Item{0, 0, 0};
    const i32 sequence = work[2 * index], start = cu_seqlens[sequence];
    return Item{start, cu_seqlens[sequence + 1] - start, work[2 * index + 1]};
}

// Waits for the other warps of a group of Warps that shares an item. Every thread of the block gets here.
template <int Warps> __device__ inline void sync_group() {
    if constexpr (Warps == 1) {
        __syncwarp();
    } else {
        __syncthreads();
    }
}

// What the tensor cores gave, (16, 16), as a left factor of another product.
__device__ inline void pack_tile(u32 (&out)[4], const float (&left)[4], const float (&right)[4]) {
    out[0] = pack_bf16x2(left[0], left[1]);
    out[1] = pack_bf16x2(left[2], left[3]);
    out[2] = pack_bf16x2(right[0], right[1]);
    out[3] = pack_bf16x2(right[2], right[3]);
}

// The same of (16 M, 8 N).
template <int M, int N> __device__ inline void pack_rows(u32 (&out)[M][N / 2][4], const float (&x)[M][N][4]) {
#pragma unroll
    for (int m = 0; m < M; ++m) {
#pragma unroll
        for (int k = 0; k < N / 2; ++k) pack_tile(out[m][k], x[m][2 * k], x[m][2 * k + 1]);
    }
}

// out (16 M, Width) += weights (16 M, 16 K) times the 16 K rows of x from `row` on.
template <int M, int K, int Width>
__device__ inline void add_weighted_rows(float (&out)[M][Width / 8][4], const u32 (&weights)[M][K][4], Tile<Width> x,
                                         int row, int lane) {
#pragma unroll
    for (int k = 0; k < K; ++k) {
#pragma unroll
        for (int n = 0; n < Width / 8; n += 2) {
            u32 columns[4];
            ldmatrix_x4_trans(columns, down_then_right(x, row + 16 * k, 8 * n, lane));
#pragma unroll
            for (int m = 0; m < M; ++m) mma_pair(out[m][n], out[m][n + 1], weights[m][k], columns);
        }
    }
}

// Which of 128 keys, those of block `block`, dropout keeps for the rows that a lane has a share of: bit 2 n + i is column
// i of the lane's two in the n-th eight. Only the first Keys of them are wanted.
template <int M, int Keys> struct KeepBits {
    u32 bits[M][2];

    // `row`, within the sequence, is the first of the warp's rows.
    __device__ void draw(const Dropout& dropout, const i32* global_rows, const Item& item, int row, u32 head, int block,
                         int lane) {
#pragma unroll
        for (int m = 0; m < M; ++m) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int mine = row + 16 * m + 8 * half + lane / 4;
                const i32 global_row = mine < item.len ? global_rows[item.start + mine] : 0;
                u32 kept = 0;
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    const PhiloxWords words = dropout_words(dropout, global_row, head, block * 16 + 4 * j + lane % 4);
#pragma unroll
                    for (int w = 0; w < Keys / 32; ++w) {
                        const int n = 4 * w + j;
                        kept |= u32((words.w[w] & 0xFFFF) >= dropout.threshold) << (2 * n);
                        kept |= u32((words.w[w] >> 16) >= dropout.threshold) << (2 * n + 1);
                    }
                }
                bits[m][half] = kept;
            }
        }
    }

    // Whether it keeps column i of the lane's two in the n-th eight from `first` on.
    __device__ bool keeps(int m, int half, int first, int n, int i) const {
        return bits[m][half] >> (first / 4) >> (2 * n + i) & 1;
    }
};
