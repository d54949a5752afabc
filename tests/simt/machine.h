// The stand-in's inside: one machine per calling OS thread, which runs one block at a time.
//
// A stamp says who touched a cell of memory last: serial (28 bits, one number per block ever run), thread (10), kind (2)
// and tick (24), the count of barriers its warp has passed. Two accesses are ordered if a barrier lies between them.
#pragma once

#include <cstdarg>
#include <string>
#include <vector>

#include "simt.h"

namespace simt {

using u8 = uint8_t;
using u16 = uint16_t;

constexpr int MAX_THREADS = 1024, LANES = 32, MAX_WARPS = MAX_THREADS / LANES;

// Errors as the driver numbers them.
enum Code : int {
    OK = 0,
    INVALID_VALUE = 1,
    ILLEGAL_ADDRESS = 700,
    OUT_OF_RESOURCES = 701,
    MISALIGNED = 716,
    LAUNCH_FAILED = 719
};

// Two bytes of memory: who wrote them last, who read them last.
struct Cell {
    u64 write, read;
};
constexpr int CELL = 2;

// What a read stamp stands for: one thread, lanes of one warp, several warps, several blocks. A write stamp of kind
// IN_FLIGHT is a cp.async under way.
enum Kind : u64 { ONE = 0, WARP = 1, BLOCK = 2, BLOCKS = 3, IN_FLIGHT = 1 };
constexpr int KIND_SHIFT = 24, THREAD_SHIFT = 26, SERIAL_SHIFT = 36;
constexpr u64 TICK_MASK = (1u << KIND_SHIFT) - 1;
inline u32 serial_of(u64 stamp) { return u32(stamp >> SERIAL_SHIFT); }
inline u32 thread_of(u64 stamp) { return u32(stamp >> THREAD_SHIFT) & (MAX_THREADS - 1); }
inline u64 kind_of(u64 stamp) { return stamp >> KIND_SHIFT & 3; }
inline u32 tick_of(u64 stamp) { return u32(stamp & TICK_MASK); }
inline u64 make_stamp(u32 serial, u32 thread, u64 kind, u32 tick) {
    return u64(serial) << SERIAL_SHIFT | u64(thread) << THREAD_SHIFT | kind << KIND_SHIFT | tick;
}

// What a launch costs; one per kernel, summed over its launches. The order is known to tests/simt.rs.
struct Counters {
    u64 launches, blocks, global_read, global_written, sectors_read, sectors_written, shared_read, shared_written, mma,
        ldmatrix, ldmatrix_conflicts;
    // 32-byte sectors that each instruction of a warp touches, added up over the instructions (sectors.cpp); sectors_read and
    // sectors_written have each once a block.
    u64 load_sectors, store_sectors;
    void add(const Counters& other);
};

struct Launch {
    const Kernel* kernel;
    Dim3 grid, block;
    u32 dynamic_shared, shared_limit;
    std::vector<unsigned char> args;
};

struct CopyInFlight {
    unsigned char* to;
    const unsigned char* from;
    bool valid;
};

struct Fiber {
    void* stack_pointer;
    // cp.async: copies in order of issue; how many each closed group ends at.
    std::vector<CopyInFlight> copies;
    std::vector<u32> group_ends;
};

// The same text has the same address within a module, as a rule.
inline bool same_site(const Site& a, const Site& b) {
    return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

// Lanes that wait for each other at one collective.
struct Group {
    const char* what;
    Site site;
    u32 mask, arrived;
};

struct Warp {
    u32 exists, live;
    // Lanes that can run, by position: lane = position ^ flip.
    u32 ready, flip;
    u32 tick, block_sync, full_sync;
    // Ticks at which partial barriers ordered pairs of lanes; used after the first such barrier.
    bool partial;
    u32 pair[LANES][LANES];
    int n_groups;
    Group groups[LANES];
    u64 values[LANES], results[LANES];
    void* pointers[LANES][3];
};

struct SlotPlace {
    u64 launch;
    u32 offset, bytes;
    const char* name;
};

struct Random {
    u64 state;
    u64 next();
    u32 below(u32 n) { return u32((next() >> 32) * n >> 32); }
};

constexpr size_t STACK_BYTES = 64 * 1024 + 320, SHARED_ARENA = 320 * 1024;

// Of whose lanes some are still to come (sectors.cpp).
struct Instructions;
Instructions* new_instructions();
// One lane's part in an instruction that accesses device memory; a source access that is several has so many parts.
void note_instruction(struct Machine& m, uintptr_t address, bool write, const void* where, u32 part);

struct Machine {
    // Hot: read by every access.
    uintptr_t stack_lo;
    unsigned char* shared_lo;
    u8* shared_valid;
    Cell* shared_cells;
    u64 stamp;
    u32 serial, first_serial, n_serials;
    Counters counters;

    // The running thread.
    u32 thread, lane, warp_index;
    bool flat;
    Warp* warp;
    Fiber* fiber;

    Warp warps[MAX_WARPS];
    Fiber fibers[MAX_THREADS];
    u32 n_threads, n_warps, n_live;
    void* main_stack_pointer;
    // __syncthreads under way.
    Site barrier;
    u32 barrier_count, barrier_epoch;

    const Launch* launch;
    u64 launch_number;
    Dim3 block_index;
    Instructions* instructions;
    Random random;
    u32 static_shared, shared_used, dynamic_offset;
    std::vector<SlotPlace> slots;
    Code error;

    Machine();
};

extern thread_local Machine* machine __attribute__((tls_model("initial-exec")));
extern thread_local u64 schedule_seed;
extern thread_local std::string last_error;
// The seed of the calling thread, for whoever is in another library.
u64 thread_seed();

// Ends the running launch: says what went wrong where, and leaves for the thread that launched.
[[noreturn]] __attribute__((format(printf, 3, 4))) void fail(Code code, const char* check, const char* format, ...);
// Remembers and prints an error met outside of a kernel.
__attribute__((format(printf, 2, 3))) Code refuse(Code code, const char* format, ...);
std::string text(const char* format, ...) __attribute__((format(printf, 1, 2)));
std::string source_line(const void* return_address);

// Runs a launch on the calling thread.
Code execute(const Launch& launch);
const Kernel* find_kernel(const char* module, const char* name);
bool has_module(const char* module);
u32 static_shared_of(const Kernel* kernel);
void note_static_shared(const Kernel* kernel, u32 bytes);
void add_counters(const char* name, const Counters& counters);
// Whether SIMT_REPORT=1 asks for a report when the process ends.
bool wants_report();
Code current_device_context(void** out);
// The machine's number of the calling thread's device; -1 if it has none.
int current_device();

// Checked accesses from inside collectives; `where` is for the message.
void check_access(const void* address, size_t bytes, bool write, const void* where);
void check_ldmatrix_row(const void* address, u32 lane);
void block_writes_in_flight(Machine& m, unsigned char* to);
void land(Machine& m, const CopyInFlight& copy);
bool is_shared(const void* address);

// Device memory (memory.cpp): flat ranges at fixed addresses.
constexpr uintptr_t DEVICE_BASE = 0x100000000000, DEVICE_SPAN = uintptr_t(1) << 40;
constexpr uintptr_t CELLS_BASE = 0x200000000000, SECTORS_BASE = 0x300000000000, VALID_BASE = 0x380000000000;
constexpr size_t PAGE = 4096, SECTOR = 32;
// Who touched a 32-byte sector last.
struct SectorSeen {
    u32 read, write;
};
inline bool on_device(uintptr_t address) { return address - DEVICE_BASE < DEVICE_SPAN; }
inline Cell* device_cells(uintptr_t address) { return reinterpret_cast<Cell*>(CELLS_BASE) + (address - DEVICE_BASE) / CELL; }
inline SectorSeen* device_sector(uintptr_t address) {
    return reinterpret_cast<SectorSeen*>(SECTORS_BASE) + (address - DEVICE_BASE) / SECTOR;
}
// How many bytes of each page, from its start, are allocated.
inline u16* device_valid(uintptr_t address) { return reinterpret_cast<u16*>(VALID_BASE) + (address - DEVICE_BASE) / PAGE; }
void map_device();
int device_allocate(u64* out, size_t bytes);
int device_free(u64 address);
// Bytes of the live allocation that starts there; 0 if none does.
size_t device_bytes(u64 address);
bool device_range_valid(u64 address, size_t bytes);
std::string describe_address(uintptr_t address);
void memory_info(size_t* free, size_t* total);

}  // namespace simt
