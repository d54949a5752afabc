//! Rules for the data's negatives, and checks that there are negatives if a run needs them.

use super::TrainSettings;
use crate::data::datasets::Datasets;
use crate::data::shard::TokenCache;
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
    if settings.negatives.teacher_margin.is_some() {
        require_scores(&data.n_scores())?;
    }
    if !settings.loss.in_batch_negatives && !data.has_negatives() {
        let message = "is false, but the data has no hard negatives in its positives' languages, so there is nothing to \
                       learn from; add negatives (hbt mine finds some), or set it to true";
        return Err(Error::config("in_batch_negatives", message));
    }
    Ok(())
}

fn require_scores(n_scores: &[[u64; 2]]) -> Result<()> {
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
    Err(Error::config("teacher_margin", format!("the data has no {what}; add them, or set it to none")))
}

/// Warnings about settings that [`require_negatives`] allows but that are seldom meant, one line each.
pub(super) fn warnings(settings: &TrainSettings, data: &Datasets) -> Vec<String> {
    if settings.loss.in_batch_negatives {
        return Vec::new();
    }
    let warning = |(number, cache): (usize, &TokenCache)| {
        let langs = cache.passage_langs().into_iter().filter(|(_, has_negatives)| !has_negatives);
        let langs: Vec<&str> = langs.map(|(lang, _)| lang).collect();
        let (name, langs) = (Some(data.name(number)).filter(|_| !langs.is_empty())?, langs.join(", "));
        Some(format!(
            "{name} has no hard negatives in {langs}: where in_batch_negatives is false, a batch with no passage in \
             another language has nothing to learn from"
        ))
    };
    data.caches().enumerate().filter_map(warning).collect()
}
