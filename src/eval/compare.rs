//! Several models on one benchmark as one table, and whether their differences are more than chance.
//!
//! The gain of hybrid batches over the better of the other two is a few thousandths of mAP in the paper, and it was
//! published untested. So each difference comes with a paired bootstrap interval: the same questions are drawn with replacement
//! for both models, 1,000 times over. What is drawn is a *group*, the versions of one question in all languages,
//! because those are far from independent: drawing single queries would make the interval about sqrt(n) too narrow
//! for n languages.

use super::figures::FigureKey;
use super::report::{EvalReport, QueryOutcome};
use crate::Error;
use crate::random::{GOLDEN, below, mix};
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// Resamples behind an interval.
const N_RESAMPLES: usize = 1000;

/// Difference of two models' main figures with its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Of the reports themselves.
    pub value: f64,
    /// 2.5th percentile of the resampled differences.
    pub low: f64,
    /// 97.5th percentile.
    pub high: f64,
}

/// The main figure of `a` minus that of `b`, by a paired bootstrap over parallel groups.
///
/// # Errors
/// Reports that are not of the same queries, or do not have their values, as those that an earlier hbt wrote.
pub fn paired_bootstrap(a: &EvalReport, b: &EvalReport, seed: u64) -> crate::Result<Difference> {
    if a.per_query.is_empty() || b.per_query.is_empty() {
        return Err(Error::other(
            "a report has no values of single queries, as an earlier hbt wrote it; evaluate again",
        ));
    }
    let [of_a, of_b] = [a, b].map(sorted);
    let key = |q: &QueryOutcome| (q.stratum, q.group);
    let is_same = (a.main, &a.data) == (b.main, &b.data) && of_a.iter().map(key).eq(of_b.iter().map(key));
    if !is_same {
        return Err(Error::other("only reports on the same queries can be compared by resampling"));
    }
    let (n_strata, rows) = differences_by_group(&of_a, &of_b);
    let value = macro_mean(n_strata, rows.iter());
    let mut state = seed;
    let mut draw = |n: usize| {
        state = state.wrapping_add(GOLDEN);
        below(mix(state), n as u64) as usize
    };
    let mut resampled: Vec<f64> =
        (0..N_RESAMPLES).map(|_| macro_mean(n_strata, (0..rows.len()).map(|_| &rows[draw(rows.len())]))).collect();
    resampled.sort_unstable_by(f64::total_cmp);
    let tail = N_RESAMPLES / 40;
    Ok(Difference { value, low: resampled[tail - 1], high: resampled[N_RESAMPLES - tail] })
}

/// A report's outcomes in an order that does not depend on where they come from.
fn sorted(report: &EvalReport) -> Vec<QueryOutcome> {
    let mut outcomes = report.per_query.clone();
    outcomes.sort_by_key(|outcome| (outcome.stratum, outcome.group));
    outcomes
}

/// The number of strata (of query languages, say), and for each group those it was asked in with the difference there.
fn differences_by_group(a: &[QueryOutcome], b: &[QueryOutcome]) -> (usize, Vec<Vec<(usize, f64)>>) {
    let mut strata: BTreeMap<_, usize> = a.iter().map(|outcome| (outcome.stratum, 0)).collect();
    strata.values_mut().zip(0..).for_each(|(number, i)| *number = i);
    let mut row_of = HashMap::new();
    let mut rows: Vec<Vec<(usize, f64)>> = Vec::new();
    for (a, b) in a.iter().zip(b) {
        let row = *row_of.entry(a.group).or_insert(rows.len());
        if row == rows.len() {
            rows.push(Vec::new());
        }
        rows[row].push((strata[&a.stratum], a.value - b.value));
    }
    (strata.len(), rows)
}

/// Mean over the strata of the mean over a stratum's queries. A stratum without a query of a drawn group does not count.
fn macro_mean<'a>(n_strata: usize, rows: impl Iterator<Item = &'a Vec<(usize, f64)>>) -> f64 {
    let mut sums = vec![(0.0, 0u64); n_strata];
    for &(stratum, difference) in rows.flatten() {
        sums[stratum].0 += difference;
        sums[stratum].1 += 1;
    }
    let means: Vec<f64> = sums.into_iter().filter(|&(_, n)| n > 0).map(|(sum, n)| sum / n as f64).collect();
    means.iter().sum::<f64>() / means.len() as f64
}

/// The paper's comparison: one row a model, the last of which is held against each of the others.
#[derive(Clone, Debug)]
pub struct Comparison {
    rows: Vec<(String, EvalReport)>,
    /// Last row minus each other row, in row order; else why there is none.
    differences: Result<Vec<Difference>, String>,
}

impl Comparison {
    /// Compares labelled reports on the same benchmark, such as `before`, `monolingual`, `cross_lingual`, `hybrid`. Where
    /// there can be no intervals ([`paired_bootstrap`]), the table says why.
    ///
    /// # Errors
    /// No report, and reports that have no figure in common or not the same main one.
    pub fn new(rows: Vec<(String, EvalReport)>, seed: u64) -> crate::Result<Self> {
        let (last, others) = rows.split_last().ok_or_else(|| Error::other("there is no report to compare"))?;
        let is_other = |(_, report): &&(String, EvalReport)| (report.task, report.main) != (last.1.task, last.1.main);
        if let Some((name, other)) = others.iter().find(is_other) {
            let of = |report: &EvalReport| format!("{} ({})", report.task, report.main);
            let message = format!(
                "{name} was measured on {}, and {} on {}; compare those of one benchmark",
                of(other),
                last.0,
                of(&last.1)
            );
            return Err(Error::other(message));
        }
        let with_last = |(name, other): &(String, EvalReport)| {
            paired_bootstrap(&last.1, other, seed).map_err(|e| format!("{name} and {}: {e}", last.0))
        };
        let differences = others.iter().map(with_last).collect();
        Ok(Self { rows, differences })
    }

    /// The labelled reports, in the order given.
    pub fn rows(&self) -> &[(String, EvalReport)] {
        &self.rows
    }

    /// Main figure of the last row minus that of each other row, in row order; none where they cannot be resampled.
    pub fn differences(&self) -> &[Difference] {
        self.differences.as_deref().unwrap_or_default()
    }

    /// The figures that all reports have.
    fn columns(&self) -> Vec<FigureKey> {
        let has = |report: &EvalReport, key| report.figures.iter().any(|figure| figure.key == key);
        let first = self.rows.first().into_iter().flat_map(|(_, report)| &report.figures);
        let keys = first.map(|figure| figure.key);
        keys.filter(|&key| self.rows.iter().all(|(_, report)| has(report, key))).collect()
    }

    /// What a cell shows decides what is best, so that of two equal cells both are marked.
    fn is_best(&self, key: FigureKey, value: Option<f64>) -> bool {
        let shown = |x: f64| key.shown(Some(x)).parse::<f64>().unwrap_or(x);
        let others = self.rows.iter().filter_map(|(_, report)| report.value(key));
        value.is_some_and(|x| others.into_iter().all(|other| !key.metric.is_better(shown(other), shown(x))))
    }
}

/// What columns are called and, of all of them, what they are measured in: a setting says enough beside others of the same
/// metric.
fn headings(columns: &[FigureKey]) -> (Vec<String>, String) {
    let usual = columns.first().map(FigureKey::measure);
    let heading = |key: &FigureKey| match key.setting {
        Some(setting) if usual == Some(key.measure()) => setting.title.to_owned(),
        _ => key.title(),
    };
    let mut measures: Vec<String> = Vec::new();
    for key in columns {
        let note = if key.metric.lower_is_better { " (lower is better)" } else { "" };
        let measure = format!("{}{note}", key.measure_title());
        if !measures.contains(&measure) {
            measures.push(measure);
        }
    }
    let measures = match measures.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{}, and {last}", others.join(", ")),
        _ => measures.concat(),
    };
    (columns.iter().map(heading).collect(), measures)
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = self.rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
        let columns = self.columns();
        let (headings, measures) = headings(&columns);
        let width = headings.iter().map(|heading| heading.len() + 2).fold(15, usize::max);
        let headings: String = headings.iter().map(|heading| format!("{heading:>width$}")).collect();
        writeln!(f, "{:label$}{headings}", "")?;
        for (name, report) in &self.rows {
            let mut row = format!("{name:<label$}");
            for &key in &columns {
                let value = report.value(key);
                let mark = if self.is_best(key, value) { '*' } else { ' ' };
                row += &format!("{:>width$}{mark}", key.shown(value), width = width - 1);
            }
            writeln!(f, "{}", row.trim_end())?;
        }
        writeln!(f, "{measures}; * best of its column")?;
        let Some((last, others)) = self.rows.split_last().filter(|(_, others)| !others.is_empty()) else {
            return Ok(());
        };
        let main = last.1.main;
        let differences = match &self.differences {
            Ok(differences) => differences,
            Err(why) => return writeln!(f, "\nno intervals: {why}"),
        };
        writeln!(
            f,
            "\n{}, difference and 95 % interval ({N_RESAMPLES} paired resamples of the questions)",
            main.title()
        )?;
        for ((name, _), difference) in others.iter().zip(differences) {
            let [value, low, high] = [difference.value, difference.low, difference.high].map(|x| main.change(Some(x)));
            writeln!(f, "{} - {name:<label$}  {value}  [{low}, {high}]", last.0)?;
        }
        Ok(())
    }
}
