// Which columns are candidates of a row of scores.
#pragma once

#include "common.cuh"

// Below every score, and finite, so that the difference of two is a number.
constexpr float LOWEST = -3.0e38f;

// Stands for a score that is left out: its exponential is 0. Finite, too, and below that.
__device__ inline float left_out() { return -3.3e38f; }

// Values told of a row.
constexpr int STATS = 5;

constexpr int WORD_BITS = 32;

// The bit of a column among those of a row.
__device__ inline bool is_set(const i32* bits, int column, int first_passage) {
    const int bit = column < first_passage ? column : column - first_passage;
    return u32(bits[bit / WORD_BITS]) >> bit % WORD_BITS & 1;
}

// Which columns are candidates of a row; see Candidates in src/backend/ops/info_nce.rs.
struct Mask {
    const i32* column_labels;
    i32 label;
    // Larger cosines are left out.
    float limit;
    float margin;
    int positive;
    // A range by its first column and its length: one comparison.
    u32 rejected_from, n_rejected, skipped_from, n_skipped;
    // The row's bits; null if there are none.
    const i32* left_out_bits;
    int first_passage;

    // Of any column but the positive. Without branches: none of the reasons is frequent enough to save the others.
    __device__ inline bool leaves_out(float s, i32 column_label, int column) const {
        return (column_label == label) | (s > limit) | (u32(column) - skipped_from < n_skipped) |
               (u32(column) - rejected_from < n_rejected) |
               (left_out_bits != nullptr && is_set(left_out_bits, column, first_passage));
    }

    __device__ inline float logit(float s, int column) const {
        if (column == positive) return s - margin;
        return leaves_out(s, column_labels[column], column) ? left_out() : s;
    }
};

// What all rows have in common.
struct Masks {
    const i32* row_labels;
    const i32* column_labels;
    // Null: nothing is rejected.
    const i32* rejected;
    // Null: no bit is set.
    const i32* left_out;
    float false_negative_margin, margin;
    i64 first_positive, first_passage, skipped_from, skipped_to, words_a_row;

    __device__ inline int positive_of(i64 row) const { return int(first_positive + row); }

    __device__ inline const i32* bits_of(i64 row) const {
        return left_out != nullptr ? left_out + row * words_a_row : nullptr;
    }

    // Of a row whose positive has the cosine `positive`.
    __device__ inline Mask of(i64 row, float positive) const {
        Mask mask;
        mask.column_labels = column_labels;
        mask.label = row_labels[row];
        mask.positive = positive_of(row);
        mask.limit = positive + false_negative_margin;
        mask.margin = margin;
        mask.rejected_from = rejected != nullptr ? u32(first_passage + rejected[2 * row]) : 0;
        mask.n_rejected = rejected != nullptr ? u32(rejected[2 * row + 1] - rejected[2 * row]) : 0;
        mask.skipped_from = u32(skipped_from);
        mask.n_skipped = u32(skipped_to - skipped_from);
        mask.left_out_bits = bits_of(row);
        mask.first_passage = int(first_passage);
        return mask;
    }
};

// The parameters that make a Masks, in its order.
#define MASKS                                                                                                               \
    const i32 *row_labels, const i32 *column_labels, NULLABLE const i32 *rejected, NULLABLE const i32 *left_out,            \
        float false_negative_margin, float margin, i64 first_positive, i64 first_passage, i64 skipped_from, i64 skipped_to, \
        i64 words_a_row
#define MASKS_GIVEN                                                                                                  \
    Masks {                                                                                                          \
        row_labels, column_labels, rejected, left_out, false_negative_margin, margin, first_positive, first_passage, \
            skipped_from, skipped_to, words_a_row                                                                    \
    }
