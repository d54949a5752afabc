//! What a row of scores learns from a teacher.

use super::math::exp;
use super::{Cpu, CpuElement};
use crate::backend::{DISTILL_STATS, DistillRows, Distillation};

/// [`DistillRows`] in host memory.
pub struct Teacher<'a> {
    kind: Distillation,
    own: &'a [i32],
    scores: &'a [i32],
    first_passage: usize,
    inv_temperature: f32,
    inv_teacher_temperature: f32,
    /// Factor of the gradient.
    scale: f32,
}

impl<'a> Teacher<'a> {
    /// `first_passage`: column of the first passage.
    pub fn new<E: CpuElement>(args: &DistillRows<'a, Cpu<E>>, first_passage: usize) -> Self {
        Teacher {
            kind: args.kind,
            own: args.teacher.own.as_slice(),
            scores: args.teacher.scores.as_slice(),
            first_passage,
            inv_temperature: args.inv_temperature,
            inv_teacher_temperature: args.inv_teacher_temperature,
            scale: args.weight * args.inv_temperature,
        }
    }

    /// Adds the gradient of a row of `scores` to `d`, and returns its [`DISTILL_STATS`].
    #[inline(always)]
    pub fn add_row(&self, row: usize, scores: &[f32], positive: usize, d: &mut [f32]) -> [f32; DISTILL_STATS] {
        let [first, end] = [2 * row, 2 * row + 1].map(|at| self.first_passage + self.own[at] as usize);
        let candidates = || std::iter::once(positive).chain(first..end);
        // Logits less the positive's: of scores near each other nothing is lost.
        let above = |column: usize| scores[column] - scores[positive];
        let student = |column: usize| above(column) * self.inv_temperature;
        let score = |column: usize| f32::from_bits(self.scores[column - self.first_passage] as u32);
        let teacher = |column: usize| (score(column) - score(positive)) * self.inv_teacher_temperature;
        let (mut loss, mut d_inv_temperature) = (0.0, 0.0);
        match self.kind {
            Distillation::Kl => {
                let of_teacher = LogSoftmax::of(candidates().map(teacher));
                let of_student = LogSoftmax::of(candidates().map(student));
                for column in candidates() {
                    let (log_p, log_q) = (of_teacher.at(teacher(column)), of_student.at(student(column)));
                    let p = exp(log_p);
                    let difference = exp(log_q) - p;
                    loss += p * (log_p - log_q);
                    d_inv_temperature += difference * above(column);
                    d[column] += difference * self.scale;
                }
            }
            Distillation::MarginMse => {
                // No negatives: nothing is added.
                let share = 1.0 / (end - first) as f32;
                for column in first..end {
                    let error = student(column) - teacher(column);
                    let slope = 2.0 * error * share;
                    loss += error * error * share;
                    d_inv_temperature += slope * above(column);
                    d[column] += slope * self.scale;
                    d[positive] -= slope * self.scale;
                }
            }
        }
        [loss, d_inv_temperature]
    }
}

/// The logarithm of a softmax over a few logits.
struct LogSoftmax {
    largest: f32,
    log_total: f32,
}

impl LogSoftmax {
    #[inline(always)]
    fn of(logits: impl Iterator<Item = f32> + Clone) -> Self {
        let largest = logits.clone().fold(f32::NEG_INFINITY, f32::max);
        let total: f32 = logits.map(|logit| exp(logit - largest)).sum();
        LogSoftmax { largest, log_total: total.ln() }
    }

    #[inline(always)]
    fn at(&self, logit: f32) -> f32 {
        (logit - self.largest) - self.log_total
    }
}
