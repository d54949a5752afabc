//! Which passages of a cache have a teacher's score.

use rayon::prelude::*;

use super::TokenCache;
use crate::data::catalog::Role;

/// What there is to know of a data set's scores before one learns from them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scoring {
    /// Number of groups with a passage that has no score.
    pub n_without: u64,
    /// The first of them.
    pub first_without: Option<u64>,
    /// Number of groups without negatives in a language of their positives: a row has those of its positive's.
    pub n_without_negatives: u64,
    /// Largest score but for its sign.
    pub largest: f32,
}

impl Scoring {
    fn of_group(cache: &TokenCache, group: u64) -> Self {
        let [positives, negatives] = [Role::Positive, Role::Negative].map(|role| cache.records(group, role));
        let scores = || positives.iter().chain(negatives).map(|text| text.score);
        let is_without = scores().any(f32::is_nan);
        let has_negatives = negatives.iter().any(|negative| positives.iter().any(|of| of.lang == negative.lang));
        Scoring {
            n_without: is_without.into(),
            first_without: is_without.then_some(group),
            n_without_negatives: (!has_negatives).into(),
            largest: scores().fold(0.0, |largest, score| largest.max(score.abs())),
        }
    }

    fn and(self, other: Self) -> Self {
        Scoring {
            n_without: self.n_without + other.n_without,
            first_without: self.first_without.into_iter().chain(other.first_without).min(),
            n_without_negatives: self.n_without_negatives + other.n_without_negatives,
            largest: self.largest.max(other.largest),
        }
    }
}

impl TokenCache {
    /// Looks at the scores of all groups.
    pub fn scoring(&self) -> Scoring {
        let of_group = |group| Scoring::of_group(self, group);
        (0..self.n_groups()).into_par_iter().map(of_group).reduce(Scoring::default, Scoring::and)
    }
}
