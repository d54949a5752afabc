// The driver API, as far as cudarc calls it: every check that the real one makes of its arguments, and then some.
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

#include "streams.h"

namespace simt {

namespace {

std::atomic<bool> initialized{false};
int context_object;
thread_local void* current_context = nullptr;

u64 setting(const char* name, u64 otherwise) {
    const char* value = std::getenv(name);
    return value ? std::strtoull(value, nullptr, 10) : otherwise;
}

int capability(bool minor) {
    const char* value = std::getenv("SIMT_CAPABILITY");
    int parts[2] = {9, 0};
    if (value) std::sscanf(value, "%d.%d", &parts[0], &parts[1]);
    return parts[minor];
}

int n_devices() { return int(setting("SIMT_DEVICES", 1)); }

// Shared memory that a block may have at most, static and dynamic together.
u32 shared_limit() {
    const int version = capability(false) * 10 + capability(true);
    if (version == 80 || version == 87) return 163 * 1024;
    if (version == 75) return 64 * 1024;
    if (version == 86 || version == 89 || version >= 120) return 99 * 1024;
    return 227 * 1024;
}
constexpr u32 SHARED_WITHOUT_OPT_IN = 48 * 1024;

struct Module;
struct Function {
    const Kernel* kernel;
    u32 shared_limit;
};
struct Module {
    std::string name;
    std::map<std::string, Function> functions;
};

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

#define API extern "C" __attribute__((visibility("default"))) int
#define NEED_INIT \
    if (!initialized) return 3
#define NEED_CONTEXT \
    NEED_INIT;       \
    if (!current_context) return refuse(Code(201), "%s: no context is current on the calling thread", __func__)
#define NEED(pointer) \
    if (!(pointer)) return INVALID_VALUE
#define TRY(call)                     \
    if (const int code = (call)) return code

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

API cuMemGetInfo_v2(size_t* free, size_t* total) {
    NEED_CONTEXT;
    NEED(free && total);
    memory_info(free, total);
    return OK;
}
API cuMemAlloc_v2(u64* out, size_t bytes) {
    NEED_CONTEXT;
    NEED(out && bytes > 0);
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

// ---- modules and launches ----

API cuModuleLoadData(void** out, const void* image) {
    NEED_CONTEXT;
    NEED(out && image);
    const char* bytes = static_cast<const char*>(image);
    std::string name;
    if (std::strncmp(bytes, "SIMT cubin of ", 14) == 0) {
        // From our own NVRTC: only that file's kernels.
        name = std::string(bytes + 14, std::strcspn(bytes + 14, "\n"));
        if (!has_module(name.c_str())) return refuse(Code(200), "the stand-in was built without kernels/%s.cu", name.c_str());
    } else if (std::memcmp(bytes, "\x7F" "ELF", 4) != 0 && std::memcmp(bytes, "\x50\xED\x55\xBA", 4) != 0 && !std::strstr(std::string(bytes, strnlen(bytes, 4096)).c_str(), ".version")) {
        return refuse(Code(200), "cuModuleLoadData: neither a fat binary, nor ELF, nor PTX");
    }
    *out = new Module{name, {}};
    return OK;
}
API cuModuleLoadDataEx(void** out, const void* image, unsigned, int*, void**) { return cuModuleLoadData(out, image); }
API cuModuleUnload(void* module) {
    NEED_CONTEXT;
    NEED(module);
    drain_thread();
    delete static_cast<Module*>(module);
    return OK;
}
API cuModuleGetFunction(void** out, void* handle, const char* name) {
    NEED_CONTEXT;
    NEED(out && handle && name);
    Module& module = *static_cast<Module*>(handle);
    const Kernel* kernel = find_kernel(module.name.c_str(), name);
    if (!kernel) return 500;
    static std::mutex mutex;
    const std::lock_guard<std::mutex> lock(mutex);
    *out = &module.functions.emplace(name, Function{kernel, SHARED_WITHOUT_OPT_IN}).first->second;
    return OK;
}
API cuFuncGetAttribute(int* out, int attribute, void* handle) {
    NEED_CONTEXT;
    NEED(out && handle);
    const Function& function = *static_cast<Function*>(handle);
    switch (attribute) {
        case 0: *out = function.kernel->max_threads; break;
        case 1: *out = int(static_shared_of(function.kernel)); break;
        case 4: *out = 32; break;
        case 5:
        case 6: *out = capability(false) * 10 + capability(true); break;
        case 8: *out = int(function.shared_limit); break;
        default: *out = 0;
    }
    return OK;
}
API cuFuncSetAttribute(void* handle, int attribute, int value) {
    NEED_CONTEXT;
    NEED(handle);
    if (attribute != 8) return OK;
    if (value < 0 || u32(value) > shared_limit()) {
        return refuse(INVALID_VALUE, "cuFuncSetAttribute: %d bytes of shared memory; the device has %u a block", value, shared_limit());
    }
    static_cast<Function*>(handle)->shared_limit = std::max(u32(value), SHARED_WITHOUT_OPT_IN);
    return OK;
}
API cuFuncGetParamInfo(void* handle, size_t index, size_t* offset, size_t* size) {
    NEED_INIT;
    NEED(handle && offset);
    const Kernel& kernel = *static_cast<Function*>(handle)->kernel;
    if (index >= size_t(kernel.n_params)) return INVALID_VALUE;
    *offset = kernel.params[index].offset;
    if (size) *size = kernel.params[index].size;
    return OK;
}
API cuOccupancyMaxActiveBlocksPerMultiprocessor(int* out, void* handle, int threads, size_t dynamic) {
    NEED_CONTEXT;
    NEED(out && handle && threads > 0);
    const size_t shared = dynamic + 1024 + static_shared_of(static_cast<Function*>(handle)->kernel);
    *out = int(std::min<size_t>({size_t(2048 / threads), 32, (shared_limit() + 1024) / shared}));
    return OK;
}
API cuLaunchKernel(void* handle, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned dynamic_shared, void* stream,
                   void** params, void** extra) {
    NEED_CONTEXT;
    NEED(handle);
    const Function& function = *static_cast<Function*>(handle);
    const Kernel& kernel = *function.kernel;
    const char* name = kernel.name;
    if (extra) return refuse(Code(801), "launch of %s: `extra` is not supported", name);
    if (gx == 0 || gy == 0 || gz == 0 || bx == 0 || by == 0 || bz == 0) return refuse(INVALID_VALUE, "launch of %s: empty grid or block", name);
    if (gx > 0x7FFFFFFF || gy > 65535 || gz > 65535) return refuse(INVALID_VALUE, "launch of %s: grid of %u x %u x %u blocks", name, gx, gy, gz);
    if (bx > 1024 || by > 1024 || bz > 64 || u64(bx) * by * bz > MAX_THREADS) return refuse(INVALID_VALUE, "launch of %s: block of %u x %u x %u threads", name, bx, by, bz);
    if (int(bx * by * bz) > kernel.max_threads) {
        return refuse(OUT_OF_RESOURCES, "launch of %s: %u threads a block; it is compiled for %d", name, bx * by * bz, kernel.max_threads);
    }
    if (dynamic_shared > function.shared_limit) {
        return refuse(INVALID_VALUE, "launch of %s: %u bytes of dynamic shared memory; its limit is %u (CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES)", name,
                      dynamic_shared, function.shared_limit);
    }
    if (kernel.n_params > 0) NEED(params);
    Launch launch{&kernel, Dim3{gx, gy, gz}, Dim3{bx, by, bz}, dynamic_shared, dynamic_shared > SHARED_WITHOUT_OPT_IN ? shared_limit() : SHARED_WITHOUT_OPT_IN, {}};
    launch.args.resize(kernel.args_bytes + 16);
    std::vector<u64> refers;
    for (int i = 0; i < kernel.n_params; ++i) {
        if (!params[i]) return refuse(INVALID_VALUE, "launch of %s: argument %d is missing", name, i);
        const Param& param = kernel.params[i];
        std::memcpy(&launch.args[param.offset], params[i], param.size);
        if (param.pointer) refers.push_back(*static_cast<u64*>(params[i]));
    }
    return submit(stream, [launch = std::move(launch)] { return execute(launch); }, std::move(refers));
}

// ---- errors ----

struct ErrorText {
    int code;
    const char *name, *description;
};
static const ErrorText ERRORS[] = {
    {0, "CUDA_SUCCESS", "no error"},
    {1, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {3, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {200, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {201, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {209, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"},
    {400, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {500, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {600, "CUDA_ERROR_NOT_READY", "device not ready"},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch"},
    {716, "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {801, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
};
static int error_text(int code, const char** out, bool name) {
    for (const ErrorText& error : ERRORS) {
        if (error.code != code) continue;
        *out = name ? error.name : error.description;
        return OK;
    }
    *out = nullptr;
    return INVALID_VALUE;
}
API cuGetErrorName(int code, const char** out) { return error_text(code, out, true); }
API cuGetErrorString(int code, const char** out) { return error_text(code, out, false); }
