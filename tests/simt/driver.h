// What driver.cpp and modules.cpp share: settings from the environment, and the checks that every call begins with.
#pragma once

#include <atomic>

#include "streams.h"

namespace simt {

extern std::atomic<bool> initialized;

// What a thread has made current: a handle, and which of the contexts that have had it.
struct CurrentContext {
    void* handle = nullptr;
    u64 generation = 0;
};
// OK if the calling thread's context lives.
Code need_context(const char* call);

u64 setting(const char* name, u64 otherwise);
// The status that SIMT_STATUS=FUNCTION=STATUS asks for, at the first call of that function; else OK.
int asked_for(const char* function);
// Compute capability: major or minor.
int capability(bool minor);
// Shared memory that a block may have at most, static and dynamic together.
u32 shared_limit();
constexpr u32 SHARED_WITHOUT_OPT_IN = 48 * 1024;

}  // namespace simt

#define API extern "C" __attribute__((visibility("default"))) int
#define NEED_INIT                                            \
    if (const int asked = asked_for(__func__)) return asked; \
    if (!initialized) return 3
#define NEED_CONTEXT \
    NEED_INIT;       \
    if (const simt::Code code = simt::need_context(__func__)) return code
#define NEED(pointer) \
    if (!(pointer)) return INVALID_VALUE
#define TRY(call) \
    if (const int code = (call)) return code
