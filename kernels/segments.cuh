// Sums of rows by segment: the gradient of a gather. order (T,) names tokens, those of one segment together, which begin
// at starts (n + 1,).
//
// A few segments are long: the one of `<s>`, the one token type. So that no block has to walk down all of one, segments
// are cut into pieces of PIECE tokens, each summed by a block of its own; the pieces' sums are then added up. How a
// segment is summed follows from its own length alone.
#pragma once

#include "partials.cuh"
#include "reduce.cuh"
#include "vectors.cuh"

// Tokens of a piece; a segment that has no more is not cut.
constexpr i64 PIECE = 64;
// Threads of a block that sums tokens, each with a vector of columns at a time.
constexpr int SEGMENT_THREADS = 256;
// Rows that a thread has on their way at a time.
constexpr int AHEAD = 8;

// Sums N columns of the rows of x (T, width) that order[begin..end] names, in that order. A warp's lanes take part
// together, those beyond the width for the sake of the others.
template <class E, int N>
__device__ inline void sum_tokens(const E* x, const i32* order, i32 begin, i32 end, i64 column, i64 width, float (&sum)[N]) {
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int j = 0; j < N; ++j) sum[j] = 0.0f;
    for (i32 base = begin; base < end; base += WARP) {
        const int n = end - base < WARP ? end - base : WARP;
        const i32 mine = lane < n ? order[base + lane] : 0;
        for (int first = 0; first < n; first += AHEAD) {
            Raw<E, N> raw[AHEAD];
#pragma unroll
            for (int i = 0; i < AHEAD; ++i) {
                const i64 token = __shfl_sync(ALL_LANES, mine, first + i);
                if (first + i < n && column < width) raw[i] = load_raw<N>(x + token * width + column);
            }
#pragma unroll
            for (int i = 0; i < AHEAD; ++i) {
                if (first + i >= n || column >= width) break;
                float v[N];
                widen<N>(raw[i], v);
#pragma unroll
                for (int j = 0; j < N; ++j) sum[j] += v[j];
            }
        }
    }
}

// out[rows[s]] += the sum of segment s, a block a segment; the long ones are left to the two kernels below.
template <class E, int N>
__device__ inline void add_segment(float* out, const E* x, const i32* order, const i32* starts, const i32* rows, i64 width) {
    const i32 begin = starts[blockIdx.x], end = starts[blockIdx.x + 1];
    if (begin == end || end - begin > PIECE) return;
    float* row = out + rows[blockIdx.x] * width;
    for (i64 base = 0; base < width; base += blockDim.x * N) {
        const i64 column = base + threadIdx.x * N;
        float sum[N], old[N];
        if (column < width) load_floats<N>(row + column, old);
        sum_tokens<E, N>(x, order, begin, end, column, width, sum);
        if (column >= width) continue;
#pragma unroll
        for (int j = 0; j < N; ++j) sum[j] += old[j];
        store_floats<N>(row + column, sum);
    }
}

// The segment that position `at` of the order lies in.
__device__ inline i64 segment_of(const i32* starts, i64 n_segments, i64 at) {
    i64 low = 0, high = n_segments;
    while (high - low > 1) {
        const i64 middle = (low + high) / 2;
        if (starts[middle] <= at) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

template <class E, int N>
__device__ inline void store_piece(float* out, const E* x, const i32* order, i32 begin, i32 end, i64 width) {
    for (i64 base = 0; base < width; base += blockDim.x * N) {
        const i64 column = base + threadIdx.x * N;
        float sum[N];
        sum_tokens<E, N>(x, order, begin, end, column, width, sum);
        if (column < width) store_floats<N>(out + column, sum);
    }
}

// Sums the pieces of long segments that begin in the block's window of PIECE positions. There may be two: the last piece
// of one segment, whose sum goes to row `windows + window` of partials (2 windows, width), and a whole piece of it or of
// another, for row `window`: no other piece begins before that one ends. heads[window] = the long segment that
// begins in the window, or -1.
template <class E, int N>
__device__ inline void store_pieces(float* partials, i32* heads, const E* x, const i32* order, const i32* starts,
                                    i64 n_segments, i64 n_tokens, i64 width) {
    const i64 window = blockIdx.x, windows = (n_tokens + PIECE - 1) / PIECE;
    const i32 first = i32(window * PIECE),
              last = i32(window * PIECE + PIECE < n_tokens ? window * PIECE + PIECE : n_tokens) - 1;
    const i32 candidates[2] = {i32(segment_of(starts, n_segments, first)), i32(segment_of(starts, n_segments, last))};
    i32 head = -1;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const i32 begin = starts[candidates[i]], end = starts[candidates[i] + 1];
        if (end - begin <= PIECE || (i == 1 && candidates[1] == candidates[0])) continue;
        const i32 piece = begin < first ? begin + i32((first - begin + PIECE - 1) / PIECE * PIECE) : begin;
        if (piece > last || piece >= end) continue;
        const bool is_last = end - piece <= PIECE;
        if (piece == begin) head = candidates[i];
        store_piece<E, N>(partials + (is_last ? windows + window : window) * width, x, order, piece,
                          is_last ? end : piece + i32(PIECE), width);
    }
    if (threadIdx.x == 0) heads[window] = head;
}

// out[rows[s]] += the pieces' sums of a long segment s, PARTIAL_COLUMNS columns a block.
__device__ inline void add_pieces(float* out, const float* partials, const i32* heads, const i32* starts, const i32* rows,
                                  i64 n_tokens, i64 width) {
    const i64 windows = (n_tokens + PIECE - 1) / PIECE, column_blocks = (width + PARTIAL_COLUMNS - 1) / PARTIAL_COLUMNS;
    const i64 window = blockIdx.x / column_blocks, first = blockIdx.x % column_blocks * PARTIAL_COLUMNS;
    const i64 segment = heads[window];
    if (segment < 0) return;
    float* row = out + rows[segment] * width;
    // All pieces but the last are one after another; the last has its own place.
    const i64 whole = (starts[segment + 1] - starts[segment] - 1) / PIECE;
    add_partials(row, partials + window * width, whole, width, first, width);
    const i64 column = first + threadIdx.x;
    if (threadIdx.x < PARTIAL_COLUMNS && column < width)
        row[column] += partials[(windows + window + whole) * width + column];
}
