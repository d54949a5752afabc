//! Rules for the data's negatives, and checks that there are negatives if a run needs them.

use super::TrainSettings;
use crate::data::catalog::TextSource;
use crate::data::datasets::Datasets;
use crate::data::shard::TokenCache;
use crate::error::counted;
use crate::loss::LossReport;
use crate::{Error, Result};

/// Facts about the negatives of some datasets.
pub trait Negatives {
    /// For each dataset, the numbers of positives and of negatives with a teacher's score.
    fn n_scores(&self) -> Vec<[u64; 2]>;

    /// Whether any dataset has negatives in a language of its positives.
    fn has_negatives(&self) -> bool;
}

impl Negatives for Datasets {
    fn n_scores(&self) -> Vec<[u64; 2]> {
        self.caches().map(TokenCache::n_scores).collect()
    }

    fn has_negatives(&self) -> bool {
        self.caches().any(|cache| cache.passage_langs().into_values().any(|has_negatives| has_negatives))
    }
}

/// Fails if the data lacks what the run needs for its negatives. A teacher's scores are usable only if a dataset has
/// them for positives and for negatives.
pub(super) fn require_negatives(settings: &TrainSettings, data: &impl Negatives) -> Result<()> {
    let users = [
        ("teacher_margin", settings.negatives.teacher_margin.is_some()),
        ("distillation", settings.loss.distillation.is_some()),
    ];
    for (key, _) in users.into_iter().filter(|(_, uses_scores)| *uses_scores) {
        require_scores(key, &data.n_scores())?;
    }
    if !settings.loss.in_batch_negatives && !data.has_negatives() {
        let message = "is false, but the data has no hard negatives in its positives' languages, so there is nothing to \
                       learn from; add negatives (hbt mine finds some), or set it to true";
        return Err(Error::config("in_batch_negatives", message));
    }
    Ok(())
}

fn require_scores(key: &str, n_scores: &[[u64; 2]]) -> Result<()> {
    let mut missing = [true; 2];
    for &[positives, negatives] in n_scores {
        if positives > 0 && negatives > 0 {
            return Ok(());
        }
        missing = [missing[0] && positives == 0, missing[1] && negatives == 0];
    }
    let what = match missing {
        [true, true] => "scores of a teacher (pos_scores, neg_scores)",
        [true, false] => "scores of positives (pos_scores) to compare those of negatives with",
        [false, true] => "scores of negatives (neg_scores) to compare with those of positives",
        [false, false] => "dataset with scores of positives and negatives (pos_scores, neg_scores)",
    };
    Err(Error::config(key, format!("the data has no {what}; add them, or set it to none")))
}

/// Warnings about settings that [`require_negatives`] allows but that are seldom meant, one line each.
pub(super) fn warnings(settings: &TrainSettings, data: &Datasets) -> Vec<String> {
    if settings.loss.in_batch_negatives {
        return Vec::new();
    }
    let in_use = data.catalog().languages_in_use();
    let warning = |(number, cache): (usize, &TokenCache)| {
        let langs = cache.passage_langs().into_iter().filter(|(lang, has)| !has && in_use.contains(lang));
        let langs: Vec<&str> = langs.map(|(lang, _)| lang).collect();
        let (name, langs) = (Some(data.name(number)).filter(|_| !langs.is_empty())?, langs.join(", "));
        Some(format!(
            "{name} has no hard negatives in {langs}: where in_batch_negatives is false, a batch with no passage in \
             another language has nothing to learn from"
        ))
    };
    data.caches().enumerate().filter_map(warning).collect()
}

/// Share of its negatives with which a step is as good as none: a batch of 64 has 40 left.
const NEARLY_ALL: f64 = 0.99;
/// Steps in a row of that kind after which a run ends. Fewer may be chance where batches are small.
const MOST_IN_VAIN: u64 = 20;

/// The negatives of a run that its steps left out because they answer the query.
#[derive(Default)]
pub(super) struct LeftOut {
    n_left_out: u64,
    n_candidates: u64,
    n_steps: u64,
    /// Latest steps that had nearly nothing to learn from.
    n_in_vain: u64,
}

impl LeftOut {
    /// Counts a step's.
    ///
    /// # Errors
    /// If nearly all negatives of the last steps were left out, or of all steps at the end of a short run.
    pub(super) fn add(&mut self, report: &LossReport, is_last: bool, settings: &TrainSettings) -> Result<()> {
        self.n_left_out += report.n_false_negatives as u64;
        self.n_candidates += report.n_candidates as u64;
        self.n_steps += 1;
        let is_in_vain =
            report.n_candidates > 0 && report.n_false_negatives as f64 >= NEARLY_ALL * report.n_candidates as f64;
        // A teacher's scores are learned from whatever is left out.
        let is_in_vain = is_in_vain && settings.loss.distillation.is_none();
        self.n_in_vain = if is_in_vain { self.n_in_vain + 1 } else { 0 };
        if self.n_in_vain == MOST_IN_VAIN || is_last && self.n_in_vain == self.n_steps {
            return Err(self.in_vain(settings));
        }
        Ok(())
    }

    /// The share that was left out, in words, if there was any.
    pub(super) fn in_words(&self) -> Option<String> {
        let share = 100.0 * self.n_left_out as f64 / self.n_candidates as f64;
        (self.n_left_out > 0).then(|| format!("{share:.1} % of the negatives were left out: they answer the query"))
    }

    fn in_vain(&self, settings: &TrainSettings) -> Error {
        let steps = counted(self.n_in_vain, "step");
        let key = match (settings.loss.false_negative_margin, settings.negatives.teacher_margin) {
            (Some(_), _) => "false_negative_margin",
            (None, Some(_)) => "teacher_margin",
            (None, None) => "data",
        };
        let why = match key {
            "data" => {
                "their passages answer the query by the data, whose rows share queries or answers (hbt prepare counts \
                       such texts); give data with more answers"
            }
            _ => "most passages come too close to the positives; raise it, or set it to none",
        };
        let message =
            format!("in the last {steps} nearly all negatives were left out, so there is nothing to learn: {why}");
        Error::config(key, message)
    }
}
