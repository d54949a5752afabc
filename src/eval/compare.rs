//! Several models on one benchmark as one table, and whether their differences are more than chance.
//!
//! The gain of hybrid batches over the better of the other two is a few thousandths of mAP in the paper, and it was
//! published untested. So each difference comes with a paired bootstrap interval: the same questions are drawn with replacement
//! for both models, 1,000 times over. What is drawn is a *group*, the versions of one question in all languages,
//! because those are far from independent: drawing single queries would make the interval about sqrt(n) too narrow
//! for n languages.

use super::report::{EvalReport, Metric, QueryOutcome};
use super::table::{change, headline};
use crate::random::{GOLDEN, below, mix};
use crate::{Error, Result};
use std::collections::HashMap;
use std::fmt;

/// Resamples behind an interval.
const N_RESAMPLES: usize = 1000;

/// Difference of two models' multilingual mAP with its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Of the reports themselves.
    pub value: f64,
    /// 2.5th percentile of the resampled differences.
    pub low: f64,
    /// 97.5th percentile.
    pub high: f64,
}

/// Multilingual mAP of `a` minus that of `b`, by a paired bootstrap over parallel groups.
///
/// # Errors
/// Reports that were not made from the same queries in this process: one read from a file lacks its queries.
pub fn paired_bootstrap(a: &EvalReport, b: &EvalReport, seed: u64) -> Result<Difference> {
    let key = |q: &QueryOutcome| (q.lang, q.group);
    if a.per_query.is_empty() || !a.per_query.iter().map(key).eq(b.per_query.iter().map(key)) {
        return Err(Error::other(
            "only reports on the same queries, made in the same run, can be compared by resampling",
        ));
    }
    let rows = differences_by_group(a, b);
    let n_languages = a.languages.len();
    let value = macro_mean(n_languages, rows.iter());
    let mut state = seed;
    let mut draw = |n: usize| {
        state = state.wrapping_add(GOLDEN);
        below(mix(state), n as u64) as usize
    };
    let mut resampled: Vec<f64> =
        (0..N_RESAMPLES).map(|_| macro_mean(n_languages, (0..rows.len()).map(|_| &rows[draw(rows.len())]))).collect();
    resampled.sort_unstable_by(f64::total_cmp);
    let tail = N_RESAMPLES / 40;
    Ok(Difference { value, low: resampled[tail - 1], high: resampled[N_RESAMPLES - tail] })
}

/// For each group the languages it was asked in, and the difference in average precision there.
fn differences_by_group(a: &EvalReport, b: &EvalReport) -> Vec<Vec<(usize, f64)>> {
    let mut row_of = HashMap::new();
    let mut rows: Vec<Vec<(usize, f64)>> = Vec::new();
    for (a, b) in a.per_query.iter().zip(&b.per_query) {
        let row = *row_of.entry(a.group).or_insert(rows.len());
        if row == rows.len() {
            rows.push(Vec::new());
        }
        rows[row].push((usize::from(a.lang), a.average_precision - b.average_precision));
    }
    rows
}

/// Mean over the query languages of the mean over a language's queries. A language that no drawn group was asked in
/// does not count.
fn macro_mean<'a>(n_languages: usize, rows: impl Iterator<Item = &'a Vec<(usize, f64)>>) -> f64 {
    let mut sums = vec![(0.0, 0u64); n_languages];
    for &(lang, difference) in rows.flatten() {
        sums[lang].0 += difference;
        sums[lang].1 += 1;
    }
    let means: Vec<f64> = sums.into_iter().filter(|&(_, n)| n > 0).map(|(sum, n)| sum / n as f64).collect();
    means.iter().sum::<f64>() / means.len() as f64
}

/// The paper's comparison: one row a model, the last of which is held against each of the others.
#[derive(Clone, Debug)]
pub struct Comparison {
    rows: Vec<(String, EvalReport)>,
    /// Last row minus each other row, in row order.
    differences: Vec<Difference>,
}

impl Comparison {
    /// Compares labelled reports on the same benchmark, such as `before`, `monolingual`, `cross_lingual`, `hybrid`.
    ///
    /// # Errors
    /// As [`paired_bootstrap`].
    pub fn new(rows: Vec<(String, EvalReport)>, seed: u64) -> Result<Self> {
        let (last, others) = rows.split_last().ok_or_else(|| Error::other("there is no report to compare"))?;
        let differences =
            others.iter().map(|other| paired_bootstrap(&last.1, &other.1, seed)).collect::<Result<_>>()?;
        Ok(Self { rows, differences })
    }

    /// The labelled reports, in the order given.
    pub fn rows(&self) -> &[(String, EvalReport)] {
        &self.rows
    }

    /// Multilingual mAP of the last row minus that of each other row, in row order.
    pub fn differences(&self) -> &[Difference] {
        &self.differences
    }

    /// What a cell shows decides what is best, so that of two equal cells both are marked.
    fn is_best(&self, metric: Metric, value: Option<f64>) -> bool {
        let shown = |x: f64| headline(metric, Some(x)).parse::<f64>().unwrap_or(x);
        let others = self.rows.iter().filter_map(|(_, report)| report.metric(metric));
        value.is_some_and(|x| others.into_iter().all(|other| !metric.is_better(shown(other), shown(x))))
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = self.rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
        writeln!(
            f,
            "{:label$}{:>15}{:>15}{:>15}{:>15}",
            "", "monolingual", "cross-lingual", "multilingual", "rank distance"
        )?;
        for (name, report) in &self.rows {
            let mut row = format!("{name:<label$}");
            for &metric in Metric::ALL {
                let value = report.metric(metric);
                let mark = if self.is_best(metric, value) { '*' } else { ' ' };
                row += &format!("{:>14}{mark}", headline(metric, value));
            }
            writeln!(f, "{}", row.trim_end())?;
        }
        writeln!(f, "mAP, and rank distance (lower is better); * best of its column")?;
        let Some((last, others)) = self.rows.split_last().filter(|(_, others)| !others.is_empty()) else {
            return Ok(());
        };
        writeln!(
            f,
            "\nmultilingual mAP, difference and 95 % interval ({N_RESAMPLES} paired resamples of the questions)"
        )?;
        for ((name, _), difference) in others.iter().zip(&self.differences) {
            let [value, low, high] =
                [difference.value, difference.low, difference.high].map(|x| change(Metric::MultilingualMap, Some(x)));
            writeln!(f, "{} - {name:<label$}  {value}  [{low}, {high}]", last.0)?;
        }
        Ok(())
    }
}
