//! What a model is evaluated on: passages and queries in several languages, and which passages answer which queries.
//!
//! A task is a file here and a line in [`TASKS`], from which options, configuration keys and messages follow.

pub mod belebele;
mod languages;
pub mod mlqa_r;
pub mod parallel;
pub mod retrieval;
pub mod xquad_r;

use super::figures::FigureKey;
use super::search::RelevantRank;
use super::settings::{self, Ranked};
use crate::data::catalog::LangId;
use crate::data::formats::{DataSource, Notes};
use crate::{Error, Result};
use std::fmt;
use std::ops::Range;
use xxhash_rust::xxh3::Xxh3;

/// Every task; where none is named, the first that recognises the data is meant.
pub static TASKS: &[&Task] = &[&xquad_r::TASK, &mlqa_r::TASK, &belebele::TASK, &retrieval::TASK, &parallel::TASK];

/// A benchmark: how its data is recognised and read, and what is measured on it.
pub struct Task {
    /// What `eval_task` and reports call it.
    pub name: &'static str,
    /// Whether data is its own; an error is one of data that cannot be read at all.
    pub recognises: fn(&DataSource) -> Result<bool>,
    /// Reads its data; an error names the file.
    pub load: fn(&DataSource) -> Result<EvalSet>,
    /// The rankings that a query takes part in where a figure has no [setting](FigureKey::setting).
    pub searched: fn(&Query, &[RelevantRank]) -> Vec<Ranked>,
    /// What is measured, in the order in which it is shown.
    pub figures: &'static [FigureKey],
    /// The one of them that decides which model is best, unless `best_metric` names another.
    pub main: FigureKey,
}

/// The task called `name`.
pub fn named(name: &str) -> Option<&'static Task> {
    TASKS.iter().copied().find(|task| task.name == name)
}

/// The names of all tasks, as messages list them.
pub fn names() -> String {
    TASKS.iter().map(|task| task.name).collect::<Vec<_>>().join(", ")
}

/// The task that `data` is data of.
///
/// # Errors
/// Data that cannot be read, or that no task recognises.
pub fn recognised(data: &DataSource) -> Result<&'static Task> {
    for &task in TASKS {
        if (task.recognises)(data)? {
            return Ok(task);
        }
    }
    Err(Error::file(&data.path, format!("is not laid out as any task's data; set eval_task to one of {}", names())))
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Task {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Task {}

/// A candidate of the search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    /// Index into [`EvalSet::languages`].
    pub lang: LangId,
    /// The text as the data has it, without a prefix.
    pub text: String,
}

/// A question and what answers it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Index into [`EvalSet::languages`].
    pub lang: LangId,
    /// The parallel group: the versions of one question in several languages share a number.
    pub group: u32,
    /// The text as the data has it, without a prefix.
    pub text: String,
    /// The passages of all languages that answer it, by number, ascending; at least one, or one that is out of reach.
    pub relevant: Vec<Relevant>,
    /// Grades of what was judged for it and that no search can find: it is not among the passages, or left out.
    pub out_of_reach: Vec<u32>,
    /// A passage that its rankings are without.
    pub left_out: Option<u32>,
}

/// A passage that was judged for a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Relevant {
    /// Index into [`EvalSet::passages`].
    pub passage: u32,
    /// What it is worth: 1 where there are no degrees, 0 for one that was found not to be relevant.
    pub grade: u32,
}

impl Relevant {
    /// A passage that answers, where there are no degrees.
    pub fn binary(passage: u32) -> Self {
        Relevant { passage, grade: 1 }
    }
}

/// A retrieval benchmark over several languages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalSet {
    /// What it is data of.
    pub task: &'static Task,
    /// The part of the data: `all`, `train`, `validation`, `test`, or `held_out` of the training data.
    pub split: String,
    /// What reading the data left out, joined or mended.
    pub notes: Notes,
    /// ISO 639-1 codes, ascending.
    pub languages: Vec<String>,
    /// Ordered by language, so that each language is one contiguous range.
    pub passages: Vec<Passage>,
    /// Ordered by language.
    pub queries: Vec<Query>,
}

impl EvalSet {
    /// The figure that decides which model is best: the one that was asked for, else the task's main one.
    ///
    /// # Errors
    /// One that the task does not have, or that its data cannot give.
    pub fn deciding(&self, asked: Option<FigureKey>) -> Result<FigureKey> {
        let key = asked.unwrap_or(self.task.main);
        if self.gives(key) {
            return Ok(key);
        }
        let message = format!("the evaluation data gives no {key}; choose another metric or other eval_data");
        Err(Error::config("best_metric", message))
    }

    /// Whether a report on this set has a value for a figure. No rank decides that, so any will do.
    pub fn gives(&self, key: FigureKey) -> bool {
        let rank = |(rank, relevant): (u32, &Relevant)| {
            let lang = self.passages[relevant.passage as usize].lang;
            RelevantRank { lang, in_language: rank, pooled: rank }
        };
        let ranks = |query: &Query| (1..).zip(&query.relevant).map(rank).collect();
        let ranks: Vec<Vec<RelevantRank>> = self.queries.iter().map(ranks).collect();
        settings::report_with(Some(key), "", self, &ranks).value(key).is_some()
    }

    /// Identifies the content: the same texts in the same order, with the same answers.
    pub fn key(&self) -> String {
        let mut hash = Xxh3::new();
        // Lengths before what they are of, so that no two sets look alike.
        let mut text = |text: &str| {
            hash.update(&(text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        };
        text(self.task.name);
        text(&self.split);
        self.languages.iter().for_each(|language| text(language));
        for Passage { lang, text: passage } in &self.passages {
            text(&format!("passage {lang}"));
            text(passage);
        }
        for Query { lang, group, text: query, relevant, out_of_reach, left_out } in &self.queries {
            text(&format!("query {lang} {group} {relevant:?}"));
            text(query);
            if !out_of_reach.is_empty() || left_out.is_some() {
                text(&format!("without {out_of_reach:?} {left_out:?}"));
            }
        }
        format!("{:032x}", hash.digest128())
    }

    /// Indices of the passages in one language; empty where it has none.
    pub fn passage_range(&self, lang: LangId) -> Range<usize> {
        let start = self.passages.partition_point(|p| p.lang < lang);
        start..start + self.passages[start..].partition_point(|p| p.lang == lang)
    }
}
