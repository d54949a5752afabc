//! Several models on tasks whose results have mteb's form, as one table.
//!
//! Such results hold means and no values of single queries, so that whether a difference is more than chance cannot be said.

use std::fmt;

use super::files::TaskResult;
use super::scores::{MeanRow, TaskScores, means};
use crate::{Error, Result};

/// Columns of a number at least.
const WIDTH: usize = 10;
/// Subsets beyond which only their mean is shown.
const MOST_ROWS: usize = 60;

/// The main scores of models, the last of which is held against each of the others.
#[derive(Clone, Debug)]
pub struct TaskComparison {
    /// What the models are called.
    labels: Vec<String>,
    results: Vec<Vec<TaskResult>>,
}

impl TaskComparison {
    /// Compares labelled results.
    ///
    /// # Errors
    /// No task that all of them have.
    pub fn new(rows: Vec<(String, Vec<TaskResult>)>) -> Result<Self> {
        let (labels, results) = rows.into_iter().unzip();
        let comparison = TaskComparison { labels, results };
        if comparison.tasks().iter().any(TaskScores::is_common) {
            return Ok(comparison);
        }
        let measured = |(label, results): (&String, &Vec<TaskResult>)| {
            let names: Vec<String> = results.iter().map(|result| result.task_name.clone()).collect();
            format!("{label} was measured on {}", crate::error::listed(&names))
        };
        let measured: Vec<String> = comparison.labels.iter().zip(&comparison.results).map(measured).collect();
        let message = format!("{}: that is no task, or no subset of one, that all have", measured.join(", "));
        Err(Error::other(message))
    }

    fn tasks(&self) -> Vec<TaskScores<'_>> {
        TaskScores::of(&self.results.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    /// The rows: of one task its subsets and their mean, of several tasks one each and their means.
    fn rows(&self, tasks: &[TaskScores]) -> Vec<MeanRow> {
        let common: Vec<&TaskScores> = tasks.iter().filter(|task| task.is_common()).collect();
        let models = 0..self.labels.len();
        let scores = |task: &TaskScores| models.clone().filter_map(|model| task.score(model)).collect::<Vec<f64>>();
        let row = |task: &TaskScores, title: String| MeanRow { title, values: scores(task) };
        let [task] = common[..] else {
            let rows = common.iter().map(|task| row(task, format!("{} {}", task.name, task.main_score)));
            return rows.chain(means(tasks)).collect();
        };
        let mut rows = Vec::new();
        for &(split, subset) in task.parts.iter().filter(|_| (2..=MOST_ROWS).contains(&task.n_common)) {
            let values = models.clone().map(|model| task.value(model, (split, subset), task.main_score));
            if let Some(values) = values.collect::<Option<Vec<_>>>() {
                rows.push(MeanRow { title: format!("{subset} ({split})"), values });
            }
        }
        let title = if task.n_common > 1 { format!("mean of {}", task.n_common) } else { task.name.to_owned() };
        rows.push(row(task, title));
        rows
    }

    /// What the numbers are, and what is missing.
    fn notes(&self, tasks: &[TaskScores]) -> String {
        let (common, others): (Vec<&TaskScores>, Vec<_>) = tasks.iter().partition(|task| task.is_common());
        let mut notes = match common[..] {
            [task] => format!("{}, {}", task.name, task.main_score),
            _ => "main scores, each the mean over its task's subsets".to_owned(),
        };
        let last = self.labels.last().map_or("", String::as_str);
        notes += &format!("; * best of its row; columns with -: {last} minus the other\n");
        if !others.is_empty() {
            let names: Vec<&str> = others.iter().map(|task| task.name).collect();
            notes += &format!("not all have: {}\n", names.join(", "));
        }
        for task in &common {
            if task.n_common < task.parts.len() {
                let n = task.parts.len();
                notes += &format!("{}: over the {} of {n} subsets that all have\n", task.name, task.n_common);
            }
            if !task.is_of_one_revision() {
                notes += &format!("{}: measured on different revisions of the data\n", task.name);
            }
        }
        notes + "no intervals: results in mteb's form have no values of single queries\n"
    }
}

impl fmt::Display for TaskComparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tasks = self.tasks();
        let rows = self.rows(&tasks);
        let Some((_, others)) = self.labels.split_last() else { return Ok(()) };
        let differences: Vec<String> = others.iter().map(|other| format!("- {other}")).collect();
        let label = rows.iter().map(|row| row.title.chars().count()).max().unwrap_or(0);
        let width = |heading: &String| WIDTH.max(heading.chars().count() + 2);
        let mut heading = " ".repeat(label);
        for of in &self.labels {
            heading += &format!("{of:>width$}", width = width(of));
        }
        for of in &differences {
            heading += &format!("{of:>width$}", width = width(of));
        }
        writeln!(f, "{heading}")?;
        for MeanRow { title, values } in &rows {
            let shown: Vec<String> = values.iter().map(|x| format!("{x:.4}")).collect();
            let best = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let mut line = format!("{title:<label$}");
            for (of, shown) in self.labels.iter().zip(&shown) {
                let mark = if *shown == format!("{best:.4}") { '*' } else { ' ' };
                line += &format!("{shown:>width$}{mark}", width = width(of) - 1);
            }
            let last = values.last().copied().unwrap_or(f64::NAN);
            for (of, other) in differences.iter().zip(values) {
                line += &format!("{:>+width$.4}", last - other, width = width(of));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        f.write_str(&self.notes(&tasks))
    }
}

#[cfg(test)]
mod tests {
    use super::super::scores::tests::result;
    use super::*;

    fn text(rows: &[(&str, &[TaskResult])]) -> String {
        let rows = rows.iter().map(|(label, of)| ((*label).to_owned(), of.to_vec())).collect();
        match TaskComparison::new(rows) {
            Ok(comparison) => format!("\n{comparison}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn several_tasks_have_a_row_each_and_their_means() {
        let of = |main: [f64; 3]| {
            [
                result("ArguAna", "ndcg_at_10", &[("test", "default", main[0], 0.0)]),
                result("STS17", "cosine_spearman", &[("test", "de-en", main[1], 0.0), ("test", "en-en", main[2], 0.0)]),
            ]
        };
        let (a, b, mut c) = (of([0.5, 0.25, 0.5]), of([0.25, 0.5, 0.5]), of([0.75, 0.5, 0.5]).to_vec());
        c.push(result("SCIDOCS", "ndcg_at_10", &[("test", "default", 0.5, 0.0)]));
        let expected = "
                              a         b         c       - a       - b
ArguAna ndcg_at_10      0.5000    0.2500    0.7500*   +0.2500   +0.5000
STS17 cosine_spearman   0.3750    0.5000*   0.5000*   +0.1250   +0.0000
mean of 2 tasks         0.4375    0.3750    0.6250*   +0.1875   +0.2500
mean of Retrieval (1)   0.5000    0.2500    0.7500*   +0.2500   +0.5000
mean of STS (1)         0.3750    0.5000*   0.5000*   +0.1250   +0.0000
mean of 2 types         0.4375    0.3750    0.6250*   +0.1875   +0.2500
main scores, each the mean over its task's subsets; * best of its row; columns with -: c minus the other
not all have: SCIDOCS
no intervals: results in mteb's form have no values of single queries
";
        assert_eq!(text(&[("a", &a), ("b", &b), ("c", &c)]), expected);
    }

    #[test]
    fn one_task_has_a_row_a_subset() {
        let a = [result("STS17", "cosine_spearman", &[("test", "de-en", 0.25, 0.0), ("test", "en-en", 0.5, 0.0)])];
        let rows = [("test", "en-en", 0.75, 0.0), ("test", "de-en", 0.5, 0.0), ("test", "ar-ar", 0.5, 0.0)];
        let mut b = [result("STS17", "cosine_spearman", &rows)];
        b[0].dataset_revision = "abd".to_owned();
        let expected = "
              longer name         b  - longer name
de-en (test)      0.2500    0.5000*        +0.2500
en-en (test)      0.5000    0.7500*        +0.2500
mean of 2         0.3750    0.6250*        +0.2500
STS17, cosine_spearman; * best of its row; columns with -: b minus the other
STS17: over the 2 of 3 subsets that all have
STS17: measured on different revisions of the data
no intervals: results in mteb's form have no values of single queries
";
        assert_eq!(text(&[("longer name", &a), ("b", &b)]), expected);
        let other = [result("ArguAna", "ndcg_at_10", &[("test", "default", 0.5, 0.0)])];
        let message =
            "a was measured on STS17, b was measured on ArguAna: that is no task, or no subset of one, that all have";
        assert_eq!(text(&[("a", &a), ("b", &other)]), message);
    }
}
