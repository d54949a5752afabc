// What the lanes of a warp do together: shuffles, votes, ldmatrix, mma; and cp.async, which each thread does alone.
//
// Shuffles and votes order no memory, as the CUDA programming guide says: only __syncwarp and __syncthreads do.
#include "fibers.h"

namespace simt {

u64 shuffle(Shuffle kind, u32 mask, u64 value, u32 arg, int width, Site site) {
    static const char* const names[] = {"__shfl_sync", "__shfl_xor_sync", "__shfl_up_sync", "__shfl_down_sync"};
    Machine& m = *machine;
    Warp& warp = *m.warp;
    const u32 lane = m.lane, segment = lane & ~u32(width - 1), last = segment + u32(width) - 1;
    u32 source = lane;
    if (kind == Shuffle::Index) source = segment + (arg & u32(width - 1));
    if (kind == Shuffle::Xor && (lane ^ arg) <= last) source = lane ^ arg;
    if (kind == Shuffle::Up && lane >= segment + arg) source = lane - arg;
    if (kind == Shuffle::Down && lane + arg <= last) source = lane + arg;
    if (!(mask >> source & 1)) {
        fail(LAUNCH_FAILED, "shuffle from an absent lane", "%s (%s:%d) reads lane %u, which the mask 0x%08x leaves out",
             names[int(kind)], site.file, site.line, source, mask);
    }
    warp.values[lane] = value;
    if (meet(names[int(kind)], mask, site)) {
        // A copy, as lanes that go on may shuffle again before others have looked.
        if (mask == 0xFFFFFFFF) {
            std::memcpy(warp.results, warp.values, sizeof warp.results);
        } else {
            for (u32 l = 0; l < LANES; ++l) {
                if (mask >> l & 1) warp.results[l] = warp.values[l];
            }
        }
        release(mask);
    }
    return warp.results[source];
}

u32 vote(Vote kind, u32 mask, bool value, Site site) {
    static const char* const names[] = {"__ballot_sync", "__any_sync", "__all_sync"};
    Machine& m = *machine;
    Warp& warp = *m.warp;
    const u32 lane = m.lane;
    warp.values[lane] = value;
    if (meet(names[int(kind)], mask, site)) {
        u32 ballot = 0;
        for (u32 l = 0; l < LANES; ++l) {
            if (mask >> l & 1) ballot |= u32(warp.values[l]) << l;
        }
        const u32 result = kind == Vote::Ballot ? ballot : kind == Vote::Any ? ballot != 0 : ballot == mask;
        for (u32 l = 0; l < LANES; ++l) {
            if (mask >> l & 1) warp.results[l] = result;
        }
        release(mask);
    }
    return u32(warp.results[lane]);
}

u32 pack_bf16x2(float low, float high) {
    const auto round = [](float x) -> u32 {
        u32 bits;
        std::memcpy(&bits, &x, 4);
        if ((bits & 0x7FFFFFFF) > 0x7F800000) return 0x7FFF;
        return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
    };
    return round(low) | round(high) << 16;
}

float exp2_fast(float x) {
    const float y = ::exp2f(x);
    return y < 1.17549435e-38f ? 0.0f : y;
}

static float lower(u32 word) {
    word <<= 16;
    float x;
    std::memcpy(&x, &word, 4);
    return x;
}
static float upper(u32 word) {
    word &= 0xFFFF0000;
    float x;
    std::memcpy(&x, &word, 4);
    return x;
}

static void mma_warp(Warp& warp) {
    float a[16][16], b[16][8], d[16][8];
    for (int lane = 0; lane < LANES; ++lane) {
        const int g = lane / 4, t = lane % 4;
        const float* dp = static_cast<const float*>(warp.pointers[lane][0]);
        const u32* ap = static_cast<const u32*>(warp.pointers[lane][1]);
        const u32* bp = static_cast<const u32*>(warp.pointers[lane][2]);
        for (int i = 0; i < 4; ++i) {
            a[g + i % 2 * 8][2 * t + i / 2 * 8] = lower(ap[i]);
            a[g + i % 2 * 8][2 * t + i / 2 * 8 + 1] = upper(ap[i]);
            d[g + i / 2 * 8][2 * t + i % 2] = dp[i];
        }
        for (int i = 0; i < 2; ++i) {
            b[2 * t + i * 8][g] = lower(bp[i]);
            b[2 * t + i * 8 + 1][g] = upper(bp[i]);
        }
    }
    for (int row = 0; row < 16; ++row) {
        float sum[8] = {};
        for (int k = 0; k < 16; ++k) {
            for (int column = 0; column < 8; ++column) sum[column] += a[row][k] * b[k][column];
        }
        for (int column = 0; column < 8; ++column) d[row][column] += sum[column];
    }
    for (int lane = 0; lane < LANES; ++lane) {
        const int g = lane / 4, t = lane % 4;
        float* dp = static_cast<float*>(warp.pointers[lane][0]);
        for (int i = 0; i < 4; ++i) dp[i] = d[g + i / 2 * 8][2 * t + i % 2];
    }
}

constexpr u32 ALL = 0xFFFFFFFF;

void mma(float* d, const u32* a, const u32* b, Site site) {
    Machine& m = *machine;
    Warp& warp = *m.warp;
    warp.pointers[m.lane][0] = d;
    warp.pointers[m.lane][1] = const_cast<u32*>(a);
    warp.pointers[m.lane][2] = const_cast<u32*>(b);
    if (meet("mma.sync", ALL, site)) {
        mma_warp(warp);
        ++m.counters.mma;
        release(ALL);
    }
}

void ldmatrix_x4(u32 (&out)[4], const void* row, bool transposed, int line, const char* file) {
    Machine& m = *machine;
    Warp& warp = *m.warp;
    warp.pointers[m.lane][0] = out;
    warp.pointers[m.lane][1] = const_cast<void*>(row);
    if (!meet("ldmatrix", ALL, Site{file, line})) return;
    u16 matrices[4][8][8];
    for (u32 lane = 0; lane < LANES; ++lane) {
        check_ldmatrix_row(warp.pointers[lane][1], lane);
        std::memcpy(matrices[lane / 8][lane % 8], warp.pointers[lane][1], 16);
    }
    for (int i = 0; i < 4; ++i) {
        // Eight rows of 16 bytes take one pass if they fall on different banks.
        int worst = 1;
        for (int a = 0; a < 8; ++a) {
            int same = 1;
            const uintptr_t mine = reinterpret_cast<uintptr_t>(warp.pointers[i * 8 + a][1]);
            for (int b = 0; b < a; ++b) {
                const uintptr_t other = reinterpret_cast<uintptr_t>(warp.pointers[i * 8 + b][1]);
                same += other != mine && other / 16 % 8 == mine / 16 % 8;
            }
            worst = same > worst ? same : worst;
        }
        m.counters.ldmatrix_conflicts += u64(worst - 1);
        for (int lane = 0; lane < LANES; ++lane) {
            const int g = lane / 4, t = lane % 4;
            const u16 first = transposed ? matrices[i][2 * t][g] : matrices[i][g][2 * t];
            const u16 second = transposed ? matrices[i][2 * t + 1][g] : matrices[i][g][2 * t + 1];
            static_cast<u32*>(warp.pointers[lane][0])[i] = u32(first) | u32(second) << 16;
        }
    }
    ++m.counters.ldmatrix;
    m.counters.shared_read += 512;
    release(ALL);
}

void cp_async_16(void* shared, const void* from, bool valid) {
    Machine& m = *machine;
    const void* where = __builtin_return_address(0);
    if (!is_shared(shared))
        fail(ILLEGAL_ADDRESS, "out of range", "cp.async to %s, which is not shared memory; %s",
             describe_address(reinterpret_cast<uintptr_t>(shared)).c_str(), source_line(where).c_str());
    if (reinterpret_cast<uintptr_t>(shared) % 16)
        fail(MISALIGNED, "misaligned access", "cp.async to an address that is not a multiple of 16; %s",
             source_line(where).c_str());
    if (valid && !on_device(reinterpret_cast<uintptr_t>(from)))
        fail(ILLEGAL_ADDRESS, "out of range", "cp.async from %s, which is not global memory; %s",
             describe_address(reinterpret_cast<uintptr_t>(from)).c_str(), source_line(where).c_str());
    check_access(shared, 16, true, where);
    if (valid) check_access(from, 16, false, where);
    unsigned char* to = static_cast<unsigned char*>(shared);
    block_writes_in_flight(m, to);
    m.fiber->copies.push_back(CopyInFlight{to, static_cast<const unsigned char*>(from), valid});
}

void cp_async_commit() { machine->fiber->group_ends.push_back(u32(machine->fiber->copies.size())); }

void cp_async_wait(int pending) {
    Machine& m = *machine;
    Fiber& fiber = *m.fiber;
    const int done = int(fiber.group_ends.size()) - pending;
    if (done <= 0) return;
    const u32 end = fiber.group_ends[size_t(done - 1)];
    for (u32 i = 0; i < end; ++i) land(m, fiber.copies[i]);
    fiber.copies.erase(fiber.copies.begin(), fiber.copies.begin() + end);
    fiber.group_ends.erase(fiber.group_ends.begin(), fiber.group_ends.begin() + done);
    for (u32& group_end : fiber.group_ends) group_end -= end;
}

}  // namespace simt
