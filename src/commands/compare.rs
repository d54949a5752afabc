//! `hbt compare`

use super::device::{require_device, settle_precision};
use super::eval::evaluate;
use super::evaluations::training_eval_sets;
use super::inputs::Inputs;
use super::model::model_dir;
use super::plan::{Planned, planned};
use super::report::leave_page;
use super::setup::{finish, warned};
use super::train::{holds_run, next_free, train_one};
use hbt::cli::CompareArgs;
use hbt::config::Config;
use hbt::data::sampler::BatchMode;
use hbt::eval::EvalReport;
use hbt::eval::compare::Comparison;
use hbt::eval::mteb::compare::TaskComparison;
use hbt::progress::say;
use hbt::report::{Run, read};
use hbt::train::checkpoint::RunDir;
use hbt::{Error, Result};
use std::path::{Path, PathBuf};

/// The paper's three kinds of batches; the one that the others are held against comes last.
const MODES: [BatchMode; 3] = [BatchMode::Monolingual, BatchMode::CrossLingual, BatchMode::Hybrid];

/// Compares runs that are there, or trains them.
pub fn run(mut args: CompareArgs) -> Result<()> {
    match args.runs()? {
        Some(runs) => compare_runs(&runs),
        None => train_and_compare(&args),
    }
}

/// Prints the comparison of runs and results, the last of which is held against the others.
fn compare_runs(paths: &[PathBuf]) -> Result<()> {
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
    let reports = if has_both { of_reports(&runs)? + "\n" } else { String::new() };
    if !runs.iter().all(has_results) {
        return if has_both { crate::print(&reports) } else { Err(of_two_kinds(&runs)) };
    }
    let rows = runs.into_iter().map(|run| (run.name, run.results)).collect();
    crate::print(&format!("{reports}{}", TaskComparison::new(rows)?))
}

/// Results on tasks of hbt's beside results of mteb's form.
fn of_two_kinds(runs: &[Run]) -> Error {
    let shown = |run: &Run| match (&run.after, run.results.first()) {
        (_, Some(result)) => format!("{} has a result of mteb's form ({})", run.name, result.task_name),
        (Some(report), None) => format!("{} a report on {}", run.name, report.task),
        (None, None) => format!("{} no result", run.name),
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

/// Trains once with each kind of batch, everything else being equal, and prints the paper's comparison.
fn train_and_compare(args: &CompareArgs) -> Result<()> {
    let draft = args.draft()?;
    if draft.is_given("mode") {
        return Err(Error::config("mode", "has no effect here: all three are compared; take it away"));
    }
    let out_is_given = draft.is_given("out");
    let config = finish(draft)?;
    require_device(&config)?;
    let mut config = warned(config);
    let sets = training_eval_sets(&config)?;
    if sets.is_empty() && config.held_out_share().is_none() {
        return Err(Error::config(
            "eval_data",
            "is missing: a comparison needs an evaluation; name data to evaluate on, or set eval_fraction",
        ));
    }
    let is_taken = |out: &Path| MODES.iter().any(|mode| holds_run(&out.join(mode.to_string())));
    if is_taken(&config.out) {
        if out_is_given {
            let message = "holds runs already; remove them, or choose another directory with --out";
            return Err(Error::file(&config.out, message));
        }
        config.out = next_free(&config.out, is_taken);
    }
    let inputs = Inputs::of(&config, args.run.input.config.config.as_deref());
    for mode in MODES {
        // Found out now, not when the first two have been trained.
        let run_dir = RunDir::new(&config.out.join(mode.to_string()));
        run_dir.refuse_foreign(false)?;
        inputs.refuse_run(&run_dir)?;
    }
    let config = settle_precision(config);
    // What the plan decides is the same for all three.
    let dir = model_dir(&config)?;
    let Planned { config, eval_sets, .. } = planned(config, &dir, sets.clone())?;
    let deciding = &eval_sets.first().expect("there is one, or it is held out").set;
    // As training evaluates: with the length that the saved models have.
    let longest = config.text_kinds(&dir)?.map(|kind| kind.max_len).into_iter().max();
    let as_saved = Config { query_max_len: longest, passage_max_len: longest, ..config.clone() };
    let before = evaluate(&as_saved, deciding, config.best_figure())?;
    // As a run makes it, of which the state says the rest.
    let before = EvalReport { hbt: None, ..before };
    let mut rows = vec![("before".to_owned(), before.clone())];
    for mode in MODES {
        say(&format!("\n{mode}"));
        let config = Config { mode, out: config.out.join(mode.to_string()), ..config.clone() };
        let outcome = train_one(&config, RunDir::new(&config.out), sets.clone(), Some(before.clone()))?;
        let (_, report) = outcome.state.latest.expect("a run with an evaluation set ends with a report");
        rows.push((mode.to_string(), report));
    }
    leave_page(&MODES.map(|mode| config.out.join(mode.to_string())), &config.out);
    crate::print(&format!("\n{}", Comparison::new(rows, config.seed)?))
}
