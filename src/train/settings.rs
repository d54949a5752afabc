//! All settings of a run, besides its model and its data: every value is final.

use super::{Negatives, OptimizerConfig, require_negatives};
use crate::Result;
use crate::data::batch::NegativeRules;
use crate::data::sampler::{Mixture, MixtureConfig, SamplerConfig, WeightedDataset};
use crate::eval::FigureKey;
use crate::loss::LossConfig;
use crate::model::StepDropout;
use crate::train::schedule::LrSchedule;

/// Length of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RunLength {
    /// Number of steps.
    Steps(u64),
    /// Number of passes over the data, above 0.
    Passes(f64),
}

/// Probabilities of dropout, each from 0 to below 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DropoutRates {
    /// Rate for embeddings and for both branches of a layer.
    pub hidden: f32,
    /// Rate for the attention's softmax.
    pub attention: f32,
}

/// A run's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainSettings {
    /// Length of the run.
    pub length: RunLength,
    /// How the rows of batches are drawn.
    pub sampler: SamplerConfig,
    /// How datasets share the batches.
    pub mixture: MixtureConfig,
    /// Which negatives a row uses.
    pub negatives: NegativeRules,
    /// Tokens embedded at once; at least as many as the longest text has.
    pub chunk_tokens: usize,
    /// Chunks of a batch that are kept instead of being computed twice, at least 1.
    pub kept_chunks: usize,
    /// Dropout in training.
    pub dropout: DropoutRates,
    /// The loss, with the initial temperature.
    pub loss: LossConfig,
    /// The initial temperature, before it is rounded for the loss.
    pub temperature: f64,
    /// Learning rate of the temperature's logarithm, if it is learned.
    pub temperature_learning_rate: Option<f64>,
    /// Constants of AdamW.
    pub optimizer: OptimizerConfig,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Course of the learning rate after the warm-up.
    pub lr_schedule: LrSchedule,
    /// Share of the steps in which the learning rate rises.
    pub warmup_ratio: f64,
    /// Whether to evaluate before the first step.
    pub eval_on_start: bool,
    /// Steps between evaluations during the run, if there are any.
    pub eval_steps: Option<u64>,
    /// The figure that picks the best model; `None` means the main one of the evaluation's task.
    pub best_metric: Option<FigureKey>,
    /// Evaluations without improvement after which the run ends; `None` means never.
    pub patience: Option<usize>,
    /// Steps between lines of progress.
    pub log_steps: u64,
    /// Steps between saves.
    pub save_steps: u64,
    /// Checkpoints that are kept besides the last.
    pub keep_checkpoints: usize,
}

impl TrainSettings {
    /// Whether the run's length is given in steps, not in passes.
    pub fn is_by_steps(&self) -> bool {
        matches!(self.length, RunLength::Steps(_))
    }

    /// Number of steps of a run on data of which a pass takes `steps_per_pass` steps.
    pub fn total_steps(&self, steps_per_pass: f64) -> u64 {
        match self.length {
            RunLength::Steps(steps) => steps,
            RunLength::Passes(passes) => (passes * steps_per_pass).ceil().max(1.0) as u64,
        }
    }

    /// The mixture that draws the run's batches from its datasets.
    ///
    /// # Errors
    /// If the datasets cannot serve them.
    pub fn mixture_of(&self, datasets: &[WeightedDataset]) -> Result<Mixture> {
        Mixture::new(datasets, &self.sampler, &self.mixture)
    }

    /// How the data's negatives are used.
    ///
    /// # Errors
    /// If a teacher's scores are needed and the data lacks them; if there are no negatives, and other queries'
    /// positives do not count as such.
    pub fn negative_rules(&self, data: &impl Negatives) -> Result<NegativeRules> {
        require_negatives(self, data)?;
        Ok(self.negatives)
    }

    /// Dropout of a step counted from 0; `None` if all rates are 0.
    pub fn step_dropout(&self, step: u64) -> Option<StepDropout> {
        let DropoutRates { hidden, attention } = self.dropout;
        let dropout = StepDropout { seed: self.sampler.seed, step: step as u32, hidden, attention };
        (hidden > 0.0 || attention > 0.0).then_some(dropout)
    }
}
