// Device memory: ranges at fixed addresses that are never used twice, each filled with NaN and followed by a guard page.
#include <sys/mman.h>
#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

#include "machine.h"

namespace simt {

thread_local std::string last_error;

std::string text(const char* format, ...) {
    char buffer[512];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(buffer, sizeof buffer, format, arguments);
    va_end(arguments);
    return buffer;
}

Code refuse(Code code, const char* format, ...) {
    char buffer[2048];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(buffer, sizeof buffer, format, arguments);
    va_end(arguments);
    last_error = buffer;
    std::fprintf(stderr, "simt: %s\n", buffer);
    return code;
}

struct Allocation {
    size_t bytes;
    bool live;
};

static std::mutex mutex;
static std::map<uintptr_t, Allocation> allocations;
static uintptr_t next_address = DEVICE_BASE + PAGE;
static size_t in_use = 0;

static void reserve(uintptr_t at, size_t bytes, int protection) {
    void* got = mmap(reinterpret_cast<void*>(at), bytes, protection,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (got != reinterpret_cast<void*>(at)) {
        std::perror("simt: cannot reserve the address range of the device");
        std::abort();
    }
}

void map_device() {
    static std::once_flag once;
    std::call_once(once, [] {
        reserve(DEVICE_BASE, DEVICE_SPAN, PROT_NONE);
        reserve(CELLS_BASE, DEVICE_SPAN / CELL * sizeof(Cell), PROT_READ | PROT_WRITE);
        reserve(SECTORS_BASE, DEVICE_SPAN / SECTOR * sizeof(SectorSeen), PROT_READ | PROT_WRITE);
        reserve(VALID_BASE, DEVICE_SPAN / PAGE * sizeof(u16), PROT_READ | PROT_WRITE);
    });
}

static size_t capacity() {
    const char* bytes = std::getenv("SIMT_MEMORY");
    return bytes ? std::strtoull(bytes, nullptr, 10) : size_t(4) << 30;
}

void memory_info(size_t* free, size_t* total) {
    const std::lock_guard<std::mutex> lock(mutex);
    *total = capacity();
    *free = *total - std::min(in_use, *total);
}

static void mark(uintptr_t address, size_t bytes, bool live) {
    for (size_t at = 0; at < bytes; at += PAGE) *device_valid(address + at) = u16(live ? std::min(bytes - at, PAGE) : 0);
}

// 64 MiB of NaN that large allocations map, copied page by page as they are written.
static int nan_file() {
    constexpr size_t bytes = size_t(64) << 20;
    static const int file = [] {
        const int fd = memfd_create("simt-nan", MFD_CLOEXEC);
        if (fd < 0 || ftruncate(fd, off_t(bytes)) != 0) return -1;
        void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (memory == MAP_FAILED) return -1;
        std::memset(memory, 0xFF, bytes);
        munmap(memory, bytes);
        return fd;
    }();
    return file;
}

int device_allocate(u64* out, size_t bytes) {
    constexpr size_t small = size_t(4) << 20, piece = size_t(64) << 20;
    const std::lock_guard<std::mutex> lock(mutex);
    const size_t rounded = (bytes + PAGE - 1) / PAGE * PAGE;
    if (in_use + rounded > capacity() || next_address + rounded + PAGE > DEVICE_BASE + DEVICE_SPAN) return 2;
    const uintptr_t address = next_address;
    next_address += rounded + PAGE;
    if (rounded <= small || nan_file() < 0) {
        if (mprotect(reinterpret_cast<void*>(address), rounded, PROT_READ | PROT_WRITE) != 0) return 2;
        std::memset(reinterpret_cast<void*>(address), 0xFF, rounded);
    } else {
        for (size_t at = 0; at < rounded; at += piece) {
            void* const to = reinterpret_cast<void*>(address + at);
            if (mmap(to, std::min(piece, rounded - at), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE,
                     nan_file(), 0) != to)
                return 2;
        }
    }
    mark(address, bytes, true);
    allocations[address] = Allocation{bytes, true};
    in_use += rounded;
    *out = address;
    return 0;
}

int device_free(u64 address) {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto found = allocations.find(address);
    if (found == allocations.end() || !found->second.live) return INVALID_VALUE;
    const size_t bytes = found->second.bytes, rounded = (bytes + PAGE - 1) / PAGE * PAGE;
    found->second.live = false;
    in_use -= rounded;
    mark(address, bytes, false);
    mmap(reinterpret_cast<void*>(address), rounded, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
         0);
    madvise(device_cells(address), rounded / CELL * sizeof(Cell), MADV_DONTNEED);
    madvise(device_sector(address), rounded / SECTOR * sizeof(SectorSeen), MADV_DONTNEED);
    return 0;
}

size_t device_bytes(u64 address) {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto found = allocations.find(address);
    return found == allocations.end() || !found->second.live ? 0 : found->second.bytes;
}

bool device_range_valid(u64 address, size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex);
    auto after = allocations.upper_bound(address);
    if (after == allocations.begin()) return false;
    --after;
    return after->second.live && address + bytes <= after->first + after->second.bytes;
}

static std::string describe_device(uintptr_t address) {
    const std::lock_guard<std::mutex> lock(mutex);
    auto after = allocations.upper_bound(address);
    if (after == allocations.begin()) return text("global address 0x%zx, never allocated", size_t(address));
    --after;
    const Allocation& a = after->second;
    const size_t offset = address - after->first;
    if (!a.live) return text("byte %zu of %zu bytes of freed memory", offset, a.bytes);
    if (offset >= a.bytes) return text("%zu bytes past the end of an allocation of %zu bytes", offset - a.bytes, a.bytes);
    return text("byte %zu of an allocation of %zu bytes", offset, a.bytes);
}

static std::string describe_shared(const Machine& m, size_t offset) {
    if (offset >= m.dynamic_offset && offset < m.dynamic_offset + m.launch->dynamic_shared) {
        return text("byte %zu of %u bytes of dynamic shared memory", offset - m.dynamic_offset, m.launch->dynamic_shared);
    }
    std::string nearest = "shared memory";
    size_t best = SIZE_MAX;
    for (const SlotPlace& place : m.slots) {
        if (place.launch != m.launch_number || place.offset > offset || offset - place.offset >= best) continue;
        best = offset - place.offset;
        nearest = best < place.bytes ? text("byte %zu of shared array %s", best, place.name)
                                     : text("%zu bytes past the end of shared array %s", best - place.bytes, place.name);
    }
    if (offset > m.dynamic_offset && m.launch->dynamic_shared > 0 && offset - m.dynamic_offset < best) {
        nearest =
            text("%zu bytes past the end of dynamic shared memory", offset - m.dynamic_offset - m.launch->dynamic_shared);
    }
    return nearest;
}

std::string describe_address(uintptr_t address) {
    if (address < PAGE) return text("null pointer + %zu", size_t(address));
    if (on_device(address)) return describe_device(address);
    const uintptr_t offset = address - reinterpret_cast<uintptr_t>(machine->shared_lo);
    if (offset < SHARED_ARENA) return describe_shared(*machine, offset);
    return text("host memory (0x%zx)", size_t(address));
}

std::string source_line(const void* return_address) {
    Dl_info info;
    if (!return_address || !dladdr(return_address, &info) || !info.dli_fname) return "source unknown";
    const size_t offset = size_t(static_cast<const char*>(return_address) - static_cast<const char*>(info.dli_fbase)) - 1;
    // The path is the build's own; a quote in it would end the argument.
    if (std::strchr(info.dli_fname, '\'')) return "source unknown";
    FILE* pipe = popen(text("addr2line -i -e '%s' 0x%zx 2>/dev/null", info.dli_fname, offset).c_str(), "r");
    if (!pipe) return "source unknown";
    // The innermost line, then those it was inlined into, up to the first that is not a header's.
    std::string places;
    char line[1024];
    bool header = true;
    while (std::fgets(line, sizeof line, pipe)) {
        line[std::strcspn(line, " \n")] = 0;
        if (!header) continue;
        const char* slash = std::strrchr(line, '/');
        places += (places.empty() ? "at " : ", from ") + std::string(slash ? slash + 1 : line);
        header = std::strstr(line, ".cuh:") || std::strstr(line, "simt.h:");
    }
    pclose(pipe);
    return places.empty() ? "source unknown" : places;
}

}  // namespace simt
