// Modules, functions, launches, and the names of errors: the rest of the driver API.
#include <algorithm>
#include <cctype>
#include <map>
#include <mutex>

#include "driver.h"
#include "images.h"

namespace simt {

namespace {

struct Function {
    const Kernel* kernel;
    u32 shared_limit;
};
struct Module {
    std::string name;
    // Those that it has, each with a blank before and after; all of the file's, if there are none.
    std::string kernels;
    std::map<std::string, Function> functions;
};

}  // namespace

}  // namespace simt

using namespace simt;

namespace {

// The driver's version, as 12080.
u32 driver_version() { return u32(setting("SIMT_DRIVER_VERSION", 12080)); }
u32 device() { return u32(capability(false) * 10 + capability(true)); }

// What kernels an image has: the file they are from, or none for all of them, and which of that file.
void find_kernels(const char* text, Module& module) {
    const char* mark = std::strstr(text, "SIMT kernels of ");
    if (!mark) return;
    mark += 16;
    const size_t name = std::strcspn(mark, ":\n"), line = std::strcspn(mark, "\n");
    module.name = std::string(mark, name);
    if (name < line) module.kernels = std::string(mark + name + 1, line - name - 1) + " ";
}

// The newest PTX that a driver knows, as 87 for 8.7 (PTX ISA, release notes).
u32 newest_ptx() {
    const u32 major = driver_version() / 1000, minor = driver_version() % 1000 / 10;
    if (major != 12) return major >= 13 ? 90 + minor : 0;
    return minor <= 5 ? 80 + minor : minor == 6 ? 85 : 79 + minor;
}

Code load_ptx(const char* text, Module& module) {
    // Compiled for the device by the driver.
    unsigned major = 0, minor = 0, target = 0;
    const char *version = std::strstr(text, ".version"), *architecture = std::strstr(text, ".target");
    if (!version || !architecture || std::sscanf(version, ".version %u.%u", &major, &minor) != 2 ||
        std::sscanf(architecture, ".target sm_%u", &target) != 1) {
        return refuse(Code(218), "PTX without version and target");
    }
    if (major * 10 + minor > newest_ptx())
        return refuse(Code(222), "PTX %u.%u is newer than this driver, which is for CUDA %u", major, minor,
                      driver_version());
    if (target > device()) return refuse(Code(209), "PTX for sm_%u", target);
    find_kernels(text, module);
    return OK;
}

// Code runs on GPUs of its major architecture, from its minor one on.
bool runs_here(u32 architecture) { return architecture / 10 == device() / 10 && architecture <= device(); }

Code load_elf(const char* bytes, Module& module) {
    Elf elf;
    std::memcpy(&elf, bytes, sizeof elf);
    if (elf.machine != 190) return refuse(Code(200), "an ELF file that is not CUDA's");
    if (elf.os == Elf::CUDA_13 && driver_version() < 13000)
        return refuse(Code(200), "a cubin of CUDA 13's format for a driver of CUDA %u", driver_version());
    if (!runs_here(elf.architecture())) return refuse(Code(209), "a cubin for sm_%u", elf.architecture());
    find_kernels(bytes + sizeof elf, module);
    return OK;
}

Code load_fat_binary(const char* bytes, Module& module) {
    FatBinary header;
    std::memcpy(&header, bytes, sizeof header);
    if (header.version != 1 || header.header_bytes != sizeof header)
        return refuse(Code(200), "a fat binary's header is damaged");
    const char *at = bytes + sizeof header, *const end = at + header.bytes, *code = nullptr, *ptx = nullptr;
    u32 best = 0;
    while (at < end) {
        FatEntry entry;
        std::memcpy(&entry, at, sizeof entry);
        const char* const content = at + entry.header_bytes;
        if ((entry.kind != FatEntry::PTX && entry.kind != FatEntry::ELF) || content + entry.bytes > end)
            return refuse(Code(200), "a fat binary is damaged");
        if (entry.flags & FatEntry::ZSTD && driver_version() < 12040)
            return refuse(Code(200), "a fat binary compressed by zstd, which drivers know from CUDA 12.4 on");
        if (entry.kind == FatEntry::ELF && entry.architecture >= best && runs_here(entry.architecture)) {
            best = entry.architecture;
            code = content;
        }
        if (entry.kind == FatEntry::PTX && !(entry.flags & (FatEntry::ZSTD | FatEntry::LZ4))) ptx = content;
        at = content + entry.bytes;
    }
    if (code && std::memcmp(code,
                            "\x7F"
                            "ELF",
                            4) == 0)
        return load_elf(code, module);
    // Compressed: its format is not seen.
    if (code) return OK;
    return ptx ? load_ptx(ptx, module) : refuse(Code(209), "a fat binary without code for sm_%u", device());
}

}  // namespace

API cuModuleLoadData(void** out, const void* image) {
    NEED_CONTEXT;
    NEED(out && image);
    const char* bytes = static_cast<const char*>(image);
    Module module;
    if (std::memcmp(bytes,
                    "\x7F"
                    "ELF",
                    4) == 0) {
        TRY(load_elf(bytes, module));
    } else if (std::memcmp(bytes, &FatBinary::MAGIC, 4) == 0) {
        TRY(load_fat_binary(bytes, module));
    } else if (std::strncmp(bytes, "//", 2) == 0 || std::isspace(bytes[0])) {
        TRY(load_ptx(bytes, module));
    } else {
        return refuse(Code(200), "cuModuleLoadData: neither a fat binary, nor ELF, nor PTX");
    }
    const std::string& name = module.name;
    if (!name.empty() && name != "probe" && !has_module(name.c_str()))
        return refuse(Code(200), "the stand-in was built without kernels/%s.cu", name.c_str());
    *out = new Module(module);
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
    if (!kernel || (!module.kernels.empty() && module.kernels.find(" " + std::string(name) + " ") == std::string::npos))
        return 500;
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
        return refuse(INVALID_VALUE, "cuFuncSetAttribute: %d bytes of shared memory; the device has %u a block", value,
                      shared_limit());
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
API cuLaunchKernel(void* handle, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned dynamic_shared, void* stream, void** params, void** extra) {
    NEED_CONTEXT;
    NEED(handle);
    const Function& function = *static_cast<Function*>(handle);
    const Kernel& kernel = *function.kernel;
    const char* name = kernel.name;
    if (extra) return refuse(Code(801), "launch of %s: `extra` is not supported", name);
    if (gx == 0 || gy == 0 || gz == 0 || bx == 0 || by == 0 || bz == 0)
        return refuse(INVALID_VALUE, "launch of %s: empty grid or block", name);
    if (gx > 0x7FFFFFFF || gy > 65535 || gz > 65535)
        return refuse(INVALID_VALUE, "launch of %s: grid of %u x %u x %u blocks", name, gx, gy, gz);
    if (bx > 1024 || by > 1024 || bz > 64 || u64(bx) * by * bz > MAX_THREADS)
        return refuse(INVALID_VALUE, "launch of %s: block of %u x %u x %u threads", name, bx, by, bz);
    if (int(bx * by * bz) > kernel.max_threads) {
        return refuse(OUT_OF_RESOURCES, "launch of %s: %u threads a block; it is compiled for %d", name, bx * by * bz,
                      kernel.max_threads);
    }
    if (dynamic_shared > function.shared_limit) {
        return refuse(INVALID_VALUE,
                      "launch of %s: %u bytes of dynamic shared memory; its limit is %u "
                      "(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES)",
                      name, dynamic_shared, function.shared_limit);
    }
    if (kernel.n_params > 0) NEED(params);
    Launch launch{&kernel,
                  Dim3{gx, gy, gz},
                  Dim3{bx, by, bz},
                  dynamic_shared,
                  dynamic_shared > SHARED_WITHOUT_OPT_IN ? shared_limit() : SHARED_WITHOUT_OPT_IN,
                  {}};
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
    {218, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"},
    {222, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the provided PTX was compiled with an unsupported toolchain."},
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
