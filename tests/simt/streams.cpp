// Streams are lazy: work is queued, and runs only when something waits for it. Between streams that nothing orders, the
// seed draws whose turn it is, so a missing wait or a pinned buffer used again too early shows as wrong data.
//
// A device that waits for those of other processes has a thread of its own, which alone does its work: as soon as it can, or
// as late as it may, by the seed. Without it, a process that waits for another elsewhere would keep the other waiting here.
#include "streams.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>

namespace simt {

namespace {

// The device's thread may outlive what the end of the process destroys, so nothing of this is.
std::mutex& mutex = *new std::mutex;
std::condition_variable& changed = *new std::condition_variable;
std::map<u64, std::shared_ptr<Stream>>& streams = *new std::map<u64, std::shared_ptr<Stream>>;
std::map<u64, std::shared_ptr<Event>>& events = *new std::map<u64, std::shared_ptr<Event>>;
u64 next_handle = 0x51317000;

// The device's thread, what wakes it, and whether the host waits for it.
bool has_thread = false;
std::condition_variable& work = *new std::condition_variable;
u32 n_waiting = 0;
bool is_asked = false;
thread_local Random* device_draws = nullptr;

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
            changed.notify_all();
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
        changed.notify_all();
        return;
    }
    if (stream->error != OK) {
        changed.notify_all();
        return;
    }
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

// Waits for something that work on a stream brings about. The host does that work itself where the device has no thread.
template <class Condition>
void await(std::unique_lock<std::mutex>& lock, const std::shared_ptr<Stream>& stream, Condition is_done) {
    // The default stream, which is the calling thread's own, is never left to another.
    if (has_thread && stream != default_stream()) {
        ++n_waiting;
        work.notify_all();
        changed.wait(lock, is_done);
        --n_waiting;
    }
    while (!is_done()) step_some(lock, stream);
}

Code drain_locked(std::unique_lock<std::mutex>& lock, const std::shared_ptr<Stream>& stream) {
    await(lock, stream, [&] { return empty(*stream); });
    return stream->error;
}

// Does the next thing of one of the streams that can get on; false where none can.
bool turn(std::unique_lock<std::mutex>& lock) {
    std::vector<std::shared_ptr<Stream>> able;
    for (const auto& [handle, stream] : streams) {
        if (stream->busy || stream->queue.empty()) continue;
        const Op& head = stream->queue.front();
        if (!head.waits || head.event->done >= head.ticket) able.push_back(stream);
    }
    if (able.empty()) return false;
    step(lock, able[device_draws->below(u32(able.size()))]);
    return true;
}

void device_main(u64 seed) {
    schedule_seed = seed;
    device_draws = new Random{seed * 2 + 1};
    const bool is_lazy = device_draws->below(2) == 1;
    std::unique_lock<std::mutex> lock(mutex);
    for (;;) {
        if (!turn(lock)) {
            work.wait_for(lock, std::chrono::milliseconds(1));
        } else if (is_lazy) {
            const auto while_nobody_waits = std::chrono::microseconds(device_draws->below(500));
            work.wait_for(lock, while_nobody_waits, [] { return n_waiting > 0 || is_asked; });
        }
    }
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
    is_asked = false;
    work.notify_all();
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
    await(lock, event->stream, [&] { return event->done >= ticket; });
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

// Somebody has looked whether work is done, and will look again.
static void look(std::unique_lock<std::mutex>& lock, const std::shared_ptr<Stream>& stream) {
    if (!has_thread) return step_some(lock, stream);
    is_asked = true;
    work.notify_all();
}

bool progress(const std::shared_ptr<Stream>& stream) {
    std::unique_lock<std::mutex> lock(mutex);
    if (!empty(*stream)) look(lock, stream);
    return empty(*stream);
}

bool progress(const std::shared_ptr<Event>& event) {
    std::unique_lock<std::mutex> lock(mutex);
    if (event->done < event->recorded) look(lock, event->stream);
    return event->done >= event->recorded;
}

void start_device_thread(u64 seed) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (has_thread) return;
    has_thread = true;
    std::thread(device_main, seed).detach();
}

void run_others() {
    std::unique_lock<std::mutex> lock(mutex);
    if (device_draws) turn(lock);
}

}  // namespace simt
