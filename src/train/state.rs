//! What a run has come to, as its checkpoint keeps it.

use super::{NamedSet, Setup};
use crate::eval::EvalReport;
use crate::loss::LearnedTemperature;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// State of a run. Together with the weights and the optimizer's moments it is complete: the sampler, dropout and the
/// learning rate are functions of the seed and the step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TrainingState {
    /// Number of updates done.
    pub step: u64,
    /// Number of updates of the whole run.
    pub total_steps: u64,
    /// Whether the run is over, because the last step was done or because `patience` ran out.
    pub complete: bool,
    /// Number of updates that the run had done when it was complete and was extended; 0 if it was
    /// not. Learning rate and moments begin anew there.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub extended_at: u64,
    /// Identity of the training data: [`Datasets::key`](crate::data::datasets::Datasets::key).
    pub data: String,
    /// Identity of the evaluation data: [`EvalSet::key`](crate::eval::tasks::EvalSet::key), if there is any.
    pub eval_data: Option<String>,
    /// What was set for the run, as far as its result depends on it, by name.
    pub settings: BTreeMap<String, String>,
    /// Instructions that computed the last steps, or others that give the same bytes; `None` on a GPU.
    pub instructions: Option<String>,
    /// Report on the model before the first step.
    pub before: Option<EvalReport>,
    /// The latest report, and the number of its step.
    pub latest: Option<(u64, EvalReport)>,
    /// The name of the evaluation that these two are of, which decides, where there are others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<String>,
    /// The other evaluations, in the order of the run's configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<OtherEvaluation>,
    /// The best value of `best_metric` so far, and its step.
    pub best: Option<(u64, f64)>,
    /// Number of evaluations since then.
    pub without_gain: usize,
    /// The [`LearnedTemperature`](crate::loss::LearnedTemperature), if it is learned.
    pub temperature: Option<[u64; 4]>,
}

/// What a state keeps of an evaluation that does not decide which model is best.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OtherEvaluation {
    /// Its name.
    pub name: String,
    /// Identity of its data, as [`TrainingState::eval_data`].
    pub data: String,
    /// Report on the model before the first step.
    pub before: Option<EvalReport>,
    /// The latest report, of the step of [`TrainingState::latest`].
    pub latest: Option<EvalReport>,
}

impl OtherEvaluation {
    fn new(NamedSet { name, set }: &NamedSet) -> Self {
        OtherEvaluation { name: name.clone(), data: set.key(), before: None, latest: None }
    }

    /// Whether it is of the same data by the same name.
    fn is_of(&self, of: &NamedSet) -> bool {
        self.name == of.name && self.data == of.set.key()
    }
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl TrainingState {
    /// What all ranks of a run have in common, a line each.
    pub(super) fn identity(&self) -> String {
        let TrainingState { step, total_steps, data, eval_data, settings, .. } = self;
        let of_state = [format!("step {step} of {total_steps}"), format!("data {data}")];
        let of_evaluations = eval_data.iter().chain(self.others.iter().map(|other| &other.data));
        let settings = settings.iter().map(|(name, value)| format!("{name} = {value}"));
        let lines =
            of_state.into_iter().chain(of_evaluations.map(|data| format!("evaluation data {data}"))).chain(settings);
        lines.collect::<Vec<_>>().join("\n")
    }

    /// What contradicts itself in the state, if anything does.
    pub(super) fn contradiction(&self) -> Option<String> {
        let TrainingState { step, total_steps, extended_at, .. } = *self;
        let latest = self.latest.as_ref().map_or(0, |(at, _)| *at);
        let best = self.best.map_or(0, |(at, _)| at);
        if step > total_steps {
            return Some(format!("step {step} of {total_steps}"));
        }
        if extended_at > step {
            return Some(format!("an extension at step {extended_at} at step {step}"));
        }
        if self.temperature.is_some_and(|bits| !LearnedTemperature::from_bits(bits).is_of(step)) {
            return Some("a learned temperature that no run has".to_owned());
        }
        (latest.max(best) > step).then(|| format!("an evaluation of step {} at step {step}", latest.max(best)))
    }

    /// Whether the evaluations that do not decide are these.
    fn has_others(&self, others: &[NamedSet]) -> bool {
        self.others.len() == others.len() && self.others.iter().zip(others).all(|(of, other)| of.is_of(other))
    }

    /// Number of updates since the learning rate and the moments began.
    pub(super) fn updates(&self) -> u64 {
        self.step - self.extended_at
    }

    /// The state of a complete run that goes on to `total_steps` steps: batches, evaluations and the best model go on; the
    /// schedule of the learning rate is one of the added steps, and moments, which a complete run keeps none of, begin anew.
    fn extended(self, setup: &Setup, total_steps: u64) -> Result<Self> {
        let step = self.step;
        if total_steps <= step {
            let message = format!("come to {total_steps}, and the run has done {step}; set more of them to extend it");
            return Err(Error::config(if setup.settings.is_by_steps() { "steps" } else { "epochs" }, message));
        }
        let settings = setup.identity.clone();
        Ok(TrainingState { total_steps, complete: false, extended_at: step, without_gain: 0, settings, ..self })
    }

    /// The state that a run of `total_steps` steps resumes from or begins with.
    ///
    /// # Errors
    /// If the state is that of a run on other data, or of another length.
    pub(super) fn first(setup: &Setup, total_steps: u64) -> Result<TrainingState> {
        let settings = &setup.settings;
        let eval_data = setup.eval_sets.first().map(|of| of.set.key());
        let others = setup.eval_sets.get(1..).unwrap_or_default();
        let resumed =
            |state: &TrainingState| TrainingState { instructions: setup.instructions.clone(), ..state.clone() };
        match &setup.state {
            Some(state) if state.data != setup.data.key() => {
                let message =
                    "has changed since the run began, or its tokenizer has; take that back, or start a new run";
                Err(Error::config("data", message))
            }
            Some(state) if state.eval_data != eval_data => {
                let message = "has changed since the run began, so its figures would not compare; take that back, or start \
                               a new run";
                Err(Error::config("eval_data", message))
            }
            Some(state) if !state.has_others(others) => {
                let message = "have changed since the run began, or their data has, so figures would not compare; take that \
                               back, or start a new run";
                Err(Error::config("evaluations", message))
            }
            Some(state) if state.complete => resumed(state).extended(setup, total_steps),
            Some(state) if state.total_steps != total_steps => {
                let was = state.total_steps;
                let message =
                    format!("are {was} in the run's state, and {total_steps} by its settings; start a new run");
                Err(Error::config("steps", message))
            }
            Some(state) => Ok(resumed(state)),
            None => Ok(TrainingState {
                step: 0,
                total_steps,
                complete: false,
                extended_at: 0,
                data: setup.data.key(),
                eval_data,
                settings: setup.identity.clone(),
                instructions: setup.instructions.clone(),
                before: setup.before.clone(),
                latest: None,
                evaluation: setup.name_among_several(0).map(str::to_owned),
                others: others.iter().map(OtherEvaluation::new).collect(),
                best: None,
                without_gain: 0,
                temperature: settings
                    .temperature_learning_rate
                    .map(|_| LearnedTemperature::new(settings.temperature).to_bits()),
            }),
        }
    }
}
