//! Evaluations of a run: before it, on the way, and after.

use super::first_report::FirstReport;
use super::report::{Log, evaluation_line};
use super::{Setup, Trainer};
use crate::backend::Backend;
use crate::eval::{EvalReport, Evaluated, evaluate_retriever};
use crate::progress::{Counter, say};
use crate::{Result, trace};

impl<B: Backend> Trainer<'_, B> {
    fn evaluated(&mut self) -> Result<Option<Evaluated>> {
        self.catch_up()?;
        let Some(set) = &self.setup.eval_set else { return Ok(None) };
        let _range = trace::phase("evaluate");
        let total = (set.queries.len() + set.passages.len()) as u64;
        let counter = Counter::new("evaluated", total);
        // As whoever loads the saved model will measure it. From the first update on it is another one than was named.
        let [query, passage] = &self.retriever.settings.as_saved();
        let name = if self.state.step == 0 { &self.setup.model_name } else { "last" };
        let progress = &mut |n| counter.set(n as u64, total);
        let evaluated = evaluate_retriever(self.retriever, [query, passage], name, set, progress)?;
        counter.finish(&format!("{} queries on {} passages", set.queries.len(), set.passages.len()));
        self.retriever.release_tokenizer();
        Ok(Some(evaluated))
    }

    /// The report of an evaluation, when what there is to say about it has been said.
    fn reported(&self, Evaluated { report, cut, warning }: Evaluated) -> EvalReport {
        if self.state.step == 0 {
            cut.iter().for_each(|note| say(note));
        }
        warning.iter().for_each(|warning| say(&format!("warning: {warning}")));
        report
    }

    /// The report on the model before the first step: that of an earlier run, if there is one.
    fn first_report(&mut self) -> Result<Option<EvalReport>> {
        let Setup { eval_set, report_cache, instructions, model_name, .. } = &self.setup;
        let (Some(set), Some(cache)) = (eval_set, report_cache) else {
            return Ok(self.evaluated()?.map(|evaluated| self.reported(evaluated)));
        };
        let kept = FirstReport::of(cache, self.retriever, set, instructions.as_deref())?;
        let evaluated = match kept.read(model_name) {
            Some(evaluated) => {
                say("evaluated before training by an earlier run: the same figures");
                Some(evaluated)
            }
            None => self.evaluated()?.inspect(|evaluated| kept.write(evaluated)),
        };
        Ok(evaluated.map(|evaluated| self.reported(evaluated)))
    }

    /// Evaluates before the first step, unless a resumed run has that report or it is not wanted.
    pub(super) fn evaluate_before(&mut self) -> Result<()> {
        if self.state.step == 0 {
            if self.state.before.is_none() && self.setup.settings.eval_on_start {
                self.state.before = self.first_report()?;
            }
            self.setup.run_dir.write_reports(self.state.before.as_ref(), None)?;
        }
        Ok(())
    }

    /// Gives the evaluation before the first step its line.
    pub(super) fn log_before(&self, log: &mut Log) -> Result<()> {
        match &self.state.before {
            Some(before) if self.state.step == 0 => log.metrics.write(&evaluation_line(0, before)),
            _ => Ok(()),
        }
    }

    /// Whether an evaluation is due after the present step and not done yet: an interrupted run leaves it to the one
    /// that resumes it.
    pub(super) fn evaluation_is_due(&self) -> bool {
        let (every, step) = (self.setup.settings.eval_steps.unwrap_or(0), self.state.step);
        let is_done = self.state.latest.as_ref().is_some_and(|(at, _)| *at == step);
        // The reports before the first and after the last step belong to `evaluate_before` and `finish`.
        every > 0 && step > 0 && step < self.state.total_steps && step.is_multiple_of(every) && !is_done
    }

    /// Evaluates if it is due. True if `patience` has run out, so that the run is over.
    pub(super) fn evaluate_if_due(&mut self, log: &mut Log) -> Result<bool> {
        if !self.evaluation_is_due() {
            return Ok(false);
        }
        self.await_results(log)?;
        self.evaluate(log)?;
        let is_over = self.setup.settings.patience.is_some_and(|patience| self.state.without_gain >= patience);
        if is_over {
            log.progress.line(&format!("no gain in {} evaluations: stopping early", self.state.without_gain));
        }
        Ok(is_over)
    }

    /// Evaluates, and saves the model as `best/` if it is the best so far.
    pub(super) fn evaluate(&mut self, log: &mut Log) -> Result<()> {
        let (Some(evaluated), Some(key)) = (self.evaluated()?, self.best_metric) else { return Ok(()) };
        let report = self.reported(evaluated);
        let value = report.value(key).expect("checked before the run began");
        let step = self.state.step;
        let gained = self.state.best.is_none_or(|(_, best)| key.metric.is_better(value, best));
        if gained {
            self.state.best = Some((step, value));
            self.state.without_gain = 0;
            self.setup.run_dir.save_best(self.retriever, &self.stepper.optimizer, &self.card(&report))?;
        } else {
            self.state.without_gain += 1;
        }
        let before = self.state.before.as_ref().and_then(|report| report.value(key));
        let note = match before.filter(|&before| key.metric.is_better(before, value)) {
            Some(before) => format!(" (worse than {before:.4} before training)"),
            None if gained => " (best)".to_owned(),
            None => String::new(),
        };
        log.progress.line(&format!("step {step}: {key} {value:.4}{note}"));
        log.metrics.write(&evaluation_line(step, &report))?;
        self.state.latest = Some((step, report));
        Ok(())
    }
}
