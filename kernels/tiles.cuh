// Tiles of bf16 in shared memory, and their products by tensor cores.
#pragma once

#include "reduce.cuh"

// Rows of Width bf16 in shared memory. The 16-byte pieces of a row are permuted, so that eight rows' pieces of one column
// lie in different banks, for ldmatrix, as do the words that a warp writes of eight rows.
template <int Width> struct Tile {
    static constexpr int PIECES = Width / 8;
    bf16* base;

    __device__ bf16* piece(int row, int piece) const {
        const int at = PIECES >= 8 ? piece ^ (row % 8) : piece ^ (row / 2 % PIECES);
        return base + row * Width + at * 8;
    }
};

// Copies `n_rows` rows of global memory, `stride` elements apart, and zeros to fill up Rows. Finished after a wait.
template <int Rows, int Threads, int Width>
__device__ inline void copy_tile(Tile<Width> to, const bf16* from, i64 stride, int n_rows, int thread) {
#pragma unroll
    for (int i = thread; i < Rows * to.PIECES; i += Threads) {
        const int row = i / to.PIECES, piece = i % to.PIECES;
        cp_async_16(to.piece(row, piece), from + (row < n_rows ? row : 0) * stride + piece * 8, row < n_rows);
    }
}

// Writes the first `n_columns`, a multiple of 8, of rows `first` up to `end` of those that a warp owns, to rows `stride`
// elements apart.
template <int Rows, int Width>
__device__ inline void write_rows(bf16* to, i64 stride, Tile<Width> from, int first, int end, int lane,
                                  int n_columns = Width) {
#pragma unroll
    for (int i = lane; i < Rows * from.PIECES; i += WARP) {
        const int row = first + i / from.PIECES, piece = i % from.PIECES;
        if (row < end && piece * 8 < n_columns) {
            store_global(to + row * stride + piece * 8, load_vector<8>(from.piece(row, piece)));
        }
    }
}

// Puts a warp's rows, as the tensor cores leave them, into a tile from (row, column) on, times `factor`.
template <int M, int N, int Width>
__device__ inline void put_rows(Tile<Width> to, int row, int column, const float (&x)[M][N][4], float factor, int lane) {
    const int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int m = 0; m < M; ++m) {
#pragma unroll
        for (int n = 0; n < N; ++n) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const u32 word = pack_bf16x2(x[m][n][2 * half] * factor, x[m][n][2 * half + 1] * factor);
                bf16* at = to.piece(row + 16 * m + 8 * half + g, column / 8 + n) + 2 * t;
                store_vector(at, Vector<bf16, 2>{{{u16(word & 0xFFFF)}, {u16(word >> 16)}}});
            }
        }
    }
}

// Addresses of four 8 x 8 matrices, from (row, column) on, in the order (top left, bottom left, top right, bottom right).
template <int Width> __device__ inline const bf16* down_then_right(Tile<Width> x, int row, int column, int lane) {
    return x.piece(row + lane % 16, column / 8 + lane / 16);
}

// In the order (top left, top right, bottom left, bottom right).
template <int Width> __device__ inline const bf16* right_then_down(Tile<Width> x, int row, int column, int lane) {
    return x.piece(row + lane % 8 + lane / 16 * 8, column / 8 + lane / 8 % 2);
}

// d and its right neighbour += a times 16 columns' fragments.
__device__ inline void mma_pair(float (&left)[4], float (&right)[4], const u32 (&a)[4], const u32 (&b)[4]) {
    mma_16x8x16(left, a, {b[0], b[1]});
    mma_16x8x16(right, a, {b[2], b[3]});
}

// out (16 M, 8 N) += rows of a times rows of b, transposed.
template <int M, int N, int Width>
__device__ inline void add_row_products(float (&out)[M][N][4], Tile<Width> a, int a_row, Tile<Width> b, int b_row,
                                        int lane) {
#pragma unroll
    for (int k = 0; k < Width; k += 16) {
        u32 fragments[M][4];
#pragma unroll
        for (int m = 0; m < M; ++m) ldmatrix_x4(fragments[m], down_then_right(a, a_row + 16 * m, k, lane));
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            u32 others[4];
            ldmatrix_x4(others, right_then_down(b, b_row + 8 * n, k, lane));
#pragma unroll
            for (int m = 0; m < M; ++m) mma_pair(out[m][n], out[m][n + 1], fragments[m], others);
        }
    }
}

template <int M, int N> __device__ inline void clear(float (&out)[M][N][4]) {
#pragma unroll
    for (int m = 0; m < M; ++m) {
#pragma unroll
        for (int n = 0; n < N; ++n) out[m][n][0] = out[m][n][1] = out[m][n][2] = out[m][n][3] = 0.0f;
    }
}

// out (16 M, 8 N) = rows of a times rows of b, transposed.
template <int M, int N, int Width>
__device__ inline void row_products(float (&out)[M][N][4], Tile<Width> a, int a_row, Tile<Width> b, int b_row, int lane) {
    clear(out);
    add_row_products(out, a, a_row, b, b_row, lane);
}
