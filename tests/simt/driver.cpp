// The driver API, as far as cudarc calls it: every check that the real one makes of its arguments, and then some.
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

#include "driver.h"

namespace simt {

std::atomic<bool> initialized{false};
thread_local void* current_context = nullptr;

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

int context_object;

int n_devices() { return int(setting("SIMT_DEVICES", 1)); }

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
    return refuse(INVALID_VALUE, "%s: %zu bytes from %s are not all of one live allocation", call, bytes, describe_address(device).c_str());
}

// Copies and memsets are in the report beside kernels: each is something that the host asks a stream for.
void count_call(const char* call) {
    Counters counters = {};
    counters.launches = 1;
    add_counters(call, counters);
}

// A copy checks its device ranges again when it runs, as the memory may be gone by then.
std::function<Code()> copying(void* to, const void* from, size_t bytes, std::vector<u64> device) {
    return [=] {
        for (const u64 address : device) {
            if (!device_range_valid(address, bytes)) return refuse(ILLEGAL_ADDRESS, "a copy of %zu bytes ran after its memory was freed", bytes);
        }
        std::memcpy(to, from, bytes);
        return OK;
    };
}

}  // namespace

Code current_device_context(void** out) {
    *out = current_context;
    return initialized ? OK : Code(3);
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
    out[15] = (unsigned char)device;
    return OK;
}
API cuDeviceGetUuid_v2(unsigned char* out, int device) { return cuDeviceGetUuid(out, device); }
API cuDeviceGetPCIBusId(char* out, int bytes, int device) {
    NEED_INIT;
    std::snprintf(out, size_t(bytes), "0000:%02X:00.0", device + 1);
    return OK;
}
API cuDeviceGetAttribute(int* out, int attribute, int) {
    NEED_INIT;
    NEED(out);
    // An H100's figures where the capability does not say otherwise.
    static const std::map<int, int> known = {
        {1, MAX_THREADS}, {2, 1024}, {3, 1024}, {4, 64}, {5, 0x7FFFFFFF}, {6, 65535}, {7, 65535}, {8, int(SHARED_WITHOUT_OPT_IN)}, {10, LANES},
        {12, 65536}, {13, 1980000}, {16, 132}, {31, 0}, {32, 1}, {36, 2619000}, {37, 5120}, {38, 50 << 20}, {39, 2048}, {40, 3}, {41, 1},
        {82, 65536}, {95, 1}, {115, 0}};
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
    *out = &context_object;
    return OK;
}
API cuDevicePrimaryCtxRelease_v2(int) {
    NEED_INIT;
    return OK;
}
API cuCtxSetCurrent(void* context) {
    NEED_INIT;
    if (context && context != &context_object) return 201;
    current_context = context;
    return OK;
}
API cuCtxGetCurrent(void** out) {
    NEED_INIT;
    NEED(out);
    *out = current_context;
    return OK;
}
API cuCtxGetDevice(int* out) {
    NEED_CONTEXT;
    NEED(out);
    *out = 0;
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
        if (wants_report()) std::fprintf(stderr, "simt: memory requests: %llu of the device, %llu pinned\n", (unsigned long long)of_device, (unsigned long long)of_host);
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
    if (bytes == 0) return refuse(INVALID_VALUE, "cuMemFree: %s is not the start of a live allocation", describe_address(address).c_str());
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
    // Pageable memory is staged before the call returns.
    const auto staged = std::make_shared<std::vector<char>>(static_cast<const char*>(from), static_cast<const char*>(from) + bytes);
    return submit(stream, [=] { return copying(device, staged->data(), bytes, {to})(); }, {to});
}
API cuMemcpyDtoHAsync_v2(void* to, u64 from, size_t bytes, void* stream) {
    NEED_CONTEXT;
    if (bytes == 0) return OK;
    NEED(to);
    TRY(fits("cuMemcpyDtoHAsync", from, bytes));
    count_call("cuMemcpyDtoHAsync");
    const bool late = is_pinned(to, bytes);
    // What the copy will bring is not there yet.
    std::memset(to, 0xFF, bytes);
    TRY(submit(stream, copying(to, reinterpret_cast<const void*>(from), bytes, {from}), {from, reinterpret_cast<u64>(to)}));
    return late ? OK : drain(find_stream(stream));
}
API cuMemcpyDtoDAsync_v2(u64 to, u64 from, size_t bytes, void* stream) {
    NEED_CONTEXT;
    if (bytes == 0) return OK;
    TRY(fits("cuMemcpyDtoDAsync", to, bytes));
    TRY(fits("cuMemcpyDtoDAsync", from, bytes));
    count_call("cuMemcpyDtoDAsync");
    if (to < from + bytes && from < to + bytes) return refuse(INVALID_VALUE, "cuMemcpyDtoDAsync: the ranges overlap");
    return submit(stream, copying(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes, {to, from}), {to, from});
}
API cuMemcpyHtoD_v2(u64 to, const void* from, size_t bytes) { return cuMemcpyHtoDAsync_v2(to, from, bytes, nullptr); }
API cuMemcpyDtoH_v2(void* to, u64 from, size_t bytes) { return cuMemcpyDtoHAsync_v2(to, from, bytes, nullptr); }
API cuMemcpyDtoD_v2(u64 to, u64 from, size_t bytes) { return cuMemcpyDtoDAsync_v2(to, from, bytes, nullptr); }
API cuMemsetD8Async(u64 to, unsigned char value, size_t count, void* stream) {
    NEED_CONTEXT;
    if (count == 0) return OK;
    TRY(fits("cuMemsetD8Async", to, count));
    count_call("cuMemsetD8Async");
    return submit(stream, [=] {
        if (!device_range_valid(to, count)) return refuse(ILLEGAL_ADDRESS, "a memset of %zu bytes ran after its memory was freed", count);
        std::memset(reinterpret_cast<void*>(to), value, count);
        return OK;
    }, {to});
}
API cuMemsetD8_v2(u64 to, unsigned char value, size_t count) { return cuMemsetD8Async(to, value, count, nullptr); }
API cuMemsetD32Async(u64 to, unsigned value, size_t count, void* stream) {
    NEED_CONTEXT;
    if (count == 0) return OK;
    if (to % 4) return INVALID_VALUE;
    TRY(fits("cuMemsetD32Async", to, count * 4));
    return submit(stream, [=] {
        if (!device_range_valid(to, count * 4)) return refuse(ILLEGAL_ADDRESS, "a memset of %zu bytes ran after its memory was freed", count * 4);
        std::fill_n(reinterpret_cast<unsigned*>(to), count, value);
        return OK;
    }, {to});
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
    return stream ? drain(stream) : 400;
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
    return event ? drain_event(event) : 400;
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
