//! Figures: the numbers that an evaluation ends in. Whoever shows, compares or keeps them knows no task: a figure brings
//! along what it is called, how it is shown and when it is better.

use super::metrics::Metric;
use super::settings::{ON_DEMAND, Setting};
use super::tasks::{TASKS, Task};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;

/// What a figure measures. [`TASKS`] list those of each task.
#[derive(Clone, Copy)]
pub struct FigureKey {
    /// Which passages a query searches; `None`: those that the task says, all that there are or those of its subset.
    pub setting: Option<&'static Setting>,
    /// What is measured of a query.
    pub metric: &'static Metric,
    /// Rank behind which nothing is seen; `None`: the whole ranking counts.
    pub cutoff: Option<u32>,
}

impl FigureKey {
    /// Every figure that some task gives, in the order of the tasks, and those that all give on demand.
    pub fn known() -> Vec<FigureKey> {
        let mut known: Vec<FigureKey> = Vec::new();
        for key in TASKS.iter().flat_map(|task| task.figures).chain(&ON_DEMAND) {
            if !known.contains(key) {
                known.push(*key);
            }
        }
        known
    }

    /// The metric and its cut-off, as names have them: `ndcg@10`.
    pub fn measure(&self) -> String {
        with_cutoff(self.metric.name, self.cutoff)
    }

    /// The same as tables have it: `nDCG@10`.
    pub fn measure_title(&self) -> String {
        with_cutoff(self.metric.title, self.cutoff)
    }

    /// The same at the head of a narrow column.
    pub fn column(&self) -> String {
        with_cutoff(self.metric.column, self.cutoff)
    }

    /// What tables call it: `multilingual mAP`.
    pub fn title(&self) -> String {
        let setting = self.setting.map_or(String::new(), |setting| format!("{} ", setting.title));
        setting + &self.measure_title()
    }

    /// A value with the metric's digits, a dash for what is missing.
    pub fn shown(&self, value: Option<f64>) -> String {
        value.map_or_else(|| "-".to_owned(), |x| format!("{x:.*}", self.metric.decimals))
    }

    /// The same for a difference, which always has a sign.
    pub fn change(&self, value: Option<f64>) -> String {
        value.map_or_else(|| "-".to_owned(), |x| format!("{x:+.*}", self.metric.decimals))
    }
}

fn with_cutoff(name: &str, cutoff: Option<u32>) -> String {
    cutoff.map_or_else(|| name.to_owned(), |k| format!("{name}@{k}"))
}

/// The name, which is what `best_metric` is set to: `multilingual_map`, `rank_distance`, `monolingual_ndcg@10`.
impl fmt::Display for FigureKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let setting = self.setting.map_or(String::new(), |setting| format!("{}_", setting.name));
        f.pad(&(setting + &self.measure()))
    }
}

impl fmt::Debug for FigureKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialEq for FigureKey {
    fn eq(&self, other: &Self) -> bool {
        let names = |key: &FigureKey| (key.setting.map(|setting| setting.name), key.metric.name, key.cutoff);
        names(self) == names(other)
    }
}

/// One number of one task; `None`, `null` in JSON, where the data cannot give it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// The task's name.
    pub task: &'static str,
    /// What it measures.
    pub key: FigureKey,
    /// The number.
    pub value: Option<f64>,
}

/// A figure as it is written: words and numbers, nothing of the program.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    task: String,
    setting: Option<String>,
    metric: String,
    cutoff: Option<u32>,
    value: Option<f64>,
}

impl Serialize for Figure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Figure { task, key, value } = *self;
        let setting = key.setting.map(|setting| setting.name.to_owned());
        let written =
            Written { task: task.to_owned(), setting, metric: key.metric.name.to_owned(), cutoff: key.cutoff, value };
        written.serialize(serializer)
    }
}

impl Written {
    /// The figure of `task` that was written.
    ///
    /// # Errors
    /// What it is called, where `task` gives no such figure.
    pub(super) fn read(self, task: &'static Task) -> Result<Figure, String> {
        let name = [self.setting.as_deref(), Some(&with_cutoff(&self.metric, self.cutoff))];
        let name = name.into_iter().flatten().collect::<Vec<_>>().join("_");
        let same = |key: &&FigureKey| {
            let setting = key.setting.map(|setting| setting.name);
            (setting, key.metric.name, key.cutoff) == (self.setting.as_deref(), &self.metric, self.cutoff)
        };
        match task.figures.iter().chain(&ON_DEMAND).find(same).filter(|_| self.task == task.name) {
            Some(key) => Ok(Figure { task: task.name, key: *key, value: self.value }),
            None => Err(format!("{} gives no {name}", self.task)),
        }
    }
}
