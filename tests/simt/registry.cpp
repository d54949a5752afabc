// The kernels that are compiled in, and what their launches have cost.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

#include "machine.h"

namespace simt {

static Kernel*& kernels() {
    static Kernel* first = nullptr;
    return first;
}

void register_kernel(Kernel* kernel) {
    kernel->next = kernels();
    kernels() = kernel;
}

const Kernel* find_kernel(const char* module, const char* name) {
    for (const Kernel* k = kernels(); k; k = k->next) {
        if ((!*module || std::strcmp(k->module, module) == 0) && std::strcmp(k->name, name) == 0) return k;
    }
    return nullptr;
}

bool has_module(const char* module) {
    for (const Kernel* k = kernels(); k; k = k->next) {
        if (std::strcmp(k->module, module) == 0) return true;
    }
    return false;
}

void Counters::add(const Counters& other) {
    u64* mine = reinterpret_cast<u64*>(this);
    const u64* theirs = reinterpret_cast<const u64*>(&other);
    for (size_t i = 0; i < sizeof(Counters) / sizeof(u64); ++i) mine[i] += theirs[i];
}

bool wants_report() {
    const char* wanted = std::getenv("SIMT_REPORT");
    return wanted && std::strcmp(wanted, "1") == 0;
}

struct Totals {
    std::mutex mutex;
    std::map<std::string, Counters> counters;
    std::map<const Kernel*, u32> static_shared;

    // The report that SIMT_REPORT=1 asks for, when the process ends.
    ~Totals() {
        if (!wants_report()) return;
        std::fprintf(stderr, "simt: %-44s %9s %9s %12s %12s %12s %12s %12s %12s %12s %10s %9s\n", "kernel", "launches",
                     "blocks", "read", "written", "sectors read", "and written", "by loads", "by stores", "shared", "mma",
                     "conflicts");
        for (const auto& [name, c] : counters) {
            std::fprintf(stderr, "simt: %-44s %9llu %9llu %12llu %12llu %12llu %12llu %12llu %12llu %12llu %10llu %9llu\n",
                         name.c_str(), (unsigned long long)c.launches, (unsigned long long)c.blocks,
                         (unsigned long long)c.global_read, (unsigned long long)c.global_written,
                         (unsigned long long)c.sectors_read * SECTOR, (unsigned long long)c.sectors_written * SECTOR,
                         (unsigned long long)c.load_sectors * SECTOR, (unsigned long long)c.store_sectors * SECTOR,
                         (unsigned long long)(c.shared_read + c.shared_written), (unsigned long long)c.mma,
                         (unsigned long long)c.ldmatrix_conflicts);
        }
    }
};

static Totals& totals() {
    static Totals totals;
    return totals;
}

// Of all kernels that ran on this thread since they were last taken.
static thread_local Counters of_thread;

void add_counters(const char* name, const Counters& counters) {
    of_thread.add(counters);
    const std::lock_guard<std::mutex> lock(totals().mutex);
    totals().counters[name].add(counters);
}

void note_static_shared(const Kernel* kernel, u32 bytes) {
    const std::lock_guard<std::mutex> lock(totals().mutex);
    u32& seen = totals().static_shared[kernel];
    seen = std::max(seen, bytes);
}

u32 static_shared_of(const Kernel* kernel) {
    const std::lock_guard<std::mutex> lock(totals().mutex);
    return totals().static_shared[kernel];
}

extern "C" {
const char* simt_last_error() { return last_error.c_str(); }
int simt_counters(const char* kernel, Counters* out) {
    const std::lock_guard<std::mutex> lock(totals().mutex);
    const auto found = totals().counters.find(kernel);
    *out = found == totals().counters.end() ? Counters{} : found->second;
    return found != totals().counters.end();
}
void simt_take_thread_counters(Counters* out) {
    *out = of_thread;
    of_thread = Counters{};
}
void simt_reset_counters() {
    const std::lock_guard<std::mutex> lock(totals().mutex);
    totals().counters.clear();
}
}

}  // namespace simt
