// A group of calls, carried out by all ranks together: agreement first, then data, which nobody may touch meanwhile.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "nccl.h"

namespace simt {

namespace {

const float* floats(u64 address) { return reinterpret_cast<const float*>(address); }

// Part of a call that goes at a time: elements `first` to `first + n` of what a rank sends, at `at` in its window.
struct Piece {
    size_t call;
    u64 first, n, at;
};

// What goes at a time.
using Round = std::vector<Piece>;

std::vector<Round> cut(const std::vector<Call>& calls) {
    constexpr u64 most = WINDOW / sizeof(float);
    std::vector<Round> rounds(1);
    u64 used = 0;
    for (size_t call = 0; call < calls.size(); ++call) {
        const u64 n = calls[call].request.count;
        for (u64 first = 0; first < n;) {
            if (used == most) {
                rounds.emplace_back();
                used = 0;
            }
            const u64 part = std::min(n - first, most - used);
            rounds.back().push_back(Piece{call, first, part, used});
            first += part;
            used += part;
        }
    }
    return rounds;
}

// Ranks in the order in which they are added up.
std::vector<int> drawn_order(const World& world, u64 number, size_t call) {
    std::vector<int> order(size_t(world.size));
    std::iota(order.begin(), order.end(), 0);
    Random random{world.seed * 0x9E3779B97F4A7C15u + number * 1000 + call};
    for (u32 left = u32(order.size()); left > 1; --left) std::swap(order[left - 1], order[random.below(left)]);
    return order;
}

// Writes what all ranks have for one piece to the receive buffer.
void deliver(const World& world, const Call& call, const Piece& piece, const std::vector<int>& order) {
    const auto of = [&](int rank) { return reinterpret_cast<const float*>(world.window(rank)) + piece.at; };
    float* const to = reinterpret_cast<float*>(call.receive);
    switch (call.request.function) {
        case ALL_GATHER:
            for (int rank = 0; rank < world.size; ++rank)
                std::copy_n(of(rank), piece.n, to + u64(rank) * call.request.count + piece.first);
            return;
        case BROADCAST: std::copy_n(of(call.request.root), piece.n, to + piece.first); return;
        case ALL_REDUCE:
            for (u64 i = 0; i < piece.n; ++i) {
                float sum = of(order[0])[i];
                for (size_t k = 1; k < order.size(); ++k) sum += of(order[k])[i];
                to[piece.first + i] = sum;
            }
            return;
    }
}

bool is_poisoned(u64 address, u64 n) {
    const u32* const words = reinterpret_cast<const u32*>(address);
    return std::all_of(words, words + n, [](u32 word) { return word == 0xFFFFFFFF; });
}

}  // namespace

std::string describe(const Request& r) {
    static const char* const names[] = {"AllGather", "Broadcast", "AllReduce"};
    return text("%s(count %llu, type %d, op %d, root %d)", names[r.function], (unsigned long long)r.count, r.type,
                r.operation, r.root);
}

std::string Exchange::what() const {
    return text("exchange %llu, %zu calls, the first %s", (unsigned long long)number, calls.size(),
                describe(calls[0].request).c_str());
}

// All ranks have asked for the same.
static void compare(const World& world, const std::string& what) {
    const Seat& own = world.seats[world.rank];
    for (int other = 0; other < world.size; ++other) {
        const Seat& seat = world.seats[other];
        if (seat.number != own.number || seat.n_requests != own.n_requests)
            give_up("rank %d is at %s, and rank %d at exchange %llu, %u calls, the first %s", world.rank, what.c_str(),
                    other, (unsigned long long)seat.number, seat.n_requests, describe(seat.requests[0]).c_str());
        for (u32 i = 0; i < own.n_requests; ++i) {
            if (std::memcmp(&seat.requests[i], &own.requests[i], sizeof(Request)) != 0)
                give_up("call %u of exchange %llu is %s on rank %d, and %s on rank %d", i, (unsigned long long)own.number,
                        describe(own.requests[i]).c_str(), world.rank, describe(seat.requests[i]).c_str(), other);
        }
    }
}

// What was sent has not changed, and nobody has written where something will be received.
static void check_untouched(const Exchange& exchange) {
    const float* sent = exchange.sent.data();
    for (const Call& call : exchange.calls) {
        const bool in_place = call.sent > 0 && call.received > 0 && call.send >= call.receive &&
                              call.send < call.receive + call.received * sizeof(float);
        if (!in_place && std::memcmp(floats(call.send), sent, call.sent * sizeof(float)) != 0)
            give_up("%s: what it sends was written to while it was under way", describe(call.request).c_str());
        if (!is_poisoned(call.receive, call.received))
            give_up("%s: where it receives was written to while it was under way", describe(call.request).c_str());
        sent += call.sent;
    }
}

static void flip_one_bit(const Exchange& exchange) {
    for (const Call& call : exchange.calls) {
        if (call.received == 0) continue;
        // The highest bit of the mantissa: a number that is as finite as it was.
        reinterpret_cast<u32*>(call.receive)[call.received / 2] ^= 1u << 22;
        return;
    }
}

Code Exchange::run() {
    const auto stuck = [&](Result result) {
        if (result == SUCCESS) return;
        state->store(result);
        hang(*world, what());
    };
    stuck(fault(*world, number, BEFORE));
    for (const Call& call : calls) {
        if ((call.sent > 0 && !device_range_valid(call.send, call.sent * sizeof(float))) ||
            (call.received > 0 && !device_range_valid(call.receive, call.received * sizeof(float))))
            return refuse(ILLEGAL_ADDRESS, "nccl: %s ran after its memory was freed", describe(call.request).c_str());
        sent.insert(sent.end(), floats(call.send), floats(call.send) + call.sent);
    }
    for (const Call& call : calls) std::memset(reinterpret_cast<void*>(call.receive), 0xFF, call.received * sizeof(float));
    Seat& seat = world->seats[world->rank];
    seat.number = number;
    seat.n_requests = u32(calls.size());
    for (size_t i = 0; i < calls.size(); ++i) seat.requests[i] = calls[i].request;
    std::vector<u64> starts;
    u64 end = 0;
    for (const Call& call : calls) {
        starts.push_back(end);
        end += call.sent;
    }
    Random flight{world->seed + number * 31 + u64(world->rank)};
    bool is_first = true;
    std::vector<float> results;
    for (const Round& round : cut(calls)) {
        for (const Piece& piece : round) {
            if (calls[piece.call].sent > 0)
                std::copy_n(sent.data() + starts[piece.call] + piece.first, piece.n,
                            reinterpret_cast<float*>(world->window(world->rank)) + piece.at);
        }
        stuck(world->meet(what()));
        if (is_first) {
            compare(*world, what());
            stuck(fault(*world, number, DURING));
            for (u32 i = flight.below(8); i > 0; --i) run_others();
            check_untouched(*this);
            is_first = false;
        }
        for (const Piece& piece : round) deliver(*world, calls[piece.call], piece, drawn_order(*world, number, piece.call));
        // Windows are written again only when all have read them.
        stuck(world->meet(what()));
    }
    if (wants_flip(*world, number)) flip_one_bit(*this);
    stuck(fault(*world, number, AFTER));
    Counters counters = {};
    counters.launches = 1;
    add_counters("nccl", counters);
    return OK;
}

}  // namespace simt
