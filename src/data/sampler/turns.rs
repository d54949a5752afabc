//! Assigns steps to streams: stratified draws that can be counted without being replayed.

use super::permutation::Permutation;
use crate::random::hash;

/// Indices in a block, unless there are very many outcomes. Shares are multiples of 1/4096.
const BLOCK: u64 = 4096;

/// Indices in a chunk of a block.
const CHUNK: u64 = 64;

/// Draws one of a few outcomes for every index, in proportion to their weights.
///
/// Indices are cut into blocks. A block is a shuffle of its *slots*, of which every outcome owns a range as long as its
/// share: frequencies are exact over a block. The shuffle has two levels. The block's chunks take the slots
/// `r, r + n_chunks, r + 2 n_chunks, ...`, each with another `r`, in a random order of `r`; within a chunk the order
/// is random. So frequencies are as good as integers allow over every chunk too (a run of 60 steps gets its share of
/// each kind), and counting what came before an index takes a closed form a chunk and a look at one chunk, not at
/// the whole block.
pub(super) struct Strata {
    /// End of each outcome's slots; the slots of a block are `0..block_len`.
    ends: Vec<u64>,
    block_len: u64,
    key: u64,
}

impl Strata {
    pub(super) fn new(weights: &[f64], key: u64) -> Self {
        let block_len = BLOCK.max((16 * weights.len() as u64).next_power_of_two());
        let mut end = 0;
        let ends = apportion(weights, block_len)
            .into_iter()
            .map(|share| {
                end += share;
                end
            })
            .collect();
        Strata { ends, block_len, key }
    }

    fn n_chunks(&self) -> u64 {
        self.block_len / CHUNK
    }

    /// The order in which a block's chunks take the remainders `r` of slots modulo `n_chunks`.
    fn chunk_order(&self, block: u64) -> Permutation {
        Permutation::new(self.n_chunks(), hash(&[self.key, block]))
    }

    /// The outcomes of the chunk that begins at index `start` and takes the slots of remainder `r`, in order.
    fn chunk(&self, start: u64, r: u64) -> impl Fn(u64) -> usize {
        let order = Permutation::new(CHUNK, hash(&[self.key, start, r]));
        move |place| {
            let slot = order.item(place) * self.n_chunks() + r;
            self.ends.partition_point(|&end| end <= slot)
        }
    }

    /// The outcome of an index.
    pub(super) fn outcome(&self, index: u64) -> usize {
        let r = self.chunk_order(index / self.block_len).item(index % self.block_len / CHUNK);
        self.chunk(index - index % CHUNK, r)(index % CHUNK)
    }

    /// Number of indices below `index` with one of the `counted` outcomes, ascending; what is none of them counts for
    /// nothing.
    pub(super) fn before(&self, index: u64, counted: &[usize]) -> u64 {
        let counted = &counted[..counted.partition_point(|outcome| *outcome < self.ends.len())];
        if counted.len() == self.ends.len() {
            return index;
        }
        let (block, chunk) = (index / self.block_len, index % self.block_len / CHUNK);
        let order = self.chunk_order(block);
        let whole_chunks = || (0..chunk).map(|c| order.item(c));
        let range =
            |&outcome: &usize| (outcome.checked_sub(1).map_or(0, |before| self.ends[before]), self.ends[outcome]);
        let in_whole_chunks: u64 = counted
            .iter()
            .map(range)
            .map(|(start, end)| {
                // Slots below `x` that leave remainder r.
                let below = |x: u64, r: u64| (x + self.n_chunks() - 1 - r) / self.n_chunks();
                block * (end - start) + whole_chunks().map(|r| below(end, r) - below(start, r)).sum::<u64>()
            })
            .sum();
        let outcomes = self.chunk(index - index % CHUNK, order.item(chunk));
        let is_counted = |&place: &u64| counted.binary_search(&outcomes(place)).is_ok();
        in_whole_chunks + (0..index % CHUNK).filter(is_counted).count() as u64
    }
}

/// Shares `total` in proportion to `weights` by largest remainders (ties to the first); every positive weight
/// gets at least 1.
fn apportion(weights: &[f64], total: u64) -> Vec<u64> {
    let sum: f64 = weights.iter().sum();
    let quotas: Vec<f64> = weights.iter().map(|weight| weight / sum * total as f64).collect();
    let mut shares: Vec<u64> =
        quotas.iter().map(|&quota| if quota > 0.0 { (quota.floor() as u64).max(1) } else { 0 }).collect();
    let mut by_remainder: Vec<usize> = (0..weights.len()).filter(|&i| quotas[i] > 0.0).collect();
    by_remainder.sort_by(|&i, &j| (quotas[j] - shares[j] as f64).total_cmp(&(quotas[i] - shares[i] as f64)));
    let given: u64 = shares.iter().sum();
    for &i in by_remainder.iter().take(total.saturating_sub(given) as usize) {
        shares[i] += 1;
    }
    // Shares below 1 were rounded up to 1; the largest share gives up the difference.
    for _ in 0..given.saturating_sub(total) {
        if let Some(largest) = shares.iter_mut().max() {
            *largest -= 1;
        }
    }
    shares
}

/// The stream of each step: first monolingual or not, then, among the monolingual steps, the language.
///
/// Two levels, so that many languages with small shares cannot round alpha away.
pub struct Turns {
    kinds: Strata,
    langs: Strata,
    n_langs: usize,
}

/// The outcome of [`Turns::kinds`] that means a monolingual batch.
const MONOLINGUAL: usize = 0;

impl Turns {
    /// Monolingual streams have the numbers `0..lang_weights.len()`, the other stream the number after them.
    pub fn new(monolingual_share: f64, lang_weights: &[f64], key: u64) -> Self {
        Turns {
            kinds: Strata::new(&[monolingual_share, 1.0 - monolingual_share], hash(&[key, 0])),
            langs: Strata::new(lang_weights, hash(&[key, 1])),
            n_langs: lang_weights.len(),
        }
    }

    /// The stream that serves a step.
    pub fn stream(&self, step: u64) -> usize {
        if self.kinds.outcome(step) == MONOLINGUAL {
            self.langs.outcome(self.monolingual_before(step))
        } else {
            self.n_langs
        }
    }

    /// Number of steps before `step` that are served by one of the `counted` streams, ascending.
    pub fn before(&self, step: u64, counted: &[usize]) -> u64 {
        let monolingual = self.monolingual_before(step);
        let others = if counted.last() == Some(&self.n_langs) { step - monolingual } else { 0 };
        others + self.langs.before(monolingual, counted)
    }

    fn monolingual_before(&self, step: u64) -> u64 {
        self.kinds.before(step, &[MONOLINGUAL])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apportions_by_largest_remainder() {
        // Hamilton's method, the example that every text on voting has. Quotas for 10: 4.7, 1.6, 1.58, 1.2, 0.61, 0.31.
        let votes = [47_000.0, 16_000.0, 15_800.0, 12_000.0, 6_100.0, 3_100.0];
        assert_eq!(apportion(&votes, 100), [47, 16, 16, 12, 6, 3]);
        // Hamilton's seats are 5, 2, 1, 1, 1, 0; here the last has a seat by right.
        assert_eq!(apportion(&votes, 10), [5, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn the_smallest_weight_has_a_turn_and_zero_has_none() {
        assert_eq!(apportion(&[1.0, 1e-12, 0.0, 1e-12], 4096), [4094, 1, 0, 1]);
        assert_eq!(apportion(&[1.0, 0.0], 4096), [4096, 0]);
        assert!(apportion(&[], 4096).is_empty());
    }

    #[test]
    fn counts_agree_with_replaying_every_step() {
        let turns = Turns::new(0.3, &[5.0, 1.0, 0.2], 9);
        let counted = [0, 2, 3];
        let mut served = 0;
        for step in 0..2 * BLOCK + 10 {
            if step % 97 == 0 || step % BLOCK < 3 {
                assert_eq!(turns.before(step, &counted), served, "before step {step}");
            }
            served += u64::from(counted.contains(&turns.stream(step)));
        }
    }

    #[test]
    fn every_chunk_is_as_fair_as_integers_allow() {
        let weights = [0.5, 0.3, 0.15, 0.05];
        let strata = Strata::new(&weights, 5);
        for chunk in 0..200 {
            let mut counts = [0.0; 4];
            (0..CHUNK).for_each(|place| counts[strata.outcome(chunk * CHUNK + place)] += 1.0);
            for (count, weight) in counts.iter().zip(weights) {
                assert!((count - weight * CHUNK as f64).abs() < 1.01, "chunk {chunk}: {counts:?}");
            }
        }
    }

    #[test]
    fn a_thousand_languages_have_turns() {
        let turns = Strata::new(&[1.0; 1000], 4);
        let mut counts = vec![0; 1000];
        for index in 0..turns.block_len {
            counts[turns.outcome(index)] += 1;
        }
        assert!(counts.iter().all(|&count| count == 16 || count == 17));
    }
}
