// One launch after another on the calling thread: its blocks in an order that the seed draws, its shared memory laid out
// with guard zones, and what goes wrong in it put into words.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <mutex>

#include "fibers.h"

namespace simt {

static void start_block(Machine& m) {
    std::memset(m.shared_lo, 0xFF, m.shared_used);
    m.barrier_count = 0;
    m.barrier_epoch = 0;
    m.n_live = m.n_threads;
    for (u32 w = 0; w < m.n_warps; ++w) {
        Warp& warp = m.warps[w];
        const u32 lanes = std::min<u32>(m.n_threads - w * LANES, LANES);
        warp.exists = warp.live = lanes == LANES ? 0xFFFFFFFF : (1u << lanes) - 1;
        warp.tick = warp.block_sync = warp.full_sync = 1;
        warp.partial = false;
        warp.n_groups = 0;
        redraw(m, warp, warp.live);
    }
    for (u32 t = 0; t < m.n_threads; ++t) {
        Fiber& fiber = m.fibers[t];
        fiber.copies.clear();
        fiber.group_ends.clear();
        fiber.stack_pointer =
            fresh_stack(fiber, reinterpret_cast<char*>(m.stack_lo) + t * STACK_BYTES, STACK_BYTES, fiber_main);
    }
}

static void run_block(Machine& m) {
    start_block(m);
    const u32 w = m.random.below(m.n_warps);
    Warp& warp = m.warps[w];
    const u32 position = u32(__builtin_ctz(warp.ready));
    warp.ready &= warp.ready - 1;
    become(m, w * LANES + (position ^ warp.flip));
    switch_stacks(&m.main_stack_pointer, m.fiber->stack_pointer);
    ++m.counters.blocks;
}

static u32 reserve_serials(u64 n) {
    static u64 next = 1;
    static std::mutex mutex;
    const std::lock_guard<std::mutex> lock(mutex);
    // Serial 0 is nobody's; numbers wrap long after the cells that hold old ones are gone.
    if (next + n > (u64(1) << 28)) next = 1;
    const u64 first = next;
    next += n;
    return u32(first);
}

static void lay_out_shared(Machine& m) {
    constexpr u32 guard = 64;
    std::memset(m.shared_valid, 0, SHARED_ARENA);
    m.static_shared = 0;
    // Aligned to the 128 bytes that kernels are promised, and to no more.
    m.dynamic_offset = 128 + guard / 64 * 256;
    m.shared_used = m.dynamic_offset + m.launch->dynamic_shared;
    std::memset(m.shared_valid + m.dynamic_offset, 1, m.launch->dynamic_shared);
}

Code execute(const Launch& launch) {
    if (!machine) machine = new Machine;
    Machine& m = *machine;
    static thread_local u64 launches = 0;
    m.launch = &launch;
    m.launch_number = ++launches;
    m.random.state = schedule_seed * 0xD1342543DE82EF95u + m.launch_number;
    m.n_threads = launch.block.x * launch.block.y * launch.block.z;
    m.flat = launch.block.y == 1 && launch.block.z == 1;
    m.n_warps = (m.n_threads + LANES - 1) / LANES;
    m.error = OK;
    m.counters = Counters{};
    m.counters.launches = 1;
    const u64 n_blocks = u64(launch.grid.x) * launch.grid.y * launch.grid.z;
    if (n_blocks >= u64(1) << 28)
        return refuse(INVALID_VALUE, "launch of %s: the stand-in runs fewer than 2^28 blocks", launch.kernel->name);
    m.n_serials = u32(n_blocks);
    m.first_serial = reserve_serials(n_blocks);
    lay_out_shared(m);
    // Blocks in the order first, first + step, ... modulo their number.
    const u64 first = m.random.next() % n_blocks;
    u64 step = m.random.next() % n_blocks;
    while (std::__gcd(step, n_blocks) != 1) ++step;
    u64 block = first;
    for (u64 i = 0; i < n_blocks && m.error == OK; ++i, block = (block + step) % n_blocks) {
        m.serial = m.first_serial + u32(block);
        m.block_index = Dim3{u32(block % launch.grid.x), u32(block / launch.grid.x % launch.grid.y),
                             u32(block / launch.grid.x / launch.grid.y)};
        run_block(m);
    }
    m.stamp = 0;
    m.launch = nullptr;
    add_counters(launch.kernel->name, m.counters);
    note_static_shared(launch.kernel, m.static_shared);
    return m.error;
}

void fail(Code code, const char* check, const char* format, ...) {
    Machine& m = *machine;
    va_list arguments;
    va_start(arguments, format);
    char detail[1024];
    std::vsnprintf(detail, sizeof detail, format, arguments);
    va_end(arguments);
    refuse(code, "kernel %s, block %u, thread %u: %s: %s (seed %llu)", m.launch->kernel->name, m.block_index.x, m.thread,
           check, detail, static_cast<unsigned long long>(schedule_seed));
    m.error = code;
    void* abandoned;
    switch_stacks(&abandoned, m.main_stack_pointer);
    std::abort();
}

// ---- what a kernel asks about itself ----

Dim3 thread_index() {
    const u32 thread = machine->thread;
    if (machine->flat) return Dim3{thread, 0, 0};
    const Dim3 size = machine->launch->block;
    return Dim3{thread % size.x, thread / size.x % size.y, thread / size.x / size.y};
}
Dim3 block_index() { return machine->block_index; }
Dim3 block_size() { return machine->launch->block; }
Dim3 grid_size() { return machine->launch->grid; }

unsigned char* dynamic_shared() { return machine->shared_lo + machine->dynamic_offset; }

unsigned char* dynamic_shared(size_t most, size_t bytes) {
    const u32 asked = machine->launch->dynamic_shared;
    if (bytes > most || bytes != asked) {
        fail(LAUNCH_FAILED, "wrong size of dynamic shared memory",
             "the launch asked for %u bytes; the kernel says %zu of at most %zu", asked, bytes, most);
    }
    return dynamic_shared();
}

void* shared_array(SharedSlot* slot, size_t bytes, size_t align, const char* name) {
    static u32 next_id = 0;
    Machine& m = *machine;
    if (__atomic_load_n(&slot->id, __ATOMIC_ACQUIRE) == 0) {
        static std::mutex mutex;
        const std::lock_guard<std::mutex> lock(mutex);
        if (slot->id == 0) __atomic_store_n(&slot->id, ++next_id, __ATOMIC_RELEASE);
    }
    if (slot->id >= m.slots.size()) m.slots.resize(slot->id + 64);
    SlotPlace& place = m.slots[slot->id];
    if (place.launch != m.launch_number) {
        // After a guard zone, aligned as its type asks and no better: kernels may not rely on luck.
        const u32 wanted = u32(std::min<size_t>(align, 64));
        u32 offset = (m.shared_used + 64 + 127) / 128 * 128 + wanted;
        if (m.static_shared + m.launch->dynamic_shared + bytes > m.launch->shared_limit || offset + bytes > SHARED_ARENA) {
            fail(OUT_OF_RESOURCES, "too much shared memory",
                 "array %s of %zu bytes on top of %u static and %u dynamic; the limit is %u", name, bytes, m.static_shared,
                 m.launch->dynamic_shared, m.launch->shared_limit);
        }
        place = SlotPlace{m.launch_number, offset, u32(bytes), name};
        m.static_shared += u32(bytes);
        m.shared_used = offset + u32(bytes);
        std::memset(m.shared_lo + offset, 0xFF, bytes);
        std::memset(m.shared_valid + offset, 1, bytes);
    }
    return m.shared_lo + place.offset;
}

u64 thread_seed() { return schedule_seed; }

extern "C" void simt_set_seed(u64 seed) { schedule_seed = seed; }

}  // namespace simt
