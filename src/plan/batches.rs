//! The batches of a run as a plan sees them: some of them, drawn as the run will draw them, and bounds on all.

use super::Sample;
use crate::config::Config;
use crate::data::batch::{Batch, NegativeRules};
use crate::data::bounds::BatchBounds;
use crate::data::datasets::Datasets;
use crate::data::sampler::{BatchMode, Mixture};
use crate::model::Sequences;
use crate::train::{StepBounds, negative_rules, sampler, total_steps};
use crate::{Error, Result};

/// Batches and tokens that are looked at: a fraction of a second.
const MOST_BATCHES: u64 = 256;
const MOST_TOKENS: usize = 2 << 20;
/// Batches that are kept, if they have no more than so many tokens.
const MOST_KEPT: usize = 6;
const MOST_KEPT_TOKENS: usize = 1 << 20;

/// What is known of the batches of a run.
pub struct Batches {
    /// Steps of the run.
    pub total_steps: u64,
    /// Whether there may be fewer, for want of groups.
    pub is_at_most: bool,
    /// What no batch exceeds.
    pub bounds: BatchBounds,
    /// The largest numbers of the batches that were looked at.
    pub largest: BatchBounds,
    /// Different token ids of the batch that has most of them, among those looked at.
    most_ids: usize,
    /// Mean number of tokens of a batch.
    pub mean_tokens: f64,
    /// Some of the batches looked at. The first has the most tokens.
    pub some: Vec<Batch>,
    /// What the data's lengths are based on.
    pub basis: String,
    /// What the run itself may refuse, where that cannot be known yet.
    pub caution: Option<String>,
    words: Words,
}

impl Batches {
    /// Of tokenized data.
    ///
    /// # Errors
    /// Data that cannot serve the configured batches.
    pub fn of_tokens(config: &Config, vocab_size: usize, data: &Datasets) -> Result<Self> {
        let sampler = sampler(config, &data.parts())?;
        let rules = negative_rules(config, data)?;
        let bounds = BatchBounds::new(data.caches(), config.batch_size, config.negatives_per_query);
        let total_steps = total_steps(config, sampler.steps_per_pass());
        let draw = |step| Batch::pack(step, &sampler.batch(step), data, rules);
        let n_groups: u64 = data.caches().map(|cache| cache.n_groups()).sum();
        Self::look_at(total_steps, bounds, vocab_size, format!("all {n_groups} groups, tokenized"), draw)
    }

    /// Of data that is not tokenized yet.
    ///
    /// # Errors
    /// Data that cannot serve the configured batches. Where not all of it was read, that is refused only if it can serve no
    /// other batches of this size either: which languages a group has may show in a part that was not read.
    pub fn of_sample(config: &Config, vocab_size: usize, sample: &Sample) -> Result<Self> {
        let (sampler, caution) = sampler_of_sample(config, sample)?;
        // A teacher changes no number of texts.
        let rules = NegativeRules { per_query: config.negatives_per_query, teacher_margin: None };
        let caution = match negative_rules(config, sample) {
            Err(refusal) if sample.is_all() => return Err(refusal),
            Err(refusal) => caution.or(Some(refusal.to_string())),
            Ok(_) => caution,
        };
        let bounds = sample.sizes(config.negatives_per_query).bounds(config.batch_size);
        let total_steps = total_steps(config, sampler.steps_per_pass());
        let draw = |step| Batch::pack(step, &sampler.batch(step), sample, rules);
        let batches = Self::look_at(total_steps, bounds, vocab_size, sample.to_string(), draw)?;
        Ok(Batches { caution, is_at_most: sample.is_at_most() && config.steps.is_none(), ..batches })
    }

    fn look_at(
        total_steps: u64,
        bounds: BatchBounds,
        vocab_size: usize,
        basis: String,
        draw: impl Fn(u64) -> Result<Batch>,
    ) -> Result<Self> {
        let first = draw(0)?;
        let affordable = (MOST_TOKENS / first.n_tokens()).max(1) as u64;
        let n = total_steps.min(MOST_BATCHES).min(affordable);
        let mut batches = Batches {
            total_steps,
            is_at_most: false,
            bounds,
            largest: BatchBounds { shortest: bounds.longest, n_seqs: 0, n_tokens: 0, longest: 0, ..bounds },
            most_ids: 0,
            mean_tokens: 0.0,
            some: Vec::new(),
            basis,
            caution: None,
            words: Words::new(vocab_size),
        };
        let n_kept = (MOST_KEPT_TOKENS / first.n_tokens()).clamp(1, MOST_KEPT) as u64;
        for i in 0..n {
            // Spread over the run. The order of the kinds of batches is shuffled, so no kind is passed over.
            let batch = draw(i * total_steps / n)?;
            if i == n / 2 {
                batches.words.n_at_half = batches.words.n_seen;
            }
            batches.add(batch, i.is_multiple_of(n.div_ceil(n_kept)));
        }
        batches.mean_tokens /= n as f64;
        batches.words.share_seen = n as f64 / total_steps as f64;
        Ok(batches)
    }

    fn add(&mut self, batch: Batch, keep: bool) {
        let lens = || batch.cu_seqlens.windows(2).map(|w| (w[1] - w[0]) as usize);
        let is_largest = batch.n_tokens() > self.largest.n_tokens;
        let most = &mut self.largest;
        most.n_seqs = most.n_seqs.max(batch.n_seqs());
        most.n_tokens = most.n_tokens.max(batch.n_tokens());
        most.shortest = most.shortest.min(lens().min().unwrap_or(0));
        most.longest = most.longest.max(lens().max().unwrap_or(0));
        self.most_ids = self.most_ids.max(self.words.add(&batch.ids));
        self.mean_tokens += batch.n_tokens() as f64;
        if is_largest && !keep && !self.some.is_empty() {
            self.some[0] = batch;
        } else if keep || is_largest {
            self.some.push(batch);
            let last = self.some.len() - 1;
            if is_largest {
                self.some.swap(0, last);
            }
        }
    }

    /// The largest step: of any there can be, or of those that were looked at.
    pub fn step_bounds(&self, chunk_tokens: usize, vocab_size: usize, of_any: bool) -> StepBounds {
        if of_any {
            return StepBounds::new(&self.bounds, chunk_tokens, vocab_size);
        }
        let bounds = StepBounds::new(&self.largest, chunk_tokens, vocab_size);
        StepBounds { n_ids: self.most_ids, n_chunks: self.n_chunks(chunk_tokens), ..bounds }
    }

    /// Chunks of the largest batch that was looked at.
    pub fn n_chunks(&self, chunk_tokens: usize) -> usize {
        let Batch { ids, cu_seqlens, .. } = &self.some[0];
        Sequences { ids, cu_seqlens }.chunks(chunk_tokens).count()
    }

    /// Bytes of a table with a row of `row_bytes` for every token id that have been written to by the end of the run, where
    /// the system hands out memory in pages. An estimate where not all batches were looked at.
    pub fn table_bytes(&self, row_bytes: usize, page_bytes: usize) -> u64 {
        self.words.bytes(row_bytes, page_bytes)
    }
}

/// What draws the run's batches, or such as the part of the data that was read can serve, and then why.
fn sampler_of_sample(config: &Config, sample: &Sample) -> Result<(Mixture, Option<String>)> {
    let parts = sample.parts();
    let refusal = match sampler(config, &parts) {
        Ok(sampler) => return Ok((sampler, None)),
        Err(refusal) if sample.is_all() => return Err(refusal),
        Err(refusal) => refusal,
    };
    let others = [BatchMode::MixedMonolingual, BatchMode::CrossLingual];
    let served = others.into_iter().find_map(|mode| sampler(&Config { mode, ..config.clone() }, &parts).ok());
    match (served, refusal) {
        (Some(sampler), refusal) => Ok((sampler, Some(refusal.to_string()))),
        (None, Error::Config { key, message }) => {
            Err(Error::config(key, format!("{message} (estimated from a part of the data; hbt prepare counts all)")))
        }
        (None, other) => Err(other),
    }
}

/// Which token ids the run uses.
struct Words {
    /// The last batch, counted from 1, that had each id; 0: none.
    last_batch: Vec<u32>,
    n_batches: u32,
    n_seen: usize,
    n_at_half: usize,
    /// Share of the run's batches that were looked at.
    share_seen: f64,
}

impl Words {
    fn new(vocab_size: usize) -> Self {
        Words { last_batch: vec![0; vocab_size], n_batches: 0, n_seen: 0, n_at_half: 0, share_seen: 1.0 }
    }

    /// Adds a batch; returns how many different ids it has. Ids that the model does not have are an error of the run.
    fn add(&mut self, ids: &[i32]) -> usize {
        self.n_batches += 1;
        let mut n_ids = 0;
        for &id in ids {
            let Some(last) = self.last_batch.get_mut(id as usize) else { continue };
            self.n_seen += usize::from(*last == 0);
            n_ids += usize::from(*last != self.n_batches);
            *last = self.n_batches;
        }
        n_ids
    }

    fn bytes(&self, row_bytes: usize, page_bytes: usize) -> u64 {
        let (mut n_pages, mut next_page) = (0, 0);
        for row in (0..self.last_batch.len()).filter(|&row| self.last_batch[row] > 0) {
            let first = (row * row_bytes / page_bytes).max(next_page);
            next_page = ((row + 1) * row_bytes).div_ceil(page_bytes);
            n_pages += next_page.saturating_sub(first);
        }
        // The number of different words grows with a power of the length of a text (Heaps' law).
        let power = if self.n_at_half > 0 { (self.n_seen as f64 / self.n_at_half as f64).log2() } else { 0.0 };
        let growth = self.share_seen.powf(-power.clamp(0.0, 1.0));
        let table = (self.last_batch.len() * row_bytes) as f64;
        ((n_pages * page_bytes) as f64 * growth).min(table) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::Words;

    #[test]
    fn pages_are_counted_once_and_grow_with_the_run() {
        let mut words = Words::new(1000);
        assert_eq!(words.add(&[0, 1, 2, 1, 999]), 4);
        assert_eq!(words.add(&[2, 3, 2000]), 2, "a new batch counts anew; ids that are not there do not count");
        assert_eq!(words.n_seen, 5);
        // Rows of 1,000 bytes: rows 0 to 3 are in the first page of 4,000, row 999 in the last one.
        assert_eq!(words.bytes(1000, 4000), 8000);
        assert_eq!(words.bytes(1000, 1000), 5000);
        // Rows 0 to 3 take the first 12,000 bytes, which are three pages; row 999 begins in one page and ends in the next.
        assert_eq!(words.bytes(3000, 4096), (3 + 2) * 4096);
        // Half as many ids in half of the text: as many times more as the run is longer, but no more than there are.
        (words.n_at_half, words.n_seen, words.share_seen) = (2, 4, 0.1);
        assert_eq!(words.bytes(1000, 1000), 50_000);
        words.share_seen = 0.001;
        assert_eq!(words.bytes(1000, 1000), 1_000_000);
        (words.n_at_half, words.n_seen) = (4, 4);
        assert_eq!(words.bytes(1000, 1000), 5000, "what has stopped to grow stays");
    }
}
