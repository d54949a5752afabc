//! The report of a step's loss.

use super::LossConfig;
use crate::backend::{DISTILL_STATS, ROW_STATS};

/// The loss of a step and related figures: sums of f32 values in f64.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossReport {
    /// Mean over the queries (and over both directions, if symmetric); with several numbers of dimensions the weighted
    /// sum.
    pub loss: f64,
    /// InfoNCE's share of the loss, before its weight.
    pub contrastive_loss: f64,
    /// Mean over the queries of what a teacher's scores add, before its weight; 0 without a teacher.
    pub distillation_loss: f64,
    /// Mean cosine of the queries with their positives, in the largest number of dimensions.
    pub positive_cosine: f64,
    /// Mean cosine of the queries with all other candidates that are not left out.
    pub negative_cosine: f64,
    /// Pairs of a query and a candidate that were left out as false negatives.
    pub n_false_negatives: usize,
    /// Pairs of a query and a candidate if none were left out.
    pub n_candidates: usize,
    /// Derivative of the loss by the inverse temperature.
    pub d_inv_temperature: f64,
}

impl LossConfig {
    /// Number of results of a batch of `n_queries` queries, for one number of dimensions.
    pub(super) fn n_results(&self, n_queries: usize) -> usize {
        let of_columns = match (self.symmetric, self.has_both_sides()) {
            (false, _) => 0,
            // One loss per column.
            (true, false) => n_queries,
            (true, true) => ROW_STATS * n_queries,
        };
        ROW_STATS * n_queries + of_columns + self.n_results_of_teacher(n_queries)
    }

    /// How many of them, the last, are about what is learned from a teacher.
    fn n_results_of_teacher(&self, n_queries: usize) -> usize {
        if self.distillation.is_some() { DISTILL_STATS * n_queries } else { 0 }
    }

    /// Number of candidates that a query has besides its positive if none is left out.
    fn n_candidates(&self, n_queries: usize, n_seqs: usize) -> usize {
        let of_positives = if self.in_batch_negatives { n_queries - 1 } else { 0 };
        let of_queries = if self.query_negatives { n_queries - 1 } else { 0 };
        of_positives + (n_seqs - 2 * n_queries) + of_queries
    }
}

/// Sums of [`ROW_STATS`] over rows.
#[derive(Default)]
pub(super) struct RowSums {
    loss: f64,
    positive_cosine: f64,
    other_cosines: f64,
    n_others: f64,
    d_inv_temperature: f64,
}

impl RowSums {
    fn new(stats: &[f32]) -> Self {
        let mut sums = [0.0; ROW_STATS];
        for row in stats.chunks_exact(ROW_STATS) {
            sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
        }
        let [loss, positive_cosine, other_cosines, n_others, d_inv_temperature] = sums;
        RowSums { loss, positive_cosine, other_cosines, n_others, d_inv_temperature }
    }

    /// The report of one number of dimensions.
    pub fn of_pass(config: &LossConfig, n_queries: usize, n_seqs: usize, results: &[f32]) -> LossReport {
        let (results, of_teacher) = results.split_at(results.len() - config.n_results_of_teacher(n_queries));
        let (forth, back) = results.split_at(ROW_STATS * n_queries);
        let forth = RowSums::new(forth);
        let (mut loss, mut d_inv_temperature) = (forth.loss, forth.d_inv_temperature);
        if config.has_both_sides() {
            let back = RowSums::new(back);
            loss += back.loss;
            d_inv_temperature += back.d_inv_temperature;
        } else {
            loss += back.iter().map(|&loss| f64::from(loss)).sum::<f64>();
        }
        let n = n_queries as f64;
        let of_terms = n * if config.symmetric { 2.0 } else { 1.0 };
        let n_candidates = n_queries * config.n_candidates(n_queries, n_seqs);
        let (contrastive_loss, mut d_inv_temperature) = (loss / of_terms, d_inv_temperature / of_terms);
        let (weight, mut total) = (f64::from(config.weight), contrastive_loss);
        let mut distillation_loss = 0.0;
        if let Some(distillation) = &config.distillation {
            let mean = |which: usize| {
                of_teacher.iter().skip(which).step_by(DISTILL_STATS).map(|&x| f64::from(x)).sum::<f64>() / n
            };
            distillation_loss = mean(0);
            let of_teacher = f64::from(distillation.weight);
            total = weight * contrastive_loss + of_teacher * distillation_loss;
            d_inv_temperature *= weight;
            // A temperature of its own is not learned.
            d_inv_temperature += if distillation.temperature.is_none() { of_teacher * mean(1) } else { 0.0 };
        }
        LossReport {
            loss: total,
            contrastive_loss,
            distillation_loss,
            positive_cosine: forth.positive_cosine / n,
            negative_cosine: if forth.n_others > 0.0 { forth.other_cosines / forth.n_others } else { 0.0 },
            n_false_negatives: n_candidates.saturating_sub(forth.n_others as usize),
            n_candidates,
            d_inv_temperature,
        }
    }
}
