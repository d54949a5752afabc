//! Labels beside passages: rows of pair classification (`query`, `passage`, `label`) and of sentence-transformers'
//! miners (`labeled-pair`, `labeled-list` and, with scores, `n-tuple`).
//!
//! A passage with label 1 is a positive, one with label 0 a negative of its query. The rows of one query are one group.

use serde_json::{Map, Value};

use super::columns::{LABELS, SCORES, take};
use super::{Group, kind, scores};
use crate::error::counted;

/// Moves the positives of `group` that are labelled 0 to its negatives, and gives the passages the scores of `score`,
/// `scores`. Returns whether the row has labels: its group is then a part of that of its query, and may have no
/// positive of its own.
pub(super) fn apply(row: &mut Map<String, Value>, group: &mut Group) -> Result<bool, String> {
    let labels = take(row, &LABELS);
    let score = take(row, &SCORES);
    let labels = match (labels, score) {
        (None, None) => return Ok(false),
        (None, Some((key, Value::Array(items)))) => return teacher_scores(key, items, group).map(|()| false),
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
    Ok(true)
}

/// Scores of sentence-transformers' `n-tuple`: the positive's, then the negatives'.
fn teacher_scores(key: &str, items: Vec<Value>, group: &mut Group) -> Result<(), String> {
    let n_passages = 1 + group.negatives.len();
    if group.positives.len() != 1 || items.len() != n_passages {
        return Err(format!(
            "{key} has {}; expected one for the positive and one for each of {}",
            counted(items.len() as u64, "number"),
            counted(group.negatives.len() as u64, "negative")
        ));
    }
    if !(group.positive_scores.is_empty() && group.negative_scores.is_empty()) {
        return Err(format!("{key} scores passages that pos_scores or neg_scores score, too; remove one"));
    }
    let mut all = Vec::new();
    scores::read(key, Some(Value::Array(items)), n_passages, &mut all)?;
    group.negative_scores = all.split_off(1);
    group.positive_scores = all;
    Ok(())
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
                "{key} is {found}; a label is 1 for a positive or 0 for a negative; rename or remove the column"
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
