//! The key `evaluations`: a table for each evaluation besides that of the single keys (`eval_data` and so on), and what
//! these keys together say of the evaluations of a run.

use std::fmt;
use std::path::PathBuf;

use toml::Value as Toml;

use super::Config;
use super::choices::*;
use super::tables::{self, field, optional, read_all, written};
use super::value::{ANY, Bounds, KeyType};
use crate::eval::mteb::table::{self, TaskKind, TaskRow};
use crate::eval::tasks;
use crate::{Error, Result};

/// One table of `evaluations`.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Name in `best_metric`, messages and results; none: the task's, or the file's
    pub name: Option<String>,
    /// Benchmark; auto: the one that the data is laid out for
    pub task: Auto<EvaluationTask>,
    /// A file or a directory; none: of one of mteb's tasks the data set of the hub
    pub data: Option<PathBuf>,
    /// Part of the data; auto: of divided data the one for validation
    pub split: Auto<Split>,
    /// Languages of the queries and passages that count; none: all
    pub languages: Option<Vec<String>>,
}

/// What a table measures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EvaluationTask {
    /// A task of hbt.
    Own(&'static Task),
    /// One of mteb's, whose queries search documents.
    Mteb(&'static TaskRow),
}

impl fmt::Display for EvaluationTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EvaluationTask::Own(task) => task.fmt(f),
            EvaluationTask::Mteb(row) => f.pad(&row.name),
        }
    }
}

impl KeyType for EvaluationTask {
    fn expects(bounds: &Bounds) -> String {
        format!("{}, or one of mteb's retrieval tasks (hbt eval --list)", <&'static Task>::expects(bounds))
    }
    fn read(value: &Toml, bounds: &Bounds) -> Option<Self> {
        let of_mteb = || table::task(value.as_str()?).filter(|row| row.kind == TaskKind::Retrieval);
        <&'static Task>::read(value, bounds).map(Self::Own).or_else(|| of_mteb().map(Self::Mteb))
    }
    fn write(&self) -> String {
        Toml::from(self.to_string()).to_string()
    }
}

/// The fields of a table.
const FIELDS: [&str; 5] = ["name", "task", "data", "split", "languages"];

impl Evaluation {
    /// The name, or the task's if one is given, or the file's.
    pub fn label(&self) -> String {
        let of_file = |data: &PathBuf| data.file_name().unwrap_or(data.as_os_str()).to_string_lossy().into_owned();
        let of_task = || self.task.given().map(|task| task.to_string());
        self.name.clone().or_else(of_task).or_else(|| self.data.as_ref().map(of_file)).unwrap_or_default()
    }

    /// Reads a table; the error says what is wrong with it.
    fn read(value: &Toml) -> std::result::Result<Self, String> {
        let table = tables::table(value, &FIELDS)?;
        let data = field::<PathBuf>(table, "data", &ANY)?;
        let name = optional::<String>(table, "name")?;
        if name.as_deref() == Some("") {
            return Err("has an empty name; give it one, or take it away".to_owned());
        }
        let languages = optional::<Vec<String>>(table, "languages")?;
        if languages.as_ref().is_some_and(Vec::is_empty) {
            return Err("has no language in languages; name some, or take it away for all".to_owned());
        }
        let task: Auto<EvaluationTask> = field(table, "task", &ANY)?.unwrap_or_default();
        if data.is_none() && !matches!(task, Auto::Of(EvaluationTask::Mteb(_))) {
            return Err("has no data; name a file or a directory".to_owned());
        }
        Ok(Evaluation { name, task, data, split: field(table, "split", &ANY)?.unwrap_or_default(), languages })
    }

    fn write(&self) -> String {
        written([
            self.name.as_ref().map(|name| ("name", name.write())),
            self.task.given().map(|task| ("task", task.write())),
            self.data.as_ref().map(|data| ("data", data.write())),
            self.split.given().map(|split| ("split", split.write())),
            self.languages.as_ref().map(|languages| ("languages", languages.write())),
        ])
    }
}

impl KeyType for Vec<Evaluation> {
    fn expects(_: &Bounds) -> String {
        "an [[evaluations]] table for each, with data and, as wanted, name, task, split and languages".to_owned()
    }
    fn complaint(value: &Toml) -> Option<String> {
        read_all(value, Evaluation::read).err()
    }
    fn read(value: &Toml, _: &Bounds) -> Option<Self> {
        read_all(value, Evaluation::read).ok()
    }
    fn write(&self) -> String {
        let tables: Vec<String> = self.iter().map(Evaluation::write).collect();
        format!("[{}]", tables.join(", "))
    }
}

impl Config {
    /// Checks the names of the tables against each other; that of the single keys' evaluation is known with its data.
    pub(super) fn check_evaluations(&self) -> Result<()> {
        let names: Vec<String> = self.evaluations.iter().map(Evaluation::label).collect();
        match (1..names.len()).find(|&i| names[..i].contains(&names[i])) {
            Some(i) => {
                let message = format!("two are called {:?}; give each a name of its own", names[i]);
                Err(Error::config("evaluations", message))
            }
            None => Ok(()),
        }
    }

    /// Whether the single keys name an evaluation of their own beside the tables. Without tables, the data may be divided,
    /// and one part of it be meant.
    pub fn names_single_evaluation(&self) -> bool {
        let is_given = self.eval_data.is_some() || self.eval_fraction.is_some() || self.eval_split != Auto::Auto;
        self.eval_task.is_some_and(|task| task != Auto::Auto || is_given)
    }

    /// The figure that picks the best model, where one is named.
    pub fn best_figure(&self) -> Option<FigureKey> {
        match &self.best_metric {
            Auto::Of(best) => Some(best.figure),
            Auto::Auto => None,
        }
    }

    /// Keys that were set and have no effect, since `eval_task` is none.
    pub(super) fn given_without_evaluation(&self) -> impl Iterator<Item = &'static str> {
        let of_tables = |key: &&str| !["eval_data", "eval_fraction"].contains(key);
        let has_tables = !self.evaluations.is_empty();
        self.given_for_evaluation().filter(move |key| !(has_tables && of_tables(key)))
    }

    /// Keys that were set for evaluations on the way.
    pub fn given_for_evaluation(&self) -> impl Iterator<Item = &'static str> {
        let given = [
            ("eval_data", self.eval_data.is_some()),
            ("eval_fraction", self.eval_fraction.is_some()),
            ("eval_on_start", !self.eval_on_start),
            ("eval_steps", self.eval_steps.is_some()),
            ("best_metric", self.best_metric != Auto::Auto),
        ];
        given.into_iter().filter(|(_, is_given)| *is_given).map(|(key, _)| key)
    }

    /// The share of the questions that training holds out to evaluate on, if it does.
    pub fn held_out_share(&self) -> Option<f64> {
        self.eval_fraction.filter(|_| self.eval_task.is_some())
    }

    /// Checks `eval_fraction` against the keys that name evaluation data. Commands that do not train ignore it.
    ///
    /// # Errors
    /// One of those that is given as well, or a task whose data is not groups.
    pub fn check_eval_fraction(&self) -> Result<()> {
        let others = [
            ("eval_data", self.eval_data.is_some(), "none"),
            ("eval_split", self.eval_split != Auto::Auto, "auto"),
            ("eval_task", !matches!(self.eval_task, None | Some(Auto::Auto)) && !self.evaluates_groups(), "auto"),
        ];
        match others.into_iter().find(|(_, is_given, _)| *is_given && self.eval_fraction.is_some()) {
            Some((key, _, without)) => {
                let message = format!(
                    "holds questions of the training data out to evaluate on, and {key} says otherwise; keep one of the two \
                     (--set {key}={without}, or --set eval_fraction=none)"
                );
                Err(Error::config("eval_fraction", message))
            }
            None => Ok(()),
        }
    }

    fn evaluates_groups(&self) -> bool {
        self.eval_task.and_then(Auto::given).is_some_and(|task| *task == tasks::parallel::TASK)
    }
}
