// Kernels with one mistake each, that the stand-in must catch, and beside each its corrected twin, which it must let pass.
// tests/simt.rs launches them. Each is `(out, in, n)`: n floats in both, n a multiple of the block's 64 threads.
#include "common.cuh"

constexpr int THREADS = 64;

#define PAIR(name, ...)                                                                            \
    KERNEL(broken_##name, THREADS, float* out, const float* in, i64 n) { name<true>(out, in, n); } \
    KERNEL(correct_##name, THREADS, float* out, const float* in, i64 n) { name<false>(out, in, n); }

__device__ inline i64 global_index() { return i64(blockIdx.x) * THREADS + threadIdx.x; }

// A thread reads what a thread of the other warp has written.
template <bool Broken> __device__ void missing_barrier(float* out, const float* in, i64) {
    SHARED(float, tile, THREADS);
    tile[threadIdx.x] = in[global_index()];
    if (!Broken) __syncthreads();
    out[global_index()] = tile[THREADS - 1 - threadIdx.x];
}
PAIR(missing_barrier)

// The buffer is filled again while others may still read it.
template <bool Broken> __device__ void missing_second_barrier(float* out, const float* in, i64) {
    SHARED(float, tile, THREADS);
    float sum = 0.0f;
    for (int round = 0; round < 2; ++round) {
        tile[threadIdx.x] = in[global_index()];
        __syncthreads();
        sum += tile[THREADS - 1 - threadIdx.x];
        if (!Broken) __syncthreads();
    }
    out[global_index()] = sum;
}
PAIR(missing_second_barrier)

// A lane reads what another lane of its warp has written; a shuffle orders no memory.
template <bool Broken> __device__ void missing_warp_barrier(float* out, const float* in, i64) {
    SHARED(float, tile, THREADS);
    tile[threadIdx.x] = in[global_index()];
    const float other = __shfl_xor_sync(0xFFFFFFFF, 1.0f, 1);
    if (!Broken) __syncwarp();
    out[global_index()] = tile[threadIdx.x ^ 1] * other;
}
PAIR(missing_warp_barrier)

// Half a warp orders its own lanes only.
template <bool Broken> __device__ void half_warp_barrier(float* out, const float* in, i64) {
    SHARED(float, tile, THREADS);
    tile[threadIdx.x] = in[global_index()];
    const u32 half = threadIdx.x % 32 < 16 ? 0x0000FFFF : 0xFFFF0000;
    __syncwarp(half);
    out[global_index()] = tile[threadIdx.x ^ (Broken ? 16 : 8)];
}
PAIR(half_warp_barrier)

template <bool Broken> __device__ void read_past_the_end(float* out, const float* in, i64) {
    out[global_index()] = in[global_index() + (Broken ? 1 : 0)];
}
PAIR(read_past_the_end)

template <bool Broken> __device__ void write_past_the_end(float* out, const float* in, i64 n) {
    if (Broken && global_index() == 0) out[n] = 1.0f;
    out[global_index()] = in[global_index()];
}
PAIR(write_past_the_end)

template <bool Broken> __device__ void write_past_shared(float* out, const float* in, i64) {
    SHARED(float, tile, THREADS);
    tile[threadIdx.x + (Broken ? 1 : 0)] = in[global_index()];
    __syncthreads();
    out[global_index()] = tile[threadIdx.x];
}
PAIR(write_past_shared)

// Launched with 1,024 bytes.
template <bool Broken> __device__ void read_past_dynamic_shared(float* out, const float* in, i64) {
    DYNAMIC_SHARED(bytes);
    float* tile = reinterpret_cast<float*>(bytes);
    tile[threadIdx.x] = in[global_index()];
    __syncthreads();
    out[global_index()] = tile[Broken && threadIdx.x == 0 ? 256 : threadIdx.x];
}
PAIR(read_past_dynamic_shared)

// As launched, or with other bytes in mind than the launch asked for.
template <bool Broken> __device__ void wrong_dynamic_shared(float* out, const float* in, i64) {
    DYNAMIC_SHARED(bytes, 2048, Broken ? 1020 : 1024);
    float* tile = reinterpret_cast<float*>(bytes);
    tile[threadIdx.x] = in[global_index()];
    __syncthreads();
    out[global_index()] = tile[threadIdx.x];
}
PAIR(wrong_dynamic_shared)

template <bool Broken> __device__ void misaligned_vector(float* out, const float* in, i64 n) {
    const i64 at = global_index() * 4 + (Broken ? 1 : 0);
    if (at + 4 > n) return;
    store_vector<4>(out + global_index() * 4, load_vector<4>(in + at));
}
PAIR(misaligned_vector)

typedef Vector<float, 4> Quad;

// 16 bytes from an array that is aligned for floats only.
template <bool Broken> __device__ void misaligned_shared_vector(float* out, const float* in, i64) {
    SHARED(float, tile, THREADS);
    SHARED(Quad, aligned, THREADS / 4);
    float* from = Broken ? tile : aligned[0].v;
    from[threadIdx.x] = in[global_index()];
    __syncthreads();
    if (threadIdx.x % 4 == 0) store_vector<4>(out + global_index(), load_vector<4>(from + threadIdx.x));
}
PAIR(misaligned_shared_vector)

template <bool Broken> __device__ void early_cp_async(float* out, const float* in, i64) {
    DYNAMIC_SHARED(bytes);
    float* tile = reinterpret_cast<float*>(bytes);
    if (threadIdx.x % 4 == 0) cp_async_16(tile + threadIdx.x, in + global_index(), true);
    cp_async_commit();
    if (!Broken) cp_async_wait<0>();
    __syncthreads();
    out[global_index()] = tile[threadIdx.x];
}
PAIR(early_cp_async)

// Two groups under way, one waited for.
template <bool Broken> __device__ void wrong_cp_async_group(float* out, const float* in, i64) {
    DYNAMIC_SHARED(bytes);
    float* tile = reinterpret_cast<float*>(bytes);
    for (int group = 0; group < 2; ++group) {
        if (threadIdx.x % 8 == group * 4) cp_async_16(tile + threadIdx.x, in + global_index(), true);
        cp_async_commit();
    }
    cp_async_wait<1>();
    __syncthreads();
    const int from = int(threadIdx.x) / 8 * 8 + int(threadIdx.x) % 4 + (Broken ? 4 : 0);
    out[global_index()] = tile[from];
    cp_async_wait<0>();
}
PAIR(wrong_cp_async_group)

// A wait is for one's own copies; the others' need a barrier.
template <bool Broken> __device__ void cp_async_without_barrier(float* out, const float* in, i64) {
    DYNAMIC_SHARED(bytes);
    float* tile = reinterpret_cast<float*>(bytes);
    if (threadIdx.x % 4 == 0) cp_async_16(tile + threadIdx.x, in + global_index(), true);
    cp_async_commit();
    cp_async_wait<0>();
    // All have waited, yet a vote orders no memory.
    const bool all = __all_sync(0xFFFFFFFF, true);
    if (!Broken) __syncwarp();
    out[global_index()] = all ? tile[threadIdx.x] : 0.0f;
}
PAIR(cp_async_without_barrier)

template <bool Broken> __device__ void partial_shuffle(float* out, const float* in, i64) {
    float x = in[global_index()];
    if (!Broken || threadIdx.x % 32 < 31) x += __shfl_xor_sync(0xFFFFFFFF, x, 1);
    out[global_index()] = x;
}
PAIR(partial_shuffle)

// Lanes meet at two different shuffles.
template <bool Broken> __device__ void crossed_shuffles(float* out, const float* in, i64) {
    float x = in[global_index()];
    if (Broken && threadIdx.x % 2 == 0) {
        x += __shfl_xor_sync(0xFFFFFFFF, x, 1);
    } else {
        x -= __shfl_xor_sync(Broken ? 0xFFFFFFFF : __ballot_sync(0xFFFFFFFF, true), x, 1);
    }
    out[global_index()] = x;
}
PAIR(crossed_shuffles)

// A shuffle from a lane that the mask leaves out.
template <bool Broken> __device__ void shuffle_from_outside(float* out, const float* in, i64) {
    float x = in[global_index()];
    if (threadIdx.x % 32 < 16) x += __shfl_xor_sync(0x0000FFFF, x, Broken ? 16 : 8);
    out[global_index()] = x;
}
PAIR(shuffle_from_outside)

template <bool Broken> __device__ void divergent_barrier(float* out, const float* in, i64) {
    if (!Broken || threadIdx.x < 32) __syncthreads();
    out[global_index()] = in[global_index()];
}
PAIR(divergent_barrier)

template <bool Broken> __device__ void two_barriers(float* out, const float* in, i64) {
    if (Broken && threadIdx.x < 32) {
        __syncthreads();
    } else {
        if (Broken || threadIdx.x < THREADS) __syncthreads();
    }
    out[global_index()] = in[global_index()];
}
PAIR(two_barriers)

template <bool Broken> __device__ void write_race_between_blocks(float* out, const float* in, i64) {
    out[Broken ? threadIdx.x : global_index()] = in[global_index()];
}
PAIR(write_race_between_blocks)

template <bool Broken> __device__ void read_race_between_blocks(float* out, const float* in, i64 n) {
    out[global_index()] = in[global_index()];
    if (Broken) out[global_index()] += out[(global_index() + THREADS) % n];
}
PAIR(read_race_between_blocks)

// Two threads of a warp write one word; neighbours of two bytes are not one word.
template <bool Broken> __device__ void shared_word(float* out, const float* in, i64) {
    bf16* halves = reinterpret_cast<bf16*>(out);
    const i64 pair = global_index() / 2;
    halves[pair * 2 + (Broken ? 0 : global_index() % 2)] = from_float<bf16>(in[global_index()]);
}
PAIR(shared_word)

// Shared memory holds NaN until it is written, whatever the block before has left there.
template <bool Broken> __device__ void unwritten_shared(float* out, const float* in, i64) {
    SHARED(float, tile, THREADS);
    if (!Broken || blockIdx.x % 2 == 0) tile[threadIdx.x] = in[global_index()];
    out[global_index()] = tile[threadIdx.x];
}
PAIR(unwritten_shared)

// ldmatrix reads what another lane has written.
template <bool Broken> __device__ void early_ldmatrix(float* out, const float* in, i64) {
    DYNAMIC_SHARED(bytes);
    Vector<u32, 4>* rows = reinterpret_cast<Vector<u32, 4>*>(bytes) + threadIdx.x / 32 * 32;
    const u32 lane = threadIdx.x % 32;
    Vector<u32, 4> row;
    for (int i = 0; i < 4; ++i) row.v[i] = __float_as_uint(in[global_index()]);
    store_vector<4>(rows[lane].v, row);
    if (!Broken) __syncwarp();
    u32 words[4];
    ldmatrix_x4(words, rows + lane);
    out[global_index()] = __uint_as_float(words[0]);
}
PAIR(early_ldmatrix)

// mma is for whole warps.
template <bool Broken> __device__ void partial_mma(float* out, const float* in, i64) {
    float d[4] = {in[global_index()], 0.0f, 0.0f, 0.0f};
    const u32 a[4] = {}, b[2] = {};
    if (!Broken || threadIdx.x % 32 != 7) mma_16x8x16(d, a, b);
    out[global_index()] = d[0];
}
PAIR(partial_mma)

// For memory that is freed, null or the host's, as the test passes it; and for fresh memory.
KERNEL(copy, THREADS, float* out, const float* in, i64) { out[global_index()] = in[global_index()]; }

// The same by vectors of 16 bytes, each written by one instruction or as the compiler likes; and from far apart.
KERNEL(copy_whole_vectors, THREADS, float* out, const float* in, i64 n) {
    if (global_index() < n / 4) store_global(out + 4 * global_index(), load_vector<4>(in + 4 * global_index()));
}
KERNEL(copy_vectors, THREADS, float* out, const float* in, i64 n) {
    if (global_index() < n / 4) store_vector(out + 4 * global_index(), load_vector<4>(in + 4 * global_index()));
}
KERNEL(copy_scattered, THREADS, float* out, const float* in, i64 n) {
    out[global_index()] = in[(global_index() * 8 + global_index() / (n / 8)) % n];
}

// One product of known numbers: A (16 x 16) and B (16 x 8), row-major bf16, by ldmatrix; D (16 x 8) in f32.
KERNEL(product, 32, float* out, const bf16* a, const bf16* b) {
    DYNAMIC_SHARED(bytes);
    bf16 *a_tile = reinterpret_cast<bf16*>(bytes), *b_tile = a_tile + 16 * 16;
    const u32 lane = threadIdx.x;
    cp_async_16(a_tile + lane * 8, a + lane * 8, true);
    if (lane < 16) cp_async_16(b_tile + lane * 8, b + lane * 8, true);
    // The second half of what ldmatrix reads is not used.
    else
        cp_async_16(b_tile + lane * 8, b, false);
    cp_async_commit();
    cp_async_wait<0>();
    __syncwarp();
    u32 a_words[4], b_words[4];
    ldmatrix_x4(a_words, a_tile + lane % 16 * 16 + lane / 16 * 8);
    ldmatrix_x4_trans(b_words, b_tile + lane * 8);
    float d[4] = {};
    const u32 b_used[2] = {b_words[0], b_words[1]};
    mma_16x8x16(d, a_words, b_used);
    const u32 row = lane / 4, column = lane % 4 * 2;
    out[row * 8 + column] = d[0];
    out[row * 8 + column + 1] = d[1];
    out[(row + 8) * 8 + column] = d[2];
    out[(row + 8) * 8 + column + 1] = d[3];
}
