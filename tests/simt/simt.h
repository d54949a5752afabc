// What the CUDA compilers build in, for g++: kernels/common.cuh includes this file where __CUDACC__ is not defined, so
// the very same kernels run on the stand-in. Everything here is only declared or trivially forwards; the machine behind
// it is in fibers.cpp (threads and barriers), collectives.cpp (shuffles, mma) and shadow.cpp (every load and store).
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#define __device__
#define __host__
#define __global__
#define __forceinline__ inline __attribute__((always_inline))
#define __restrict__ __restrict
#define __launch_bounds__(...)

namespace simt {

using u32 = uint32_t;
using u64 = uint64_t;

struct Dim3 {
    u32 x, y, z;
};

// Where in the sources a collective stands: lanes that meet must come from the same place.
struct Site {
    const char* file;
    int line;
};

// A kernel as its translation unit registers it before main.
struct Param {
    u32 offset, size;
    bool pointer;
};
struct Kernel {
    const char* module;
    const char* name;
    int max_threads;
    int n_params;
    const Param* params;
    u32 args_bytes;
    void (*call)(void (*)(), const unsigned char*);
    void (*body)();
    Kernel* next;
};
void register_kernel(Kernel* kernel);

template <class... A> struct Signature {
    static constexpr int n = sizeof...(A);
    // One more than needed, as an array has at least one element.
    Param params[n + 1] = {};
    u32 bytes = 0;

    constexpr Signature() {
        int i = 0;
        ((add(params[i++], sizeof(A), alignof(A), std::is_pointer<A>::value)), ...);
    }
    constexpr void add(Param& param, u32 size, u32 align, bool pointer) {
        bytes = (bytes + align - 1) / align * align;
        param = Param{bytes, size, pointer};
        bytes += size;
    }
};

template <class... A> struct Trampoline {
    static constexpr Signature<A...> signature{};

    template <class T> __attribute__((no_sanitize_thread)) static T read(const unsigned char* from) {
        alignas(T) unsigned char bytes[sizeof(T)];
        std::memcpy(bytes, from, sizeof(T));
        return *reinterpret_cast<T*>(bytes);
    }
    template <size_t... I>
    __attribute__((no_sanitize_thread)) static void spread(void (*body)(A...), const unsigned char* args,
                                                           std::index_sequence<I...>) {
        body(read<A>(args + signature.params[I].offset)...);
    }
    __attribute__((no_sanitize_thread)) static void call(void (*body)(), const unsigned char* args) {
        spread(reinterpret_cast<void (*)(A...)>(body), args, std::index_sequence_for<A...>{});
    }
};

struct Registration {
    Kernel kernel;
    template <class... A> Registration(const char* module, const char* name, int max_threads, void (*body)(A...)) {
        using T = Trampoline<A...>;
        static_assert(T::signature.bytes <= 4096, "drivers before CUDA 12.1's take 4 KiB of parameters");
        kernel = Kernel{module,
                        name,
                        max_threads,
                        int(sizeof...(A)),
                        T::signature.params,
                        T::signature.bytes,
                        T::call,
                        reinterpret_cast<void (*)()>(body),
                        nullptr};
        register_kernel(&kernel);
    }
};

// The same for the whole life of a thread, so that calls may be merged and moved across barriers.
__attribute__((const)) Dim3 thread_index();
__attribute__((const)) Dim3 block_index();
__attribute__((const)) Dim3 block_size();
__attribute__((const)) Dim3 grid_size();

// One SHARED array of one function; where it lies is decided launch by launch.
struct SharedSlot {
    u32 id;
};
__attribute__((const)) void* shared_array(SharedSlot* slot, size_t bytes, size_t align, const char* name);
// The dynamic shared memory; checked to be `most` bytes, or `bytes` and at most that.
__attribute__((const)) unsigned char* dynamic_shared();
__attribute__((const)) unsigned char* dynamic_shared(size_t most, size_t bytes);
inline unsigned char* dynamic_shared(size_t most) { return dynamic_shared(most, most); }

// One access of `bytes` (4, 8 or 16, and so is the alignment) at the memory side; the other side is a local variable.
void load(void* local, const void* from, size_t bytes);
void store(void* to, const void* local, size_t bytes);
// As `store`, by one instruction, to global memory: one of a vector that is written otherwise may be taken apart.
void store_global(void* to, const void* local, size_t bytes);

enum class Shuffle { Index, Xor, Up, Down };
u64 shuffle(Shuffle kind, u32 mask, u64 value, u32 arg, int width, Site site);
enum class Vote { Ballot, Any, All };
u32 vote(Vote kind, u32 mask, bool value, Site site);
void sync_warp(u32 mask, Site site);
void sync_threads(Site site);
[[noreturn]] void trap(Site site);

u32 pack_bf16x2(float low, float high);
float exp2_fast(float x);
void mma(float* d, const u32* a, const u32* b, Site site);
void ldmatrix_x4(u32 (&out)[4], const void* row, bool transposed, int line = __builtin_LINE(),
                 const char* file = __builtin_FILE());
void cp_async_16(void* shared, const void* from, bool valid);
void cp_async_commit();
void cp_async_wait(int pending);

inline void mma_16x8x16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2], int line = __builtin_LINE(),
                        const char* file = __builtin_FILE()) {
    mma(d, a, b, Site{file, line});
}

template <class T> inline T shuffled(Shuffle kind, u32 mask, T value, u32 arg, int width, Site site) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move words of 4 or 8 bytes");
    u64 bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    bits = shuffle(kind, mask, bits, arg, width, site);
    std::memcpy(&value, &bits, sizeof(T));
    return value;
}

}  // namespace simt

#define KERNEL(name, max_threads, ...)                                                       \
    static void name(__VA_ARGS__);                                                           \
    static ::simt::Registration name##_registration(SIMT_MODULE, #name, max_threads, &name); \
    static void name(__VA_ARGS__)
#define GRID_CONSTANT
#define KERNEL_MIN_BLOCKS(name, max_threads, min_blocks, ...) KERNEL(name, max_threads, __VA_ARGS__)
#define SHARED(T, name, count)             \
    static ::simt::SharedSlot name##_slot; \
    auto& name = *static_cast<T(*)[count]>(::simt::shared_array(&name##_slot, sizeof(T) * (count), alignof(T), #name))
#define DYNAMIC_SHARED(name, ...) unsigned char* const name = ::simt::dynamic_shared(__VA_ARGS__)

#define threadIdx (::simt::thread_index())
#define blockIdx (::simt::block_index())
#define blockDim (::simt::block_size())
#define gridDim (::simt::grid_size())

#define SIMT_HERE int line = __builtin_LINE(), const char *file = __builtin_FILE()
#define SIMT_SITE (::simt::Site{file, line})

inline void __syncthreads(SIMT_HERE) { ::simt::sync_threads(SIMT_SITE); }
inline void __syncwarp(unsigned mask = 0xFFFFFFFFu, SIMT_HERE) { ::simt::sync_warp(mask, SIMT_SITE); }
template <class T> inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32, SIMT_HERE) {
    return ::simt::shuffled(::simt::Shuffle::Index, mask, value, unsigned(lane), width, SIMT_SITE);
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, SIMT_HERE) {
    return ::simt::shuffled(::simt::Shuffle::Xor, mask, value, unsigned(lanes), width, SIMT_SITE);
}
template <class T> inline T __shfl_up_sync(unsigned mask, T value, unsigned lanes, int width = 32, SIMT_HERE) {
    return ::simt::shuffled(::simt::Shuffle::Up, mask, value, lanes, width, SIMT_SITE);
}
template <class T> inline T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = 32, SIMT_HERE) {
    return ::simt::shuffled(::simt::Shuffle::Down, mask, value, lanes, width, SIMT_SITE);
}
inline unsigned __ballot_sync(unsigned mask, bool value, SIMT_HERE) {
    return ::simt::vote(::simt::Vote::Ballot, mask, value, SIMT_SITE);
}
inline int __any_sync(unsigned mask, bool value, SIMT_HERE) {
    return int(::simt::vote(::simt::Vote::Any, mask, value, SIMT_SITE));
}
inline int __all_sync(unsigned mask, bool value, SIMT_HERE) {
    return int(::simt::vote(::simt::Vote::All, mask, value, SIMT_SITE));
}
inline void __trap(SIMT_HERE) { ::simt::trap(SIMT_SITE); }

#undef SIMT_HERE
#undef SIMT_SITE

inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(unsigned(x)); }
inline unsigned __float_as_uint(float x) {
    unsigned bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}
inline float __uint_as_float(unsigned bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}
inline int __float_as_int(float x) { return int(__float_as_uint(x)); }
inline float __int_as_float(int bits) { return __uint_as_float(unsigned(bits)); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }

#define SIMT_MIN_MAX(T)                                        \
    inline constexpr T min(T a, T b) { return b < a ? b : a; } \
    inline constexpr T max(T a, T b) { return a < b ? b : a; }
SIMT_MIN_MAX(int)
SIMT_MIN_MAX(unsigned)
SIMT_MIN_MAX(long long)
SIMT_MIN_MAX(unsigned long long)
#undef SIMT_MIN_MAX
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
