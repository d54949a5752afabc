//! Tasks and their results as text.

use super::planned::{Part, Planned};
use hbt::eval::mteb::files::TaskResult;
use hbt::eval::mteb::table::{self, Size, TaskRow};
use hbt::eval::tasks::{TASKS, retrieval};
use std::fmt::Write;

/// Subsets beyond which a table shows the mean alone; the files have all.
const MOST_ROWS: usize = 60;

/// How messages call a subset in a split.
pub fn part(part: &Part) -> String {
    format!("{} ({})", part.subset.name, part.split)
}

/// The result of a task: a row a subset, and the mean.
pub fn table(task: &Planned, result: &TaskResult) -> String {
    let mut columns = vec![task.main_score.as_str()];
    let first = result.scores().iter().flat_map(|(_, entries)| entries).next();
    columns.extend(first.into_iter().flat_map(|entry| entry.shown_beside(&task.main_score)));
    let column = columns.iter().map(|name| name.len()).fold(13, usize::max);
    let rows: Vec<(String, Vec<f64>)> = (result.scores().iter())
        .flat_map(|(split, entries)| entries.iter().map(move |entry| (split, entry)))
        .map(|(split, entry)| {
            let value = |name: &&str| entry.number(name).unwrap_or(f64::NAN);
            (format!("{} ({split})", entry.hf_subset), columns.iter().map(value).collect())
        })
        .collect();
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max("mean".len());
    let mut out = format!("{}\n{:width$}", task.name, "");
    columns.iter().for_each(|name| _ = write!(out, "  {name:>column$}"));
    let mut line = |name: &str, values: &[f64]| {
        let _ = write!(out, "\n{name:<width$}");
        values.iter().for_each(|x| _ = write!(out, "  {x:>column$.5}"));
    };
    let shown = if rows.len() > MOST_ROWS { &[] } else { &rows[..] };
    shown.iter().for_each(|(name, values)| line(name, values));
    if rows.len() > 1 {
        let mean = |column: usize| rows.iter().map(|(_, values)| values[column]).sum::<f64>() / rows.len() as f64;
        line("mean", &(0..columns.len()).map(mean).collect::<Vec<_>>());
    }
    out + "\n"
}

/// `--list`: a line a task.
pub fn list() -> String {
    let mut out = String::from("tasks of hbt, on a directory of yours (--data)\n");
    for task in TASKS {
        let what = match *task == &retrieval::TASK {
            true => "BEIR's, MIRACL's and the hub's layouts",
            false => "the paper's three settings",
        };
        let _ = writeln!(out, "  {:<44}{what}; main figure {}", task.name, task.main);
    }
    let _ = writeln!(out, "tasks of mteb {}", table::mteb_version());
    let _ = writeln!(
        out,
        "  {:<44}{:<22}{:>9}  {:<36}queries x documents, or pairs",
        "", "type", "languages", "main figure"
    );
    for row in table::tasks() {
        let _ = writeln!(
            out,
            "  {:<44}{:<22}{:>9}  {:<36}{}",
            row.name,
            row.kind.to_string(),
            n_languages(row),
            row.main_score,
            sizes(row)
        );
    }
    out += "benchmarks\n";
    for row in table::benchmarks() {
        let able = row.runnable().count();
        let _ = writeln!(out, "  {:<44}{able} of its {} tasks", row.name, row.members.len());
    }
    out
}

fn n_languages(row: &TaskRow) -> usize {
    let mut languages: Vec<&str> =
        row.subsets().iter().flat_map(|subset| &subset.languages).map(String::as_str).collect();
    languages.sort_unstable();
    languages.dedup();
    languages.len()
}

/// Of all splits, if they are of one size; else how many there are beside the first.
fn sizes(row: &TaskRow) -> String {
    let shown = |size: &Size| match size {
        Size::Total(_) if row.kind.has_queries() => format!("{size} in all"),
        _ => size.to_string(),
    };
    let sizes: Vec<String> = row.splits.iter().filter_map(|split| row.sizes.get(split)).map(shown).collect();
    match &sizes[..] {
        [] => String::new(),
        [one] => one.clone(),
        [first, others @ ..] => format!("{first} and {} more splits", others.len()),
    }
}
