// Every load and store of a kernel. g++'s -fsanitize=thread puts a call before each one; these are the functions it
// calls, in place of its own runtime. They check that the address is live, aligned and free of races, and count bytes.
//
// Memory is watched two bytes at a time (a bf16), in cells that say who wrote and who read last; see machine.h.
#include <cstdio>
#include <cstdlib>

#include "machine.h"

namespace simt {

namespace {

// The most that a compiler is sure to write by one instruction, unless it is told how.
constexpr size_t WORD = 4;

// Whether what `stamp` (of this block) stands for is ordered before anything the running thread does now.
inline bool ordered_thread(const Machine& m, u64 stamp) {
    const u32 thread = thread_of(stamp), tick = tick_of(stamp);
    if (thread == m.thread) return true;
    const Warp& theirs = m.warps[thread / LANES];
    if (tick < theirs.block_sync) return true;
    if (&theirs != m.warp) return false;
    return tick < theirs.full_sync || (theirs.partial && tick < theirs.pair[m.lane][thread % LANES]);
}

inline bool ordered_reads(const Machine& m, u64 stamp) {
    switch (kind_of(stamp)) {
        case ONE: return ordered_thread(m, stamp);
        case WARP: {
            const Warp& theirs = m.warps[thread_of(stamp) / LANES];
            return tick_of(stamp) < theirs.block_sync || (&theirs == m.warp && tick_of(stamp) < theirs.full_sync);
        }
        case BLOCK: return tick_of(stamp) < m.barrier_epoch + 1;
        default: return false;
    }
}

// Whether a stamp is of this launch or, in shared memory, of this block: what is older has no part in a race.
template <bool Shared> inline bool recent(const Machine& m, u64 stamp) {
    return Shared ? serial_of(stamp) == m.serial : serial_of(stamp) - m.first_serial < m.n_serials;
}

[[noreturn]] __attribute__((noinline, cold)) void race(const Machine& m, u64 other, bool other_writes, bool write,
                                                       uintptr_t address, const void* where) {
    const char* check = write && other_writes ? "write-write race" : "read-write race";
    std::string who;
    if (serial_of(other) != m.serial) {
        who = kind_of(other) == BLOCKS ? "other blocks"
                                       : text("block %u, thread %u", serial_of(other) - m.first_serial, thread_of(other));
    } else if (!other_writes && kind_of(other) == BLOCK) {
        who = "several threads";
    } else if (!other_writes && kind_of(other) == BLOCKS) {
        who = "several blocks";
    } else if (!other_writes && kind_of(other) == WARP) {
        who = text("lanes of warp %u", thread_of(other) / LANES);
    } else {
        who = text("thread %u", thread_of(other));
    }
    fail(LAUNCH_FAILED, check, "%s %s, which %s %s with no barrier between; %s", write ? "writes" : "reads",
         describe_address(address).c_str(), who.c_str(), other_writes ? "wrote" : "read", source_line(where).c_str());
}

[[noreturn]] __attribute__((noinline, cold)) void in_flight(uintptr_t address, bool write, const void* where) {
    fail(LAUNCH_FAILED, "cp.async in flight", "%s %s before the wait for the cp.async that fills it; %s",
         write ? "writes" : "reads", describe_address(address).c_str(), source_line(where).c_str());
}

template <bool Shared> __attribute__((noinline)) void read_cell_slow(Machine& m, Cell& cell, uintptr_t address,
                                                                     const void* where) {
    if (recent<Shared>(m, cell.write)) {
        if (serial_of(cell.write) != m.serial) race(m, cell.write, true, false, address, where);
        if (kind_of(cell.write) == IN_FLIGHT) in_flight(address, false, where);
        if (!ordered_thread(m, cell.write)) race(m, cell.write, true, false, address, where);
    }
    const u64 last = cell.read;
    if (!recent<Shared>(m, last)) {
        cell.read = m.stamp;
    } else if (serial_of(last) != m.serial || kind_of(last) == BLOCKS) {
        cell.read = make_stamp(m.serial, 0, BLOCKS, 0);
    } else if (ordered_reads(m, last)) {
        cell.read = m.stamp;
    } else if (kind_of(last) != BLOCK && thread_of(last) / LANES == m.warp_index) {
        cell.read = make_stamp(m.serial, thread_of(last), WARP, tick_of(m.stamp));
    } else {
        cell.read = make_stamp(m.serial, 0, BLOCK, m.barrier_epoch + 1);
    }
}

template <bool Shared> __attribute__((noinline)) void write_cell_slow(Machine& m, Cell& cell, uintptr_t address,
                                                                      const void* where) {
    if (recent<Shared>(m, cell.write)) {
        if (serial_of(cell.write) != m.serial) race(m, cell.write, true, true, address, where);
        if (kind_of(cell.write) == IN_FLIGHT) in_flight(address, true, where);
        if (!ordered_thread(m, cell.write)) race(m, cell.write, true, true, address, where);
    }
    if (recent<Shared>(m, cell.read)) {
        if (serial_of(cell.read) != m.serial || kind_of(cell.read) == BLOCKS)
            race(m, cell.read, false, true, address, where);
        if (!ordered_reads(m, cell.read)) race(m, cell.read, false, true, address, where);
    }
    cell.write = m.stamp;
}

template <bool Write, bool Shared> inline __attribute__((always_inline)) void touch_cells(Machine& m, Cell* cells,
                                                                                          uintptr_t address, size_t bytes,
                                                                                          const void* where) {
    const size_t n = (address % CELL + bytes + CELL - 1) / CELL;
    for (size_t i = 0; i < n; ++i) {
        if (Write) {
            if (cells[i].write != m.stamp) write_cell_slow<Shared>(m, cells[i], address + i * CELL, where);
        } else {
            if (cells[i].read != m.stamp) read_cell_slow<Shared>(m, cells[i], address + i * CELL, where);
        }
    }
}

[[noreturn]] __attribute__((noinline, cold)) void misaligned(uintptr_t address, size_t bytes, bool write,
                                                             const void* where) {
    fail(MISALIGNED, "misaligned access", "%s %zu bytes at %s; %s", write ? "writes" : "reads", bytes,
         describe_address(address).c_str(), source_line(where).c_str());
}

[[noreturn]] __attribute__((noinline, cold)) void out_of_range(uintptr_t address, size_t bytes, bool write,
                                                               const void* where) {
    fail(ILLEGAL_ADDRESS, "out of range", "%s %zu bytes at %s; %s", write ? "writes" : "reads", bytes,
         describe_address(address).c_str(), source_line(where).c_str());
}

extern "C" const char __ehdr_start, _end;

inline __attribute__((always_inline)) bool all_valid(const u8* valid, size_t bytes) {
    constexpr u64 ones = 0x0101010101010101;
    u64 words[2] = {ones, ones};
    std::memcpy(words, valid, bytes < 16 ? bytes : 16);
    if (words[0] != ones || words[1] != ones) return false;
    for (size_t i = 16; i < bytes; ++i) {
        if (!valid[i]) return false;
    }
    return true;
}

// Inlined into each hook, where the size is known. The compilers may carry it out by instructions of `unit` bytes each.
template <bool Write> inline __attribute__((always_inline)) void access(Machine& m, uintptr_t address, size_t bytes,
                                                                        size_t align, const void* where, size_t unit) {
    if (on_device(address)) {
        if (address % align) misaligned(address, bytes, Write, where);
        if (address % PAGE + bytes > *device_valid(address)) out_of_range(address, bytes, Write, where);
        (Write ? m.counters.global_written : m.counters.global_read) += bytes;
        SectorSeen& sector = *device_sector(address);
        if (Write ? sector.write != m.serial : sector.read != m.serial) {
            (Write ? sector.write : sector.read) = m.serial;
            ++(Write ? m.counters.sectors_written : m.counters.sectors_read);
        }
        for (size_t at = 0; at < bytes; at += unit) note_instruction(m, address + at, Write, where, u32(at / unit));
        touch_cells<Write, false>(m, device_cells(address), address, bytes, where);
        return;
    }
    const uintptr_t offset = address - reinterpret_cast<uintptr_t>(m.shared_lo);
    if (offset < SHARED_ARENA) {
        if (address % align) misaligned(address, bytes, Write, where);
        if (offset + bytes > SHARED_ARENA || !all_valid(m.shared_valid + offset, bytes))
            out_of_range(address, bytes, Write, where);
        (Write ? m.counters.shared_written : m.counters.shared_read) += bytes;
        touch_cells<Write, true>(m, m.shared_cells + offset / CELL, address, bytes, where);
        return;
    }
    // Constants of the program itself.
    if (!Write && address >= reinterpret_cast<uintptr_t>(&__ehdr_start) && address < reinterpret_cast<uintptr_t>(&_end))
        return;
    out_of_range(address, bytes, Write, where);
}

// Outside of a launch, and for the running thread's own stack, there is nothing to check.
inline bool ignored(const Machine* m, uintptr_t address) {
    return !m || !m->launch || address - m->stack_lo < STACK_BYTES * MAX_THREADS;
}

template <bool Write> inline __attribute__((always_inline)) void hook(void* pointer, size_t bytes, size_t align,
                                                                      const void* where, size_t unit) {
    Machine* m = machine;
    const uintptr_t address = reinterpret_cast<uintptr_t>(pointer);
    if (ignored(m, address)) return;
    access<Write>(*m, address, bytes, align, where, unit);
}

template <bool Write> void hook_range(void* pointer, size_t bytes, const void* where) {
    // In pieces that do not cross a page.
    uintptr_t address = reinterpret_cast<uintptr_t>(pointer);
    while (bytes > 0) {
        const size_t left = SECTOR - address % SECTOR, piece = bytes < left ? bytes : left;
        hook<Write>(reinterpret_cast<void*>(address), piece, 1, where, piece);
        address += piece;
        bytes -= piece;
    }
}

}  // namespace

void check_access(const void* address, size_t bytes, bool write, const void* where) {
    if (write) {
        access<true>(*machine, reinterpret_cast<uintptr_t>(address), bytes, bytes, where, bytes);
    } else {
        access<false>(*machine, reinterpret_cast<uintptr_t>(address), bytes, bytes, where, bytes);
    }
}

void load(void* local, const void* from, size_t bytes) {
    const void* where = __builtin_return_address(0);
    if (bytes == 16) {
        hook<false>(const_cast<void*>(from), 16, 16, where, 16);
    } else {
        hook<false>(const_cast<void*>(from), bytes, bytes, where, bytes);
    }
    std::memcpy(local, from, bytes);
}

void store(void* to, const void* local, size_t bytes) {
    const void* where = __builtin_return_address(0);
    if (bytes == 16) {
        hook<true>(to, 16, 16, where, WORD);
    } else {
        hook<true>(to, bytes, bytes, where, bytes < WORD ? bytes : WORD);
    }
    std::memcpy(to, local, bytes);
}

void store_global(void* to, const void* local, size_t bytes) {
    hook<true>(to, bytes, bytes, __builtin_return_address(0), bytes);
    std::memcpy(to, local, bytes);
}

bool is_shared(const void* address) {
    return reinterpret_cast<uintptr_t>(address) - reinterpret_cast<uintptr_t>(machine->shared_lo) < SHARED_ARENA;
}

// A row that ldmatrix hands to all lanes, so all of them must be able to see what is written there.
void check_ldmatrix_row(const void* pointer, u32 lane) {
    Machine& m = *machine;
    const uintptr_t address = reinterpret_cast<uintptr_t>(pointer),
                    offset = address - reinterpret_cast<uintptr_t>(m.shared_lo);
    const u32 base = m.thread - m.lane;
    // Messages name the lane that gave the address.
    const u32 caller = m.thread;
    m.thread = base + lane;
    if (offset >= SHARED_ARENA)
        fail(ILLEGAL_ADDRESS, "out of range", "ldmatrix from %s, which is not shared memory",
             describe_address(address).c_str());
    if (address % 16)
        fail(MISALIGNED, "misaligned access", "ldmatrix from %s, which is not a multiple of 16",
             describe_address(address).c_str());
    for (int i = 0; i < 16; ++i) {
        if (!m.shared_valid[offset + i])
            fail(ILLEGAL_ADDRESS, "out of range", "ldmatrix from %s", describe_address(address).c_str());
    }
    const Warp& warp = *m.warp;
    const u64 mine = make_stamp(m.serial, m.thread, WARP, warp.tick);
    for (int i = 0; i < 16 / CELL; ++i) {
        Cell& cell = m.shared_cells[offset / CELL + i];
        if (cell.read == mine) continue;
        if (serial_of(cell.write) == m.serial) {
            if (kind_of(cell.write) == IN_FLIGHT) in_flight(address + i * CELL, false, nullptr);
            const Warp& theirs = m.warps[thread_of(cell.write) / LANES];
            const u32 tick = tick_of(cell.write);
            if (tick >= theirs.block_sync && (&theirs != &warp || tick >= theirs.full_sync))
                race(m, cell.write, true, false, address + i * CELL, nullptr);
        }
        const u64 last = cell.read;
        const bool same = serial_of(last) == m.serial,
                   alone = !same || ordered_reads(m, last) ||
                           (kind_of(last) != BLOCK && thread_of(last) / LANES == m.warp_index);
        cell.read = alone ? mine : make_stamp(m.serial, 0, BLOCK, m.barrier_epoch + 1);
    }
    m.thread = caller;
}

void block_writes_in_flight(Machine& m, unsigned char* to) {
    std::memset(to, 0xFF, 16);
    Cell* cells = m.shared_cells + (to - m.shared_lo) / CELL;
    for (int i = 0; i < 16 / CELL; ++i) cells[i] = Cell{m.stamp | u64(IN_FLIGHT) << KIND_SHIFT, 0};
}

void land(Machine& m, const CopyInFlight& copy) {
    if (copy.valid) {
        std::memcpy(copy.to, copy.from, 16);
    } else {
        std::memset(copy.to, 0, 16);
    }
    Cell* cells = m.shared_cells + (copy.to - m.shared_lo) / CELL;
    for (int i = 0; i < 16 / CELL; ++i) cells[i] = Cell{m.stamp, 0};
}

// The line of the sources that an instruction comes from, asked of addr2line where there is one.
std::string source_line(const void* return_address);

#define WHERE __builtin_return_address(0)
extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
#define SIMT_HOOKS(n)                                                                       \
    void __tsan_read##n(void* p) { hook<false>(p, n, n == 16 ? 8 : n, WHERE, n); }          \
    void __tsan_write##n(void* p) { hook<true>(p, n, n == 16 ? 8 : n, WHERE, n); }          \
    void __tsan_volatile_read##n(void* p) { hook<false>(p, n, n == 16 ? 8 : n, WHERE, n); } \
    void __tsan_volatile_write##n(void* p) { hook<true>(p, n, n == 16 ? 8 : n, WHERE, n); } \
    void __tsan_unaligned_read##n(void* p) { hook_range<false>(p, n, WHERE); }              \
    void __tsan_unaligned_write##n(void* p) { hook_range<true>(p, n, WHERE); }
SIMT_HOOKS(1)
SIMT_HOOKS(2)
SIMT_HOOKS(4)
SIMT_HOOKS(8)
SIMT_HOOKS(16)
void __tsan_read_range(void* p, size_t bytes) { hook_range<false>(p, bytes, WHERE); }
void __tsan_write_range(void* p, size_t bytes) { hook_range<true>(p, bytes, WHERE); }
}

}  // namespace simt
