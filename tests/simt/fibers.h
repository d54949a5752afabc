// Between fibers.cpp, which runs threads, and launch.cpp, which runs blocks.
#pragma once

#include "machine.h"

namespace simt {

void switch_stacks(void** from, void* to);
// A stack that, switched to, enters `entry`.
void* fresh_stack(Fiber& fiber, char* low, size_t bytes, void (*entry)());
// What a thread runs: the kernel, then whoever is next.
void fiber_main();
// Makes a thread the running one.
void become(Machine& m, u32 thread);
// Draws the order in which a warp's lanes run until they meet next. Returns what was drawn: 59 bits are left.
u64 redraw(Machine& m, Warp& warp, u32 lanes);

// Comes to a collective: true for the last lane, which does its work and releases the others.
bool meet(const char* what, u32 mask, Site site);
void release(u32 mask);

}  // namespace simt
