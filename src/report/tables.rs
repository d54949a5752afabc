//! Tables: what the runs are, their figures side by side, and the settings in which they differ.

use super::html::{Cell, escaped, table};
use super::input::Run;
use super::{Benchmark, Pair, swatch};
use crate::eval::mteb::scores::{TaskScores, means};
use crate::eval::{EvalReport, FigureKey};

/// Steps behind the loss that a run is said to have ended with.
const LAST: usize = 20;

/// Tasks beyond which they are only counted.
const MOST_NAMES: usize = 3;

/// A row a run: what it is, how far it came, and its main figure.
pub(super) fn overview(runs: &[Run]) -> String {
    let has_training = runs.iter().any(|run| !run.curve("loss").is_empty());
    let has_before = runs.iter().any(|run| run.before.is_some());
    let mut headings = vec![text("run"), text("main figure")];
    if has_before {
        headings.extend([number("before"), number("after"), number("change")]);
    } else {
        headings.push(number("value"));
    }
    headings.push(text("evaluated on"));
    if has_training {
        headings.extend([number("loss at the end"), number("steps")]);
    }
    headings.push(text("model"));
    let row = |(i, run): (usize, &Run)| {
        let mut cells = vec![Cell::Html(format!("<td>{}{}", swatch(i, runs), escaped(&run.name)))];
        cells.extend(main_figure(run, has_before));
        cells.push(text(&evaluated_on(run)));
        if has_training {
            cells.extend([number(&last_loss(run)), number(&steps_of(run))]);
        }
        cells.push(text(&model_of(run)));
        cells
    };
    table(&headings, &runs.iter().enumerate().map(row).collect::<Vec<_>>())
}

fn text(text: &str) -> Cell {
    Cell::Text(text.to_owned())
}

fn number(text: &str) -> Cell {
    Cell::Number(text.to_owned())
}

/// The model that a run began with, or that was evaluated.
fn model_of(run: &Run) -> String {
    let of_report = run.before.as_ref().or(run.after.as_ref()).map(|report| report.model.clone());
    of_report.or_else(|| run.model.clone()).unwrap_or_else(|| "-".to_owned())
}

fn evaluated_on(run: &Run) -> String {
    let deciding = (run.evaluation.as_deref(), &run.before, &run.after);
    let others = run.others.iter().map(|of| (Some(of.name.as_str()), &of.before, &of.after));
    let shown = std::iter::once(deciding).chain(others).filter_map(|(name, before, after)| {
        let EvalReport { task, split, .. } = after.as_ref().or(before.as_ref())?;
        Some(format!("{}, {split}", name.unwrap_or(task)))
    });
    let mut shown: Vec<String> = shown.collect();
    match run.results.len() {
        n @ 0..=MOST_NAMES => shown.extend(run.results[..n].iter().map(|result| result.task_name.clone())),
        n => shown.push(format!("{n} tasks")),
    }
    if shown.is_empty() { "-".to_owned() } else { shown.join("; ") }
}

fn steps_of(run: &Run) -> String {
    run.curve("loss").last().map_or("-".to_owned(), |(step, _)| step.to_string())
}

/// The mean over the last steps, as their batches differ.
fn last_loss(run: &Run) -> String {
    let losses = run.curve("loss");
    let last = &losses[losses.len().saturating_sub(LAST)..];
    let mean = last.iter().map(|(_, loss)| loss).sum::<f64>() / last.len() as f64;
    if last.is_empty() { "-".to_owned() } else { format!("{mean:.4}") }
}

fn main_figure(run: &Run, has_before: bool) -> Vec<Cell> {
    if run.after.is_none() && run.before.is_none() && !run.results.is_empty() {
        return score(run, has_before);
    }
    let main = run.after.as_ref().or(run.before.as_ref()).map(|report| report.main);
    let title = text(&main.map_or("-".to_owned(), |key| key.title()));
    let value = |report: &Option<EvalReport>| main.and_then(|key| report.as_ref()?.value(key));
    let (before, after) = (value(&run.before), value(&run.after));
    let shown = |value: Option<f64>| number(&main.map_or("-".to_owned(), |key| key.shown(value)));
    let change = number(&main.map_or("-".to_owned(), |key| key.change(before.zip(after).map(|(b, a)| a - b))));
    match has_before {
        true => vec![title, shown(before), shown(after), change],
        false => vec![title, shown(after)],
    }
}

/// The main score of a run's only task, or the mean over its tasks.
fn score(run: &Run, has_before: bool) -> Vec<Cell> {
    let tasks = TaskScores::of(&[&run.results]);
    let (title, value) = match (&tasks[..], &means(&tasks)[..]) {
        ([task], _) => (task.main_score.to_owned(), task.score(0)),
        (_, [mean, ..]) => (mean.title.clone(), mean.values.first().copied()),
        _ => ("-".to_owned(), None),
    };
    let shown = number(&value.map_or("-".to_owned(), |x| format!("{x:.4}")));
    match has_before {
        true => vec![text(&title), number("-"), shown, number("-")],
        false => vec![text(&title), shown],
    }
}

/// A row a figure, before training where there is such a report, and after it, each run in its column.
pub(super) fn figures(benchmark: &Benchmark, runs: &[Run]) -> String {
    let of = &benchmark.reports;
    let is_alone = of.len() == 1;
    let before = benchmark.before();
    let mut headings = vec![text("figure")];
    headings.extend(before.map(|_| number("before")));
    for (i, _) in of {
        let name = if is_alone && before.is_some() { "after" } else { &runs[*i].name };
        headings.push(Cell::Html(format!("<td class=n>{}{}", swatch(*i, runs), escaped(name))));
    }
    headings.extend((is_alone && before.is_some()).then(|| number("change")));
    let row = |&key: &FigureKey| {
        let note = if key.metric.lower_is_better { " <small>lower is better</small>" } else { "" };
        let mut cells = vec![Cell::Html(format!("<td>{}{note}", escaped(&key.title())))];
        cells.extend(before.map(|report| number(&key.shown(report.value(key)))));
        let changed = |after: Option<f64>, (_, pair): &(usize, Pair)| {
            let before = before.or(pair.before).and_then(|report| report.value(key));
            key.change(after.zip(before).map(|(after, before)| after - before))
        };
        for pair in of {
            let value = pair.1.after.value(key);
            let shown = key.shown(value);
            let best = if is_alone || !benchmark.is_best(key, value) { shown } else { format!("<b>{shown}</b>") };
            let has_change = !is_alone && (before.is_some() || pair.1.before.is_some());
            let change = if has_change { format!("<small>{}</small>", changed(value, pair)) } else { String::new() };
            cells.push(Cell::Html(format!("<td class=n>{best}{change}")));
        }
        if is_alone && before.is_some() {
            cells.push(number(&changed(of[0].1.after.value(key), &of[0])));
        }
        cells
    };
    table(&headings, &benchmark.keys().iter().map(row).collect::<Vec<_>>())
}

/// Keys of the configurations: all of one run, of several those in which they differ; and the same of what results were made
/// with.
pub(super) fn settings(runs: &[Run]) -> String {
    let of_runs =
        settings_of(runs, |run| &run.settings, "All settings of the run", "Settings in which the runs differ");
    let differ = "Settings in which the evaluations differ";
    of_runs + &settings_of(runs, |run| &run.made_with, "Settings of the evaluation", differ)
}

fn settings_of(runs: &[Run], of: fn(&Run) -> &Vec<(String, String)>, of_one: &str, of_several: &str) -> String {
    let runs: Vec<&Run> = runs.iter().filter(|run| !of(run).is_empty()).collect();
    let mut keys: Vec<&str> = Vec::new();
    for (key, _) in runs.iter().flat_map(|run| of(run)) {
        if !keys.contains(&key.as_str()) {
            keys.push(key);
        }
    }
    let value = |run: &Run, key: &str| {
        of(run).iter().find(|(known, _)| known == key).map_or("-".to_owned(), |(_, value)| value.clone())
    };
    let differs = |key: &&str| runs.iter().any(|run| value(run, key) != value(runs[0], key));
    if runs.len() > 1 {
        keys.retain(|key| *key != "out" && differs(key));
    }
    if keys.is_empty() {
        return String::new();
    }
    let headings: Vec<Cell> = [text("key")].into_iter().chain(runs.iter().map(|run| text(&run.name))).collect();
    let row = |key: &&str| {
        let values = runs.iter().map(|run| Cell::Html(format!("<td><code>{}</code>", escaped(&value(run, key)))));
        [Cell::Html(format!("<td><code>{}</code>", escaped(key)))].into_iter().chain(values).collect()
    };
    let rows: Vec<Vec<Cell>> = keys.iter().map(row).collect();
    match runs.len() {
        1 => format!("<details><summary>{of_one}</summary>\n{}</details>\n", table(&headings, &rows)),
        _ => format!("<h2>{of_several}</h2>\n{}", table(&headings, &rows)),
    }
}
