//! Batches with rows from several datasets.
//!
//! As in a [`Sampler`](super::Sampler), streams (kinds of batches) take turns. The rows of a stream's batches are
//! shared out among the datasets that have groups for it: each has a fixed number of rows in every batch, the integer
//! part of its share, and for the few remaining rows the datasets are drawn in stratified turns. So with batches of 100
//! rows, a dataset with a share of one row in a thousand has a row in one batch of ten, and the number of rows that a
//! dataset gave before a step has a closed form. Each dataset goes through its groups in passes, from where its last
//! rows ended, and gives no group twice to a batch.

use super::group_set::{ClassIndex, GroupSet, union_len};
use super::languages::LangWeights;
use super::mixture::{MixtureConfig, Shares, WeightedDataset, first_groups};
use super::passes::Passes;
use super::turns::Turns;
use super::{BatchKind, BatchMode, BatchRow, SampledBatch, SamplerConfig, Use, monolingual_langs, refusal, serves};
use crate::data::catalog::{Catalog, LangId};
use crate::random::hash;
use crate::{Error, Result};

/// Smaller shares of a row are rounding errors.
const ROUNDING: f64 = 1e-9;

/// See the [module](self).
pub(super) struct Mixed {
    seed: u64,
    weights: LangWeights,
    /// Classes of each dataset
    classes: Vec<ClassIndex>,
    first_groups: Vec<u64>,
    streams: Vec<MixedStream>,
    sets: Vec<Set>,
    turns: Turns,
}

/// One kind of batch, and the datasets that serve it.
struct MixedStream {
    kind: BatchKind,
    /// Quotas of the datasets that have groups for it.
    quotas: Vec<Quota>,
    /// Rows of a batch that are in no quota, and the draw of their datasets.
    n_left: u64,
    left: Shares,
}

/// Rows that a dataset gives to every batch of a stream.
struct Quota {
    /// Index into [`Mixed::sets`]
    set: usize,
    n_rows: u64,
}

/// Groups of one dataset, for one or more streams.
struct Set {
    dataset: usize,
    groups: GroupSet,
    passes: Passes,
    /// Streams that draw from this set, each with its quota's index.
    serves: Vec<(usize, usize)>,
}

impl MixedStream {
    /// Rows that the dataset of a quota gave to the first `turn` batches.
    fn rows_before(&self, quota: usize, turn: u64) -> u128 {
        let left = self.left.before(turn * self.n_left, quota);
        u128::from(turn) * u128::from(self.quotas[quota].n_rows) + u128::from(left)
    }
}

impl Mixed {
    /// # Errors
    /// If no dataset can serve a kind of batch that the mode draws, or a dataset has fewer groups than a batch takes
    /// from it.
    pub(super) fn new(datasets: &[WeightedDataset], config: &SamplerConfig, mixing: &MixtureConfig) -> Result<Self> {
        config.check()?;
        let joint = Catalog {
            languages: datasets[0].catalog.languages.clone(),
            classes: datasets.iter().flat_map(|dataset| dataset.catalog.classes.iter().cloned()).collect(),
        };
        let weights = LangWeights::new(&joint, config);
        let langs: Vec<LangId> = match config.monolingual_share() > 0.0 {
            true => {
                monolingual_langs(&joint, config, &ClassIndex::new(&joint))?.into_iter().map(|(lang, _)| lang).collect()
            }
            false => Vec::new(),
        };
        let lang_weights: Vec<f64> = langs.iter().map(|&lang| weights.common(lang)).collect();
        let monolingual = langs.into_iter().map(BatchKind::Monolingual);

        let classes: Vec<ClassIndex> = datasets.iter().map(|dataset| ClassIndex::new(dataset.catalog)).collect();
        let mut builder =
            StreamBuilder { datasets, config, mixing, classes: &classes, streams: Vec::new(), sets: Vec::new() };
        for kind in monolingual.chain(config.multilingual_kind()) {
            if !joint.classes.iter().any(|class| class.n_groups > 0 && serves(class, kind)) {
                return Err(refusal::no_groups(&joint, config, kind));
            }
            builder.add_stream(kind);
        }
        let (streams, sets) = builder.finish()?;
        let turns = Turns::new(config.monolingual_share(), &lang_weights, hash(&[config.seed, Use::Turns as u64]));
        Ok(Mixed { seed: config.seed, weights, classes, first_groups: first_groups(datasets), streams, sets, turns })
    }

    pub(super) fn batch(&self, step: u64) -> SampledBatch {
        let number = self.turns.stream(step);
        let stream = &self.streams[number];
        let turn = self.turns.before(step, &[number]);
        let mut groups = Vec::new();
        for (quota, of_set) in stream.quotas.iter().enumerate() {
            let set = &self.sets[of_set.set];
            let turns = |of: usize| self.turns.before(step, &[of]);
            let start = set.serves.iter().map(|&(of, quota)| self.streams[of].rows_before(quota, turns(of))).sum();
            let n_rows = stream.rows_before(quota, turn + 1) - stream.rows_before(quota, turn);
            let items = set.passes.stretch(start, n_rows as u64);
            groups.extend(items.into_iter().map(|item| (set.dataset, set.groups.group(item))));
        }
        let row = |(row, (dataset, group))| self.row(stream.kind, step, row, dataset, group);
        SampledBatch { kind: stream.kind, dataset: None, rows: (0..).zip(groups).map(row).collect() }
    }

    fn row(&self, kind: BatchKind, step: u64, row: u64, dataset: usize, group: u64) -> BatchRow {
        let bits = |purpose: Use| hash(&[self.seed, purpose as u64, step, row]);
        let class = self.classes[dataset].class_of(group);
        let (query_lang, passage_lang) = self.weights.draw_langs(kind, class, bits(Use::Language));
        BatchRow { group: self.first_groups[dataset] + group, query_lang, passage_lang, pick: bits(Use::Pick) }
    }

    /// Number of groups that can be drawn at all.
    pub(super) fn n_groups(&self) -> u64 {
        let of_dataset = |dataset: usize| {
            union_len(self.sets.iter().filter(|set| set.dataset == dataset).flat_map(|set| set.groups.ranges()))
        };
        (0..self.classes.len()).map(of_dataset).sum()
    }
}

/// Builds streams and sets.
struct StreamBuilder<'a> {
    datasets: &'a [WeightedDataset<'a>],
    config: &'a SamplerConfig,
    mixing: &'a MixtureConfig,
    classes: &'a [ClassIndex],
    streams: Vec<MixedStream>,
    sets: Vec<PlannedSet>,
}

struct PlannedSet {
    dataset: usize,
    groups: GroupSet,
    /// Most rows that the set gives to a batch.
    most_rows: u64,
    serves: Vec<(usize, usize)>,
}

impl StreamBuilder<'_> {
    fn add_stream(&mut self, kind: BatchKind) {
        let stream = self.streams.len();
        let candidates = self.classes.iter().map(|classes| classes.select(|class| serves(class, kind)));
        let able: Vec<(usize, GroupSet)> = candidates.enumerate().filter(|(_, groups)| groups.len() > 0).collect();
        let of: Vec<_> = able.iter().map(|(of, groups)| (self.datasets[*of].weight, groups.len())).collect();
        let weights = self.mixing.weigh(&of);
        let (rows, batch_size) = (self.config.batch_size as f64, self.config.batch_size as u64);
        let total: f64 = weights.iter().sum();
        let exact: Vec<f64> = weights.iter().map(|weight| weight / total * rows).collect();
        let whole: Vec<u64> = exact.iter().map(|rows| (rows + ROUNDING).floor() as u64).collect();
        let left = |(exact, &whole): (&f64, &u64)| Some(exact - whole as f64).filter(|x| *x > ROUNDING).unwrap_or(0.0);
        let left: Vec<f64> = exact.iter().zip(&whole).map(left).collect();
        let n_left = batch_size - whole.iter().sum::<u64>();

        let mut quotas = Vec::with_capacity(able.len());
        for ((dataset, groups), (&n_rows, &left)) in able.into_iter().zip(whole.iter().zip(&left)) {
            let most_rows = if left > 0.0 { n_rows + n_left } else { n_rows };
            let set = self.set(dataset, groups);
            self.sets[set].most_rows = self.sets[set].most_rows.max(most_rows);
            self.sets[set].serves.push((stream, quotas.len()));
            quotas.push(Quota { set, n_rows });
        }
        let left = Shares::new(&left, self.mixing, self.config.seed, stream as u64);
        self.streams.push(MixedStream { kind, quotas, n_left, left });
    }

    /// Index of the set with these groups; adds it if it is new.
    fn set(&mut self, dataset: usize, groups: GroupSet) -> usize {
        let same = |set: &PlannedSet| set.dataset == dataset && set.groups == groups;
        self.sets.iter().position(same).unwrap_or_else(|| {
            self.sets.push(PlannedSet { dataset, groups, most_rows: 0, serves: Vec::new() });
            self.sets.len() - 1
        })
    }

    fn finish(self) -> Result<(Vec<MixedStream>, Vec<Set>)> {
        let mut sets = Vec::with_capacity(self.sets.len());
        for (PlannedSet { dataset, groups, most_rows, serves }, number) in self.sets.into_iter().zip(0..) {
            if groups.len() < most_rows {
                let kind = self.streams[serves[0].0].kind.mode();
                let leave_out = match kind {
                    BatchMode::Monolingual => "leave languages out (exclude_languages), ",
                    _ => "",
                };
                return Err(Error::config(
                    "batch_size",
                    format!(
                        "dataset {:?} has {} groups for {kind} batches and would have to give up to {most_rows} to one, \
                         each at most once; lower batch_size, lower its weight, {leave_out}or \
                         set dataset_batches = \"homogeneous\"",
                        self.datasets[dataset].name,
                        groups.len(),
                    ),
                ));
            }
            let key = hash(&[self.config.seed, Use::Passes as u64, number]);
            let passes = Passes::of_stretches(groups.len(), most_rows.max(1), key);
            sets.push(Set { dataset, groups, passes, serves });
        }
        Ok((self.streams, sets))
    }
}
