//! Batches from more than one dataset: chooses the dataset of a step, or of each row.
//!
//! Homogeneous batches: the steps are shared out among the datasets as a block of turns shares them among languages
//! (`turns.rs`). Each dataset has a [`Sampler`] of its own, whose step number is the number of turns that the dataset
//! has had. A dataset that can serve only one of the two kinds of hybrid batches gives batches of that kind. Mixed
//! batches are in `mixed.rs`. Both are functions of (seed, step): how often a dataset was drawn before a step has a
//! closed form.

use super::mixed::Mixed;
use super::turns::Strata;
use super::{BatchKind, BatchMode, SampledBatch, Sampler, SamplerConfig, refusal, serves};
use crate::data::catalog::Catalog;
use crate::random::hash;
use crate::{Error, Result};

crate::choices::choices! {
    /// How often each dataset is drawn, by its weight `w` and the number `n` of its groups that can be drawn.
    DatasetSampling {
        /// In proportion to `w`.
        Weights = "weights",
        /// In proportion to `w n`.
        Proportional = "proportional",
        /// In proportion to `w n^(1/T)`: with T = 1 in proportion to the data, with a large T to the weights.
        Temperature = "temperature",
        /// One after the other.
        RoundRobin = "round_robin",
    }

    /// Whether rows of different datasets meet in a batch.
    DatasetBatches {
        /// Every batch is of one dataset.
        Homogeneous = "homogeneous",
        /// Every batch has rows of all datasets that can serve its kind.
        Mixed = "mixed",
    }
}

/// How a run draws from its datasets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MixtureConfig {
    /// How often each dataset is drawn.
    pub sampling: DatasetSampling,
    /// `T` of [`DatasetSampling::Temperature`], at least 1.
    pub temperature: f64,
    /// Whether datasets meet in a batch.
    pub batches: DatasetBatches,
}

/// A dataset of a run, with its weight.
#[derive(Clone, Copy, Debug)]
pub struct WeightedDataset<'a> {
    /// Name in messages.
    pub name: &'a str,
    /// Its groups. All datasets of a run have the same languages, whether they use them or not.
    pub catalog: &'a Catalog,
    /// Weight, more than 0.
    pub weight: f64,
    /// Keys of the configuration by which the run leaves some of the data out, for messages.
    pub left_out_by: &'a [&'static str],
}

/// Draws the batches of a run from its datasets. Groups are numbered consecutively over all datasets.
pub struct Mixture {
    how: How,
    n_groups: u64,
    batch_size: usize,
    notes: Vec<String>,
}

enum How {
    One(Sampler),
    Homogeneous(Homogeneous),
    Mixed(Mixed),
}

/// Each dataset's sampler, and the draw of the dataset for each step.
struct Homogeneous {
    shares: Shares,
    samplers: Vec<Sampler>,
    first_groups: Vec<u64>,
}

/// Uses of hashes for the mixture itself and for each dataset's sampler: different from one another and from those of a
/// sampler.
#[derive(Clone, Copy)]
enum Use {
    Shares = 101,
    Dataset,
}

impl Mixture {
    /// The batches of a run from `datasets`. With one dataset they are those of its [`Sampler`].
    ///
    /// # Errors
    /// Those of [`Sampler::new`], with the dataset's name; no dataset at all.
    pub fn new(datasets: &[WeightedDataset], config: &SamplerConfig, mixing: &MixtureConfig) -> Result<Self> {
        mixing.check()?;
        config.check()?;
        let left_out_by = datasets.first().map_or(&[][..], |dataset| dataset.left_out_by);
        Self::of(datasets, config, mixing).map_err(|error| refusal::of_less_data(error, left_out_by))
    }

    fn of(datasets: &[WeightedDataset], config: &SamplerConfig, mixing: &MixtureConfig) -> Result<Self> {
        let mut notes = Vec::new();
        let how = match datasets {
            [] => return Err(Error::config("data", "is missing; name a dataset")),
            [one] => {
                let mut own = config.clone();
                if let Some((mode, lack)) = only_mode(one.catalog, config) {
                    let note = match &one.catalog.languages_in_use()[..] {
                        [lang] => format!("all of the data is in \"{lang}\", with no {lack}"),
                        langs => format!("the data has no {lack}, in {} languages", langs.len()),
                    };
                    notes.push(format!("{note}: its batches are all {mode}"));
                    own.mode = mode;
                }
                let sampler = Sampler::new(one.catalog, &own)?;
                notes.extend_from_slice(sampler.notes());
                How::One(sampler)
            }
            _ if mixing.batches == DatasetBatches::Mixed => How::Mixed(Mixed::new(datasets, config, mixing)?),
            _ => How::Homogeneous(Homogeneous::new(datasets, config, mixing, &mut notes)?),
        };
        let n_groups = match &how {
            How::One(sampler) => sampler.n_groups(),
            How::Homogeneous(all) => all.samplers.iter().map(Sampler::n_groups).sum(),
            How::Mixed(mixed) => mixed.n_groups(),
        };
        Ok(Mixture { how, n_groups, batch_size: config.batch_size, notes })
    }

    /// The batch of `step`, counted from 0. It does not depend on the order of calls.
    pub fn batch(&self, step: u64) -> SampledBatch {
        match &self.how {
            How::One(sampler) => sampler.batch(step),
            How::Homogeneous(all) => all.batch(step),
            How::Mixed(mixed) => mixed.batch(step),
        }
    }

    /// Deviations of the draws from the configuration, one line each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Number of groups of all datasets that can be drawn at all.
    pub fn n_groups(&self) -> u64 {
        self.n_groups
    }

    /// Steps in which as many rows are drawn as there are groups to draw, in all datasets: the length of an epoch.
    pub fn steps_per_pass(&self) -> f64 {
        self.n_groups as f64 / self.batch_size as f64
    }
}

impl Homogeneous {
    fn new(
        datasets: &[WeightedDataset],
        config: &SamplerConfig,
        mixing: &MixtureConfig,
        notes: &mut Vec<String>,
    ) -> Result<Self> {
        let mut samplers = Vec::with_capacity(datasets.len());
        for (dataset, number) in datasets.iter().zip(0..) {
            let seed = hash(&[config.seed, Use::Dataset as u64, number]);
            let mut own = SamplerConfig { seed, ..config.clone() };
            if let Some((mode, lack)) = only_mode(dataset.catalog, config) {
                notes.push(format!("dataset {:?} has no {lack}: its batches are all {mode}", dataset.name));
                own.mode = mode;
            }
            let sampler = Sampler::new(dataset.catalog, &own).map_err(|error| about(dataset, error))?;
            notes.extend(sampler.notes().iter().map(|note| format!("dataset {:?}: {note}", dataset.name)));
            samplers.push(sampler);
        }
        let of: Vec<_> = datasets.iter().zip(&samplers).map(|(of, sampler)| (of.weight, sampler.n_groups())).collect();
        let shares = Shares::new(&mixing.weigh(&of), mixing, config.seed, 0);
        Ok(Homogeneous { shares, samplers, first_groups: first_groups(datasets) })
    }

    fn batch(&self, step: u64) -> SampledBatch {
        let dataset = self.shares.outcome(step);
        let mut batch = self.samplers[dataset].batch(self.shares.before(step, dataset));
        batch.rows.iter_mut().for_each(|row| row.group += self.first_groups[dataset]);
        SampledBatch { dataset: Some(dataset), ..batch }
    }
}

/// If a dataset can serve only one kind of hybrid batches: the mode of that kind, and what the data lacks for the
/// other.
fn only_mode(catalog: &Catalog, config: &SamplerConfig) -> Option<(BatchMode, &'static str)> {
    // With an alpha of 0 or 1 there is only one kind.
    let is_hybrid = config.mode == BatchMode::Hybrid && config.alpha > 0.0 && config.alpha < 1.0;
    let can = |kind| catalog.classes.iter().any(|class| class.n_groups > 0 && serves(class, kind));
    match [BatchKind::MixedMonolingual, BatchKind::CrossLingual].map(can) {
        [true, false] if is_hybrid => Some((BatchMode::Monolingual, "pairs across languages")),
        [false, true] if is_hybrid => Some((BatchMode::CrossLingual, "pairs in one language")),
        _ => None,
    }
}

impl MixtureConfig {
    fn check(&self) -> Result<()> {
        if (1.0..f64::INFINITY).contains(&self.temperature) {
            return Ok(());
        }
        let message = format!(
            "{} is out of range; set it to 1 (in proportion to the datasets' sizes) or more (more even)",
            self.temperature
        );
        Err(Error::config("dataset_temperature", message))
    }

    /// Shares of datasets, each given by its weight and the number of its groups that can be drawn: in proportion, with a
    /// finite sum.
    pub(super) fn weigh(&self, datasets: &[(f64, u64)]) -> Vec<f64> {
        let shares = |unit: f64| -> Vec<f64> {
            datasets.iter().map(|&(weight, n_groups)| self.share(weight / unit, n_groups)).collect()
        };
        let all = shares(1.0);
        if all.iter().sum::<f64>().is_finite() {
            return all;
        }
        // Only where it has to be: it rounds.
        let largest = datasets.iter().fold(0.0, |largest: f64, (weight, _)| largest.max(*weight));
        shares(largest)
    }

    fn share(&self, weight: f64, n_groups: u64) -> f64 {
        match self.sampling {
            DatasetSampling::Weights => weight,
            DatasetSampling::Proportional => weight * n_groups as f64,
            DatasetSampling::Temperature => weight * (n_groups as f64).powf(1.0 / self.temperature),
            DatasetSampling::RoundRobin => 1.0,
        }
    }
}

/// Draws one of a few outcomes for every index in the configured shares, and counts how often each came before.
pub(super) enum Shares {
    Drawn(Strata),
    InTurn(u64),
}

impl Shares {
    /// Shares in proportion to `weights`; `number` keeps the shares of one run apart.
    pub(super) fn new(weights: &[f64], mixing: &MixtureConfig, seed: u64, number: u64) -> Self {
        match mixing.sampling {
            DatasetSampling::RoundRobin => Shares::InTurn(weights.len() as u64),
            _ => Shares::Drawn(Strata::new(weights, hash(&[seed, Use::Shares as u64, number]))),
        }
    }

    pub(super) fn outcome(&self, index: u64) -> usize {
        match self {
            Shares::Drawn(strata) => strata.outcome(index),
            Shares::InTurn(n) => (index % n) as usize,
        }
    }

    /// Number of indices below `index` with this outcome.
    pub(super) fn before(&self, index: u64, outcome: usize) -> u64 {
        match self {
            Shares::Drawn(strata) => strata.before(index, &[outcome]),
            Shares::InTurn(n) => index / n + u64::from(index % n > outcome as u64),
        }
    }
}

/// The number of each dataset's first group.
pub(super) fn first_groups(datasets: &[WeightedDataset]) -> Vec<u64> {
    let mut next = 0;
    let mut first = |dataset: &WeightedDataset| {
        next += dataset.catalog.n_groups();
        next - dataset.catalog.n_groups()
    };
    datasets.iter().map(&mut first).collect()
}

/// `error` with the name of its dataset.
fn about(dataset: &WeightedDataset, error: Error) -> Error {
    match error {
        Error::Config { key, message } if key == "mode" => {
            let way_out = "or dataset_batches = \"mixed\", where others serve such batches";
            Error::config(key, format!("dataset {:?}: {message}, {way_out}", dataset.name))
        }
        Error::Config { key, message } => Error::config(key, format!("dataset {:?}: {message}", dataset.name)),
        other => other,
    }
}
