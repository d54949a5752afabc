//! Reports as text: a line a figure, and a matrix of languages for each metric; one report, or two side by side.

use super::figures::FigureKey;
use super::report::{ByLanguage, EvalReport};
use std::collections::BTreeMap;
use std::fmt;

/// Terminal columns that a table may take.
const WIDTH: usize = 100;
/// Columns of a figure's title at least.
const TITLE: usize = 18;
/// Columns of one value in a matrix at least: "100" to "99.9" and one space.
const CELL: usize = 5;
/// Between two blocks that stand side by side.
const GAP: &str = "   ";

impl fmt::Display for EvalReport {
    /// The figures, then the matrices of directions with more columns for the pool of all languages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.heading())?;
        let width = self.title_width();
        for figure in &self.figures {
            let key = figure.key;
            writeln!(f, "{:<width$}{:>8}{}", key.title(), key.shown(figure.value), note(key))?;
        }
        if let Some(counts) = self.counts() {
            writeln!(f, "{counts}")?;
        }
        for matrix in self.matrices() {
            writeln!(f, "\n{}", matrix.title(true))?;
            f.write_str(&matrix.blocks(true).concat())?;
        }
        Ok(())
    }
}

/// What a line says of a figure of which less is better.
fn note(key: FigureKey) -> &'static str {
    if key.metric.lower_is_better { "  (lower is better)" } else { "" }
}

impl EvalReport {
    fn heading(&self) -> String {
        let n = self.languages.len();
        let languages = if n == 1 { "language" } else { "languages" };
        format!("{}: {}, split {}, {n} {languages}", self.model, self.task, self.split)
    }

    /// How many queries the directions have, if not all that the query language has.
    fn counts(&self) -> Option<String> {
        let cells = self.n_queries.iter().flat_map(|(query, row)| row.iter().map(move |(to, n)| (*n, query, to)));
        let differs = |row: &BTreeMap<String, u64>| row.values().min() != row.values().max();
        self.n_queries.values().any(differs).then_some(())?;
        let (few, many) = (cells.clone().min()?, cells.max()?);
        let shown = |(n, query, to): (u64, &String, &String)| format!("{n} ({query}-{to})");
        Some(format!("queries with an answer in the passages' language: {} to {}", shown(few), shown(many)))
    }

    fn title_width(&self) -> usize {
        self.figures.iter().map(|figure| figure.key.title().len() + 1).fold(TITLE, usize::max)
    }

    /// The details: a matrix for each metric that there are directions of, with the columns of that metric. Other columns
    /// stand beside the first, or alone.
    fn matrices(&self) -> Vec<Matrix<'_>> {
        let mut matrices: Vec<Matrix> = Vec::new();
        let mut others = Vec::new();
        let has_matrix = |matrices: &[Matrix], key: FigureKey| matrices.iter().any(|matrix| matrix.is_of(key));
        for key in self.figures.iter().map(|figure| figure.key) {
            if let Some(cells) = self.by_direction.get(&key.measure()).filter(|_| !has_matrix(&matrices, key)) {
                matrices.push(Matrix { report: self, of: Some((key, cells)), columns: Vec::new() });
            }
        }
        for key in self.figures.iter().map(|figure| figure.key) {
            let Some(values) = self.by_query_language.get(&key.to_string()) else { continue };
            match matrices.iter_mut().find(|matrix| matrix.is_of(key)) {
                Some(matrix) => matrix.columns.push((key, values)),
                None => others.push((key, values)),
            }
        }
        match matrices.first_mut() {
            Some(first) => first.columns.append(&mut others),
            None if others.is_empty() => {}
            None => matrices.push(Matrix { report: self, of: None, columns: others }),
        }
        matrices
    }
}

/// What a report says by query language: a metric for each passage language, and figures for which all are one pool.
struct Matrix<'a> {
    report: &'a EvalReport,
    /// A figure of the metric, and its values by query language and passage language.
    of: Option<(FigureKey, &'a BTreeMap<String, ByLanguage>)>,
    columns: Vec<(FigureKey, &'a ByLanguage)>,
}

impl Matrix<'_> {
    fn is_of(&self, key: FigureKey) -> bool {
        self.of.is_some_and(|(of, _)| of.measure() == key.measure())
    }

    /// What stands above it; `with_pool` if its columns do, too.
    fn title(&self, with_pool: bool) -> String {
        let Some((key, _)) = self.of else { return "by query language".to_owned() };
        let unit = if key.metric.is_share { " x 100" } else { "" };
        let has_pool = with_pool && self.columns.iter().any(|(key, _)| self.is_of(*key));
        let pool = if has_pool { "; pool = all languages" } else { "" };
        format!("{}{unit} by query language (rows) and passage language (columns){pool}", key.measure_title())
    }

    /// As many passage languages as fit a terminal in each. `with_pool` appends the columns.
    fn blocks(&self, with_pool: bool) -> Vec<String> {
        let languages = &self.report.languages;
        let label = languages.iter().map(String::len).max().unwrap_or(0);
        let Some((key, cells)) = self.of else { return vec![self.block(&[], label, 0, true)] };
        let cells = cells.values().flat_map(ByLanguage::values);
        let longest = cells.map(|&value| self.cell(key, Some(value)).len()).max().unwrap_or(0);
        let cell = CELL.max(label + 1).max(longest + 1);
        let columns: usize = self.columns.iter().map(|(key, _)| column_width(&self.heading(*key))).sum();
        let per_block = (WIDTH.saturating_sub(label + columns) / cell).max(1);
        let blocks = languages.chunks(per_block);
        blocks.map(|of| self.block(of, label, cell, with_pool && of.last() == languages.last())).collect()
    }

    fn block(&self, passages: &[String], label: usize, cell: usize, with_columns: bool) -> String {
        let columns = if with_columns { &self.columns[..] } else { &[] };
        let mut out = " ".repeat(label);
        passages.iter().for_each(|code| out += &format!("{code:>cell$}"));
        for (key, _) in columns {
            let heading = self.heading(*key);
            out += &format!("{heading:>width$}", width = column_width(&heading));
        }
        out.push('\n');
        for query in self.report.languages.iter().filter(|query| self.has_row(query)) {
            out += &format!("{query:<label$}");
            for passage in passages {
                let (key, cells) = self.of.expect("passage languages are those of a matrix");
                out += &format!("{:>cell$}", self.cell(key, cells[query].get(passage).copied()));
            }
            for (key, values) in columns {
                let width = column_width(&self.heading(*key));
                out += &format!("{:>width$}", self.cell(*key, values.get(query).copied()));
            }
            out.push('\n');
        }
        out
    }

    fn has_row(&self, query: &str) -> bool {
        match self.of {
            Some((_, cells)) => cells.contains_key(query),
            None => self.columns.iter().any(|(_, values)| values.contains_key(query)),
        }
    }

    /// What stands above a column.
    fn heading(&self, key: FigureKey) -> String {
        if self.is_of(key) { "pool".to_owned() } else { key.column() }
    }

    /// A value: shares in percent, at most four characters wide, where there is a matrix of many.
    fn cell(&self, key: FigureKey, value: Option<f64>) -> String {
        match value {
            Some(x) if key.metric.is_share && self.of.is_some() => {
                if x >= 0.9995 {
                    "100".to_owned()
                } else {
                    format!("{:.1}", 100.0 * x)
                }
            }
            value => key.shown(value),
        }
    }
}

fn column_width(heading: &str) -> usize {
    (heading.len() + 2).max(7)
}

/// Two reports on the same benchmark, to see what training changed.
pub struct SideBySide<'a> {
    /// The model before training.
    pub before: &'a EvalReport,
    /// The model after it.
    pub after: &'a EvalReport,
}

impl fmt::Display for SideBySide<'_> {
    /// Figures in columns with their change, then the matrices, next to one another where they fit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.after.title_width();
        writeln!(f, "{:<width$}{:>9}{:>10}{:>10}", "", "before", "after", "change")?;
        for figure in &self.after.figures {
            let (key, before, after) = (figure.key, self.before.value(figure.key), figure.value);
            let change = key.change(after.zip(before).map(|(a, b)| a - b));
            let (before, after) = (key.shown(before), key.shown(after));
            writeln!(f, "{:<width$}{before:>9}{after:>10}{change:>10}{}", key.title(), note(key))?;
        }
        for (before, after) in self.before.matrices().iter().zip(self.after.matrices()) {
            writeln!(f, "\n{}", after.title(false))?;
            let (before, after) = (before.blocks(false), after.blocks(false));
            f.write_str(&match (before.as_slice(), after.as_slice()) {
                ([before], [after]) if width_of(before) + GAP.len() + width_of(after) <= WIDTH => {
                    beside(&format!("before\n{before}"), &format!("after\n{after}"))
                }
                _ => format!("before\n{}after\n{}", before.concat(), after.concat()),
            })?;
        }
        Ok(())
    }
}

/// Longest line in characters.
fn width_of(block: &str) -> usize {
    block.lines().map(|line| line.chars().count()).max().unwrap_or(0)
}

/// Two blocks of lines as one.
fn beside(left: &str, right: &str) -> String {
    let width = width_of(left);
    let (n_left, n_right) = (left.lines().count(), right.lines().count());
    let line = |i: usize| {
        let (left, right) = (left.lines().nth(i).unwrap_or(""), right.lines().nth(i).unwrap_or(""));
        format!("{}\n", format!("{left:<width$}{GAP}{right}").trim_end())
    };
    (0..n_left.max(n_right)).map(line).collect()
}
