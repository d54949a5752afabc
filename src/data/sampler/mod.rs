//! Draws hybrid batches: which groups, in which languages, as a pure function of (seed, step).
//!
//! A [`Sampler`] holds no position. Batch number 10^12 costs what batch number 0 costs, so a run resumes at any
//! step, exactly, from the step number alone, and nothing is kept per group: time and memory of a batch are
//! O(batch size) for a hundred million groups as for a hundred. Four ideas make that work, one a file:
//!
//! 1. **Turns** (`turns.rs`). A *stream* is one kind of batch: monolingual in one language, mixed, or
//!    cross-lingual. Steps are cut into blocks in which every stream has a fixed share of the turns, in an order
//!    that is shuffled from block to block. Drawn frequencies are the configured ones to 1/4096, hardly less so over
//!    a run as short as 64 steps, and how many turns a stream had before a step is nearly closed form.
//! 2. **Group sets** (`group_set.rs`). The groups that can serve a stream are a few ranges of group numbers.
//!    Streams that have the same groups share one set; on fully parallel data there is only one.
//! 3. **Passes** (`passes.rs`). A set is gone through in passes, each in a new order given by a keyed bijection
//!    (`permutation.rs`) instead of a shuffled list. Every group of the set comes once before any comes again,
//!    and no batch holds a group twice, not even one that begins in one pass and ends in the next.
//! 4. **Row draws** (`languages.rs`). A row of a cross-lingual or mixed batch draws its languages among those its
//!    group has.
//!
//! Where there is more than one dataset, a [`Mixture`] shares out the steps or the rows among them (`mixture.rs`,
//! `mixed.rs`), again by turns that can be counted.
//!
//! Where streams have different sets (data that is parallel only in part), each set has passes of its own: a
//! group that is in two sets comes once per pass of each of them.

mod config;
mod group_set;
mod languages;
mod mixed;
mod mixture;
mod passes;
pub(super) mod permutation;
mod refusal;
mod small;
mod turns;

pub use config::{BatchMode, LangSampling, SamplerConfig};
pub use mixture::{DatasetBatches, DatasetSampling, Mixture, MixtureConfig, WeightedDataset};

use crate::Result;
use crate::data::catalog::{Catalog, Class, LangId};
use crate::random::hash;
use group_set::{ClassIndex, GroupSet};
use languages::LangWeights;
use passes::Passes;
use small::SmallLangs;
use std::collections::HashMap;
use turns::Turns;

/// Languages that all rows of a batch have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BatchKind {
    /// Queries and passages are all in this language.
    Monolingual(LangId),
    /// Every row is in one language, not every row in the same.
    MixedMonolingual,
    /// Every row's query and positive are in different languages.
    CrossLingual,
}

impl BatchKind {
    /// The mode that draws only batches of this kind.
    pub fn mode(self) -> BatchMode {
        match self {
            BatchKind::Monolingual(_) => BatchMode::Monolingual,
            BatchKind::MixedMonolingual => BatchMode::MixedMonolingual,
            BatchKind::CrossLingual => BatchMode::CrossLingual,
        }
    }
}

/// One row of a batch: a group and the languages in which it is shown this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BatchRow {
    /// The group; unique in the batch.
    pub group: u64,
    /// The group has a query in this language.
    pub query_lang: LangId,
    /// The group has a positive in this language.
    pub passage_lang: LangId,
    /// Random bits that choose among several queries, positives or negatives of the group in its language.
    pub pick: u64,
}

/// The rows that one step trains on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampledBatch {
    /// Languages that all rows have in common.
    pub kind: BatchKind,
    /// The dataset of all rows, if a run has several and does not mix them.
    pub dataset: Option<usize>,
    /// `batch_size` rows of as many different groups.
    pub rows: Vec<BatchRow>,
}

/// One kind of batch, and the set of groups that it draws from.
struct BatchStream {
    kind: BatchKind,
    /// Index into [`Sampler::sets`].
    set: usize,
}

/// The groups of one or more streams, and the order in which they come.
struct SharedSet {
    groups: GroupSet,
    passes: Passes,
    /// Streams that draw from this set, ascending.
    serves: Vec<usize>,
}

/// Draws batches; the [module](self) says how, and [`SamplerConfig`] is the configuration.
pub struct Sampler {
    seed: u64,
    batch_size: u64,
    classes: ClassIndex,
    weights: LangWeights,
    /// Monolingual streams in order of language, then the mixed or cross-lingual one if the mode has one.
    streams: Vec<BatchStream>,
    sets: Vec<SharedSet>,
    turns: Turns,
    /// Languages with fewer groups than a batch has rows, and the numbers of their streams.
    small: Option<(SmallLangs, Vec<usize>)>,
    notes: Vec<String>,
}

/// Purpose of a hash: two purposes of one (seed, step, row) must not share their random bits.
#[derive(Clone, Copy)]
enum Use {
    Turns = 1,
    Passes,
    Language,
    Pick,
    Fill,
}

impl Sampler {
    /// A sampler for the groups of `catalog`.
    ///
    /// # Errors
    /// If the configuration is out of range, if no group can serve a kind of batch that the mode draws, or if fewer can
    /// than a batch has rows; of monolingual batches, in all languages together.
    pub fn new(catalog: &Catalog, config: &SamplerConfig) -> Result<Self> {
        config.check()?;
        let classes = ClassIndex::new(catalog);
        let weights = LangWeights::new(catalog, config);
        let langs = match config.monolingual_share() > 0.0 {
            true => monolingual_langs(catalog, config, &classes)?,
            false => Vec::new(),
        };
        let small = SmallLangs::find(catalog, config, &classes, &langs)?;
        let other = config.multilingual_kind().map(|kind| multilingual_groups(catalog, &classes, kind, config));
        let other = other.transpose()?;

        let lang_weights: Vec<f64> = langs.iter().map(|(lang, _)| weights.common(*lang)).collect();
        let turns = Turns::new(config.monolingual_share(), &lang_weights, hash(&[config.seed, Use::Turns as u64]));
        let mut sampler = Sampler {
            seed: config.seed,
            batch_size: config.batch_size as u64,
            classes,
            weights,
            streams: Vec::with_capacity(langs.len() + 1),
            sets: Vec::new(),
            turns,
            notes: small.iter().map(|small| small.note(catalog, config)).collect(),
            small: None,
        };
        let mut numbers = HashMap::new();
        for (lang, groups) in langs {
            sampler.add_stream(BatchKind::Monolingual(lang), groups, &mut numbers);
        }
        sampler.small = small.map(|small| {
            let is_small = |(_, stream): &(usize, &BatchStream)| match stream.kind {
                BatchKind::Monolingual(lang) => small.has(lang),
                _ => false,
            };
            let streams = sampler.streams.iter().enumerate().filter(is_small).map(|(number, _)| number).collect();
            (small, streams)
        });
        if let Some((kind, groups)) = other {
            sampler.add_stream(kind, groups, &mut numbers);
        }
        Ok(sampler)
    }

    /// Adds a stream; if its groups are those of an earlier stream, it shares that stream's set. `numbers`: of the sets.
    fn add_stream(&mut self, kind: BatchKind, groups: GroupSet, numbers: &mut HashMap<GroupSet, usize>) {
        let set = *numbers.entry(groups.clone()).or_insert_with(|| {
            let key = hash(&[self.seed, Use::Passes as u64, self.sets.len() as u64]);
            let passes = Passes::new(groups.len(), self.batch_size.min(groups.len()), key);
            self.sets.push(SharedSet { groups, passes, serves: Vec::new() });
            self.sets.len() - 1
        });
        self.sets[set].serves.push(self.streams.len());
        self.streams.push(BatchStream { kind, set });
    }

    /// The batch of `step`, counted from 0. It does not depend on the order of calls.
    pub fn batch(&self, step: u64) -> SampledBatch {
        let stream = &self.streams[self.turns.stream(step)];
        let set = &self.sets[stream.set];
        let turn = self.turns.before(step, &set.serves);
        let groups = set.passes.batch(turn).into_iter().map(|index| set.groups.group(index));
        let mut rows: Vec<BatchRow> =
            groups.zip(0..).map(|(group, row)| self.row(stream.kind, step, row, group)).collect();
        let mut kind = stream.kind;
        if let (Some((small, streams)), n_left @ 1..) = (&self.small, self.batch_size - rows.len() as u64) {
            kind = BatchKind::MixedMonolingual;
            let fill = small.fill(self.turns.before(step, streams), n_left, &set.groups).into_iter();
            let first = rows.len() as u64;
            rows.extend(fill.zip(first..).map(|(group, row)| self.row(kind, step, row, group)));
        }
        SampledBatch { kind, dataset: None, rows }
    }

    /// Deviations of the draws from the configuration, one line each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    fn row(&self, kind: BatchKind, step: u64, row: u64, group: u64) -> BatchRow {
        let bits = |purpose: Use| hash(&[self.seed, purpose as u64, step, row]);
        let class = self.classes.class_of(group);
        let (query_lang, passage_lang) = self.weights.draw_langs(kind, class, bits(Use::Language));
        BatchRow { group, query_lang, passage_lang, pick: bits(Use::Pick) }
    }

    /// Number of groups that can be drawn at all. The others lack the languages that the mode needs.
    pub fn n_groups(&self) -> u64 {
        let ranges = self.sets.iter().flat_map(|set| set.groups.ranges());
        group_set::union_len(ranges)
    }

    /// Steps in which as many rows are drawn as there are groups to draw: the length of an epoch.
    ///
    /// If all streams share one set (fully parallel data, or a mode with one stream) that is exactly one pass: every
    /// group once. Otherwise it is one pass on average, and the language sampling decides which groups come more often.
    pub fn steps_per_pass(&self) -> f64 {
        self.n_groups() as f64 / self.batch_size as f64
    }
}

/// Whether groups of this class can be in a batch of `kind`.
fn serves(class: &Class, kind: BatchKind) -> bool {
    match kind {
        BatchKind::Monolingual(lang) => {
            class.query_langs.binary_search(&lang).is_ok() && class.passage_langs.binary_search(&lang).is_ok()
        }
        BatchKind::MixedMonolingual => !class.common_langs().is_empty(),
        BatchKind::CrossLingual => class.query_langs.iter().any(|q| class.passage_langs.iter().any(|p| p != q)),
    }
}

/// Languages in which a monolingual batch can be drawn, ascending, and their groups.
fn monolingual_langs(
    catalog: &Catalog,
    config: &SamplerConfig,
    classes: &ClassIndex,
) -> Result<Vec<(LangId, GroupSet)>> {
    let by_lang = (0..).zip(classes.by_lang(catalog.languages.len()));
    let langs: Vec<(LangId, GroupSet)> = by_lang.filter(|(_, groups)| groups.len() > 0).collect();
    if langs.is_empty() {
        return Err(refusal::no_groups(catalog, config, BatchKind::Monolingual(0)));
    }
    Ok(langs)
}

/// The groups that can serve a mixed or a cross-lingual batch, enough for one.
fn multilingual_groups(
    catalog: &Catalog,
    classes: &ClassIndex,
    kind: BatchKind,
    config: &SamplerConfig,
) -> Result<(BatchKind, GroupSet)> {
    let groups = classes.select(|class| serves(class, kind));
    match groups.len() {
        0 => Err(refusal::no_groups(catalog, config, kind)),
        n if n < config.batch_size as u64 => Err(refusal::too_few_groups(config, kind, n)),
        _ => Ok((kind, groups)),
    }
}
