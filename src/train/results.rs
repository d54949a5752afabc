//! What steps report, when the device has done them.

use super::Trainer;
use super::feed::Fed;
use super::report::{Log, StepMetrics};
use crate::backend::Backend;
use crate::data::catalog::TextSource;
use crate::data::sampler::BatchKind;
use crate::loss::{LearnedTemperature, LossReport};
use crate::{Error, Result};
use std::time::Instant;

/// A step that the device has, or will have, done.
pub(super) struct Pending<B: Backend> {
    pub fed: Fed<B>,
    /// 1-based
    pub step: u64,
    pub learning_rate: f64,
    /// When it was asked for
    pub start: Instant,
}

impl<B: Backend> Trainer<'_, B> {
    /// Waits until every step that was asked for has been done and reported. Has to come before anything else than a
    /// step: what a step that went wrong has left is not for saving.
    pub(super) fn await_results(&mut self, log: &mut Log) -> Result<()> {
        self.pending.take().map_or(Ok(()), |pending| self.report_step(pending, log))
    }

    /// Waits for a step's results and gives it its line.
    pub(super) fn report_step(&mut self, mut pending: Pending<B>, log: &mut Log) -> Result<()> {
        self.retriever.backend.receive(pending.fed.results(), &mut self.results)?;
        let Pending { fed, step, learning_rate, start } = pending;
        let (batch, before) = (&fed.batch, std::mem::replace(&mut self.last_results, Instant::now()));
        let (of_loss, of_update) = self.results.split_at(self.stepper.loss.n_results(batch.n_queries));
        let report = self.stepper.loss.report(batch.n_queries, batch.n_seqs(), of_loss);
        let grad_norm = self.stepper.optimizer.grad_norm(of_update);
        let temperature = f64::from(self.stepper.loss.config.temperature);
        self.learn_temperature(&report);
        for (what, value) in [("loss", report.loss), ("gradient", grad_norm)] {
            if !value.is_finite() {
                return Err(self.not_finite(what, step));
            }
        }
        let lang = match batch.kind {
            BatchKind::Monolingual(lang) => Some(self.setup.data.catalog().languages[usize::from(lang)].clone()),
            _ => None,
        };
        let dataset = batch.dataset.map(|dataset| self.setup.data.name(dataset).to_owned());
        let has_teacher = self.stepper.loss.config.distillation.is_some();
        let metrics = StepMetrics {
            step,
            loss: report.loss,
            contrastive_loss: has_teacher.then_some(report.contrastive_loss),
            distillation_loss: has_teacher.then_some(report.distillation_loss),
            mode: batch.kind.mode().to_string(),
            lang,
            dataset,
            learning_rate,
            grad_norm,
            positive_cosine: report.positive_cosine,
            negative_cosine: report.negative_cosine,
            false_negatives: report.n_false_negatives,
            temperature: self.state.temperature.is_some().then_some(temperature),
            tokens: batch.n_tokens(),
            // It did not begin before the one before it had ended.
            seconds: (self.last_results - start.max(before)).as_secs_f64(),
        };
        self.feed.give_back(fed);
        log.progress.step(&metrics);
        log.write(&metrics)?;
        self.left_out.add(&report, step == self.state.total_steps, &self.setup.settings)
    }

    /// The temperature's own update, where it is learned.
    fn learn_temperature(&mut self, report: &LossReport) {
        let rate = self.setup.settings.temperature_learning_rate;
        if let (Some(bits), Some(rate)) = (&mut self.state.temperature, rate) {
            let mut learned = LearnedTemperature::from_bits(*bits);
            learned.step(report.d_inv_temperature, rate);
            *bits = learned.to_bits();
            self.stepper.loss.config.temperature = learned.temperature() as f32;
        }
    }

    /// Takes the first rank's learned temperature: each has computed its own, and GPUs of two kinds may round otherwise.
    pub(super) fn agree_on_temperature(&mut self) -> Result<()> {
        if let Some(bits) = &mut self.state.temperature
            && !self.setup.ranks.is_alone()
        {
            let of_first = self.setup.ranks.bytes_of_first::<32>(bytemuck::cast(*bits))?;
            *bits = bytemuck::cast(of_first);
            self.stepper.loss.config.temperature = LearnedTemperature::from_bits(*bits).temperature() as f32;
        }
        Ok(())
    }

    fn not_finite(&self, what: &str, step: u64) -> Error {
        let out = self.setup.run_dir.path().display();
        let message = format!(
            "the {what} of step {step} is not finite; start again with a lower one (what {out} saved is untouched)"
        );
        Error::config("learning_rate", message)
    }
}
