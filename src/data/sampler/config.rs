//! Settings of the sampler.

use super::BatchKind;
use crate::{Error, Result};

crate::choices::choices! {
    /// Kinds of batches that a run draws.
    BatchMode {
        /// Every batch is in one language, queries and passages alike; batches take turns over the languages.
        Monolingual = "monolingual",
        /// Every row is in one language; languages are mixed within a batch.
        MixedMonolingual = "mixed_monolingual",
        /// In every row, query and positive are in different languages.
        CrossLingual = "cross_lingual",
        /// Monolingual with probability alpha, cross-lingual otherwise.
        Hybrid = "hybrid",
    }

    /// How often each language is drawn, by the number `n` of groups that have it.
    LangSampling {
        /// Every language equally often.
        Uniform = "uniform",
        /// In proportion to `n`.
        Proportional = "proportional",
        /// In proportion to `n^(1/T)`, the usual temperature of multilingual training: 1 is proportional, infinity uniform.
        Temperature = "temperature",
    }
}

/// The sampler's part of a run's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerConfig {
    /// Kinds of batches that are drawn.
    pub mode: BatchMode,
    /// Probability of a monolingual batch, `0..=1`; only `hybrid` uses it.
    pub alpha: f64,
    /// How the language of a monolingual batch, or of a row in the other kinds, is chosen.
    ///
    /// Monolingual batches count the groups with query and positive in the language. A cross-lingual row draws the pair
    /// `(q, p)` among those of its group in proportion to `weight(q) * weight(p)`, where the first counts the groups
    /// with a query in `q` and the second those with a positive in `p`. Mixed and cross-lingual batches take group
    /// after group, so there this setting only chooses within a group: if each group has one language, mixed batches
    /// follow the data whatever is set here.
    pub lang_sampling: LangSampling,
    /// `T` of [`LangSampling::Temperature`], at least 1. (XLM-R's and mT5's exponent of 0.3 is T = 3.33.)
    pub lang_temperature: f64,
    /// Rows (queries) of a batch, at least 2.
    pub batch_size: usize,
    /// Two seeds draw two unrelated runs.
    pub seed: u64,
}

impl SamplerConfig {
    /// The share of monolingual batches.
    pub(super) fn monolingual_share(&self) -> f64 {
        match self.mode {
            BatchMode::Monolingual => 1.0,
            BatchMode::MixedMonolingual | BatchMode::CrossLingual => 0.0,
            BatchMode::Hybrid => self.alpha,
        }
    }

    /// The kind of the batches that are not monolingual, if there are any.
    pub(super) fn multilingual_kind(&self) -> Option<BatchKind> {
        match self.mode {
            BatchMode::MixedMonolingual => Some(BatchKind::MixedMonolingual),
            _ if self.monolingual_share() < 1.0 => Some(BatchKind::CrossLingual),
            _ => None,
        }
    }

    /// Checks that need no data.
    pub(super) fn check(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.alpha) {
            let message = format!(
                "{} is no probability; set it from 0 (cross-lingual batches only) to 1 (monolingual only)",
                self.alpha
            );
            return Err(Error::config("alpha", message));
        }
        if !(1.0..f64::INFINITY).contains(&self.lang_temperature) {
            let message = format!(
                "{} is out of range; set it to 1 (in proportion to data) or more (more even); an exponent x is \
                 lang_temperature = 1/x, and lang_sampling = \"uniform\" is an infinite temperature",
                self.lang_temperature
            );
            return Err(Error::config("lang_temperature", message));
        }
        if self.batch_size < 2 {
            let message = format!("{} leaves a query no in-batch negatives; set it to 2 or more", self.batch_size);
            return Err(Error::config("batch_size", message));
        }
        Ok(())
    }
}
