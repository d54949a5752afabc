//! Output of a run: a bar on a terminal, plain lines elsewhere, and one line of `metrics.jsonl` a step.

use crate::error::printable;
use crate::progress::{bar, say};
use indicatif::{HumanDuration, ProgressBar};
use serde::Serialize;
use std::collections::VecDeque;
use std::fs::File;
use std::io::BufWriter;
use std::time::Duration;

/// Destinations of a step's report.
pub struct Log {
    /// Output on the screen.
    pub progress: Progress,
    /// `metrics.jsonl`
    pub metrics: BufWriter<File>,
}

/// One line of `metrics.jsonl`.
#[derive(Clone, Debug, Serialize)]
pub struct StepMetrics {
    /// 1-based number of the update.
    pub step: u64,
    /// Mean loss of the batch.
    pub loss: f64,
    /// InfoNCE's mean loss, before its weight, if there is a teacher.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contrastive_loss: Option<f64>,
    /// Mean loss against the teacher's scores, before its weight, if there is a teacher.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distillation_loss: Option<f64>,
    /// `monolingual`, `mixed_monolingual` or `cross_lingual`.
    pub mode: String,
    /// The language of a monolingual batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lang: Option<String>,
    /// The dataset of the batch, if a run has several and does not mix them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// Learning rate of the update.
    pub learning_rate: f64,
    /// Norm of all gradients before clipping.
    pub grad_norm: f64,
    /// Mean cosine of queries and their positives.
    pub positive_cosine: f64,
    /// Mean cosine of queries and all other candidates of the batch.
    pub negative_cosine: f64,
    /// Pairs of a query and a passage of the batch that were left out as false negatives.
    pub false_negatives: usize,
    /// Divisor of the cosines, if it is learned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Tokens of the batch; there is no padding.
    pub tokens: usize,
    /// Wall-clock time of the step.
    pub seconds: f64,
}

/// Steps over which the shown speed is averaged.
const WINDOW: usize = 20;

/// Progress of the training loop.
pub struct Progress {
    bar: Option<ProgressBar>,
    total: u64,
    log_steps: u64,
    /// (tokens, seconds) of the latest steps
    recent: VecDeque<(usize, f64)>,
}

impl Progress {
    /// Progress of a run that has done `done` of `total` steps; prints a plain line every `log_steps`.
    pub fn new(done: u64, total: u64, log_steps: u64) -> Self {
        let bar = bar(total, "{bar:24} {pos}/{len}  {msg}").map(|bar| bar.with_position(done));
        if let Some(bar) = &bar {
            bar.enable_steady_tick(Duration::from_millis(500));
        }
        Progress { bar, total, log_steps, recent: VecDeque::new() }
    }

    /// Shows a step.
    pub fn step(&mut self, m: &StepMetrics) {
        self.recent.push_back((m.tokens, m.seconds));
        if self.recent.len() > WINDOW {
            self.recent.pop_front();
        }
        let (tokens, seconds) = self.recent.iter().fold((0, 0.0), |(t, s), &(tokens, secs)| (t + tokens, s + secs));
        let left = (self.total - m.step) as f64 * seconds / self.recent.len() as f64;
        let text = format!(
            "loss {:.4}  {}  cos+ {:.3} cos- {:.3}  {:.0} tokens/s  {} left",
            m.loss,
            kind(m),
            m.positive_cosine,
            m.negative_cosine,
            tokens as f64 / seconds,
            HumanDuration(Duration::from_secs_f64(left)),
        );
        match &self.bar {
            Some(bar) => {
                bar.set_position(m.step);
                bar.set_message(printable(&text).into_owned());
            }
            None if m.step.is_multiple_of(self.log_steps) || m.step == self.total => {
                let width = self.total.to_string().len();
                say(&format!("step {:>width$}/{}  {text}", m.step, self.total));
            }
            None => {}
        }
    }

    /// Prints a line that stays.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }

    /// Ends the bar and leaves its last state on the screen; later lines follow below it.
    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.abandon();
        }
    }
}

/// The batch kind in the paper's words: X-X for one language, X-Y for two in every row.
fn kind(m: &StepMetrics) -> String {
    match (m.mode.as_str(), &m.lang) {
        ("monolingual", Some(lang)) => format!("X-X {lang}"),
        ("cross_lingual", _) => "X-Y".to_owned(),
        _ => "X-X mixed".to_owned(),
    }
}
