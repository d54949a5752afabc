// Queues of work: what driver.cpp and cublaslt.cpp put in, streams.cpp runs.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <thread>

#include "machine.h"

namespace simt {

struct Stream;

struct Event {
    // Every record gets a number; the event has happened up to `done`.
    u64 recorded = 0, done = 0;
    std::shared_ptr<Stream> stream;
    Code error = OK;
    double milliseconds = 0;
};

struct Op {
    // Work; or, with an event, its record or a wait for one.
    std::function<Code()> run;
    std::shared_ptr<Event> event;
    u64 ticket = 0;
    bool waits = false;
    // Addresses that the work may use: freeing memory waits for it.
    std::vector<u64> refers;
};

struct Stream {
    std::deque<Op> queue;
    bool busy = false, blocking = true;
    // The first error; everything after it is dropped, as after an error on a GPU.
    Code error = OK;
    std::thread::id owner;
};

// Streams by the handle that the API hands out; null for an unknown one. 0, 1 and 2 are the default streams.
std::shared_ptr<Stream> find_stream(void* handle);
void* create_stream(bool blocking);
Code destroy_stream(void* handle);
std::shared_ptr<Event> find_event(void* handle);
void* create_event();
Code destroy_event(void* handle);

// Queues work; on the default stream it is done at once, after everything that this thread's streams hold.
Code submit(void* stream, std::function<Code()> run, std::vector<u64> refers);
Code record(void* event, void* stream);
Code wait_event(void* stream, void* event);
// Lets the device's clock, which events read, advance by so many milliseconds.
void pretend(double milliseconds);
// Whether a stream, or any of the calling thread's, has something to run.
bool has_work(const std::shared_ptr<Stream>& stream);
bool thread_has_work();
// Runs what must have run when the call returns.
Code drain(const std::shared_ptr<Stream>& stream);
Code drain_event(const std::shared_ptr<Event>& event);
Code drain_thread();
void drain_range(u64 address, size_t bytes);
// From now on the device has a thread that does its work, and nobody else does.
void start_device_thread(u64 seed);
// Called by work that waits: the device does a little of what its other streams have.
void run_others();
// Does a little, and says whether all is done.
bool progress(const std::shared_ptr<Stream>& stream);
bool progress(const std::shared_ptr<Event>& event);

}  // namespace simt
