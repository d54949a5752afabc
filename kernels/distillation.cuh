// What a row of scores learns from a teacher; see DistillRows in src/backend/ops/distillation.rs.
#pragma once

#include "info_nce.cuh"
#include "reduce.cuh"

// Values told of what a row learns.
constexpr int DISTILL_STATS = 2;

// What all rows have in common.
struct Teacher {
    float* stats;
    const i32* own;
    // The bits of f32.
    const i32* scores;
    float inv_temperature, inv_teacher_temperature, weight;
    i32 is_margin_mse;
};

// A row's own candidates: number 0 is its positive, then come its negatives.
struct OwnCandidates {
    const float* scores;
    const i32* teacher_scores;
    float inv_temperature, inv_teacher_temperature;
    float score_of_positive, teacher_of_positive;
    int positive, first_passage, first_negative, count;

    __device__ inline OwnCandidates(const Teacher& teacher, const Mask& mask, const float* row, i64 number) {
        const i32* const own = teacher.own + 2 * number;
        scores = row;
        teacher_scores = teacher.scores;
        inv_temperature = teacher.inv_temperature;
        inv_teacher_temperature = teacher.inv_teacher_temperature;
        positive = mask.positive;
        first_passage = mask.first_passage;
        first_negative = mask.first_passage + own[0];
        count = 1 + own[1] - own[0];
        score_of_positive = scores[positive];
        teacher_of_positive = score_by_teacher(0);
    }

    __device__ inline int column(int i) const { return i == 0 ? positive : first_negative + i - 1; }
    __device__ inline float score_by_teacher(int i) const {
        return __int_as_float(teacher_scores[column(i) - first_passage]);
    }

    // Logits less the positive's: of scores near each other nothing is lost.
    __device__ inline float above(int i) const { return scores[column(i)] - score_of_positive; }
    __device__ inline float student(int i) const { return above(i) * inv_temperature; }
    __device__ inline float teacher(int i) const {
        return (score_by_teacher(i) - teacher_of_positive) * inv_teacher_temperature;
    }
};

// Sums over what lanes have added up.
struct Learned {
    float loss, derivative;
};

// f(column, what the teacher adds to d_scores over weight / temperature) of every candidate, for one warp. There are few of
// them, so unrolled loops would take registers for nothing.
template <class F> __device__ inline Learned learn_softmax(const OwnCandidates& own, F f) {
    const int lane = threadIdx.x % WARP;
    float most_p = LOWEST, most_q = LOWEST;
#pragma unroll 1
    for (int i = lane; i < own.count; i += WARP) {
        most_p = fmaxf(most_p, own.teacher(i));
        most_q = fmaxf(most_q, own.student(i));
    }
    most_p = warp_max(most_p);
    most_q = warp_max(most_q);
    float sum_p = 0.0f, sum_q = 0.0f;
#pragma unroll 1
    for (int i = lane; i < own.count; i += WARP) {
        sum_p += expf(own.teacher(i) - most_p);
        sum_q += expf(own.student(i) - most_q);
    }
    const float log_sum_p = logf(warp_sum(sum_p)), log_sum_q = logf(warp_sum(sum_q));
    float loss = 0.0f, derivative = 0.0f;
#pragma unroll 1
    for (int i = lane; i < own.count; i += WARP) {
        const float log_p = own.teacher(i) - most_p - log_sum_p, log_q = own.student(i) - most_q - log_sum_q;
        const float p = expf(log_p), difference = expf(log_q) - p;
        loss = fmaf(p, log_p - log_q, loss);
        derivative = fmaf(difference, own.above(i), derivative);
        f(own.column(i), difference);
    }
    return {warp_sum(loss), warp_sum(derivative)};
}

template <class F> __device__ inline Learned learn_margins(const OwnCandidates& own, F f) {
    const int lane = threadIdx.x % WARP;
    const float share = own.count > 1 ? 1.0f / float(own.count - 1) : 0.0f;
    float loss = 0.0f, derivative = 0.0f, sum = 0.0f;
#pragma unroll 1
    for (int i = 1 + lane; i < own.count; i += WARP) {
        const float error = own.student(i) - own.teacher(i), slope = 2.0f * error * share;
        loss = fmaf(error * error, share, loss);
        derivative = fmaf(slope, own.above(i), derivative);
        sum += slope;
        f(own.column(i), slope);
    }
    sum = warp_sum(sum);
    if (lane == 0) f(own.positive, -sum);
    return {warp_sum(loss), warp_sum(derivative)};
}

// The parameters that make a Teacher, in its order but for its statistics.
#define TEACHER                                                                                              \
    const i32 *own, const i32 *teacher_scores, float distill_inv_temperature, float inv_teacher_temperature, \
        float distill_weight, i32 is_margin_mse
#define TEACHER_GIVEN                                                                                                       \
    Teacher {                                                                                                               \
        teacher_stats, own, teacher_scores, distill_inv_temperature, inv_teacher_temperature, distill_weight, is_margin_mse \
    }
