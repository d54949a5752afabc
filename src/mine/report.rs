//! Statistics of mining: the summary that `hbt mine` prints.

use std::fmt;

use super::corpus::Corpus;
use super::rules::Rules;
use super::select::{Excluded, Selected};
use crate::error::counted;

/// A summary. `Display` prints it.
#[derive(Clone, Debug, PartialEq)]
pub struct MineReport {
    /// Number of rows in the data.
    pub n_rows: u64,
    /// Number of candidates.
    pub n_passages: u64,
    /// Number of languages of the candidates.
    pub n_languages: u64,
    /// Largest number of passages that answer one row's question.
    pub most_answers: usize,
    /// Negatives asked for in each search.
    pub num_negatives: usize,
    /// Number of negatives found.
    pub n_negatives: u64,
    /// Number of searches: one a row, or one a row and language.
    pub n_searches: u64,
    /// Number of searches that found fewer negatives than asked for.
    pub n_short_searches: u64,
    /// Number of passages that each rule excluded.
    pub excluded: Excluded,
    positives: f64,
    negatives: f64,
    is_short: Vec<bool>,
    is_sharing: Vec<bool>,
}

impl MineReport {
    /// The report before the first search.
    pub(super) fn new(corpus: &Corpus, rules: &Rules) -> Self {
        MineReport {
            n_rows: corpus.rows.len() as u64,
            n_passages: corpus.passages.len() as u64,
            n_languages: corpus.languages.len() as u64,
            most_answers: 0,
            num_negatives: rules.num_negatives,
            n_negatives: 0,
            n_searches: 0,
            n_short_searches: 0,
            excluded: Excluded::default(),
            positives: 0.0,
            negatives: 0.0,
            is_short: vec![false; corpus.rows.len()],
            is_sharing: vec![false; corpus.rows.len()],
        }
    }

    pub(super) fn add(&mut self, row: usize, found: &Selected) {
        let is_short = found.negatives.len() < self.num_negatives;
        self.is_short[row] |= is_short;
        self.is_sharing[row] |= found.n_answers > found.n_positives;
        self.most_answers = self.most_answers.max(found.n_answers);
        self.n_searches += 1;
        self.n_short_searches += u64::from(is_short);
        self.n_negatives += found.negatives.len() as u64;
        self.negatives += found.scores.iter().copied().map(f64::from).sum::<f64>();
        self.positives += found.positive_scores.iter().copied().map(f64::from).sum::<f64>();
        let (sum, new) = (&mut self.excluded, &found.excluded);
        sum.answers += new.answers;
        sum.above += new.above;
        sum.known += new.known;
        sum.relative_margin += new.relative_margin;
        sum.absolute_margin += new.absolute_margin;
        sum.max_score += new.max_score;
        sum.min_score += new.min_score;
    }

    /// Number of rows that got fewer negatives than asked for, in at least one language.
    pub fn n_short_rows(&self) -> u64 {
        self.is_short.iter().filter(|&&is_short| is_short).count() as u64
    }

    /// Number of rows that are answered by more passages than their own positives.
    pub fn n_sharing_rows(&self) -> u64 {
        self.is_sharing.iter().filter(|&&is_sharing| is_sharing).count() as u64
    }

    /// Mean score of the negatives.
    pub fn mean_negative(&self) -> f64 {
        self.negatives / self.n_negatives as f64
    }

    /// Mean score of the positives that the negatives were compared with.
    pub fn mean_positive(&self) -> f64 {
        self.positives / self.n_negatives as f64
    }

    /// Number of passages that each rule excluded, without rules that excluded none.
    pub fn excluded_in_words(&self) -> String {
        let words: Vec<String> =
            self.by_rule().iter().filter(|rule| rule.n > 0).map(|rule| format!("{} {}", rule.n, rule.what)).collect();
        if words.is_empty() { "no rank lies in the window".to_owned() } else { words.join(", ") }
    }

    /// The change of options that relaxes the rule that excluded most.
    pub fn remedy(&self) -> &'static str {
        // Passages that hold the answer have no rank; they are excluded by no option.
        let [answers, rules @ ..] = self.by_rule();
        // The first of equal ones.
        rules.into_iter().filter(|rule| rule.n > 0).rev().max_by_key(|rule| rule.n).unwrap_or(answers).remedy
    }

    /// Rules, in the order in which they are applied.
    fn by_rule(&self) -> [Rule; 7] {
        let Excluded { answers, above, known, relative_margin, absolute_margin, max_score, min_score } = self.excluded;
        [
            (answers, "hold the answer", "the data needs passages that answer other questions"),
            (above, "rank above --range-min", "lower --range-min"),
            (
                known,
                "are negatives already",
                "raise --range-max, or take others in their place with --replace-negatives",
            ),
            (relative_margin, "within --relative-margin", "lower --relative-margin"),
            (absolute_margin, "within --absolute-margin", "lower --absolute-margin"),
            (max_score, "above --max-score", "raise --max-score"),
            (min_score, "below --min-score", "lower --min-score"),
        ]
        .map(|(n, what, remedy)| Rule { n, what, remedy })
    }
}

/// A rule and its effect.
struct Rule {
    /// Number of passages that it excluded.
    n: u64,
    /// Description of these passages.
    what: &'static str,
    /// How to exclude fewer of them.
    remedy: &'static str,
}

impl fmt::Display for MineReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n_rows = &self.n_rows;
        let [negatives, rows] = [counted(self.n_negatives, "negative"), counted(*n_rows, "row")];
        let [passages, languages] = [counted(self.n_passages, "passage"), counted(self.n_languages, "language")];
        writeln!(f, "{negatives} for {rows}, from {passages} in {languages}")?;
        let n_short = self.n_short_rows();
        if n_short > 0 {
            let (asked, short, all) = (self.num_negatives, self.n_short_searches, self.n_searches);
            write!(f, "{} got fewer than {asked}", counted(n_short, "row"))?;
            match all > *n_rows {
                true => writeln!(f, " in at least one language ({short} of {all} rows and languages)")?,
                false => writeln!(f)?,
            }
        }
        let (positive, negative) = (self.mean_positive(), self.mean_negative());
        writeln!(f, "mean score: {positive:.4} of positives, {negative:.4} of negatives")?;
        writeln!(f, "not mined, up to --range-max: {}", self.excluded_in_words())?;
        let n_sharing = self.n_sharing_rows();
        if n_sharing > 0 {
            let (rows, most) = (counted(n_sharing, "row"), self.most_answers);
            writeln!(f, "{rows} share answers with others: up to {most} of {passages} answer one of them")?;
        }
        Ok(())
    }
}
