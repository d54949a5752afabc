//! Output of a run: a bar on a terminal, plain lines elsewhere, and the lines of `metrics.jsonl`.

use super::metrics::MetricsLog;
use crate::Result;
use crate::error::printable;
use crate::eval::EvalReport;
use crate::progress::{bar, say};
use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::time::Duration;

/// Destinations of a step's report.
pub struct Log {
    /// Output on the screen.
    pub progress: Progress,
    /// `metrics.jsonl`, and what TensorBoard reads, in the rank that writes
    pub metrics: Option<MetricsLog>,
}

impl Log {
    /// Writes a line of metrics, where they are written.
    ///
    /// # Errors
    /// If it cannot be written, for example to a full disk.
    pub fn write(&mut self, line: &impl Serialize) -> Result<()> {
        self.metrics.as_mut().map_or(Ok(()), |metrics| metrics.write(line))
    }
}

/// The line in `metrics.jsonl` of a step.
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

/// The line in `metrics.jsonl` of an evaluation after `step` updates, 0 for the one before training: each figure by its name,
/// beside the values of steps, so that a table of all lines has a column for it. Of several evaluations each line has the
/// `name` of its own.
pub(super) fn evaluation_line(step: u64, name: Option<&str>, report: &EvalReport) -> Map<String, Value> {
    let name = name.map(|name| ("evaluation", json!(name)));
    let of_report = [("task", json!(report.task)), ("split", json!(report.split))];
    let head = std::iter::once(("step", json!(step))).chain(name).chain(of_report);
    let head = head.map(|(name, value)| (name.to_owned(), value));
    let figures = report.figures.iter().map(|figure| (figure.key.to_string(), json!(figure.value)));
    head.chain(figures).collect()
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
        let bar = bar(total, "{bar:8} {pos}/{len} {wide_msg}").map(|bar| bar.with_position(done));
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
        let left = format!("{} left", short_time(left));
        let text = in_short(m, tokens as f64 / seconds);
        match &self.bar {
            Some(bar) => {
                bar.set_position(m.step);
                // What a narrow terminal cuts off comes last.
                bar.set_message(printable(&format!("{left} {text}")).into_owned());
            }
            None if m.step.is_multiple_of(self.log_steps) || m.step == self.total => {
                let width = self.total.to_string().len();
                say(&format!("step {:>width$}/{}  {text} {left}", m.step, self.total));
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

/// A step in at most 51 columns, for codes of two letters and losses below 100: with its number and the time that is left, a
/// line of 80.
fn in_short(m: &StepMetrics, speed: f64) -> String {
    let speed = match speed {
        0.0..1e3 => format!("{speed:.0}"),
        1e3..1e5 => format!("{:.1}k", speed / 1e3),
        1e5..1e6 => format!("{:.0}k", speed / 1e3),
        _ => format!("{:.1}M", speed / 1e6),
    };
    let (positive, negative) = (m.positive_cosine, m.negative_cosine);
    let decimals = if m.loss < 10.0 { 4 } else { 3 };
    format!("loss {:.decimals$} {} cos+ {positive:.2} cos- {negative:.2} {speed} tok/s", m.loss, kind(m))
}

/// The batch kind in the paper's words: X-X for one language, X-Y for two in every row.
fn kind(m: &StepMetrics) -> String {
    match (m.mode.as_str(), &m.lang) {
        ("monolingual", Some(lang)) => format!("X-X {lang}"),
        ("cross_lingual", _) => "X-Y".to_owned(),
        _ => "mixed".to_owned(),
    }
}

/// `45s`, `12m`, `3h05m`, `23h`, `4d02h`.
fn short_time(seconds: f64) -> String {
    // No run takes as long as a whole number of this size.
    let seconds = seconds.round() as u64;
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m"),
        3600..36_000 => format!("{hours}h{:02}m", minutes % 60),
        36_000..86_400 => format!("{hours}h"),
        _ => format!("{}d{:02}h", hours / 24, hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(mode: &str, lang: Option<&str>) -> StepMetrics {
        StepMetrics {
            step: 12_345,
            loss: 12.345_67,
            contrastive_loss: None,
            distillation_loss: None,
            mode: mode.to_owned(),
            lang: lang.map(str::to_owned),
            dataset: None,
            learning_rate: 1e-5,
            grad_norm: 1.0,
            positive_cosine: -0.123,
            negative_cosine: 0.987,
            false_negatives: 0,
            temperature: None,
            tokens: 100,
            seconds: 1.0,
        }
    }

    #[test]
    fn a_line_fits_eighty_columns() {
        for m in
            [metrics("monolingual", Some("de")), metrics("cross_lingual", None), metrics("mixed_monolingual", None)]
        {
            for speed in [0.4, 999.4, 999.6, 12_345.6, 99_900.0, 999_400.0, 1.2e6] {
                let text = in_short(&m, speed);
                let line = format!("step 12345/12345  {text} 9h59m left");
                assert!(line.len() <= 80, "{} columns: {line}", line.len());
                assert!(text.ends_with(" tok/s") && text.starts_with("loss 12.346 "), "{text}");
            }
        }
        assert!(
            in_short(&metrics("monolingual", Some("de")), 12_345.6)
                .contains(" X-X de cos+ -0.12 cos- 0.99 12.3k tok/s")
        );
    }

    #[test]
    fn times_are_short() {
        let times = [
            (0.4, "0s"),
            (59.4, "59s"),
            (60.0, "1m"),
            (3599.0, "59m"),
            (11_100.0, "3h05m"),
            (86_000.0, "23h"),
            (352_800.0, "4d02h"),
        ];
        for (seconds, expected) in times {
            assert_eq!(short_time(seconds), expected);
        }
    }
}
