// What the files of the stand-in for NCCL share: ranks as processes, which meet in memory of all of them (nccl_world.cpp), and
// what they ask for (nccl.cpp), which is carried out together (nccl_exchange.cpp).
#pragma once

#include <sys/types.h>

#include <atomic>
#include <vector>

#include "streams.h"

namespace simt {

constexpr int MOST_RANKS = 16, MOST_REQUESTS = 512;
// Bytes of a rank that are on their way at a time.
constexpr size_t WINDOW = size_t(16) << 20;

// ncclResult_t
enum Result : int {
    SUCCESS = 0,
    CUDA_ERROR = 1,
    SYSTEM_ERROR = 2,
    INTERNAL_ERROR = 3,
    INVALID_ARGUMENT = 4,
    INVALID_USAGE = 5,
    REMOTE_ERROR = 6,
    IN_PROGRESS = 7
};

enum Function : u32 { ALL_GATHER, BROADCAST, ALL_REDUCE };

// What has to be the same on all ranks.
struct Request {
    Function function;
    int type, operation, root;
    u64 count;
};

// One call: a request with this rank's buffers.
struct Call {
    Request request;
    u64 send, receive;
    // Elements that this rank sends and receives.
    u64 sent, received;
};

// One rank, as all see it.
struct Seat {
    std::atomic<u32> is_taken, has_left;
    std::atomic<u64> phase;
    int size, device;
    pid_t pid;
    u64 number;
    u32 n_requests;
    Request requests[MOST_REQUESTS];
};

// The ranks of a communicator.
struct World {
    int rank, size, device;
    // Sums are added up in an order that this draws, the same on all ranks.
    u64 seed;
    Seat* seats = nullptr;
    u8* windows = nullptr;
    int file = -1;

    // Takes a seat. `id` says where the seats are.
    Result join(const char* id);
    // Whether all have taken theirs; and then, whether they fit together.
    bool is_complete() const;
    Result check() const;
    // Returns when all ranks have come here as often as this one: SUCCESS, or the error that a rank's death is, if the
    // environment asks for one. Meanwhile the device goes on with its other streams.
    Result meet(const std::string& what);
    bool is_dead(int other) const;
    u8* window(int of) const { return windows + size_t(of) * WINDOW; }
    void leave();
};

// A clock, and how long a rank waits for another before the test counts as hung.
double seconds();
double patience();

// Writes an id, which names memory of this process.
void make_id(char* id);

// What the environment asks to go wrong: SIMT_NCCL_FAULT=WHAT:RANK:NUMBER[:WHEN], at the exchange of that number, the first
// being 1. WHAT is kill, stop, delay, fail or flip; WHEN, for all but flip, is before (the default), during or after.
enum When { BEFORE, DURING, AFTER };
Result fault(const World& world, u64 number, When when);
bool wants_flip(const World& world, u64 number);

// Ends the process, and with it the test, because what the real library would do is to hang or to compute nonsense.
[[noreturn]] __attribute__((format(printf, 1, 2))) void give_up(const char* format, ...);
// Waits for ever: until somebody ends the process, or the test is held to hang.
[[noreturn]] void hang(const World& world, const std::string& what);

// A group of calls, carried out when the stream comes to it. An error that arises there is left in `state`.
struct Exchange {
    World* world;
    std::atomic<int>* state;
    u64 number;
    std::vector<Call> calls;
    // What this rank sends, end to end, as it was when the exchange began.
    std::vector<float> sent;

    Code run();
    std::string what() const;
};

std::string describe(const Request& request);

}  // namespace simt
