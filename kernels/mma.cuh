// Every instruction that C++ has no word for: PTX under the CUDA compilers, the stand-in's C++ under g++.
//
// Fragments of mma.sync.m16n8k16 as PTX lays them out, g = lane / 4, t = lane % 4, two bf16 a word, the lower column in
// the lower half:
//   A (16 x 16, row-major)  a[0]: row g,     columns 2t, 2t+1     a[1]: row g + 8, the same columns
//                           a[2]: row g,     columns 2t+8, 2t+9   a[3]: row g + 8, the same columns
//   B (16 x 8)              b[0]: rows 2t, 2t+1, column g         b[1]: rows 2t+8, 2t+9, column g
//   D (16 x 8, f32)         d[0], d[1]: row g, columns 2t, 2t+1   d[2], d[3]: row g + 8, the same columns
#pragma once

#ifdef __CUDACC__

// Not an instruction: a comment in the PTX, where .ci/kernel_table.py reads it.
template <int Bytes> __device__ inline void note_dynamic_shared() {
    asm volatile("// dynamic shared memory: %0 bytes" ::"n"(Bytes));
}

// Two f32 as bf16, rounded to nearest, ties to even: `low` in the lower half.
__device__ inline u32 pack_bf16x2(float low, float high) {
    u32 out;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
    return out;
}

// 2^x to within 2 units in the last place; results below the smallest normal number are 0.
__device__ inline float exp2_fast(float x) {
    float out;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
    return out;
}

// 1 / x to within a unit in the last place, for |x| from 2^-126 to 2^126. A division takes eight instructions.
__device__ inline float reciprocal_fast(float x) {
    float out;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
    return out;
}

// 16 or 8 bytes to global memory, by one instruction: the compiler takes a store of a vector apart, and where it has
// changed the addresses of a loop, it does not put it together again.
__device__ inline void store_global_16(void* to, uint4 x) {
    asm volatile("st.global.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(to), "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w) : "memory");
}
__device__ inline void store_global_8(void* to, uint2 x) {
    asm volatile("st.global.v2.u32 [%0], {%1,%2};" ::"l"(to), "r"(x.x), "r"(x.y) : "memory");
}

// d += a b, accumulated in f32.
__device__ inline void mma_16x8x16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The word itself, which the compiler takes for a new one: what is made of it in a loop stays there instead of taking up
// registers outside.
__device__ inline u32 opaque(u32 word) {
    asm volatile("" : "+r"(word));
    return word;
}

// threadIdx.x and blockIdx.x, read anew: as from `opaque`.
__device__ inline u32 thread_index() {
    u32 x;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(x));
    return x;
}
__device__ inline u32 block_index() {
    u32 x;
    asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(x));
    return x;
}

__device__ inline u32 shared_address(const void* p) { return u32(__cvta_generic_to_shared(p)); }

// Four 8 x 8 matrices of bf16 from shared memory: lane l gives the address of row l % 8 of matrix l / 8, 16-byte aligned.
// Word i of the result is row lane / 4, columns 2 (lane % 4) and the next, of matrix i.
__device__ inline void ldmatrix_x4(u32 (&out)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// As ldmatrix_x4, each matrix transposed.
__device__ inline void ldmatrix_x4_trans(u32 (&out)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// Copies 16 bytes from global to shared memory, both 16-byte aligned, some time before the wait for the group it is
// committed with is over; zeros instead where not `valid`, and `from` is then not read.
__device__ inline void cp_async_16(void* shared, const void* from, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(from),
                 "r"(valid ? 16 : 0)
                 : "memory");
}

// Closes a group of this thread's copies.
__device__ inline void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most `Pending` of this thread's latest groups are under way. Other threads' copies need a barrier too.
template <int Pending> __device__ inline void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

#else

__device__ inline u32 pack_bf16x2(float low, float high) { return simt::pack_bf16x2(low, high); }
__device__ inline float exp2_fast(float x) { return simt::exp2_fast(x); }
__device__ inline float reciprocal_fast(float x) { return 1.0f / x; }
__device__ inline u32 opaque(u32 word) { return word; }
__device__ inline u32 thread_index() { return threadIdx.x; }
__device__ inline u32 block_index() { return blockIdx.x; }
__device__ inline void mma_16x8x16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) { simt::mma_16x8x16(d, a, b); }
__device__ inline void ldmatrix_x4(u32 (&out)[4], const void* row) { simt::ldmatrix_x4(out, row, false); }
__device__ inline void ldmatrix_x4_trans(u32 (&out)[4], const void* row) { simt::ldmatrix_x4(out, row, true); }
__device__ inline void cp_async_16(void* shared, const void* from, bool valid) { simt::cp_async_16(shared, from, valid); }
__device__ inline void cp_async_commit() { simt::cp_async_commit(); }
template <int Pending> __device__ inline void cp_async_wait() { simt::cp_async_wait(Pending); }

#endif
