// The driver API, as far as cudarc calls it: every check that the real one makes of its arguments, and then some.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

#include "driver.h"

namespace simt {

std::atomic<bool> initialized{false};
static thread_local CurrentContext current;

u64 setting(const char* name, u64 otherwise) {
    const char* value = std::getenv(name);
    return value ? std::strtoull(value, nullptr, 10) : otherwise;
}

int asked_for(const char* function) {
    static const char* const wanted = std::getenv("SIMT_STATUS");
    const size_t length = std::strlen(function);
    if (!wanted || std::strncmp(wanted, function, length) != 0 || wanted[length] != '=') return OK;
    static std::atomic<bool> given{false};
    return given.exchange(true) ? int(OK) : std::atoi(wanted + length + 1);
}

int capability(bool minor) {
    const char* value = std::getenv("SIMT_CAPABILITY");
    int parts[2] = {9, 0};
    if (value) std::sscanf(value, "%d.%d", &parts[0], &parts[1]);
    return parts[minor];
}

u32 shared_limit() {
    const int version = capability(false) * 10 + capability(true);
    if (version == 80 || version == 87) return 163 * 1024;
    if (version == 75) return 64 * 1024;
    if (version == 86 || version == 89 || version >= 120) return 99 * 1024;
    return 227 * 1024;
}

namespace {

int n_devices() { return int(setting("SIMT_DEVICES", 1)); }
// The machine's number of the first device that this process sees.
int first_device() { return int(setting("SIMT_FIRST_DEVICE", 0)); }

// The primary context of a device. It dies when everybody has released it; the next one lies in the same place, as it does
// where memory is used again, and is no thread's until that thread asks for it.
struct Primary {
    int retained = 0;
    u64 generation = 0;
};
constexpr u64 FIRST_CONTEXT = 0x51320000, CONTEXT_BYTES = 4096;
constexpr Code NO_CONTEXT = Code(201), DEAD_CONTEXT = Code(709);
std::mutex context_mutex;
std::map<int, Primary> primaries;

void* handle_of(int device) { return reinterpret_cast<void*>(FIRST_CONTEXT + u64(device) * CONTEXT_BYTES); }
int device_of(const void* handle) { return int((reinterpret_cast<u64>(handle) - FIRST_CONTEXT) / CONTEXT_BYTES); }

// Whether the calling thread has a context, and it lives.
Code context_state() {
    if (!current.handle) return NO_CONTEXT;
    const std::lock_guard<std::mutex> lock(context_mutex);
    const Primary& primary = primaries[device_of(current.handle)];
    return primary.retained > 0 && primary.generation == current.generation ? OK : DEAD_CONTEXT;
}

// What a driver does with a copy from or to memory that is not pinned: it stages it before the call returns; it copies
// when the stream comes to it, where the device reads such memory by itself; it waits for the stream first.
enum Pageable { STAGED, LATE, SYNC };
thread_local std::string pageable_of_thread;

Pageable pageable() {
    static const char* const of_process = std::getenv("SIMT_PAGEABLE");
    const std::string mode = !pageable_of_thread.empty() ? pageable_of_thread : of_process ? of_process : "";
    return mode == "late" ? LATE : mode == "sync" ? SYNC : STAGED;
}

// Reads memory that its owner may have given back by now, as 0xFF where it has.
void read_late(void* to, const void* from, size_t bytes) {
    static thread_local const int file = memfd_create("simt-late", MFD_CLOEXEC);
    std::memset(to, 0xFF, bytes);
    const ssize_t n = pwrite(file, from, bytes, 0);
    if (n > 0 && pread(file, to, size_t(n), 0) != n) std::abort();
}

// What a run makes the host wait for; part of the report that SIMT_REPORT=1 asks for.
struct HostCalls {
    std::atomic<u64> to_device{0}, to_host{0}, idle{0};

    ~HostCalls() {
        if (!wants_report()) return;
        std::fprintf(stderr, "simt: pageable copies: %llu to the device, %llu to the host\n", (unsigned long long)to_device,
                     (unsigned long long)to_host);
        std::fprintf(stderr, "simt: waits that left the device without work: %llu\n", (unsigned long long)idle);
    }
} host_calls;

// Waits for a stream.
Code wait_for(const std::shared_ptr<Stream>& stream) {
    if (has_work(stream)) ++host_calls.idle;
    return drain(stream);
}

std::mutex host_mutex;
std::map<u64, size_t> pinned;

bool is_pinned(const void* pointer, size_t bytes) {
    const std::lock_guard<std::mutex> lock(host_mutex);
    const u64 address = reinterpret_cast<u64>(pointer);
    auto after = pinned.upper_bound(address);
    if (after == pinned.begin()) return false;
    --after;
    return address + bytes <= after->first + after->second;
}

Code fits(const char* call, u64 device, size_t bytes) {
    if (device_range_valid(device, bytes)) return OK;
    return refuse(INVALID_VALUE, "%s: %zu bytes from %s are not all of one live allocation", call, bytes,
                  describe_address(device).c_str());
}

// Copies and memsets are in the report beside kernels: each is something that the host asks a stream for.
void count_call(const char* call) {
    Counters counters = {};
    counters.launches = 1;
    add_counters(call, counters);
}

// What is no kernel, but goes through the device's memory all the same.
void count_bytes(const char* name, u64 read, u64 written) {
    Counters counters = {};
    counters.launches = 1;
    counters.global_read = read;
    counters.global_written = written;
    add_counters(name, counters);
}

// A copy checks its device ranges again when it runs, as the memory may be gone by then.
std::function<Code()> copying(void* to, const void* from, size_t bytes, std::vector<u64> device) {
    return [=] {
        for (const u64 address : device) {
            if (!device_range_valid(address, bytes))
                return refuse(ILLEGAL_ADDRESS, "a copy of %zu bytes ran after its memory was freed", bytes);
        }
        std::memcpy(to, from, bytes);
        const auto there = [&](const void* place) { return on_device(reinterpret_cast<uintptr_t>(place)) ? u64(bytes) : 0; };
        count_bytes("copies", there(from), there(to));
        return OK;
    };
}

}  // namespace

Code current_device_context(void** out) {
    *out = context_state() == OK ? current.handle : nullptr;
    return initialized ? OK : Code(3);
}

int current_device() { return context_state() == OK ? first_device() + device_of(current.handle) : -1; }

Code need_context(const char* call) {
    const Code state = context_state();
    if (state == NO_CONTEXT) return refuse(state, "%s: no context is current on the calling thread", call);
    if (state == DEAD_CONTEXT) return refuse(state, "%s: the calling thread's context is destroyed", call);
    return OK;
}

}  // namespace simt

using namespace simt;

// ---- device and context ----

API cuInit(unsigned flags) {
    if (flags) return INVALID_VALUE;
    if (n_devices() == 0) return 100;
    map_device();
    initialized = true;
    return OK;
}
API cuDriverGetVersion(int* out) {
    NEED(out);
    *out = int(setting("SIMT_DRIVER_VERSION", 12080));
    return OK;
}
API cuDeviceGetCount(int* out) {
    NEED_INIT;
    NEED(out);
    *out = n_devices();
    return OK;
}
API cuDeviceGet(int* out, int ordinal) {
    NEED_INIT;
    NEED(out);
    if (ordinal < 0 || ordinal >= n_devices()) return 101;
    *out = ordinal;
    return OK;
}
API cuDeviceGetName(char* out, int bytes, int device) {
    NEED_INIT;
    NEED(out);
    if (device < 0 || device >= n_devices()) return 101;
    std::snprintf(out, size_t(bytes), "hbt simt stand-in, compute capability %d.%d", capability(false), capability(true));
    return OK;
}
API cuDeviceTotalMem_v2(size_t* out, int) {
    NEED_INIT;
    NEED(out);
    size_t free;
    memory_info(&free, out);
    return OK;
}
API cuDeviceGetUuid(unsigned char* out, int device) {
    NEED_INIT;
    for (int i = 0; i < 16; ++i) out[i] = (unsigned char)("hbt-simt-standin"[i]);
    out[15] = (unsigned char)(first_device() + device);
    return OK;
}
API cuDeviceGetUuid_v2(unsigned char* out, int device) { return cuDeviceGetUuid(out, device); }
API cuDeviceGetPCIBusId(char* out, int bytes, int device) {
    NEED_INIT;
    std::snprintf(out, size_t(bytes), "0000:%02X:00.0", first_device() + device + 1);
    return OK;
}
API cuDeviceGetAttribute(int* out, int attribute, int) {
    NEED_INIT;
    NEED(out);
    // An H100's figures where the capability does not say otherwise.
    static const std::map<int, int> known = {{1, MAX_THREADS}, {2, 1024},   {3, 1024},     {4, 64},
                                             {5, 0x7FFFFFFF},  {6, 65535},  {7, 65535},    {8, int(SHARED_WITHOUT_OPT_IN)},
                                             {10, LANES},      {12, 65536}, {13, 1980000}, {16, 132},
                                             {31, 0},          {32, 1},     {36, 2619000}, {37, 5120},
                                             {38, 50 << 20},   {39, 2048},  {40, 3},       {41, 1},
                                             {82, 65536},      {95, 1},     {115, 0}};
    if (attribute == 75 || attribute == 76) {
        *out = capability(attribute == 76);
    } else if (attribute == 97) {
        *out = int(shared_limit());
    } else if (attribute == 81) {
        *out = int(shared_limit() + 1024);
    } else {
        const auto found = known.find(attribute);
        *out = found == known.end() ? 0 : found->second;
    }
    return OK;
}
API cuDevicePrimaryCtxRetain(void** out, int device) {
    NEED_INIT;
    NEED(out);
    if (device < 0 || device >= n_devices()) return 101;
    const std::lock_guard<std::mutex> lock(context_mutex);
    Primary& primary = primaries[device];
    if (primary.retained++ == 0) ++primary.generation;
    *out = handle_of(device);
    return OK;
}
API cuDevicePrimaryCtxRelease_v2(int device) {
    NEED_INIT;
    const std::lock_guard<std::mutex> lock(context_mutex);
    Primary& primary = primaries[device];
    if (primary.retained == 0) return NO_CONTEXT;
    --primary.retained;
    return OK;
}
API cuCtxSetCurrent(void* context) {
    NEED_INIT;
    if (!context) {
        current = CurrentContext{};
        return OK;
    }
    const std::lock_guard<std::mutex> lock(context_mutex);
    const int device = device_of(context);
    if (context != handle_of(device) || device >= n_devices() || primaries[device].retained == 0) return NO_CONTEXT;
    current = CurrentContext{context, primaries[device].generation};
    return OK;
}
API cuCtxGetCurrent(void** out) {
    NEED_INIT;
    NEED(out);
    *out = current.handle;
    return OK;
}
API cuCtxGetDevice(int* out) {
    NEED_CONTEXT;
    NEED(out);
    *out = device_of(current.handle);
    return OK;
}
API cuCtxGetStreamPriorityRange(int* least, int* greatest) {
    NEED_CONTEXT;
    if (least) *least = 0;
    if (greatest) *greatest = -5;
    return OK;
}
API cuCtxSynchronize() {
    NEED_CONTEXT;
    if (thread_has_work()) ++host_calls.idle;
    return drain_thread();
}
API cuProfilerStart() {
    NEED_CONTEXT;
    return OK;
}
API cuProfilerStop() {
    NEED_CONTEXT;
    return OK;
}

// ---- memory ----

// How often memory was asked for; part of the report that SIMT_REPORT=1 asks for.
static struct MemoryRequests {
    std::atomic<u64> of_device{0}, of_host{0};

    ~MemoryRequests() {
        if (wants_report())
            std::fprintf(stderr, "simt: memory requests: %llu of the device, %llu pinned\n", (unsigned long long)of_device,
                         (unsigned long long)of_host);
    }
} memory_requests;

API cuMemGetInfo_v2(size_t* free, size_t* total) {
    NEED_CONTEXT;
    NEED(free && total);
    memory_info(free, total);
    return OK;
}
API cuMemAlloc_v2(u64* out, size_t bytes) {
    NEED_CONTEXT;
    NEED(out && bytes > 0);
    ++memory_requests.of_device;
    return device_allocate(out, bytes);
}
API cuMemFree_v2(u64 address) {
    NEED_CONTEXT;
    if (address == 0) return OK;
    size_t bytes = device_bytes(address);
    if (bytes == 0)
        return refuse(INVALID_VALUE, "cuMemFree: %s is not the start of a live allocation",
                      describe_address(address).c_str());
    drain_range(address, bytes);
    return device_free(address);
}
API cuMemHostAlloc(void** out, size_t bytes, unsigned) {
    NEED_CONTEXT;
    NEED(out && bytes > 0);
    ++memory_requests.of_host;
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return 2;
    std::memset(memory, 0xFF, bytes);
    const std::lock_guard<std::mutex> lock(host_mutex);
    pinned[reinterpret_cast<u64>(memory)] = bytes;
    *out = memory;
    return OK;
}
API cuMemFreeHost(void* pointer) {
    NEED_CONTEXT;
    size_t bytes = 0;
    {
        const std::lock_guard<std::mutex> lock(host_mutex);
        const auto found = pinned.find(reinterpret_cast<u64>(pointer));
        if (found == pinned.end()) return refuse(INVALID_VALUE, "cuMemFreeHost: not from cuMemHostAlloc");
        bytes = found->second;
    }
    drain_range(reinterpret_cast<u64>(pointer), bytes);
    {
        const std::lock_guard<std::mutex> lock(host_mutex);
        pinned.erase(reinterpret_cast<u64>(pointer));
    }
    munmap(pointer, bytes);
    return OK;
}
API cuMemcpyHtoDAsync_v2(u64 to, const void* from, size_t bytes, void* stream) {
    NEED_CONTEXT;
    if (bytes == 0) return OK;
    NEED(from);
    TRY(fits("cuMemcpyHtoDAsync", to, bytes));
    count_call("cuMemcpyHtoDAsync");
    void* device = reinterpret_cast<void*>(to);
    if (is_pinned(from, bytes)) return submit(stream, copying(device, from, bytes, {to}), {to, reinterpret_cast<u64>(from)});
    ++host_calls.to_device;
    const Pageable mode = pageable();
    if (mode == LATE) {
        return submit(stream,
                      [=] {
                          if (!device_range_valid(to, bytes))
                              return refuse(ILLEGAL_ADDRESS, "a copy of %zu bytes ran after its memory was freed", bytes);
                          read_late(device, from, bytes);
                          return OK;
                      },
                      {to});
    }
    if (mode == SYNC) TRY(wait_for(find_stream(stream)));
    const auto staged =
        std::make_shared<std::vector<char>>(static_cast<const char*>(from), static_cast<const char*>(from) + bytes);
    return submit(stream, [=] { return copying(device, staged->data(), bytes, {to})(); }, {to});
}
API cuMemcpyDtoHAsync_v2(void* to, u64 from, size_t bytes, void* stream) {
    NEED_CONTEXT;
    if (bytes == 0) return OK;
    NEED(to);
    TRY(fits("cuMemcpyDtoHAsync", from, bytes));
    count_call("cuMemcpyDtoHAsync");
    const bool is_late = is_pinned(to, bytes) || pageable() == LATE;
    if (!is_pinned(to, bytes)) ++host_calls.to_host;
    // What the copy will bring is not there yet.
    std::memset(to, 0xFF, bytes);
    TRY(submit(stream, copying(to, reinterpret_cast<const void*>(from), bytes, {from}), {from, reinterpret_cast<u64>(to)}));
    return is_late ? OK : wait_for(find_stream(stream));
}
API cuMemcpyDtoDAsync_v2(u64 to, u64 from, size_t bytes, void* stream) {
    NEED_CONTEXT;
    if (bytes == 0) return OK;
    TRY(fits("cuMemcpyDtoDAsync", to, bytes));
    TRY(fits("cuMemcpyDtoDAsync", from, bytes));
    count_call("cuMemcpyDtoDAsync");
    if (to < from + bytes && from < to + bytes) return refuse(INVALID_VALUE, "cuMemcpyDtoDAsync: the ranges overlap");
    return submit(stream, copying(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes, {to, from}),
                  {to, from});
}
// CUDA_MEMCPY2D of cuda.h.
struct Copy2D {
    size_t from_x, from_y;
    u32 from_type;
    const void* from_host;
    u64 from_device;
    void* from_array;
    size_t from_pitch, to_x, to_y;
    u32 to_type;
    void* to_host;
    u64 to_device;
    void* to_array;
    size_t to_pitch, width, height;
};
API cuMemcpy2DAsync_v2(const Copy2D* copy, void* stream) {
    NEED_CONTEXT;
    NEED(copy);
    constexpr u32 DEVICE = 2;
    const Copy2D c = *copy;
    if (c.from_type != DEVICE || c.to_type != DEVICE || c.from_x || c.from_y || c.to_x || c.to_y)
        return refuse(INVALID_VALUE, "cuMemcpy2DAsync: only whole matrices on the device");
    if (c.width == 0 || c.height == 0) return OK;
    if (c.from_pitch < c.width || c.to_pitch < c.width)
        return refuse(INVALID_VALUE, "cuMemcpy2DAsync: lines of %zu bytes, closer together than that", c.width);
    const size_t from_bytes = (c.height - 1) * c.from_pitch + c.width, to_bytes = (c.height - 1) * c.to_pitch + c.width;
    TRY(fits("cuMemcpy2DAsync", c.from_device, from_bytes));
    TRY(fits("cuMemcpy2DAsync", c.to_device, to_bytes));
    count_call("cuMemcpy2DAsync");
    return submit(stream,
                  [=] {
                      if (!device_range_valid(c.from_device, from_bytes) || !device_range_valid(c.to_device, to_bytes))
                          return refuse(ILLEGAL_ADDRESS, "a copy of a matrix ran after its memory was freed");
                      for (size_t i = 0; i < c.height; ++i)
                          std::memcpy(reinterpret_cast<void*>(c.to_device + i * c.to_pitch),
                                      reinterpret_cast<const void*>(c.from_device + i * c.from_pitch), c.width);
                      return OK;
                  },
                  {c.from_device, c.to_device});
}
API cuMemcpyHtoD_v2(u64 to, const void* from, size_t bytes) { return cuMemcpyHtoDAsync_v2(to, from, bytes, nullptr); }
API cuMemcpyDtoH_v2(void* to, u64 from, size_t bytes) { return cuMemcpyDtoHAsync_v2(to, from, bytes, nullptr); }
API cuMemcpyDtoD_v2(u64 to, u64 from, size_t bytes) { return cuMemcpyDtoDAsync_v2(to, from, bytes, nullptr); }
API cuMemsetD8Async(u64 to, unsigned char value, size_t count, void* stream) {
    NEED_CONTEXT;
    if (count == 0) return OK;
    TRY(fits("cuMemsetD8Async", to, count));
    count_call("cuMemsetD8Async");
    return submit(stream,
                  [=] {
                      if (!device_range_valid(to, count))
                          return refuse(ILLEGAL_ADDRESS, "a memset of %zu bytes ran after its memory was freed", count);
                      std::memset(reinterpret_cast<void*>(to), value, count);
                      count_bytes("cuMemsetD8Async", 0, count);
                      return OK;
                  },
                  {to});
}
API cuMemsetD8_v2(u64 to, unsigned char value, size_t count) { return cuMemsetD8Async(to, value, count, nullptr); }
API cuMemsetD32Async(u64 to, unsigned value, size_t count, void* stream) {
    NEED_CONTEXT;
    if (count == 0) return OK;
    if (to % 4) return INVALID_VALUE;
    TRY(fits("cuMemsetD32Async", to, count * 4));
    return submit(stream,
                  [=] {
                      if (!device_range_valid(to, count * 4))
                          return refuse(ILLEGAL_ADDRESS, "a memset of %zu bytes ran after its memory was freed", count * 4);
                      std::fill_n(reinterpret_cast<unsigned*>(to), count, value);
                      count_bytes("cuMemsetD32Async", 0, count * 4);
                      return OK;
                  },
                  {to});
}

// ---- streams and events ----

API cuStreamCreate(void** out, unsigned flags) {
    NEED_CONTEXT;
    NEED(out);
    if (flags > 1) return INVALID_VALUE;
    *out = create_stream(flags == 0);
    return OK;
}
API cuStreamCreateWithPriority(void** out, unsigned flags, int) { return cuStreamCreate(out, flags); }
API cuStreamDestroy_v2(void* stream) {
    NEED_CONTEXT;
    return destroy_stream(stream);
}
API cuStreamSynchronize(void* handle) {
    NEED_CONTEXT;
    const auto stream = find_stream(handle);
    return stream ? wait_for(stream) : 400;
}
API cuStreamQuery(void* handle) {
    NEED_CONTEXT;
    const auto stream = find_stream(handle);
    if (!stream) return 400;
    return progress(stream) ? stream->error : 600;
}
API cuStreamWaitEvent(void* stream, void* event, unsigned) {
    NEED_CONTEXT;
    return wait_event(stream, event);
}
API cuEventCreate(void** out, unsigned) {
    NEED_CONTEXT;
    NEED(out);
    *out = create_event();
    return OK;
}
API cuEventDestroy_v2(void* event) {
    NEED_CONTEXT;
    return destroy_event(event);
}
API cuEventRecord(void* event, void* stream) {
    NEED_CONTEXT;
    return record(event, stream);
}
API cuEventSynchronize(void* handle) {
    NEED_CONTEXT;
    const auto event = find_event(handle);
    if (!event) return 400;
    const bool waits = event->done < event->recorded;
    const Code code = drain_event(event);
    if (waits && !has_work(event->stream)) ++host_calls.idle;
    return code;
}
API cuEventQuery(void* handle) {
    NEED_CONTEXT;
    const auto event = find_event(handle);
    if (!event) return 400;
    return progress(event) ? event->error : 600;
}
API cuEventElapsedTime(float* out, void* start, void* end) {
    NEED_CONTEXT;
    NEED(out);
    const auto first = find_event(start), last = find_event(end);
    if (!first || !last || first->recorded == 0 || last->recorded == 0) return 400;
    if (first->done < first->recorded || last->done < last->recorded) return 600;
    *out = float(last->milliseconds - first->milliseconds);
    return OK;
}
API cuEventElapsedTime_v2(float* out, void* start, void* end) { return cuEventElapsedTime(out, start, end); }

// How copies from and to pageable memory go for the calling thread: "staged", "late", "sync", or as SIMT_PAGEABLE says.
extern "C" __attribute__((visibility("default"))) void simt_set_pageable(const char* mode) { pageable_of_thread = mode; }
