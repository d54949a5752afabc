//! What decides a run, besides its model and its data: every value is there, none is left to find.

use super::{Negatives, OptimizerConfig, require_negatives};
use crate::Result;
use crate::data::batch::NegativeRules;
use crate::data::sampler::{Mixture, MixtureConfig, SamplerConfig, WeightedDataset};
use crate::eval::FigureKey;
use crate::loss::LossConfig;
use crate::model::StepDropout;
use crate::train::schedule::LrSchedule;

/// How long a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RunLength {
    /// So many steps.
    Steps(u64),
    /// So many passes over the data, above 0.
    Passes(f64),
}

/// Probabilities that dropout leaves something out, each from 0 to below 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DropoutRates {
    /// Of embeddings and of both branches of a layer.
    pub hidden: f32,
    /// Of the attention's softmax.
    pub attention: f32,
}

/// A run's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainSettings {
    /// When it ends.
    pub length: RunLength,
    /// How batches are drawn.
    pub sampler: SamplerConfig,
    /// How datasets share them.
    pub mixture: MixtureConfig,
    /// Which negatives a row brings.
    pub negatives: NegativeRules,
    /// Tokens embedded at once, no fewer than the longest text has.
    pub chunk_tokens: usize,
    /// Chunks of a batch that are not computed twice, at least 1.
    pub kept_chunks: usize,
    /// While training.
    pub dropout: DropoutRates,
    /// What is minimized; its temperature is the one to begin with.
    pub loss: LossConfig,
    /// The temperature to begin with, before it is rounded for the loss.
    pub temperature: f64,
    /// Learning rate of its logarithm, where it is learned.
    pub temperature_learning_rate: Option<f64>,
    /// Constants of AdamW.
    pub optimizer: OptimizerConfig,
    /// The highest.
    pub learning_rate: f64,
    /// What it does after the warm-up.
    pub lr_schedule: LrSchedule,
    /// Share of the steps in which it rises.
    pub warmup_ratio: f64,
    /// Steps between evaluations on the way, if there are any.
    pub eval_steps: Option<u64>,
    /// The figure that picks the best model; `None`: the main one of what is evaluated on.
    pub best_metric: Option<FigureKey>,
    /// Evaluations without gain that end the run, if they do.
    pub patience: Option<usize>,
    /// Steps between lines of progress.
    pub log_steps: u64,
    /// Steps between saves.
    pub save_steps: u64,
}

impl TrainSettings {
    /// Steps of a run on data that a pass takes `steps_per_pass` steps through.
    pub fn total_steps(&self, steps_per_pass: f64) -> u64 {
        match self.length {
            RunLength::Steps(steps) => steps,
            RunLength::Passes(passes) => (passes * steps_per_pass).ceil().max(1.0) as u64,
        }
    }

    /// What draws the run's batches from its datasets.
    ///
    /// # Errors
    /// Data that cannot serve them.
    pub fn mixture_of(&self, datasets: &[WeightedDataset]) -> Result<Mixture> {
        Mixture::new(datasets, &self.sampler, &self.mixture)
    }

    /// What becomes of the data's negatives.
    ///
    /// # Errors
    /// When a teacher is to be asked and the data lacks its scores; when there are no negatives, and other queries' positives
    /// are none.
    pub fn negative_rules(&self, data: &impl Negatives) -> Result<NegativeRules> {
        require_negatives(self, data)?;
        Ok(self.negatives)
    }

    /// Dropout of a step counted from 0; `None` where nothing is ever left out.
    pub fn step_dropout(&self, step: u64) -> Option<StepDropout> {
        let DropoutRates { hidden, attention } = self.dropout;
        let dropout = StepDropout { seed: self.sampler.seed, step: step as u32, hidden, attention };
        (hidden > 0.0 || attention > 0.0).then_some(dropout)
    }
}
