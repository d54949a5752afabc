// Streams are lazy: work is queued, and runs only when something waits for it. Between streams that nothing orders, the
// seed draws whose turn it is, so a missing wait or a pinned buffer used again too early shows as wrong data.
#include "streams.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>

namespace simt {

namespace {

std::mutex mutex;
std::condition_variable changed;
std::map<u64, std::shared_ptr<Stream>> streams;
std::map<u64, std::shared_ptr<Event>> events;
u64 next_handle = 0x51317000;

Random& draws() {
    static thread_local Random random{0};
    static thread_local u64 seed = ~u64(0);
    if (seed != schedule_seed) {
        seed = schedule_seed;
        random.state = seed;
    }
    return random;
}

std::atomic<u64> pretended_nanoseconds{0};

double now() {
    const auto since = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double, std::milli>(since).count() + double(pretended_nanoseconds) * 1e-6;
}

std::shared_ptr<Stream> default_stream() {
    static thread_local const std::shared_ptr<Stream> stream = [] {
        auto made = std::make_shared<Stream>();
        made->owner = std::this_thread::get_id();
        return made;
    }();
    return stream;
}

bool empty(const Stream& stream) { return stream.queue.empty() && !stream.busy; }

// Runs the first op of a stream, or of one that it waits for. The lock is let go meanwhile.
void step(std::unique_lock<std::mutex>& lock, std::shared_ptr<Stream> stream) {
    while (!stream->busy && !stream->queue.empty()) {
        Op& head = stream->queue.front();
        if (!head.waits) break;
        if (head.event->done >= head.ticket) {
            if (stream->error == OK) stream->error = head.event->error;
            stream->queue.pop_front();
            return;
        }
        stream = head.event->stream;
    }
    if (stream->busy) {
        changed.wait(lock);
        return;
    }
    if (stream->queue.empty()) return;
    Op op = std::move(stream->queue.front());
    stream->queue.pop_front();
    if (op.event) {
        op.event->error = stream->error;
        op.event->milliseconds = now();
        op.event->done = std::max(op.event->done, op.ticket);
        return;
    }
    if (stream->error != OK) return;
    stream->busy = true;
    lock.unlock();
    const Code code = op.run();
    lock.lock();
    stream->busy = false;
    if (stream->error == OK) stream->error = code;
    changed.notify_all();
}

// Now and then another of this thread's streams gets on.
void step_some(std::unique_lock<std::mutex>& lock, const std::shared_ptr<Stream>& stream) {
    std::shared_ptr<Stream> chosen = stream;
    if (draws().below(3) == 0) {
        std::vector<std::shared_ptr<Stream>> others;
        for (const auto& [handle, other] : streams) {
            if (other->owner == std::this_thread::get_id() && !empty(*other)) others.push_back(other);
        }
        if (!others.empty()) chosen = others[draws().below(u32(others.size()))];
    }
    step(lock, chosen);
}

Code drain_locked(std::unique_lock<std::mutex>& lock, const std::shared_ptr<Stream>& stream) {
    while (!empty(*stream)) step_some(lock, stream);
    return stream->error;
}

Code drain_owned(std::unique_lock<std::mutex>& lock, bool blocking_only) {
    Code code = OK;
    std::vector<std::shared_ptr<Stream>> mine;
    for (const auto& [handle, stream] : streams) {
        if (stream->owner == std::this_thread::get_id() && (stream->blocking || !blocking_only)) mine.push_back(stream);
    }
    for (const auto& stream : mine) {
        const Code error = drain_locked(lock, stream);
        if (code == OK) code = error;
    }
    return code;
}

}  // namespace

std::shared_ptr<Stream> find_stream(void* handle) {
    const u64 key = reinterpret_cast<u64>(handle);
    if (key <= 2) return default_stream();
    const std::lock_guard<std::mutex> lock(mutex);
    const auto found = streams.find(key);
    return found == streams.end() ? nullptr : found->second;
}

void* create_stream(bool blocking) {
    const std::lock_guard<std::mutex> lock(mutex);
    auto stream = std::make_shared<Stream>();
    stream->blocking = blocking;
    stream->owner = std::this_thread::get_id();
    streams[next_handle += 16] = stream;
    return reinterpret_cast<void*>(next_handle);
}

Code destroy_stream(void* handle) {
    const auto stream = find_stream(handle);
    if (!stream || reinterpret_cast<u64>(handle) <= 2) return Code(400);
    drain(stream);
    const std::lock_guard<std::mutex> lock(mutex);
    streams.erase(reinterpret_cast<u64>(handle));
    return OK;
}

std::shared_ptr<Event> find_event(void* handle) {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto found = events.find(reinterpret_cast<u64>(handle));
    return found == events.end() ? nullptr : found->second;
}

void* create_event() {
    const std::lock_guard<std::mutex> lock(mutex);
    events[next_handle += 16] = std::make_shared<Event>();
    return reinterpret_cast<void*>(next_handle);
}

Code destroy_event(void* handle) {
    const std::lock_guard<std::mutex> lock(mutex);
    return events.erase(reinterpret_cast<u64>(handle)) ? OK : Code(400);
}

Code submit(void* handle, std::function<Code()> run, std::vector<u64> refers) {
    const auto stream = find_stream(handle);
    if (!stream) return refuse(Code(400), "no such stream");
    std::unique_lock<std::mutex> lock(mutex);
    if (stream->error != OK) return stream->error;
    const bool is_default = stream == default_stream();
    if (is_default) drain_owned(lock, true);
    Op op;
    op.run = std::move(run);
    op.refers = std::move(refers);
    stream->queue.push_back(std::move(op));
    return is_default ? drain_locked(lock, stream) : OK;
}

Code record(void* event_handle, void* handle) {
    const auto stream = find_stream(handle);
    const auto event = find_event(event_handle);
    if (!stream || !event) return refuse(Code(400), "cuEventRecord: no such %s", stream ? "event" : "stream");
    std::unique_lock<std::mutex> lock(mutex);
    if (stream == default_stream()) drain_owned(lock, true);
    event->stream = stream;
    Op op;
    op.event = event;
    op.ticket = ++event->recorded;
    stream->queue.push_back(std::move(op));
    if (stream == default_stream()) drain_locked(lock, stream);
    return stream->error;
}

Code wait_event(void* handle, void* event_handle) {
    const auto stream = find_stream(handle);
    const auto event = find_event(event_handle);
    if (!stream || !event) return refuse(Code(400), "cuStreamWaitEvent: no such %s", stream ? "event" : "stream");
    std::unique_lock<std::mutex> lock(mutex);
    Op op;
    op.event = event;
    op.ticket = event->recorded;
    op.waits = true;
    stream->queue.push_back(std::move(op));
    if (stream == default_stream()) drain_locked(lock, stream);
    return stream->error;
}

void pretend(double milliseconds) { pretended_nanoseconds += u64(milliseconds * 1e6); }

static bool has_work_locked(const Stream& stream) {
    return stream.busy || std::any_of(stream.queue.begin(), stream.queue.end(), [](const Op& op) { return bool(op.run); });
}

bool has_work(const std::shared_ptr<Stream>& stream) {
    const std::lock_guard<std::mutex> lock(mutex);
    return has_work_locked(*stream);
}

bool thread_has_work() {
    const std::lock_guard<std::mutex> lock(mutex);
    return std::any_of(streams.begin(), streams.end(), [](const auto& entry) {
        return entry.second->owner == std::this_thread::get_id() && has_work_locked(*entry.second);
    });
}

Code drain(const std::shared_ptr<Stream>& stream) {
    std::unique_lock<std::mutex> lock(mutex);
    if (stream == default_stream()) drain_owned(lock, true);
    return drain_locked(lock, stream);
}

Code drain_event(const std::shared_ptr<Event>& event) {
    std::unique_lock<std::mutex> lock(mutex);
    const u64 ticket = event->recorded;
    while (event->done < ticket) step_some(lock, event->stream);
    return event->error;
}

Code drain_thread() {
    std::unique_lock<std::mutex> lock(mutex);
    const Code code = drain_owned(lock, false);
    return code == OK ? drain_locked(lock, default_stream()) : code;
}

void drain_range(u64 address, size_t bytes) {
    std::unique_lock<std::mutex> lock(mutex);
    drain_owned(lock, false);
    std::vector<std::shared_ptr<Stream>> using_it;
    for (const auto& [handle, stream] : streams) {
        bool uses = stream->busy;
        for (const Op& op : stream->queue) {
            for (const u64 pointer : op.refers) uses = uses || pointer - address < bytes;
        }
        if (uses) using_it.push_back(stream);
    }
    for (const auto& stream : using_it) drain_locked(lock, stream);
}

bool progress(const std::shared_ptr<Stream>& stream) {
    std::unique_lock<std::mutex> lock(mutex);
    if (!empty(*stream)) step_some(lock, stream);
    return empty(*stream);
}

bool progress(const std::shared_ptr<Event>& event) {
    std::unique_lock<std::mutex> lock(mutex);
    if (event->done < event->recorded) step_some(lock, event->stream);
    return event->done >= event->recorded;
}

}  // namespace simt
