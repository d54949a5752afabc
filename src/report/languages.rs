//! Figures by language: a heat map of all pairs, and bars for those of one pool.

use super::html::escaped;
use super::input::Run;
use super::{Benchmark, swatch};
use crate::eval::report::ByLanguage;
use crate::eval::{EvalReport, FigureKey};
use std::collections::BTreeMap;

type Matrix = BTreeMap<String, ByLanguage>;

/// For each measure a heat map of query languages (rows) and passage languages (columns) of every run, in the same colours;
/// with that before training, where there is one run.
pub(super) fn heat_maps(benchmark: &Benchmark, runs: &[Run]) -> String {
    let mut html = String::new();
    let mut measures: Vec<FigureKey> = Vec::new();
    for key in benchmark.keys() {
        if !measures.iter().any(|known| known.measure() == key.measure()) {
            measures.push(key);
        }
    }
    for key in measures {
        let maps: Vec<(String, &EvalReport, &Matrix)> =
            titled(benchmark, runs).filter_map(|(title, report)| Some((title, report, matrix(report, key)?))).collect();
        if maps.is_empty() {
            continue;
        }
        let unit = if key.metric.is_share { " × 100" } else { "" };
        html += &format!(
            "<h3>{}{unit} by query language (rows) and passage language</h3>\n",
            escaped(&key.measure_title())
        );
        let range = range(maps.iter().flat_map(|(_, _, map)| map.values().flat_map(ByLanguage::values)).copied());
        html += "<div class=maps>\n";
        for (title, report, map) in maps {
            let columns = &report.languages;
            let rows: Vec<&str> = columns.iter().filter(|code| map.contains_key(*code)).map(String::as_str).collect();
            let cell = |query: &str, passage: usize| map.get(query)?.get(&columns[passage]).copied();
            html += &heat_map(&HeatMap { title: &title, rows: &rows, columns, range }, cell, |x| shown(key, x));
        }
        html += "</div>\n";
    }
    html
}

/// The reports to show beside one another, with their titles: that before training first, if it is one for all.
fn titled<'a>(benchmark: &'a Benchmark, runs: &'a [Run]) -> impl Iterator<Item = (String, &'a EvalReport)> {
    let before = benchmark.before().map(|report| ("<span class=s></span>before".to_owned(), report));
    let is_alone = benchmark.reports.len() == 1 && before.is_some();
    let after = benchmark.reports.iter().map(move |(i, pair)| {
        let name = if is_alone { "after" } else { &runs[*i].name };
        (format!("{}{}", swatch(*i, runs), escaped(name)), pair.after)
    });
    before.into_iter().chain(after)
}

fn matrix(report: &EvalReport, key: FigureKey) -> Option<&Matrix> {
    report.by_direction.get(&key.measure())
}

/// From 0, or below it, to the largest.
pub(super) fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((0.0, f64::MIN_POSITIVE), |(low, high): (f64, f64), x| (low.min(x), high.max(x)))
}

/// A map of values by two languages.
pub(super) struct HeatMap<'a> {
    /// HTML that stands above it.
    pub title: &'a str,
    pub rows: &'a [&'a str],
    pub columns: &'a [String],
    /// The values that have no heat, and all of it.
    pub range: (f64, f64),
}

/// The map as a table, with the values of row and number of column, as they are `shown`.
pub(super) fn heat_map(
    map: &HeatMap,
    cell: impl Fn(&str, usize) -> Option<f64>,
    shown: impl Fn(f64) -> String,
) -> String {
    let HeatMap { title, rows, columns, range: (low, high) } = map;
    let mut html = format!("<div class=scroll><table class=heat><caption>{title}</caption>\n<tr><td>");
    html.extend(columns.iter().map(|code| format!("<th>{}", escaped(code))));
    for row in *rows {
        html += &format!("\n<tr><th>{}", escaped(row));
        for (number, column) in columns.iter().enumerate() {
            html += &match cell(row, number) {
                Some(value) => {
                    let heat = (100.0 * ((value - low) / (high - low))).round();
                    let diagonal = if row == column { " class=d" } else { "" };
                    format!("<td{diagonal} style=--h:{heat}>{}", shown(value))
                }
                None => "<td>".to_owned(),
            };
        }
    }
    html + "\n</table></div>\n"
}

/// Shares in percent, for what has to be narrow.
fn shown(key: FigureKey, value: f64) -> String {
    if key.metric.is_share { format!("{:.1}", 100.0 * value) } else { key.shown(Some(value)) }
}

/// For each figure that ranks one pool, bars by query language.
pub(super) fn bars(benchmark: &Benchmark, runs: &[Run]) -> String {
    let mut html = String::new();
    for key in benchmark.keys() {
        let name = key.to_string();
        let has = |report: &EvalReport| report.by_query_language.contains_key(&name);
        if benchmark.reports.iter().any(|(_, pair)| has(pair.after)) {
            html += &bars_of(benchmark, key);
        }
    }
    if html.is_empty() {
        return html;
    }
    let legend: String = titled(benchmark, runs).map(|(title, _)| format!("<span>{title}</span>")).collect();
    format!("<h3>By query language</h3>\n<p class=legend>{legend}</p>\n<div class=charts>\n{html}</div>\n")
}

fn bars_of(benchmark: &Benchmark, key: FigureKey) -> String {
    let name = key.to_string();
    let before = benchmark.before().map(|report| ("s".to_owned(), report));
    let after = benchmark.reports.iter().map(|(i, pair)| (super::class(*i), pair.after));
    let all: Vec<(String, &ByLanguage)> = (before.into_iter().chain(after))
        .filter_map(|(class, report)| Some((class, report.by_query_language.get(&name)?)))
        .collect();
    let (_, high) = range(all.iter().flat_map(|(_, values)| values.values()).copied());
    let mut languages: Vec<&String> = Vec::new();
    for code in all.iter().flat_map(|(_, values)| values.keys()) {
        if !languages.contains(&code) {
            languages.push(code);
        }
    }
    let mut html = format!("<figure class=bars><figcaption>{}", escaped(&key.title()));
    if key.metric.lower_is_better {
        html += " <small>lower is better</small>";
    }
    html += "</figcaption>\n<div class=scroll><table>\n";
    for code in languages {
        html += &format!("<tr><th>{}<td class=w>", escaped(code));
        let values = || all.iter().map(|(class, values)| (class, values.get(code)));
        for (class, value) in values() {
            let width = value.map_or(0.0, |value| (1000.0 * (value.max(0.0) / high)).round() / 10.0);
            html += &format!("<i class=\"{class}\" style=width:{width}%></i>");
        }
        html += "<td class=n>";
        html.extend(values().map(|(_, value)| format!("<span>{}</span>", key.shown(value.copied()))));
        html.push('\n');
    }
    html + "</table></div></figure>\n"
}
