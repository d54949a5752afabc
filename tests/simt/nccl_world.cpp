// The ranks of a communicator: processes that share a file of memory, which the id names. A rank holds the lock of its byte of
// that file, which the kernel takes from it when it dies.
#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "nccl.h"

namespace simt {

namespace {

constexpr char MAGIC[] = "hbt simt NCCL id";
constexpr size_t SEATS_BYTES = (sizeof(Seat) * MOST_RANKS + PAGE - 1) / PAGE * PAGE;

struct Id {
    char magic[sizeof MAGIC];
    int pid, file;
    u64 made;
};
static_assert(sizeof(Id) <= 128, "as large as the real one at most");

void rest() {
    const timespec a_little = {0, 100'000};
    nanosleep(&a_little, nullptr);
}

// A fault as the environment words it.
struct Fault {
    std::string what;
    int rank = -1;
    u64 number = 0;
    When when = BEFORE;
};

const Fault& asked_fault() {
    static const Fault asked = [] {
        Fault fault;
        const char* text = std::getenv("SIMT_NCCL_FAULT");
        char what[16] = "", when[16] = "before";
        unsigned long long number = 0;
        if (!text) return fault;
        if (std::sscanf(text, "%15[a-z]:%d:%llu:%15[a-z]", what, &fault.rank, &number, when) < 3)
            give_up("SIMT_NCCL_FAULT is %s, not WHAT:RANK:NUMBER[:WHEN]", text);
        fault.what = what;
        fault.number = number;
        const std::string word = when;
        fault.when = word == "during" ? DURING : word == "after" ? AFTER : BEFORE;
        return fault;
    }();
    return asked;
}

}  // namespace

double seconds() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return double(now.tv_sec) + double(now.tv_nsec) * 1e-9;
}

double patience() {
    const char* value = std::getenv("SIMT_NCCL_PATIENCE");
    return value ? std::atof(value) : 60.0;
}

void give_up(const char* format, ...) {
    char buffer[2048];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(buffer, sizeof buffer, format, arguments);
    va_end(arguments);
    std::fprintf(stderr, "simt: nccl: %s\n", buffer);
    std::fflush(stderr);
    _exit(86);
}

void make_id(char* id) {
    const int file = memfd_create("simt-nccl", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, off_t(SEATS_BYTES + MOST_RANKS * WINDOW)) != 0) give_up("no memory for the ranks");
    Id made = {};
    std::memcpy(made.magic, MAGIC, sizeof MAGIC);
    made.pid = getpid();
    made.file = file;
    made.made = u64(seconds() * 1e9);
    std::memset(id, 0, 128);
    std::memcpy(id, &made, sizeof made);
}

Result World::join(const char* id) {
    Id made;
    std::memcpy(&made, id, sizeof made);
    if (std::memcmp(made.magic, MAGIC, sizeof MAGIC) != 0) {
        refuse(INVALID_VALUE, "nccl: an id that ncclGetUniqueId has not made");
        return INVALID_ARGUMENT;
    }
    if (size < 1 || size > MOST_RANKS || rank < 0 || rank >= size) {
        refuse(INVALID_VALUE, "nccl: rank %d of %d", rank, size);
        return INVALID_ARGUMENT;
    }
    // Never closed: a process that closes one descriptor of a file loses all its locks there.
    file = open(text("/proc/%d/fd/%d", made.pid, made.file).c_str(), O_RDWR | O_CLOEXEC);
    if (file < 0) {
        refuse(INVALID_VALUE, "nccl: the process that made the id is gone");
        return SYSTEM_ERROR;
    }
    void* const memory = mmap(nullptr, SEATS_BYTES + size_t(size) * WINDOW, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED) give_up("no room for the ranks' memory");
    seats = static_cast<Seat*>(memory);
    windows = static_cast<u8*>(memory) + SEATS_BYTES;
    struct flock lock = {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    lock.l_start = rank;
    lock.l_len = 1;
    Seat& seat = seats[rank];
    if (fcntl(file, F_SETLK, &lock) != 0 || seat.is_taken.load()) {
        refuse(INVALID_VALUE, "nccl: there are two of rank %d", rank);
        return INVALID_USAGE;
    }
    seat.size = size;
    seat.device = device;
    seat.pid = getpid();
    seat.is_taken.store(1);
    return SUCCESS;
}

bool World::is_complete() const {
    for (int other = 0; other < size; ++other) {
        if (!seats[other].is_taken.load()) return false;
    }
    return true;
}

Result World::check() const {
    const char* const shared = std::getenv("NCCL_MULTI_RANK_GPU_ENABLE");
    const bool may_share = shared && std::strcmp(shared, "1") == 0;
    for (int other = 0; other < size; ++other) {
        if (seats[other].size != size) {
            refuse(INVALID_VALUE, "nccl: rank %d is one of %d, rank %d one of %d", rank, size, other, seats[other].size);
            return INVALID_USAGE;
        }
        if (other != rank && seats[other].device == device && !may_share) {
            refuse(INVALID_VALUE, "nccl: Duplicate GPU detected : rank %d and rank %d both on CUDA device %d", rank, other,
                   device);
            return INVALID_USAGE;
        }
    }
    return SUCCESS;
}

bool World::is_dead(int other) const {
    if (other == rank || seats[other].has_left.load()) return false;
    struct flock lock = {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    lock.l_start = other;
    lock.l_len = 1;
    return fcntl(file, F_GETLK, &lock) == 0 && lock.l_type == F_UNLCK;
}

Result World::meet(const std::string& what) {
    static const char* const death = std::getenv("SIMT_NCCL_DEATH");
    const bool reports_death = death && std::strcmp(death, "error") == 0;
    const u64 phase = ++seats[rank].phase;
    const double since = seconds();
    for (int other = 0; other < size; ++other) {
        for (u32 looks = 0; seats[other].phase.load() < phase; ++looks) {
            if (seconds() - since > patience())
                give_up("rank %d has waited %.1f s for rank %d in %s: this hangs", rank, patience(), other, what.c_str());
            if (reports_death && looks % 64 == 63 && is_dead(other)) return REMOTE_ERROR;
            run_others();
            rest();
        }
    }
    return SUCCESS;
}

void World::leave() { seats[rank].has_left.store(1); }

void hang(const World& world, const std::string& what) {
    const double since = seconds();
    while (seconds() - since < patience()) {
        run_others();
        rest();
    }
    give_up("rank %d is stuck in %s, and nobody has ended it", world.rank, what.c_str());
}

Result fault(const World& world, u64 number, When when) {
    const Fault& asked = asked_fault();
    if (asked.rank != world.rank || asked.number != number || asked.when != when) return SUCCESS;
    if (asked.what == "kill") kill(getpid(), SIGKILL);
    if (asked.what == "stop") kill(getpid(), SIGSTOP);
    if (asked.what == "delay") {
        for (const double since = seconds(); seconds() - since < 2.0; rest()) run_others();
    }
    return asked.what == "fail" ? SYSTEM_ERROR : SUCCESS;
}

bool wants_flip(const World& world, u64 number) {
    const Fault& asked = asked_fault();
    return asked.what == "flip" && asked.rank == world.rank && asked.number == number;
}

}  // namespace simt
