//! `hbt compare RUN RUN...`: runs and results that are there.

use hbt::config::Config;
use hbt::eval::EvalReport;
use hbt::eval::compare::Comparison;
use hbt::eval::mteb::compare::TaskComparison;
use hbt::report::{Run, read};
use hbt::{Error, Result};
use std::path::PathBuf;

/// Prints the comparison of runs and results, the last of which is held against the others.
pub fn compare_runs(paths: &[PathBuf]) -> Result<()> {
    let runs = read(paths)?;
    if let ([_] | [], Some(path)) = (&runs[..], paths.first()) {
        let message = format!("{} alone cannot be compared; name another run or result, too", path.display());
        return Err(Error::usage(message));
    }
    let has_results = |run: &Run| !run.results.is_empty();
    if !runs.iter().any(has_results) {
        return crate::print(&of_reports(&runs)?);
    }
    // What one lacks, none is compared by.
    let has_both = runs.iter().all(|run| run.after.is_some());
    let mut texts = Vec::new();
    if has_both {
        texts.push(of_reports(&runs)?);
    }
    if runs.iter().all(has_results) {
        let rows = runs.iter().map(|run| (run.name.clone(), run.results.clone())).collect();
        texts.push(TaskComparison::new(rows)?.to_string());
    }
    if texts.is_empty() { Err(of_two_kinds(&runs)) } else { crate::print(&texts.join("\n")) }
}

/// Results on tasks of hbt's beside results of mteb's form.
fn of_two_kinds(runs: &[Run]) -> Error {
    let shown = |run: &Run| match (&run.after, run.results.first()) {
        (_, Some(result)) => format!("{} has a result of mteb's form ({})", run.name, result.task_name),
        (Some(report), None) => format!("{} has a report on {}", run.name, report.task),
        (None, None) => format!("{} has no result", run.name),
    };
    let shown: Vec<String> = runs.iter().map(shown).collect();
    Error::other(format!("{}: evaluate all on the same task", shown.join(", ")))
}

/// The comparison by reports: by the deciding evaluation of runs, and by each task that results in files have in common. A model
/// that all runs began with comes first.
fn of_reports(runs: &[Run]) -> Result<String> {
    let all = runs.iter().map(reports).collect::<Result<Vec<_>>>()?;
    let of_task = |task: &str| {
        let row = |(run, reports): (&Run, &Vec<EvalReport>)| {
            Some((run.name.clone(), reports.iter().find(|report| report.task == task)?.clone()))
        };
        runs.iter().zip(&all).map(row).collect::<Option<Vec<_>>>()
    };
    let mut tables: Vec<_> = all[0].iter().filter_map(|report| of_task(report.task)).collect();
    if tables.is_empty() {
        // Refused, with what each was measured on.
        tables.push(runs.iter().zip(&all).map(|(run, reports)| (run.name.clone(), reports[0].clone())).collect());
    }
    let is_one = tables.len() == 1;
    let is_common = |before: &&EvalReport| runs.iter().all(|run| run.before.as_ref() == Some(before));
    let before = runs[0].before.as_ref().filter(is_common);
    let mut texts = Vec::new();
    for rows in tables {
        let task = rows[0].1.task;
        let before = before.filter(|before| before.task == task).map(|before| ("before".to_owned(), before.clone()));
        let comparison = Comparison::new(before.into_iter().chain(rows).collect(), Config::default().seed)?;
        texts.push(if is_one { comparison.to_string() } else { format!("{task}\n{comparison}") });
    }
    Ok(texts.join("\n"))
}

/// The reports to compare a run by: that of its deciding evaluation, or all of a file.
fn reports(run: &Run) -> Result<Vec<EvalReport>> {
    let message = "has no report from after training: the run has not ended, or had no evaluation data";
    let report = run.after.clone().ok_or_else(|| Error::file(&run.path, message))?;
    let others = run.others.iter().filter(|_| run.evaluation.is_none()).filter_map(|of| of.after.clone());
    Ok(std::iter::once(report).chain(others).collect())
}
