//! The batches of a run for a plan: a sample of them, drawn as the run will draw them, and bounds on all.

use super::Sample;
use super::looks::{Stratum, choose, most_rows, strata};
use super::numbers::count;
use super::token_ids::TokenIds;
use crate::data::batch::{Batch, NegativeRules};
use crate::data::bounds::{BatchBounds, GroupSizes};
use crate::data::catalog::TextSource;
use crate::data::datasets::Datasets;
use crate::data::sampler::{BatchMode, Mixture, SamplerConfig, WeightedDataset};
use crate::model::Sequences;
use crate::train::{Deal, RunLength, StepBounds, TrainSettings};
use crate::{Error, Result};

/// Rows of the smallest batches, and of those that show the length of rows.
pub(super) const FEWEST_ROWS: usize = 2;
const ROWS_TO_BEGIN_WITH: usize = 64;

/// Facts about the batches of a run.
#[derive(Clone)]
pub struct Batches {
    /// Number of steps of the run.
    pub total_steps: u64,
    /// Whether there may be fewer steps, because there may be fewer groups.
    pub is_at_most: bool,
    /// Sizes that no batch exceeds.
    pub bounds: BatchBounds,
    /// Largest sizes among the sampled batches.
    pub largest: BatchBounds,
    /// Mean number of tokens of a batch.
    pub mean_tokens: f64,
    /// Sampled batches with weights: the sum of a number over them, each times its weight, is the mean of that number
    /// over the steps of the run, up to the factor [`Batches::scale`].
    pub some: Vec<(Batch, f64)>,
    /// Size of the run's batches relative to the sampled ones: 1 unless they are too large to be sampled.
    pub scale: f64,
    /// Number of tokens in all sampled batches.
    pub n_looked_at: usize,
    /// The basis of the data's lengths, in words.
    pub basis: String,
    /// How they are dealt out to ranks.
    pub deal: Deal,
    /// A reason why the run itself may fail, if that cannot be known yet.
    pub caution: Option<String>,
    /// Sequence starts of the sampled batch with the most tokens; empty if none was sampled.
    cu_seqlens: Vec<i32>,
    /// Largest number of different token ids in a batch.
    n_ids: usize,
    token_ids: TokenIds,
    sizes: GroupSizes,
}

impl Batches {
    /// The batches from tokenized data.
    ///
    /// # Errors
    /// If the data cannot serve the configured batches.
    pub fn of_tokens(settings: &TrainSettings, vocab_size: usize, data: &Datasets) -> Result<Self> {
        let n_groups = data.catalog().n_groups();
        let source = Source {
            texts: data,
            datasets: data.weighted(),
            rules: settings.negative_rules(data)?,
            sizes: GroupSizes::new(data.caches(), settings.negatives.per_query),
        };
        source.look_at(settings, vocab_size, format!("all {} groups, tokenized", count(n_groups as f64)))
    }

    /// The batches from data that is not tokenized yet.
    ///
    /// # Errors
    /// If the data cannot serve the configured batches. If only a part of it was read, this is an error only if it can
    /// serve no other batches of this size either: an unread part may have groups with more languages.
    pub fn of_sample(settings: &TrainSettings, vocab_size: usize, sample: &Sample) -> Result<Self> {
        let (served, refusal) = served(settings, sample)?;
        let refusal = match (refusal, settings.negative_rules(sample)) {
            (None, Err(refusal)) if sample.is_all() => return Err(refusal),
            (refusal, Ok(_)) => refusal,
            (refusal, Err(other)) => refusal.or(Some(other)),
        };
        let source = Source {
            texts: sample,
            datasets: sample.weighted(),
            // A teacher does not change the number of texts.
            rules: NegativeRules { teacher_margin: None, ..settings.negatives },
            sizes: sample.sizes(settings.negatives.per_query),
        };
        let batches = source.look_at(&served, vocab_size, sample.to_string())?;
        let is_at_most = sample.is_at_most() && matches!(settings.length, RunLength::Passes(_));
        Ok(Batches { is_at_most, caution: refusal.map(|refusal| refusal.to_string()), ..batches })
    }

    /// The same batches, dealt out to ranks.
    pub fn dealt(self, deal: Deal) -> Self {
        Batches { deal, ..self }
    }

    /// Sizes that no rank's share of a batch exceeds.
    pub fn own_bounds(&self) -> BatchBounds {
        self.deal.bounds(&self.bounds)
    }

    /// Facts about batches of another size, without sampling any.
    pub fn of_size(&self, batch_size: usize) -> Self {
        let bounds = self.sizes.bounds(batch_size);
        let (some, cu_seqlens) = Default::default();
        Batches { bounds, largest: bounds, n_ids: bounds.n_tokens, some, cu_seqlens, ..self.clone() }
    }

    /// Bounds of a rank's step: of any possible one, or of the sampled ones.
    pub fn step_bounds(&self, chunk_tokens: usize, vocab_size: usize, of_any: bool) -> StepBounds {
        let of = |bounds| StepBounds::of_share(self.deal, bounds, chunk_tokens, vocab_size);
        if of_any {
            return of(&self.bounds);
        }
        let bounds = of(&self.largest);
        StepBounds { n_ids: self.n_ids.min(bounds.n_ids), n_chunks: self.n_chunks(chunk_tokens), ..bounds }
    }

    /// Number of chunks of a rank's share of the largest sampled batch.
    pub fn n_chunks(&self, chunk_tokens: usize) -> usize {
        let Some(&n_tokens) = self.cu_seqlens.last() else {
            return StepBounds::of_share(self.deal, &self.largest, chunk_tokens, usize::MAX).n_chunks;
        };
        let own = self.deal.places(self.cu_seqlens.len() - 1);
        let ends = own.scan(0, |end, place| {
            *end += self.cu_seqlens[place + 1] - self.cu_seqlens[place];
            Some(*end)
        });
        let cu_seqlens: Vec<i32> = std::iter::once(0).chain(ends).collect();
        let n_chunks = Sequences::new(&[], &cu_seqlens).chunks(chunk_tokens).count();
        (n_chunks as f64 * self.largest.n_tokens as f64 / f64::from(n_tokens)).ceil() as usize
    }

    /// Number of different token ids of a batch `scale` times as large as one with `n_ids`: it grows as that of a text does
    /// with its length (Heaps' law), at the power that the sampled batches show, up to the vocabulary.
    pub fn n_ids(&self, n_ids: usize) -> usize {
        self.token_ids.grown(n_ids, self.scale)
    }

    /// Bytes that have been written to by the end of the run in a table with a row of `row_bytes` for every token id,
    /// if the system hands out memory in pages. An estimate if not all batches were sampled.
    pub fn table_bytes(&self, row_bytes: usize, page_bytes: usize) -> u64 {
        self.token_ids.bytes(row_bytes, page_bytes)
    }
}

/// Source of the batches.
struct Source<'a> {
    texts: &'a dyn TextSource,
    datasets: Vec<WeightedDataset<'a>>,
    rules: NegativeRules,
    sizes: GroupSizes,
}

impl Source<'_> {
    fn draw(&self, sampler: &Mixture, step: u64) -> Result<Batch> {
        Batch::pack(step, &sampler.batch(step), self.texts, self.rules)
    }

    /// Samples the run's batches.
    fn look_at(self, settings: &TrainSettings, vocab_size: usize, basis: String) -> Result<Batches> {
        let SamplerConfig { batch_size, seed, .. } = settings.sampler;
        let with = |batch_size| {
            Mixture::new(&self.datasets, &SamplerConfig { batch_size, ..settings.sampler.clone() }, &settings.mixture)
        };
        let whole = with(batch_size)?;
        let total_steps = settings.total_steps(whole.steps_per_pass());
        // Which dataset and kind a step has does not depend on the batch size.
        let mut strata = strata(&with(FEWEST_ROWS)?, seed, total_steps);
        let few = batch_size.min(ROWS_TO_BEGIN_WITH);
        let sampler = with(few)?;
        for stratum in &mut strata {
            stratum.tokens_per_row = self.draw(&sampler, stratum.steps[0])?.n_tokens() as f64 / few as f64;
        }
        let rows = most_rows(&strata).min(batch_size);
        let sampler = if rows < batch_size { with(rows)? } else { whole };
        let looks = choose(&strata, rows);

        let mut seen = Seen::new(vocab_size);
        for (i, look) in looks.iter().enumerate() {
            if i == looks.len() / 2 {
                seen.token_ids.is_half();
            }
            let batch = self.draw(&sampler, look.step)?;
            seen.add(&batch);
            strata[look.stratum].add(batch, look.is_kept);
        }
        let scale = batch_size as f64 / rows as f64;
        seen.token_ids.is_whole(looks.len() as f64 / (total_steps as f64 * scale));
        let bounds = self.sizes.bounds(batch_size);
        let largest = largest(&seen, &strata, scale, &bounds);
        Ok(Batches {
            total_steps,
            is_at_most: false,
            bounds,
            largest,
            mean_tokens: scale * strata.iter().map(|stratum| stratum.share * stratum.mean_tokens()).sum::<f64>(),
            some: strata.into_iter().flat_map(Stratum::into_kept).collect(),
            scale,
            n_looked_at: seen.n_tokens,
            basis,
            deal: Deal::ALONE,
            caution: None,
            cu_seqlens: seen.cu_seqlens,
            n_ids: seen.token_ids.grown(seen.n_ids, scale),
            token_ids: seen.token_ids,
            sizes: self.sizes,
        })
    }
}

/// The largest batches of a run, `scale` times as large as the sampled ones. In large batches random differences
/// average out: the largest are those of the stratum with the most tokens a batch.
fn largest(seen: &Seen, strata: &[Stratum], scale: f64, bounds: &BatchBounds) -> BatchBounds {
    let scaled = |number: usize| (number as f64 * scale).ceil() as usize;
    let (n_queries, shares_texts) = (bounds.n_queries, bounds.shares_texts);
    let largest = BatchBounds { n_queries, shares_texts, ..seen.largest };
    if scale == 1.0 {
        return largest;
    }
    let n_tokens = strata.iter().map(|stratum| scaled(stratum.mean_tokens().ceil() as usize)).max().unwrap_or(0);
    BatchBounds {
        n_seqs: scaled(largest.n_seqs).min(bounds.n_seqs),
        n_tokens: n_tokens.min(bounds.n_tokens),
        ..largest
    }
}

/// The largest of the sampled batches, and their token ids.
struct Seen {
    largest: BatchBounds,
    cu_seqlens: Vec<i32>,
    n_ids: usize,
    token_ids: TokenIds,
    n_tokens: usize,
}

impl Seen {
    fn new(vocab_size: usize) -> Self {
        let largest =
            BatchBounds { n_queries: 0, n_seqs: 0, n_tokens: 0, shortest: usize::MAX, longest: 0, shares_texts: false };
        Seen { largest, cu_seqlens: Vec::new(), n_ids: 0, token_ids: TokenIds::new(vocab_size), n_tokens: 0 }
    }

    fn add(&mut self, batch: &Batch) {
        let lens = || batch.cu_seqlens.windows(2).map(|w| (w[1] - w[0]) as usize);
        if batch.n_tokens() > self.largest.n_tokens {
            self.cu_seqlens.clone_from(&batch.cu_seqlens);
        }
        let most = &mut self.largest;
        most.n_seqs = most.n_seqs.max(batch.n_seqs());
        most.n_tokens = most.n_tokens.max(batch.n_tokens());
        most.shortest = most.shortest.min(lens().min().unwrap_or(0));
        most.longest = most.longest.max(lens().max().unwrap_or(0));
        self.n_ids = self.n_ids.max(self.token_ids.add(&batch.ids));
        self.n_tokens += batch.n_tokens();
    }
}

/// The run's settings or, if the read part of the data cannot serve them, the settings of batches that it can serve,
/// and why.
fn served(settings: &TrainSettings, sample: &Sample) -> Result<(TrainSettings, Option<Error>)> {
    let datasets = sample.weighted();
    let refusal = match settings.mixture_of(&datasets) {
        Ok(_) => return Ok((settings.clone(), None)),
        Err(refusal) if sample.is_all() => return Err(refusal),
        Err(refusal) => refusal,
    };
    let others = [BatchMode::MixedMonolingual, BatchMode::CrossLingual];
    let other = others.into_iter().map(|mode| {
        let sampler = SamplerConfig { mode, ..settings.sampler.clone() };
        TrainSettings { sampler, ..settings.clone() }
    });
    match (other.into_iter().find(|other| other.mixture_of(&datasets).is_ok()), refusal) {
        (Some(other), refusal) => Ok((other, Some(refusal))),
        (None, Error::Config { key, message }) => {
            Err(Error::config(key, format!("{message} (estimated from a part of the data; hbt prepare counts all)")))
        }
        (None, other) => Err(other),
    }
}
