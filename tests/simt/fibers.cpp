// One block at a time, one fiber per thread: switching, scheduling, and the two barriers.
//
// A fiber runs until a collective stops it. The lanes of a warp run one after another, in an order that the seed draws;
// so do the warps of a block and the blocks of a launch. What a block leaves behind is never visible to the next one:
// its shared memory is filled with NaN before it starts.
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "fibers.h"

// SIMT_UCONTEXT: for trying the portable way on x86-64.
#if !defined(__x86_64__) && !defined(SIMT_UCONTEXT)
#define SIMT_UCONTEXT
#endif
#ifdef SIMT_UCONTEXT
#include <ucontext.h>
#endif

namespace simt {

thread_local Machine* machine __attribute__((tls_model("initial-exec"))) = nullptr;
thread_local u64 schedule_seed = [] {
    const char* seed = std::getenv("SIMT_SEED");
    return seed ? std::strtoull(seed, nullptr, 10) : 0;
}();

u64 Random::next() {
    u64 z = state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

// ---- switching ----

#ifndef SIMT_UCONTEXT
// Saves the registers a function must keep, on the stack it leaves, and takes up the stack it goes to.
asm(R"(
.text
.type simt_switch, @function
simt_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size simt_switch, .-simt_switch
)");
extern "C" void simt_switch(void** from, void* to) __attribute__((visibility("hidden")));

void switch_stacks(void** from, void* to) { simt_switch(from, to); }

void* fresh_stack(Fiber&, char* low, size_t bytes, void (*entry)()) {
    void** top = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(low + bytes) & ~uintptr_t(15));
    *--top = nullptr;  // entry's return address, which also aligns the stack as a call would
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    return top;
}
#else
// One for each thread of a block, and one for the thread that launches.
static ucontext_t* contexts() {
    static thread_local ucontext_t* const all = new ucontext_t[MAX_THREADS + 1];
    return all;
}
static thread_local void* running;

void switch_stacks(void** from, void* to) {
    // The saved "stack pointer" is the context itself.
    ucontext_t* here = static_cast<ucontext_t*>(running ? running : &contexts()[MAX_THREADS]);
    *from = here;
    running = to;
    swapcontext(here, static_cast<ucontext_t*>(to));
}

void* fresh_stack(Fiber& fiber, char* low, size_t bytes, void (*entry)()) {
    ucontext_t* context = &contexts()[&fiber - machine->fibers];
    getcontext(context);
    context->uc_stack.ss_sp = low;
    context->uc_stack.ss_size = bytes;
    context->uc_link = nullptr;
    makecontext(context, entry, 0);
    return context;
}
#endif

// ---- scheduling ----

Machine::Machine() {
    const size_t stacks = STACK_BYTES * MAX_THREADS;
    void* memory = mmap(nullptr, stacks, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    void* shared =
        mmap(nullptr, SHARED_ARENA * (2 + sizeof(Cell) / CELL), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || shared == MAP_FAILED) {
        std::fprintf(stderr, "simt: no memory for fiber stacks\n");
        std::abort();
    }
    stack_lo = reinterpret_cast<uintptr_t>(memory);
    shared_lo = static_cast<unsigned char*>(shared);
    shared_valid = shared_lo + SHARED_ARENA;
    shared_cells = reinterpret_cast<Cell*>(shared_lo + 2 * SHARED_ARENA);
    instructions = new_instructions();
}

void become(Machine& m, u32 thread) {
    m.thread = thread;
    m.warp_index = thread / LANES;
    m.lane = thread % LANES;
    m.warp = &m.warps[m.warp_index];
    m.fiber = &m.fibers[thread];
    m.stamp = make_stamp(m.serial, thread, ONE, m.warp->tick);
}

static std::string lanes_text(u32 lanes) { return text("lanes 0x%08x", lanes); }

// Nothing can run, yet threads are left: they wait for each other at different places.
[[noreturn]] static void deadlock(Machine& m) {
    std::string places;
    int n = 0;
    for (u32 w = 0; w < m.n_warps; ++w) {
        for (int g = 0; g < m.warps[w].n_groups && n < 4; ++g, ++n) {
            const Group& group = m.warps[w].groups[g];
            places += text("; warp %u %s wait at %s (%s:%d)", w, lanes_text(group.arrived).c_str(), group.what,
                           group.site.file, group.site.line);
        }
    }
    if (m.barrier_count > 0) {
        places += text("; %u of %u threads wait at __syncthreads (%s:%d)", m.barrier_count, m.n_threads, m.barrier.file,
                       m.barrier.line);
    }
    fail(LAUNCH_FAILED, "divergent collective", "not all threads come%s", places.c_str());
}

// Goes on with the next thread of a warp that has one to run.
static void run_from(Machine& m, u32 w) {
    Warp& warp = m.warps[w];
    const u32 position = u32(__builtin_ctz(warp.ready)), next = w * LANES + (position ^ warp.flip);
    warp.ready &= warp.ready - 1;
    Fiber* const from = m.fiber;
    become(m, next);
    if (m.fiber != from) switch_stacks(&from->stack_pointer, m.fiber->stack_pointer);
}

// Leaves the running fiber for one that can run; a fiber that nothing has readied never comes back.
static void yield() {
    Machine& m = *machine;
    u32 w = m.warp_index;
    if (m.warps[w].ready == 0) {
        const u32 start = m.random.below(m.n_warps);
        for (u32 i = 0; i < m.n_warps && m.warps[w].ready == 0; ++i)
            w = start + i < m.n_warps ? start + i : start + i - m.n_warps;
        if (m.warps[w].ready == 0) {
            if (m.n_live > 0) deadlock(m);
            switch_stacks(&m.fiber->stack_pointer, m.main_stack_pointer);
        }
    }
    run_from(m, w);
}

// Positions of a set of lanes: the bits moved by an exclusive or of their numbers.
static u32 flipped(u32 lanes, u32 flip) {
    if (flip & 1) lanes = (lanes >> 1 & 0x55555555) | (lanes & 0x55555555) << 1;
    if (flip & 2) lanes = (lanes >> 2 & 0x33333333) | (lanes & 0x33333333) << 2;
    if (flip & 4) lanes = (lanes >> 4 & 0x0F0F0F0F) | (lanes & 0x0F0F0F0F) << 4;
    if (flip & 8) lanes = (lanes >> 8 & 0x00FF00FF) | (lanes & 0x00FF00FF) << 8;
    return flip & 16 ? lanes >> 16 | lanes << 16 : lanes;
}

u64 redraw(Machine& m, Warp& warp, u32 lanes) {
    const u64 drawn = m.random.next();
    warp.flip = u32(drawn % LANES);
    warp.ready = flipped(lanes, warp.flip);
    return drawn;
}

bool meet(const char* what, u32 mask, Site site) {
    Machine& m = *machine;
    Warp& warp = *m.warp;
    const u32 me = 1u << m.lane;
    // Nearly always whole warps meet.
    Group& first = warp.groups[0];
    if ((mask & warp.live) == 0xFFFFFFFF &&
        (warp.n_groups == 0 || (first.mask == mask && first.what == what && same_site(first.site, site)))) {
        if (warp.n_groups == 0) {
            first = Group{what, site, mask, 0};
            warp.n_groups = 1;
        }
        first.arrived |= me;
        if (first.arrived == mask) {
            warp.n_groups = 0;
            return true;
        }
        yield();
        return false;
    }
    if (!(mask & me))
        fail(LAUNCH_FAILED, "divergent collective", "%s (%s:%d) with mask 0x%08x, which leaves out the calling lane", what,
             site.file, site.line, mask);
    if (mask & ~warp.live)
        fail(LAUNCH_FAILED, "divergent collective", "%s (%s:%d) names lanes 0x%08x, which have returned or never existed",
             what, site.file, site.line, mask & ~warp.live);
    int g = 0;
    while (g < warp.n_groups && !(warp.groups[g].mask & mask)) ++g;
    Group& group = warp.groups[g];
    if (g == warp.n_groups) {
        group = Group{what, site, mask, 0};
        ++warp.n_groups;
    } else if (group.mask != mask || group.what != what || !same_site(group.site, site)) {
        fail(LAUNCH_FAILED, "divergent collective",
             "%s with mask 0x%08x (%s:%d) while %s wait at %s with mask 0x%08x (%s:%d)", what, mask, site.file, site.line,
             lanes_text(group.arrived).c_str(), group.what, group.mask, group.site.file, group.site.line);
    }
    group.arrived |= me;
    if (group.arrived == mask) {
        warp.groups[g] = warp.groups[--warp.n_groups];
        return true;
    }
    yield();
    return false;
}

void release(u32 mask) {
    Machine& m = *machine;
    Warp& warp = *m.warp;
    const u32 others = mask & ~(1u << m.lane);
    const u64 drawn = redraw(m, warp, warp.ready == 0 ? others : flipped(warp.ready, warp.flip) | others);
    // Now and then another warp gets its turn before this one goes on.
    if (m.n_warps > 1 && drawn / LANES % 16 == 0) {
        warp.ready |= flipped(1u << m.lane, warp.flip);
        const u32 w = m.random.below(m.n_warps);
        run_from(m, m.warps[w].ready ? w : m.warp_index);
    }
}

void sync_warp(u32 mask, Site site) {
    if (!meet("__syncwarp", mask, site)) return;
    Machine& m = *machine;
    Warp& warp = *m.warp;
    const u32 now = ++warp.tick;
    m.stamp = make_stamp(m.serial, m.thread, ONE, now);
    if (now == TICK_MASK)
        fail(LAUNCH_FAILED, "too many barriers", "the stand-in counts %u barriers of a warp at most", u32(TICK_MASK));
    if (mask == warp.exists) {
        warp.full_sync = now;
    } else {
        if (!warp.partial) std::memset(warp.pair, 0, sizeof warp.pair);
        warp.partial = true;
        u32 joined[LANES] = {};
        for (int a = 0; a < LANES; ++a) {
            if (!(mask >> a & 1)) continue;
            for (int b = 0; b < LANES; ++b) joined[b] = std::max(joined[b], mask >> b & 1 ? now : warp.pair[a][b]);
        }
        for (int a = 0; a < LANES; ++a) {
            if (mask >> a & 1) std::memcpy(warp.pair[a], joined, sizeof joined);
        }
    }
    release(mask);
}

void sync_threads(Site site) {
    Machine& m = *machine;
    if (m.n_live < m.n_threads)
        fail(LAUNCH_FAILED, "divergent barrier", "__syncthreads (%s:%d) after %u threads of the block have returned",
             site.file, site.line, m.n_threads - m.n_live);
    if (m.barrier_count == 0) {
        m.barrier = site;
    } else if (!same_site(m.barrier, site)) {
        fail(LAUNCH_FAILED, "divergent barrier", "__syncthreads at %s:%d while %u threads wait at the one of %s:%d",
             site.file, site.line, m.barrier_count, m.barrier.file, m.barrier.line);
    }
    if (++m.barrier_count < m.n_threads) {
        yield();
        return;
    }
    m.barrier_count = 0;
    ++m.barrier_epoch;
    for (u32 w = 0; w < m.n_warps; ++w) {
        Warp& warp = m.warps[w];
        warp.block_sync = ++warp.tick;
        if (warp.tick == TICK_MASK)
            fail(LAUNCH_FAILED, "too many barriers", "the stand-in counts %u barriers of a warp at most", u32(TICK_MASK));
        redraw(m, warp, warp.live);
    }
    yield();
}

[[noreturn]] void trap(Site site) { fail(LAUNCH_FAILED, "trap", "__trap at %s:%d", site.file, site.line); }

void fiber_main() {
    {
        Machine& m = *machine;
        m.launch->kernel->call(m.launch->kernel->body, m.launch->args.data());
    }
    Machine& m = *machine;
    Warp& warp = *m.warp;
    warp.live &= ~(1u << m.lane);
    --m.n_live;
    for (int g = 0; g < warp.n_groups; ++g) {
        const Group& group = warp.groups[g];
        if (group.mask >> m.lane & 1) {
            fail(LAUNCH_FAILED, "divergent collective", "the thread has returned while %s wait for it at %s (%s:%d)",
                 lanes_text(group.arrived).c_str(), group.what, group.site.file, group.site.line);
        }
    }
    if (m.barrier_count > 0) {
        fail(LAUNCH_FAILED, "divergent barrier", "the thread has returned while %u threads wait at __syncthreads (%s:%d)",
             m.barrier_count, m.barrier.file, m.barrier.line);
    }
    yield();
    std::abort();
}

}  // namespace simt
