//! Evaluations of a run: before it, on the way, and after.

use super::first_report::FirstReport;
use super::report::{Log, evaluation_line};
use super::state::TrainingState;
use super::{Setup, Trainer};
use crate::backend::Backend;
use crate::eval::report::Origin;
use crate::eval::{EvalReport, Evaluated, FigureKey, evaluate_retriever};
use crate::progress::{Counter, say};
use crate::{Result, trace};

impl<B: Backend> Trainer<'_, B> {
    /// Evaluates on the data of this number.
    fn evaluated(&mut self, number: usize) -> Result<Evaluated> {
        self.catch_up()?;
        let set = &self.setup.eval_sets[number].set;
        let _range = trace::phase("evaluate");
        let total = (set.queries.len() + set.passages.len()) as u64;
        let counter = Counter::new("evaluated", total);
        // As whoever loads the saved model will measure it. From the first update on it is another one than was named.
        let [query, passage] = &self.retriever.settings.as_saved();
        let name = if self.state.step == 0 { &self.setup.model_name } else { "last" };
        let progress = &mut |n| counter.set(n as u64, total);
        let more = self.figure_on_demand(number);
        let peers = self.setup.ranks.peers();
        let mut evaluated = evaluate_retriever(self.retriever, peers, [query, passage], name, set, more, progress)?;
        evaluated.report.hbt = Some(Origin::new(self.retriever.in_words([query, passage])?));
        counter.finish(&format!("{} queries on {} passages", set.queries.len(), set.passages.len()));
        self.retriever.release_tokenizer();
        Ok(evaluated)
    }

    /// The figure that decides, of the evaluation that does, where its task does not list it.
    fn figure_on_demand(&self, number: usize) -> Option<FigureKey> {
        let listed = self.setup.eval_sets[number].set.task.figures;
        self.best_metric.filter(|key| number == 0 && !listed.contains(key))
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
    fn first_report(&mut self, number: usize) -> Result<EvalReport> {
        let Setup { eval_sets, report_cache, instructions, model_name, .. } = &self.setup;
        let Some(cache) = report_cache else {
            let evaluated = self.evaluated(number)?;
            return Ok(self.reported(evaluated));
        };
        let (set, more) = (&eval_sets[number].set, self.figure_on_demand(number));
        let kept = FirstReport::of(cache, self.retriever, set, more, instructions.as_deref())?;
        // What one rank finds in its cache is what all have.
        let ranks = &self.setup.ranks;
        let there = ranks.of_first(if ranks.leads() { kept.text() } else { None })?;
        let evaluated = match there.and_then(|text| FirstReport::read(&text, model_name)) {
            Some(evaluated) => {
                say("evaluated before training by an earlier run: the same figures");
                evaluated
            }
            None => {
                let evaluated = self.evaluated(number)?;
                if self.leads() {
                    kept.write(&evaluated);
                }
                evaluated
            }
        };
        Ok(self.reported(evaluated))
    }

    /// Evaluates before the first step, unless a resumed run has that report or it is not wanted.
    pub(super) fn evaluate_before(&mut self) -> Result<()> {
        if self.state.step > 0 {
            return Ok(());
        }
        if self.setup.settings.eval_on_start {
            if self.state.before.is_none() && !self.setup.eval_sets.is_empty() {
                self.state.before = Some(self.first_report(0)?);
            }
            for other in 0..self.state.others.len() {
                if self.state.others[other].before.is_none() {
                    self.state.others[other].before = Some(self.first_report(other + 1)?);
                }
            }
        }
        if self.leads() { self.setup.run_dir.write_reports(&self.state) } else { Ok(()) }
    }

    /// Gives the evaluations before the first step their lines.
    pub(super) fn log_before(&self, log: &mut Log) -> Result<()> {
        if self.state.step > 0 {
            return Ok(());
        }
        let others = self.state.others.iter().map(|of| of.before.as_ref());
        for (number, before) in std::iter::once(self.state.before.as_ref()).chain(others).enumerate() {
            if let Some(before) = before {
                log.write(&evaluation_line(0, self.setup.name_among_several(number), before))?;
            }
        }
        Ok(())
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
        self.catch_up()?;
        let Some(key) = self.best_metric else { return Ok(()) };
        let step = self.state.step;
        let evaluated = self.evaluated(0)?;
        let report = self.reported(evaluated);
        let value = report.value(key).expect("checked before the run began");
        self.state.latest = Some((step, report));
        for other in 0..self.state.others.len() {
            let evaluated = self.evaluated(other + 1)?;
            self.state.others[other].latest = Some(self.reported(evaluated));
        }
        let gained = self.state.best.is_none_or(|(_, best)| key.metric.is_better(value, best));
        if gained {
            self.state.best = Some((step, value));
            self.state.without_gain = 0;
            self.compare_ranks()?;
            if self.leads() {
                self.setup.run_dir.save_best(self.retriever, &self.stepper.optimizer, &self.card())?;
            }
        } else {
            self.state.without_gain += 1;
        }
        self.log_latest(key, gained, log)
    }

    /// Gives the latest evaluations their lines; the first is by the figure `key`, which has `gained` or not.
    fn log_latest(&self, key: FigureKey, gained: bool, log: &mut Log) -> Result<()> {
        let TrainingState { before, latest: Some((step, latest)), others, .. } = &self.state else { return Ok(()) };
        let deciding = (before.as_ref(), latest, key, gained);
        let others = others.iter().filter_map(|of| {
            let latest = of.latest.as_ref()?;
            Some((of.before.as_ref(), latest, latest.main, false))
        });
        for (number, (before, latest, key, gained)) in std::iter::once(deciding).chain(others).enumerate() {
            let name = self.setup.name_among_several(number);
            let value = latest.value(key);
            let before = before.and_then(|report| report.value(key));
            let worse_than = before.filter(|&before| value.is_some_and(|value| key.metric.is_better(before, value)));
            let note = match worse_than {
                Some(before) => format!(" (worse than {before:.4} before training)"),
                None if gained => " (best)".to_owned(),
                None => String::new(),
            };
            let of = name.map_or(String::new(), |name| format!("{name} "));
            let value = value.map_or("-".to_owned(), |value| format!("{value:.4}"));
            log.progress.line(&format!("step {step}: {of}{key} {value}{note}"));
            log.write(&evaluation_line(*step, name, latest))?;
        }
        Ok(())
    }
}
