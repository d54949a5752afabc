//! Whether the data has the teacher's scores that a run learns from, and what of them goes unused.

use super::TrainSettings;
use crate::data::datasets::Datasets;
use crate::data::shard::TokenCache;
use crate::error::counted;
use crate::loss::DistillationConfig;
use crate::{Error, Result};

/// Largest logit of a teacher: f32 keeps a tenth of it, and its square.
const LARGEST_LOGIT: f32 = 1e6;

/// What there is to say about the teacher's scores, one line each.
///
/// # Errors
/// If distillation lacks scores.
pub(super) fn notes(settings: &TrainSettings, data: &Datasets) -> Result<Vec<String>> {
    let named = || data.caches().enumerate().map(|(number, cache)| (data.name(number), cache));
    let Some(distillation) = settings.loss.distillation else {
        let is_used = settings.negatives.teacher_margin.is_some();
        return Ok(named().filter(|_| !is_used).filter_map(unused).collect());
    };
    let notes: Vec<_> = named().map(|(name, cache)| check(name, cache, &distillation)).collect::<Result<_>>()?;
    if notes.iter().all(|note| note.as_ref().is_some_and(|(_, is_all)| *is_all)) {
        let message = "compares negatives with the positive, but the data has none; add negatives with their scores";
        return Err(Error::config("distillation", message));
    }
    Ok(notes.into_iter().flatten().map(|(note, _)| note).collect())
}

fn unused((name, cache): (&str, &TokenCache)) -> Option<String> {
    let n: u64 = cache.n_scores().iter().sum();
    (n > 0).then(|| {
        let passages = counted(n, "passage");
        format!("{name} has a teacher's scores of {passages}: not used; distillation or teacher_margin would use them")
    })
}

/// What there is to say about the groups of a dataset in which there is nothing to distill, and whether that is all of
/// them.
fn check(name: &str, cache: &TokenCache, config: &DistillationConfig) -> Result<Option<(String, bool)>> {
    let (scoring, groups) = (cache.scoring(), counted(cache.n_groups(), "group"));
    if let Some(first) = scoring.first_without {
        let (n, first) = (scoring.n_without, cache.group_id(first));
        let message = format!(
            "{name} has passages without a teacher's score in {n} of {groups}, the first in {first:?}; give each passage \
             one (pos_scores, neg_scores), or leave such rows out"
        );
        return Err(Error::config("distillation", message));
    }
    if scoring.largest / config.teacher_temperature > LARGEST_LOGIT {
        let (largest, by) = (scoring.largest, config.teacher_temperature);
        let message = format!(
            "{by} leaves scores of {name} of up to {largest:e} above {LARGEST_LOGIT:e}; raise it, or mend the scores"
        );
        return Err(Error::config("teacher_temperature", message));
    }
    let n = scoring.n_without_negatives;
    let note = format!("{name} has no negatives in {n} of {groups}: nothing is distilled there");
    Ok((n > 0).then_some((note, n == cache.n_groups())))
}
