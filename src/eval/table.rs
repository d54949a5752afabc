//! Reports as text: three headline lines, the rank distance, and a matrix of languages; one report, or two side by side.

use super::report::{EvalReport, Metric};
use std::fmt;

/// Terminal columns that a table may take.
const WIDTH: usize = 100;
/// Columns of one mAP in a matrix: "100" to "99.9" and at least one space.
const CELL: usize = 5;
/// Between two blocks that stand side by side.
const GAP: &str = "   ";

/// What a headline calls a metric.
pub(super) fn title(metric: Metric) -> &'static str {
    match metric {
        Metric::MonolingualMap => "monolingual mAP",
        Metric::CrossLingualMap => "cross-lingual mAP",
        Metric::MultilingualMap => "multilingual mAP",
        Metric::RankDistance => "rank distance",
    }
}

/// A value as a headline prints it: four decimals of an mAP, one of a rank distance, a dash for what is missing.
pub(super) fn headline(metric: Metric, value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |x| format!("{x:.*}", decimals(metric)))
}

/// The same for a difference, which always has a sign.
pub(super) fn change(metric: Metric, value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |x| format!("{x:+.*}", decimals(metric)))
}

fn decimals(metric: Metric) -> usize {
    if metric == Metric::RankDistance { 1 } else { 4 }
}

impl fmt::Display for EvalReport {
    /// Headline, then the matrix of directions with two more columns for the pool of all languages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.heading())?;
        for &metric in Metric::ALL {
            let note = if metric.lower_is_better() { "  (lower is better)" } else { "" };
            writeln!(f, "{:<18}{:>8}{note}", title(metric), headline(metric, self.metric(metric)))?;
        }
        writeln!(f, "\nmAP x 100 by query language (rows) and passage language (columns); pool = all languages")?;
        for block in self.matrix(true) {
            write!(f, "{block}")?;
        }
        Ok(())
    }
}

impl EvalReport {
    fn heading(&self) -> String {
        let n = self.languages.len();
        let languages = if n == 1 { "language" } else { "languages" };
        format!("{}: {}, split {}, {n} {languages}", self.model, self.task, self.split)
    }

    /// The matrix, cut into blocks of columns that fit a terminal. `with_pool` appends each query language's
    /// multilingual mAP and rank distance.
    fn matrix(&self, with_pool: bool) -> Vec<String> {
        let label = self.languages.iter().map(String::len).max().unwrap_or(0);
        let cell = CELL.max(label + 1);
        let per_block = ((WIDTH - label - 18) / cell).max(1);
        let mut blocks: Vec<String> = Vec::new();
        for columns in self.languages.chunks(per_block) {
            let pool = with_pool && columns.last() == self.languages.last();
            blocks.push(self.matrix_block(columns, label, cell, pool));
        }
        blocks
    }

    fn matrix_block(&self, columns: &[String], label: usize, cell: usize, pool: bool) -> String {
        let mut out = " ".repeat(label);
        columns.iter().for_each(|code| out += &format!("{code:>cell$}"));
        out += if pool { "   pool  rank dist\n" } else { "\n" };
        for query in self.languages.iter().filter(|q| self.by_direction.contains_key(*q)) {
            out += &format!("{query:<label$}");
            for passage in columns {
                out += &format!("{:>cell$}", percent(self.by_direction[query].get(passage).copied()));
            }
            if pool {
                let score = self.by_query_language.get(query);
                let distance = headline(Metric::RankDistance, score.and_then(|s| s.rank_distance));
                out += &format!("{:>7}{distance:>11}", percent(score.map(|s| s.multilingual_map)));
            }
            out.push('\n');
        }
        out
    }
}

/// mAP in percent, at most four characters wide.
fn percent(map: Option<f64>) -> String {
    match map {
        None => "-".to_owned(),
        Some(x) if x >= 0.9995 => "100".to_owned(),
        Some(x) => format!("{:.1}", 100.0 * x),
    }
}

/// Two reports on the same benchmark, to see what training changed.
pub struct SideBySide<'a> {
    /// The model before training.
    pub before: &'a EvalReport,
    /// The model after it.
    pub after: &'a EvalReport,
}

impl fmt::Display for SideBySide<'_> {
    /// Headlines in columns with their change, then the two matrices, next to one another where they fit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<18}{:>9}{:>10}{:>10}", "", "before", "after", "change")?;
        for &metric in Metric::ALL {
            let (before, after) = (self.before.metric(metric), self.after.metric(metric));
            let change = change(metric, after.zip(before).map(|(a, b)| a - b));
            let (before, after) = (headline(metric, before), headline(metric, after));
            let note = if metric.lower_is_better() { "  (lower is better)" } else { "" };
            writeln!(f, "{:<18}{before:>9}{after:>10}{change:>10}{note}", title(metric))?;
        }
        writeln!(f, "\nmAP x 100 by query language (rows) and passage language (columns)")?;
        let (before, after) = (self.before.matrix(false), self.after.matrix(false));
        match (before.as_slice(), after.as_slice()) {
            ([before], [after]) if width(before) + GAP.len() + width(after) <= WIDTH => {
                f.write_str(&beside(&format!("before\n{before}"), &format!("after\n{after}")))
            }
            _ => write!(f, "before\n{}after\n{}", before.concat(), after.concat()),
        }
    }
}

/// Longest line in characters.
fn width(block: &str) -> usize {
    block.lines().map(|line| line.chars().count()).max().unwrap_or(0)
}

/// Two blocks of lines as one.
fn beside(left: &str, right: &str) -> String {
    let width = width(left);
    let (n_left, n_right) = (left.lines().count(), right.lines().count());
    let line = |i: usize| {
        let (left, right) = (left.lines().nth(i).unwrap_or(""), right.lines().nth(i).unwrap_or(""));
        format!("{}\n", format!("{left:<width$}{GAP}{right}").trim_end())
    };
    (0..n_left.max(n_right)).map(line).collect()
}
