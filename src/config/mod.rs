//! Configuration: the settings of a command, resolved and checked before it starts.
//!
//! A [`Config`] is put together by a [`Draft`] from sources of increasing rank: defaults, presets, a TOML file, options
//! such as `--model`, and `--set key=value`. The table in `keys.rs` describes every key once; all code that reads,
//! writes, explains or corrects keys uses it.

mod best_metric;
mod choices;
mod datasets;
mod draft;
mod evaluations;
mod keys;
mod loss;
mod resolve;
mod suggest;
mod tables;
mod value;

use std::fmt::Write;
use std::path::Path;

pub use best_metric::BestMetric;
pub use choices::*;
pub use datasets::Dataset;
pub use draft::{Assignment, Draft};
pub use evaluations::{Evaluation, EvaluationTask};
pub use keys::{Config, KEYS, Key};
pub use suggest::instead_of_option;

use crate::{Error, Result};

impl Config {
    /// Name of the saved configuration in a run directory.
    pub const FILE_NAME: &str = "config.toml";

    /// Reads a configuration from one file and nothing else, such as the one saved in a run directory.
    pub fn load(path: &Path) -> Result<Config> {
        let mut draft = Draft::new();
        draft.file(path)?;
        draft.finish()
    }

    /// Every key with its meaning, range and value, as TOML. [`Config::load`] gives an equal configuration back.
    pub fn to_toml(&self) -> String {
        self.listed("", |key| format!("{} = {}", key.name, key.value_of(self)))
    }

    /// [`Config::to_toml`] as a file to change by hand: keys that are not `given` are commented out, so that hbt goes
    /// on choosing their values. `general`: the configuration without settings for what is built in. Where the two
    /// differ, both values are shown.
    pub fn to_start_from(&self, given: impl Fn(&Key) -> bool, general: &Config) -> String {
        let is_whole = KEYS.iter().all(&given);
        let head = "# What is commented out has these values by itself; take the # away from what you set.\n";
        self.listed(if is_whole { "" } else { head }, |key| {
            let (value, general) = (key.value_of(self), key.value_of(general));
            let comment = if given(key) { "" } else { "#" };
            let note = match given(key) || value == general {
                true => String::new(),
                false => format!("  # as suits what is built in; otherwise {general}"),
            };
            format!("{comment}{} = {value}{note}", key.name)
        })
    }

    /// Every key with its meaning and range, and a `line` for its value.
    fn listed(&self, head: &str, line: impl Fn(&Key) -> String) -> String {
        let mut text = format!(
            "# hbt {}. Use this file with `hbt train FILE.toml`. Paths are relative to the current directory.\n{head}",
            env!("CARGO_PKG_VERSION")
        );
        let mut section = "";
        for key in KEYS {
            if key.section != section {
                section = key.section;
                let _ = write!(text, "\n# ---- {section} ----\n");
            }
            let _ = write!(text, "\n# {}.\n{}{}\n", key.help, comment(&key.expects()), line(key));
        }
        text
    }

    /// Checks keys against one another; each alone was checked when it was read.
    fn check(&self) -> Result<()> {
        if self.steps.is_none() && self.epochs.is_none() {
            return Err(Error::config("steps", "neither steps nor epochs is given; set one of the two"));
        }
        for (key, length) in [("query_max_len", self.query_max_len), ("passage_max_len", self.passage_max_len)] {
            if let (Some(length), Auto::Of(chunk_tokens)) = (length, self.chunk_tokens)
                && length > chunk_tokens
            {
                let message = format!(
                    "{chunk_tokens} is less than {key} = {length}, so one text may not fit; raise it or lower {key}"
                );
                return Err(Error::config("chunk_tokens", message));
            }
        }
        self.check_loss()?;
        self.check_datasets()?;
        self.check_evaluations()?;
        if self.model.as_deref() == Some("") {
            return Err(Error::config("model", "is empty; give a directory or a hub id, or none for the built-in one"));
        }
        if self.patience.is_some() && self.eval_task.is_none() && self.evaluations.is_empty() {
            let message =
                "stopping early needs evaluations, but eval_task is none; set eval_task or take patience away";
            return Err(Error::config("patience", message));
        }
        if self.patience.is_some() && self.eval_steps.is_none() {
            return Err(Error::config("patience", "stopping early needs evaluations on the way; set eval_steps"));
        }
        Ok(())
    }

    fn check_datasets(&self) -> Result<()> {
        let names: Vec<String> = self.datasets.iter().map(Dataset::label).collect();
        if let Some(i) = (1..names.len()).find(|&i| names[..i].contains(&names[i])) {
            let is_same =
                self.datasets[..i].iter().any(|of| of.data == self.datasets[i].data && of.label() == names[i]);
            let message = match is_same {
                true => format!(
                    "{:?} is given twice; take one away, or give it a larger weight in a [[datasets]] table",
                    names[i]
                ),
                false => format!("two are called {:?}; give each a name of its own", names[i]),
            };
            return Err(Error::config("datasets", message));
        }
        let weighted = self.datasets.iter().find(|dataset| dataset.weight != 1.0);
        if let Some(weighted) = weighted.filter(|_| self.dataset_sampling == DatasetSampling::RoundRobin) {
            let message = format!(
                "is round_robin, which takes each as often, but {:?} has a weight; take the weight away, or set it to weights",
                weighted.label()
            );
            return Err(Error::config("dataset_sampling", message));
        }
        Ok(())
    }

    /// Paths of the data that is trained on, and the part of each.
    fn trained_on(&self) -> impl Iterator<Item = (&Path, Auto<Split>)> {
        let several = self.datasets.iter().map(|of| (of.data.as_path(), of.split.unwrap_or(self.split)));
        self.data.iter().map(|data| (data.as_path(), self.split)).chain(several)
    }

    /// Settings for training that work but are seldom meant, one line each.
    pub fn warnings(&self) -> Vec<String> {
        let defaults = Config::default();
        let mut warnings = Vec::new();
        if self.temperature > 0.2 {
            warnings.push(format!(
                "temperature {} hardly tells positives from negatives; 0.01 to 0.05 are usual",
                self.temperature
            ));
        }
        let (rate, pretrained) = (self.learning_rate, self.model.is_some() && !self.from_scratch);
        if rate > 0.01 || (pretrained && rate > 5e-4) {
            warnings.push(format!("learning_rate {rate} is likely to destroy the model; 1e-5 to 1e-4 are usual"));
        }
        if self.mode != BatchMode::Hybrid && self.alpha != defaults.alpha {
            warnings.push(format!("alpha has no effect, since mode is {}, not hybrid", self.mode));
        }
        if self.lang_sampling != LangSampling::Temperature && self.lang_temperature != defaults.lang_temperature {
            warnings.push(format!(
                "lang_temperature has no effect, since lang_sampling is {}, not temperature",
                self.lang_sampling
            ));
        }
        if self.datasets.len() < 2 {
            let given = [
                ("dataset_sampling", self.dataset_sampling != defaults.dataset_sampling),
                ("dataset_batches", self.dataset_batches != defaults.dataset_batches),
            ];
            let idle = given.iter().filter(|(_, is_given)| *is_given);
            warnings.extend(idle.map(|(key, _)| format!("{key} has no effect, since there is one dataset")));
        }
        if self.dataset_sampling != DatasetSampling::Temperature
            && self.dataset_temperature != defaults.dataset_temperature
        {
            warnings.push(format!(
                "dataset_temperature has no effect, since dataset_sampling is {}, not temperature",
                self.dataset_sampling
            ));
        }
        if self.eval_task.is_none() {
            let idle = self.given_without_evaluation();
            warnings.extend(idle.map(|key| format!("{key} has no effect, since eval_task is none")));
        }
        if self.evaluates_what_it_trains_on() {
            warnings.push(
                "evaluation uses texts that training has seen; set eval_data, or split = train and eval_split = test"
                    .to_owned(),
            );
        }
        warnings
    }

    /// Whether keys say so by themselves; texts are compared later.
    fn evaluates_what_it_trains_on(&self) -> bool {
        let all = Auto::Of(Split::All);
        let is_evaluated_on = |data: &Path, split: Auto<Split>| {
            let same_data = self.eval_data.as_ref().map_or(self.datasets.is_empty(), |eval_data| eval_data == data);
            // Of data that is divided, auto means different parts; of other data the texts themselves are compared.
            let same_part = split == all || self.eval_split == all || split == self.eval_split;
            same_data && same_part && split != Auto::Auto
        };
        // With `eval_task = auto`, training does not evaluate on undivided data.
        let is_evaluated = match self.eval_task {
            None => false,
            _ if self.eval_fraction.is_some() => false,
            Some(Auto::Auto) => self.eval_data.is_some(),
            Some(Auto::Of(_)) => true,
        };
        is_evaluated && self.trained_on().any(|(data, split)| is_evaluated_on(data, split))
    }
}

/// Lines of a comment, broken at words.
fn comment(text: &str) -> String {
    let mut lines = vec![String::from("#")];
    for word in text.split(' ') {
        if lines[lines.len() - 1].len() + 1 + word.len() > WIDTH {
            lines.push(String::from("#"));
        }
        let last = lines.len() - 1;
        lines[last] += &format!(" {word}");
    }
    lines.join("\n") + "\n"
}

/// Columns of a saved configuration.
const WIDTH: usize = 120;
