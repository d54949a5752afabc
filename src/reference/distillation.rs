//! What a student learns from a teacher's scores.

use crate::backend::Distillation;
use std::ops::Range;

/// A teacher of a batch's queries.
#[derive(Clone)]
pub struct Teacher {
    pub kind: Distillation,
    /// Each query's own negatives among the passages.
    pub own: Vec<Range<usize>>,
    /// Its score of each passage.
    pub scores: Vec<f64>,
    pub inv_temperature: f64,
    pub inv_teacher_temperature: f64,
}

impl Teacher {
    /// The loss of a query whose positive is the passage `positive`, and whose cosine with a passage is `cosine`.
    pub fn loss(&self, query: usize, positive: usize, cosine: impl Fn(usize) -> f64) -> f64 {
        let candidates: Vec<usize> = [positive].into_iter().chain(self.own[query].clone()).collect();
        let student: Vec<f64> = candidates.iter().map(|&passage| cosine(passage) * self.inv_temperature).collect();
        let teacher: Vec<f64> =
            candidates.iter().map(|&passage| self.scores[passage] * self.inv_teacher_temperature).collect();
        match self.kind {
            Distillation::Kl => {
                let (p, q) = (log_softmax(&teacher), log_softmax(&student));
                p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum()
            }
            Distillation::MarginMse => {
                let error = |k: usize| (student[0] - student[k]) - (teacher[0] - teacher[k]);
                let n = candidates.len() - 1;
                (1..=n).map(|k| error(k) * error(k)).sum::<f64>() / n.max(1) as f64
            }
        }
    }
}

fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_total = logits.iter().map(|logit| (logit - largest).exp()).sum::<f64>().ln();
    logits.iter().map(|logit| logit - largest - log_total).collect()
}
