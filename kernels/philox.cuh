// Dropout's random numbers, bit for bit those of src/backend/philox.rs: Philox4x32-10 (Salmon et al., SC 2011).
#pragma once

#include "common.cuh"

// As the host passes it; see Dropout in src/backend/ops.rs.
struct Dropout {
    // An element is dropped when its 16-bit value is below this; 0: no dropout.
    u32 threshold;
    // What kept elements are multiplied by.
    float scale;
    u32 seed_low;
    u32 seed_high;
    u32 step;
    u32 site;
};

struct PhiloxWords {
    u32 w[4];
};

__device__ inline PhiloxWords philox(u32 c0, u32 c1, u32 c2, u32 c3, u32 k0, u32 k1) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        if (round > 0) {
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        const u32 high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
        const u32 high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
    }
    return PhiloxWords{{c0, c1, c2, c3}};
}

// Call number `call` of a row decides eight columns: with block = call / 16 and j = call % 16, word w has columns
// block * 128 + 32 w + 2 j (lower half) and the next one (upper half). `row` is the token's row in the whole batch;
// `head` is 0 except in attention, where columns are key positions.
__device__ inline PhiloxWords dropout_words(const Dropout& dropout, i32 row, u32 head, u32 call) {
    return philox(call, u32(row), dropout.site ^ (head << 16), dropout.step, dropout.seed_low, dropout.seed_high);
}

// Factors of the two columns that a word decides.
__device__ inline float dropout_low(const Dropout& dropout, u32 word) {
    return (word & 0xFFFF) < dropout.threshold ? 0.0f : dropout.scale;
}
__device__ inline float dropout_high(const Dropout& dropout, u32 word) {
    return (word >> 16) < dropout.threshold ? 0.0f : dropout.scale;
}

// The factor of one column: a whole call for it, so only for narrow or odd rows.
__device__ inline float dropout_factor(const Dropout& dropout, i32 row, u32 head, i64 column) {
    const u32 within = u32(column % 128);
    const PhiloxWords words = dropout_words(dropout, row, head, u32(column / 128) * 16 + within % 32 / 2);
    const u32 word = words.w[within / 32];
    return column % 2 == 0 ? dropout_low(dropout, word) : dropout_high(dropout, word);
}
