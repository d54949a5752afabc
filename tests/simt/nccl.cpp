// NCCL, as far as hbt calls it: communicators that do not block, among processes that are ranks. Strict about what the real
// library refuses, hangs at or leaves undefined.
//
//   SIMT_NCCL_VERSION=N     its version (default 22703)
//   SIMT_NCCL_FAULT=...     what goes wrong (nccl.h)
//   SIMT_NCCL_DEATH=error   a rank's death is a remote error; else its peers wait for ever, as they do within a machine
//   SIMT_NCCL_PATIENCE=S    after that long (default 60 s) a rank that waits ends the test as hung
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "nccl.h"

using namespace simt;

namespace {

constexpr u64 ALIVE = 0x51314CC1, GONE = 0xDEAD4CC1;
constexpr int F32 = 7, SUM = 0;

// What is under way: of a communicator that does not block, everything takes a while.
enum Stage { CONNECTING, READY, LAUNCHING, ENDING, ENDED };

struct Comm {
    u64 magic = ALIVE;
    World world;
    Stage stage = CONNECTING;
    const double since = seconds();
    // How often it says yet that it is in progress.
    u32 answers = 0;
    Random random{0};
    // Set by what goes wrong on the device.
    std::atomic<int> state{SUCCESS};
    std::atomic<bool> is_inside{false};
    u64 number = 0;
    void* stream = nullptr;
    std::vector<Call> calls;
};

std::atomic<int> n_alive{0};
std::string last_words;

Result no(Result result, const std::string& why) {
    refuse(INVALID_VALUE, "nccl: %s", why.c_str());
    last_words = why;
    return result;
}

// When a process ends by itself: by then it has to have ended its communicators.
struct AtExit {
    ~AtExit() {
        if (n_alive > 0) give_up("the process ends with a communicator that was not destroyed");
    }
} at_exit;

// One thread at a time.
struct Inside {
    Comm* comm;
    explicit Inside(Comm* comm) : comm(comm) {
        if (comm->is_inside.exchange(true)) give_up("two threads use one communicator at a time");
    }
    ~Inside() { comm->is_inside.store(false); }
};

bool is_alive(const Comm* comm) { return comm && comm->magic == ALIVE; }

void begin(Comm* comm, Stage stage) {
    comm->stage = stage;
    comm->answers = comm->random.below(4);
}

// The group of the calling thread.
struct Batch {
    int depth = 0;
    Comm* comm = nullptr;
    void* stream = nullptr;
    std::vector<Call> calls;
};
thread_local Batch group;

u64 end_of(u64 address, u64 n) { return address + n * sizeof(float); }
bool overlap(u64 a, u64 n, u64 b, u64 m) { return n > 0 && m > 0 && a < end_of(b, m) && b < end_of(a, n); }

// Where a call that sends and receives in one buffer has to have what it sends.
u64 place_in(const Call& call, const World& world) {
    const bool gathers = call.request.function == ALL_GATHER;
    return gathers ? call.receive + u64(world.rank) * call.request.count * sizeof(float) : call.receive;
}

Result check(const Call& call, const Comm& comm, void* stream) {
    const Request& r = call.request;
    const std::string name = describe(r);
    if (r.type != F32 || r.operation != SUM) return no(INVALID_ARGUMENT, name + ": only sums, and only of f32");
    if (r.root < 0 || r.root >= comm.world.size) return no(INVALID_ARGUMENT, name + ": no such root");
    if (current_device() != comm.world.device)
        return no(INVALID_USAGE, name + ": the calling thread's device is not the communicator's");
    if (!find_stream(stream) || reinterpret_cast<u64>(stream) <= 2)
        return no(INVALID_ARGUMENT, name + ": no stream of its own");
    for (const auto& [address, n] : {std::pair(call.send, call.sent), std::pair(call.receive, call.received)}) {
        if (n > 0 && !device_range_valid(address, n * sizeof(float)))
            return no(INVALID_ARGUMENT,
                      name + ": a buffer that is not all of one live allocation: " + describe_address(address));
    }
    if (overlap(call.send, call.sent, call.receive, call.received) && call.send != place_in(call, comm.world))
        return no(INVALID_ARGUMENT, name + ": buffers that overlap, and not as they have to in place");
    for (const Call& other : group.calls) {
        if (overlap(other.receive, other.received, call.receive, call.received))
            return no(INVALID_ARGUMENT, name + ": a group receives twice in one place");
    }
    return SUCCESS;
}

// NCCL's own thread has come to the group.
void launch(Comm* comm) {
    auto exchange = std::make_shared<Exchange>();
    exchange->world = &comm->world;
    exchange->state = &comm->state;
    exchange->number = ++comm->number;
    exchange->calls = std::move(comm->calls);
    comm->calls.clear();
    std::vector<u64> refers;
    for (const Call& call : exchange->calls) refers.insert(refers.end(), {call.send, call.receive});
    if (submit(comm->stream, [=] { return exchange->run(); }, refers) != OK) comm->state.store(CUDA_ERROR);
}

Result enqueue(Function function, u64 send, u64 receive, u64 count, int type, int op, int root, Comm* comm, void* stream) {
    if (!is_alive(comm)) return no(INVALID_ARGUMENT, "a communicator that is none");
    const Inside inside(comm);
    if (comm->stage != READY) return no(INVALID_USAGE, "a call while the communicator is in progress, or has ended");
    Call call = {Request{function, type, op, root, count}, send, receive, count, count};
    if (function == ALL_GATHER) call.received = count * u64(comm->world.size);
    if (function == BROADCAST && root != comm->world.rank) call.sent = 0;
    if (const Result result = check(call, *comm, stream)) return result;
    if (group.depth == 0) return no(INVALID_USAGE, "a call outside of a group; hbt makes none");
    if ((group.comm && group.comm != comm) || (group.stream && group.stream != stream))
        return no(INVALID_USAGE, "a group on two communicators or streams");
    if (group.calls.size() == MOST_REQUESTS) give_up("more than %d calls in a group", MOST_REQUESTS);
    group.comm = comm;
    group.stream = stream;
    if (count > 0) group.calls.push_back(call);
    return SUCCESS;
}

}  // namespace

#define API extern "C" __attribute__((visibility("default")))

struct UniqueId {
    char bytes[128];
};
struct Config {
    size_t size;
    unsigned magic, version;
    int blocking;
};

API int ncclGetVersion(int* out) {
    const char* const version = std::getenv("SIMT_NCCL_VERSION");
    *out = version ? std::atoi(version) : 22703;
    return SUCCESS;
}

API int ncclGetUniqueId(UniqueId* out) {
    if (!out) return no(INVALID_ARGUMENT, "ncclGetUniqueId: a null argument");
    make_id(out->bytes);
    return SUCCESS;
}

API const char* ncclGetErrorString(int result) {
    switch (result) {
        case SUCCESS: return "no error";
        case CUDA_ERROR: return "unhandled cuda error (run with NCCL_DEBUG=INFO for details)";
        case SYSTEM_ERROR: return "unhandled system error (run with NCCL_DEBUG=INFO for details)";
        case INTERNAL_ERROR: return "internal error - please report this issue to the NCCL developers";
        case INVALID_ARGUMENT: return "invalid argument (run with NCCL_DEBUG=WARN for details)";
        case INVALID_USAGE: return "invalid usage (run with NCCL_DEBUG=WARN for details)";
        case REMOTE_ERROR: return "remote process exited or there was a network error";
        case IN_PROGRESS: return "NCCL operation in progress";
    }
    return "unknown result code";
}

API const char* ncclGetLastError(Comm*) { return last_words.c_str(); }

API int ncclCommInitRankConfig(Comm** out, int size, UniqueId id, int rank, const Config* config) {
    if (!out || !config) return no(INVALID_ARGUMENT, "ncclCommInitRankConfig: a null argument");
    if (config->magic != 0xcafebeef || config->version < 21400 || config->size < sizeof(size_t) + 12)
        return no(INVALID_ARGUMENT, "ncclCommInitRankConfig: a configuration that was not initialized");
    if (config->blocking != 0) return no(INVALID_ARGUMENT, "a communicator that blocks, whose errors nobody could ask for");
    // Without it, the order of sums follows from what the library finds out about the machines.
    const char* const algorithm = std::getenv("NCCL_ALGO");
    if (!algorithm || !*algorithm) return no(INVALID_USAGE, "NCCL_ALGO is not set when the library begins to read it");
    const int device = current_device();
    if (device < 0) return no(CUDA_ERROR, "ncclCommInitRankConfig: no context is current on the calling thread");
    Comm* const comm = new Comm;
    comm->world.rank = rank;
    comm->world.size = size;
    comm->world.device = device;
    comm->world.seed = thread_seed();
    comm->random.state = thread_seed() * 7 + u64(rank);
    if (const Result result = comm->world.join(id.bytes)) {
        delete comm;
        return result;
    }
    start_device_thread(thread_seed() * 100 + u64(rank));
    ++n_alive;
    begin(comm, CONNECTING);
    *out = comm;
    return IN_PROGRESS;
}

API int ncclCommGetAsyncError(Comm* comm, int* out) {
    if (!is_alive(comm) || !out) return no(INVALID_ARGUMENT, "ncclCommGetAsyncError: a communicator that is none");
    const Inside inside(comm);
    *out = comm->state.load();
    if (*out != SUCCESS || comm->stage == READY || comm->stage == ENDED) return SUCCESS;
    *out = IN_PROGRESS;
    if (comm->answers > 0) {
        --comm->answers;
        return SUCCESS;
    }
    if (comm->stage == CONNECTING) {
        if (seconds() - comm->since > patience())
            give_up("rank %d has waited %.1f s for others to connect", comm->world.rank, patience());
        if (!comm->world.is_complete()) return SUCCESS;
        comm->state.store(comm->world.check());
    }
    if (comm->stage == LAUNCHING) launch(comm);
    if (comm->stage == ENDING) comm->world.leave();
    comm->stage = comm->stage == ENDING ? ENDED : READY;
    *out = comm->state.load();
    return SUCCESS;
}

API int ncclGroupStart() {
    ++group.depth;
    return SUCCESS;
}

API int ncclGroupEnd() {
    if (group.depth == 0) return no(INVALID_USAGE, "ncclGroupEnd without a beginning");
    if (--group.depth > 0 || group.calls.empty()) return SUCCESS;
    Batch ended;
    std::swap(ended, group);
    const Inside inside(ended.comm);
    ended.comm->calls = std::move(ended.calls);
    ended.comm->stream = ended.stream;
    // Until it has been asked for errors so often, nothing of it is on the stream.
    begin(ended.comm, LAUNCHING);
    return IN_PROGRESS;
}

API int ncclAllGather(u64 send, u64 receive, size_t count, int type, Comm* comm, void* stream) {
    return enqueue(ALL_GATHER, send, receive, count, type, SUM, 0, comm, stream);
}
API int ncclBroadcast(u64 send, u64 receive, size_t count, int type, int root, Comm* comm, void* stream) {
    return enqueue(BROADCAST, send, receive, count, type, SUM, root, comm, stream);
}
API int ncclAllReduce(u64 send, u64 receive, size_t count, int type, int op, Comm* comm, void* stream) {
    return enqueue(ALL_REDUCE, send, receive, count, type, op, 0, comm, stream);
}

API int ncclCommFinalize(Comm* comm) {
    if (!is_alive(comm)) return no(INVALID_ARGUMENT, "ncclCommFinalize: a communicator that is none");
    const Inside inside(comm);
    if (comm->stage != READY) return no(INVALID_USAGE, "ncclCommFinalize: in progress, or for the second time");
    begin(comm, ENDING);
    return IN_PROGRESS;
}

API int ncclCommDestroy(Comm* comm) {
    if (!is_alive(comm)) return no(INVALID_ARGUMENT, "ncclCommDestroy: a communicator that is none");
    if (comm->stage != ENDED) return no(INVALID_USAGE, "ncclCommDestroy: a communicator that was not finalized");
    // What is left of it tells whoever uses it again.
    comm->magic = GONE;
    --n_alive;
    return SUCCESS;
}
