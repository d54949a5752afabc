// How many 32-byte sectors of device memory each instruction of a warp touches, which is what a GPU moves for it: the lanes
// that come to the same place of the code for the same time carry out one instruction, whenever the stand-in runs them.
//
// A store of a vector that the source does not make with store_global counts as one instruction for each of its words: the
// compilers for sm_80 to sm_90 may take it apart (kernels/mma.cuh).
#include "machine.h"

namespace simt {

namespace {

// Places of the code that have a count of their own of how often a thread came by; what shares one is counted together.
// With few of them, a load that one lane alone carries out puts it out of step with the others at another place.
constexpr u32 PLACES = 1024;
// Instructions whose lanes are still to come, at most; a forgotten one counts again.
constexpr u32 UNDER_WAY = 1 << 14;

struct Issued {
    u64 key;
    u32 n;
    // A lane's access lies within one.
    u64 sectors[LANES];
};

u64 mix(u64 x) {
    x = (x ^ x >> 32) * 0x9E3779B97F4A7C15;
    return x ^ x >> 29;
}

extern "C" const char __ehdr_start;

}  // namespace

struct Instructions {
    // With the block's serial number in the upper half, so that nothing has to be cleared for the next block.
    u64 times[MAX_THREADS][PLACES];
    Issued issued[UNDER_WAY];
};

Instructions* new_instructions() { return new Instructions{}; }

void note_instruction(Machine& m, uintptr_t address, bool write, const void* where, u32 part) {
    Instructions& all = *m.instructions;
    // As an offset, so that where the library was loaded has no say in what is counted.
    const u64 place =
        u64(reinterpret_cast<uintptr_t>(where) - reinterpret_cast<uintptr_t>(&__ehdr_start)) * 8 + part * 2 + write;
    u64& times = all.times[m.thread][mix(place) % PLACES];
    if (times >> 32 != u32(m.serial)) times = u64(u32(m.serial)) << 32;
    const u32 time = u32(++times);
    const u64 key = mix(mix(mix(place) + m.serial) + (u64(m.warp_index) << 32 | time)) | 1;
    Issued& issued = all.issued[key / 2 % UNDER_WAY];
    if (issued.key != key) {
        issued.key = key;
        issued.n = 0;
    }
    const u64 sector = address / SECTOR;
    for (u32 i = 0; i < issued.n; ++i) {
        if (issued.sectors[i] == sector) return;
    }
    if (issued.n < LANES) issued.sectors[issued.n++] = sector;
    ++(write ? m.counters.store_sectors : m.counters.load_sectors);
}

}  // namespace simt
