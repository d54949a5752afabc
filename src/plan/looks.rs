//! Chooses the steps whose batches a plan samples: few enough to take no time, and with every kind of batch and every
//! dataset in the share that it has in the run.

use crate::data::batch::Batch;
use crate::data::sampler::{BatchMode, Mixture};
use crate::random::{below, hash};

/// Most steps whose kind and dataset are asked for.
const MOST_TURNS: u64 = 4096;
/// Most batches and tokens that are sampled: they take a fraction of a second.
const MOST_BATCHES: usize = 256;
const MOST_TOKENS: usize = 2 << 20;
/// Most batches and tokens whose work is counted, which takes about as long again.
const MOST_KEPT: usize = 32;
const MOST_KEPT_TOKENS: usize = 1 << 19;
/// Most strata that may each have a batch of the largest size that is sampled.
const FEW_STRATA: usize = 4;

/// A kind of batch, and its dataset, if all rows are from one.
type Turn = (BatchMode, Option<usize>);

/// Steps of one kind of batch from one dataset.
pub(super) struct Stratum {
    /// Share of the run's steps.
    pub share: f64,
    /// A sample of the steps, ascending.
    pub steps: Vec<u64>,
    /// Tokens of a row, as far as they are known before any batch is sampled.
    pub tokens_per_row: f64,
    /// Number of tokens of the sampled batches, and number of these batches.
    n_tokens: usize,
    n_batches: usize,
    /// Batches that are kept.
    kept: Vec<Batch>,
}

/// A step to sample.
pub(super) struct Look {
    pub step: u64,
    /// Index of its stratum.
    pub stratum: usize,
    /// Whether its batch is kept.
    pub is_kept: bool,
}

/// The strata of a run of `total_steps` steps, where `turns` gives the kind and dataset of each.
pub(super) fn strata(turns: &Mixture, seed: u64, total_steps: u64) -> Vec<Stratum> {
    let n = total_steps.min(MOST_TURNS);
    let start = |i: u64| (u128::from(i) * u128::from(total_steps) / u128::from(n)) as u64;
    let (mut turns_seen, mut strata): (Vec<Turn>, Vec<Vec<u64>>) = Default::default();
    for i in 0..n {
        // A random step of each stretch, so that periodic steps are not missed.
        let step = start(i) + below(hash(&[seed, i]), start(i + 1) - start(i));
        let batch = turns.batch(step);
        let turn: Turn = (batch.kind.mode(), batch.dataset);
        match turns_seen.iter().position(|of| *of == turn) {
            Some(number) => strata[number].push(step),
            None => {
                turns_seen.push(turn);
                strata.push(vec![step]);
            }
        }
    }
    let stratum = |steps: Vec<u64>| Stratum {
        share: steps.len() as f64 / n as f64,
        steps,
        tokens_per_row: 0.0,
        n_tokens: 0,
        n_batches: 0,
        kept: Vec::new(),
    };
    strata.into_iter().map(stratum).collect()
}

/// Rows of the largest batches that can be sampled.
pub(super) fn most_rows(strata: &[Stratum]) -> usize {
    let most_tokens = (MOST_TOKENS / strata.len().max(FEW_STRATA)) as f64;
    let longest = strata.iter().map(|stratum| stratum.tokens_per_row).fold(1.0, f64::max);
    ((most_tokens / longest) as usize).max(2)
}

/// Chooses steps of batches with `rows` rows: at least one of each stratum, and all of them if they are affordable.
pub(super) fn choose(strata: &[Stratum], rows: usize) -> Vec<Look> {
    let per_row: f64 = strata.iter().map(|stratum| stratum.share * stratum.tokens_per_row).sum();
    let affordable =
        |n_tokens: usize, most: usize| ((n_tokens as f64 / (per_row * rows as f64)) as usize).clamp(1, most);
    let (n, n_kept) = (affordable(MOST_TOKENS, MOST_BATCHES), affordable(MOST_KEPT_TOKENS, MOST_KEPT));
    let part = |n: usize, share: f64, most: usize| ((n as f64 * share).round() as usize).clamp(1, most);
    let mut looks = Vec::with_capacity(n + strata.len());
    for (number, stratum) in strata.iter().enumerate() {
        let n = part(n, stratum.share, stratum.steps.len());
        let n_kept = part(n_kept, stratum.share, n);
        let is_kept = |i: usize| (i + 1) * n_kept / n > i * n_kept / n;
        let step = |i: usize| stratum.steps[(2 * i + 1) * stratum.steps.len() / (2 * n)];
        looks.extend((0..n).map(|i| Look { step: step(i), stratum: number, is_kept: is_kept(i) }));
    }
    looks.sort_by_key(|look| look.step);
    looks
}

impl Stratum {
    /// Adds the batch of one of its steps.
    pub fn add(&mut self, batch: Batch, is_kept: bool) {
        self.n_tokens += batch.n_tokens();
        self.n_batches += 1;
        if is_kept {
            self.kept.push(batch);
        }
    }

    /// Mean number of tokens of a batch.
    pub fn mean_tokens(&self) -> f64 {
        self.n_tokens as f64 / self.n_batches as f64
    }

    /// The kept batches, and weights that add up to the stratum's share, corrected so that the tokens are those of all
    /// sampled batches.
    pub fn into_kept(self) -> impl Iterator<Item = (Batch, f64)> {
        let n_tokens: usize = self.kept.iter().map(Batch::n_tokens).sum();
        let weight = self.share * self.mean_tokens() / n_tokens as f64;
        self.kept.into_iter().map(move |batch| (batch, weight))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stratum(share: f64, n_steps: u64, tokens_per_row: f64) -> Stratum {
        let (steps, kept) = ((0..n_steps).map(|i| 3 * i).collect(), Vec::new());
        Stratum { share, steps, tokens_per_row, n_tokens: 0, n_batches: 0, kept }
    }

    #[test]
    fn every_stratum_has_its_share_of_what_is_affordable() {
        let strata = [stratum(0.749, 3000, 20.0), stratum(0.25, 1000, 200.0), stratum(0.001, 4, 20.0)];
        let numbers = |rows| {
            let looks = choose(&strata, rows);
            assert!(looks.is_sorted_by_key(|look| look.step));
            [0, 1, 2].map(|number| {
                let mut of = looks.iter().filter(|look| look.stratum == number).collect::<Vec<_>>();
                of.dedup_by_key(|look| look.step);
                (of.len(), of.iter().filter(|look| look.is_kept).count())
            })
        };
        assert_eq!(numbers(10), [(192, 24), (64, 8), (1, 1)], "256 batches, 32 of them kept");
        // Batches of 65,000 tokens on average: 32 in all, and 8 to be kept.
        assert_eq!(numbers(1000), [(24, 6), (8, 2), (1, 1)]);
        let rows = most_rows(&strata);
        assert_eq!((rows, numbers(rows)), (MOST_TOKENS / 4 / 200, [(9, 2), (3, 1), (1, 1)]));
        let few = [stratum(0.5, 5, 20.0), stratum(0.5, 5, 20.0)];
        assert_eq!(choose(&few, 10).iter().map(|look| look.step).collect::<Vec<_>>(), [0, 0, 3, 3, 6, 6, 9, 9, 12, 12]);
    }
}
