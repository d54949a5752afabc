//! Results of several models side by side: what can be compared of them, and the means of that.
//!
//! A mean stands beside another one only if it is of the same: of a task, over the subsets that all models have which were
//! measured on it; of several tasks, over those that all models have.

use std::collections::{BTreeMap, HashMap};

use super::entries::Entry;
use super::files::TaskResult;
use super::table::{TaskKind, task};

/// The main score of a directory's data.
const OF_DIRECTORIES: &str = "ndcg_at_10";
/// What a main score is called that has no other name.
const NAMELESS: &str = "main_score";

/// Split and name of a subset.
pub type Part<'a> = (&'a str, &'a str);

/// The results of models on one task.
#[derive(Clone, Debug)]
pub struct TaskScores<'a> {
    /// The task's name.
    pub name: &'a str,
    /// mteb's type of it; `None`: one that is not in the table.
    pub kind: Option<TaskKind>,
    /// Name of the main score.
    pub main_score: &'a str,
    /// All parts that some model has, in the order of the files.
    pub parts: Vec<Part<'a>>,
    /// How many of them all models have that were measured on the task.
    pub n_common: usize,
    /// Of each model, if it was measured on the task.
    results: Vec<Option<Entries<'a>>>,
}

#[derive(Clone, Debug)]
struct Entries<'a> {
    of: &'a TaskResult,
    by_part: HashMap<Part<'a>, &'a Entry>,
}

impl<'a> Entries<'a> {
    fn new(of: &'a TaskResult) -> Self {
        let entries = of.scores().iter().flat_map(|(split, of)| of.iter().map(move |entry| (split, entry)));
        let by_part = entries.map(|(split, entry)| ((split.as_str(), entry.hf_subset.as_str()), entry));
        Entries { of, by_part: by_part.collect() }
    }
}

impl<'a> TaskScores<'a> {
    /// The tasks that any of the models was measured on, in the order in which they come. Of two results of a model on one task
    /// the first counts.
    pub fn of(models: &[&'a [TaskResult]]) -> Vec<Self> {
        let mut names: Vec<&str> = Vec::new();
        for result in models.iter().copied().flatten() {
            if !names.contains(&result.task_name.as_str()) {
                names.push(&result.task_name);
            }
        }
        let of_task = |name: &'a str| {
            let of_model = |of: &&'a [TaskResult]| of.iter().find(|result| result.task_name == name).map(Entries::new);
            TaskScores::new(name, models.iter().map(of_model).collect())
        };
        names.into_iter().map(of_task).collect()
    }

    fn new(name: &'a str, results: Vec<Option<Entries<'a>>>) -> Self {
        let mut counts: HashMap<Part, usize> = HashMap::new();
        let mut parts = Vec::new();
        for of in results.iter().flatten() {
            for (split, entries) in of.of.scores() {
                for part in entries.iter().map(|entry| (split.as_str(), entry.hf_subset.as_str())) {
                    let n = counts.entry(part).or_default();
                    if *n == 0 {
                        parts.push(part);
                    }
                    *n += 1;
                }
            }
        }
        let n_measured = results.iter().flatten().count();
        let n_common = counts.values().filter(|n| **n == n_measured).count();
        let row = task(name);
        let entries = || results.iter().flatten().flat_map(|of| of.by_part.values());
        let is_main = |entry: &&&Entry| entry.number(OF_DIRECTORIES) == Some(entry.main_score);
        let otherwise = if entries().all(|entry| is_main(&entry)) { OF_DIRECTORIES } else { NAMELESS };
        let main_score = row.map_or(otherwise, |row| row.main_score.as_str());
        TaskScores { name, kind: row.map(|row| row.kind), main_score, parts, n_common, results }
    }

    /// Number of models, measured or not.
    pub fn n_models(&self) -> usize {
        self.results.len()
    }

    /// Whether the model was measured on the task.
    pub fn has(&self, model: usize) -> bool {
        self.results[model].is_some()
    }

    /// Whether the models were measured on the same data, as far as its revisions say so.
    pub fn is_of_one_revision(&self) -> bool {
        let mut revisions = self.results.iter().flatten().map(|of| of.of.dataset_revision.as_str());
        let first = revisions.next();
        revisions.all(|revision| Some(revision) == first)
    }

    /// The main score, and the numbers that people are shown beside it.
    pub fn shown(&self) -> Vec<&'a str> {
        let entries =
            self.results.iter().flatten().filter_map(|of| of.of.scores().iter().flat_map(|(_, of)| of).next());
        let mut shown = vec![self.main_score];
        for name in entries.flat_map(|entry| entry.shown_beside(self.main_score)) {
            if !shown.contains(&name) {
                shown.push(name);
            }
        }
        shown
    }

    /// A number of a part; `None` where the model has none.
    pub fn value(&self, model: usize, part: Part, number: &str) -> Option<f64> {
        let entry = self.results[model].as_ref()?.by_part.get(&part)?;
        let value = if number == self.main_score { Some(entry.main_score) } else { entry.number(number) };
        value.filter(|x| !x.is_nan())
    }

    /// The mean of a number over the parts that all have; `None` without one, and where one has no number, as in mteb.
    pub fn mean(&self, model: usize, number: &str) -> Option<f64> {
        self.results[model].as_ref()?;
        let is_common = |part: &&Part| self.results.iter().flatten().all(|of| of.by_part.contains_key(*part));
        let values = self.parts.iter().filter(is_common).map(|part| self.value(model, *part, number));
        mean(&values.collect::<Option<Vec<_>>>()?)
    }

    /// The mean of the main score.
    pub fn score(&self, model: usize) -> Option<f64> {
        self.mean(model, self.main_score)
    }

    /// Whether all models have a score to compare.
    pub fn is_common(&self) -> bool {
        (0..self.n_models()).all(|model| self.score(model).is_some())
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// A mean of the scores of several tasks.
#[derive(Clone, Debug, PartialEq)]
pub struct MeanRow {
    /// What it is the mean of.
    pub title: String,
    /// Of each model.
    pub values: Vec<f64>,
}

/// Means over the tasks that all models have: over all of them, by type, and over the types, as mteb's benchmarks have them.
/// Nothing where that is one task or none.
pub fn means(tasks: &[TaskScores]) -> Vec<MeanRow> {
    let common: Vec<&TaskScores> = tasks.iter().filter(|task| task.is_common()).collect();
    let [first, _, ..] = common[..] else { return Vec::new() };
    let row = |title: String, of: &[&TaskScores]| {
        let value =
            |model| mean(&of.iter().filter_map(|task| task.score(model)).collect::<Vec<_>>()).unwrap_or(f64::NAN);
        MeanRow { title, values: (0..first.n_models()).map(value).collect() }
    };
    let mut rows = vec![row(format!("mean of {} tasks", common.len()), &common)];
    let mut by_kind: BTreeMap<usize, Vec<&TaskScores>> = BTreeMap::new();
    for task in &common {
        let place = |kind: TaskKind| TaskKind::ALL.iter().position(|known| *known == kind);
        by_kind.entry(task.kind.and_then(place).unwrap_or(usize::MAX)).or_default().push(task);
    }
    if by_kind.len() > 1 {
        let title = |of: &[&TaskScores]| {
            let kind = of[0].kind.map_or("other tasks".to_owned(), |kind| kind.to_string());
            format!("mean of {kind} ({})", of.len())
        };
        let of_kinds: Vec<MeanRow> = by_kind.values().map(|of| row(title(of), of)).collect();
        let over = |model| of_kinds.iter().map(|row| row.values[model]).sum::<f64>() / of_kinds.len() as f64;
        let values = (0..first.n_models()).map(over).collect();
        rows.extend(of_kinds.iter().cloned());
        rows.push(MeanRow { title: format!("mean of {} types", of_kinds.len()), values });
    }
    rows
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::eval::mteb::files::Settings;

    /// A result with `(split, subset, main score, recall_at_100)`.
    pub(in crate::eval::mteb) fn result(task: &str, main: &str, rows: &[(&str, &str, f64, f64)]) -> TaskResult {
        let mut result = TaskResult::new(task, "abc", Settings::new());
        for &(split, subset, main_score, recall) in rows {
            let numbers = [(main, main_score), ("recall_at_100", recall)].map(|(name, x)| (name.to_owned(), x)).into();
            let (hf_subset, languages) = (subset.to_owned(), Vec::new());
            result.record(split, Entry { numbers, groups: Vec::new(), main_score, hf_subset, languages });
        }
        result
    }

    #[test]
    fn means_are_of_what_all_models_have() {
        let rows = [("test", "de", 0.5, 0.75), ("test", "en", 0.25, 0.5), ("dev", "de", 1.0, 1.0)];
        let a = [result("XQuADRetrieval", "ndcg_at_10", &rows)];
        let b = [result("XQuADRetrieval", "ndcg_at_10", &[("test", "en", 0.75, 1.0), ("test", "de", 0.5, 0.25)])];
        let tasks = TaskScores::of(&[&a[..], &b, &[]]);
        let [task] = &tasks[..] else { panic!("one") };
        assert_eq!((task.kind, task.main_score), (Some(TaskKind::Retrieval), "ndcg_at_10"));
        assert_eq!(task.parts, [("test", "de"), ("test", "en"), ("dev", "de")]);
        assert_eq!((task.n_common, task.n_models(), task.has(1), task.has(2)), (2, 3, true, false));
        assert_eq!(task.shown(), ["ndcg_at_10", "recall_at_100"]);
        // (0.5 + 0.25) / 2 and (0.75 + 0.5) / 2, without what the first has alone.
        assert_eq!([0, 1, 2].map(|model| task.score(model)), [Some(0.375), Some(0.625), None]);
        assert_eq!(task.mean(0, "recall_at_100"), Some(0.625));
        assert_eq!(task.mean(0, "mrr_at_10"), None);
        assert_eq!((task.value(0, ("dev", "de"), "ndcg_at_10"), task.value(1, ("dev", "de"), "x")), (Some(1.0), None));
        assert!(!task.is_common() && means(&tasks).is_empty());
        // Alone, each has all of its own: the mean that mteb gives.
        assert_eq!(TaskScores::of(&[&a[..]])[0].score(0), Some(a[0].score()));
    }

    #[test]
    fn tasks_and_types_weigh_the_same() {
        let of = |main: [f64; 4]| {
            [
                result("ArguAna", "ndcg_at_10", &[("test", "default", main[0], 0.0)]),
                result("SCIDOCS", "ndcg_at_10", &[("test", "default", main[1], 0.0)]),
                result("STS17", "cosine_spearman", &[("test", "de-en", main[2], 0.0)]),
                result("mine", "ndcg_at_10", &[("test", "default", main[3], 0.0)]),
            ]
        };
        let (a, mut b) = (of([0.25, 0.75, 1.0, 0.5]), of([0.5, 0.0, 0.5, 0.0]));
        let rows = means(&TaskScores::of(&[&a[..], &b]));
        let expected = [
            ("mean of 4 tasks", [2.5 / 4.0, 1.0 / 4.0]),
            ("mean of Retrieval (2)", [0.5, 0.25]),
            ("mean of STS (1)", [1.0, 0.5]),
            ("mean of other tasks (1)", [0.5, 0.0]),
            ("mean of 3 types", [2.0 / 3.0, 0.25]),
        ];
        let rows: Vec<_> = rows.iter().map(|row| (row.title.as_str(), [row.values[0], row.values[1]])).collect();
        assert_eq!(rows, expected);
        // Only what both have, and no types where there is one.
        let rows = means(&TaskScores::of(&[&a[..], &b[..2]]));
        assert_eq!(rows, [MeanRow { title: "mean of 2 tasks".into(), values: vec![0.5, 0.25] }]);
        assert!(means(&TaskScores::of(&[&a[..], &b[1..2]])).is_empty(), "one is no mean");
        b[1].dataset_revision = "abd".to_owned();
        let revisions: Vec<bool> = TaskScores::of(&[&a[..], &b]).iter().map(TaskScores::is_of_one_revision).collect();
        assert_eq!(revisions, [true, false, true, true]);
    }

    /// What mteb calls a task's main score is in the table; else it is the number that it equals, if that is nDCG@10.
    #[test]
    fn main_scores_have_their_names() {
        let of = |task: &str, number: &str| {
            let result = [result(task, number, &[("test", "default", 0.5, 0.0)])];
            TaskScores::of(&[&result[..]])[0].main_score.to_owned()
        };
        assert_eq!(of("STS17", "cosine_spearman"), "cosine_spearman");
        assert_eq!((of("mine", "ndcg_at_10"), of("mine", "accuracy")), ("ndcg_at_10".into(), "main_score".into()));
        let nan = [result("ArguAna", "ndcg_at_10", &[("test", "default", f64::NAN, 0.0)])];
        assert_eq!(TaskScores::of(&[&nan[..]])[0].score(0), None);
    }
}
