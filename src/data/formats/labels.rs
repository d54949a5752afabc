//! Labels beside passages: rows of pair classification (`query`, `passage`, `label`) and of sentence-transformers'
//! miners (`labeled-pair`, `labeled-list` and, with scores, `n-tuple`).
//!
//! A passage with label 1 is a positive, one with label 0 a negative of its query. The rows of one query are one group.
//!
//! Where negatives stand beside the positive, `score` and `scores` are a teacher's: of the positive and each negative, or, for
//! MarginMSE, by how much the positive is above each negative. All that is made of scores compares them within a row, so
//! margins count from a positive of 0.

use serde_json::{Map, Value};

use super::columns::{LABELS, SCORES, take};
use super::{Group, kind, scores};
use crate::error::counted;

/// What a row has beside its passages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Beside {
    /// No labels, and no scores but such as are comparable over all rows of a question.
    Nothing,
    /// Labels: the group is a part of that of its query, and may have no positive of its own.
    Labels,
    /// Margins below its own positive: comparable with those of rows with the same positive.
    Margins,
}

/// Moves the positives of `group` that are labelled 0 to its negatives, and gives the passages the scores of `score`,
/// `scores`.
pub(super) fn apply(row: &mut Map<String, Value>, group: &mut Group) -> Result<Beside, String> {
    let labels = take(row, &LABELS);
    let score = take(row, &SCORES);
    let labels = match (labels, score) {
        (None, None) => return Ok(Beside::Nothing),
        (None, Some((key, Value::Array(items)))) => return teacher_scores(key, items, group),
        (None, Some((key, value))) if is_margin(&value, group) => return teacher_scores(key, vec![value], group),
        // Pairs with a score and no label, as of sentence similarity: only 1 and 0 say what a pair is.
        (None, Some((key, value))) => labels_of(key, &value, group.positives.len()).map_err(|_| {
            format!(
                "{key} is {value}: from which score on would a pair be a positive? Give it a label (1 or 0), or name a \
                 teacher's scores pos_scores"
            )
        })?,
        (Some((key, value)), score) => {
            let labels = labels_of(key, &value, group.positives.len())?;
            if let Some((key, value)) = score {
                if !group.positive_scores.is_empty() {
                    return Err(format!("{key} and pos_scores both score the passages; remove one"));
                }
                scores::read(key, Some(value), labels.len(), &mut group.positive_scores)?;
            }
            labels
        }
    };
    divide(&labels, group)?;
    Ok(Beside::Labels)
}

/// Whether one number beside a positive and its negative is a margin. 1 and 0 are labels as elsewhere; in a list they are
/// not.
fn is_margin(value: &Value, group: &Group) -> bool {
    let is_label = label("", value).is_ok();
    value.is_number() && !is_label && group.positives.len() == 1 && group.negatives.len() == 1
}

/// Scores of sentence-transformers' `n-tuple`, the positive's and then the negatives', or the margins of its MarginMSE, one
/// for each negative.
fn teacher_scores(key: &str, items: Vec<Value>, group: &mut Group) -> Result<Beside, String> {
    let n_passages = 1 + group.negatives.len();
    let are_margins = items.len() + 1 == n_passages && !items.is_empty();
    if group.positives.len() != 1 || !(are_margins || items.len() == n_passages) {
        return Err(format!(
            "{key} has {}; expected one for the positive and one for each of {}, or margins for these alone",
            counted(items.len() as u64, "number"),
            counted(group.negatives.len() as u64, "negative")
        ));
    }
    if !(group.positive_scores.is_empty() && group.negative_scores.is_empty()) {
        return Err(format!("{key} scores passages that pos_scores or neg_scores score, too; remove one"));
    }
    let mut all = Vec::new();
    scores::read(key, Some(Value::Array(items)), n_passages - usize::from(are_margins), &mut all)?;
    if are_margins {
        group.positive_scores = vec![0.0];
        group.negative_scores = all.into_iter().map(|margin| 0.0 - margin).collect();
        return Ok(Beside::Margins);
    }
    group.negative_scores = all.split_off(1);
    group.positive_scores = all;
    Ok(Beside::Nothing)
}

fn labels_of(key: &str, value: &Value, n_passages: usize) -> Result<Vec<bool>, String> {
    let items = match value {
        Value::Array(items) => items.as_slice(),
        one => return Ok(vec![label(key, one)?; n_passages]),
    };
    if items.len() != n_passages {
        let (labels, passages) = (counted(items.len() as u64, "label"), counted(n_passages as u64, "passage"));
        return Err(format!("{key} has {labels} for {passages}; give each passage one"));
    }
    items.iter().enumerate().map(|(i, item)| label(&format!("{key}[{i}]"), item)).collect()
}

fn label(key: &str, value: &Value) -> Result<bool, String> {
    let number = match value {
        Value::Bool(label) => return Ok(*label),
        Value::Number(number) => number.as_f64(),
        _ => None,
    };
    match number {
        Some(1.0) => Ok(true),
        Some(0.0) => Ok(false),
        _ => {
            let found = if value.is_number() || value.is_string() { value.to_string() } else { kind(value).to_owned() };
            Err(format!(
                "{key} is {found}; a label is 1 for a positive or 0 for a negative; remove the column, or call a teacher's \
                 scores or margins scores"
            ))
        }
    }
}

/// Makes negatives of the passages labelled 0.
fn divide(labels: &[bool], group: &mut Group) -> Result<(), String> {
    let has_scores = !group.positive_scores.is_empty();
    let has_zero = labels.contains(&false);
    if has_zero && !group.negatives.is_empty() && has_scores == group.negative_scores.is_empty() {
        return Err("only some of the negatives have scores; give all of them one, or none".to_owned());
    }
    let passages = std::mem::take(&mut group.positives);
    let scores = std::mem::take(&mut group.positive_scores);
    for (i, (passage, is_positive)) in passages.into_iter().zip(labels).enumerate() {
        let (texts, of_texts) = match is_positive {
            true => (&mut group.positives, &mut group.positive_scores),
            false => (&mut group.negatives, &mut group.negative_scores),
        };
        texts.push(passage);
        of_texts.extend(scores.get(i));
    }
    Ok(())
}
