//! A teacher's scores beside the texts of a row, in FlagEmbedding's form: `"pos_scores": [0.9], "neg_scores": [0.7,
//! 0.1]`, a number for each positive and each negative. In parallel rows they stand under languages, like the texts.

use serde_json::{Map, Value};

use super::columns::take;
use super::{Text, kind, language};
use crate::error::counted;

/// Scores of `n_texts` texts, or none.
pub(super) fn of_flat(row: &mut Map<String, Value>, names: &[&str], n_texts: usize) -> Result<Vec<f32>, String> {
    let mut scores = Vec::new();
    if let Some((key, value)) = take(row, names) {
        read(key, Some(value), n_texts, &mut scores)?;
    }
    Ok(scores)
}

/// Scores of `texts`, which are sorted by language, or none.
pub(super) fn of_parallel(row: &mut Map<String, Value>, names: &[&str], texts: &[Text]) -> Result<Vec<f32>, String> {
    let mut scores = Vec::new();
    let Some((key, value)) = take(row, names) else { return Ok(scores) };
    let Value::Object(written) = value else {
        return Err(format!("{key} has to be an object of lists of numbers by language, not {}", kind(&value)));
    };
    let mut by_lang = Map::new();
    for (lang, numbers) in written {
        by_lang.insert(language(&lang).map_err(|e| format!("{key}: {e}"))?, numbers);
    }
    for of_lang in texts.chunk_by(|a, b| a.lang == b.lang) {
        let lang = &of_lang[0].lang;
        read(&format!("{key}.{lang}"), by_lang.remove(lang), of_lang.len(), &mut scores)?;
    }
    match by_lang.keys().next() {
        Some(lang) => Err(format!("{key} has scores in {lang:?}, a language without texts; remove them")),
        None => Ok(scores),
    }
}

/// A list of `n_texts` numbers, or one number for one text.
pub(super) fn read(key: &str, value: Option<Value>, n_texts: usize, scores: &mut Vec<f32>) -> Result<(), String> {
    let items = match value {
        Some(Value::Array(items)) => items,
        Some(Value::Null) | None => vec![],
        Some(one) => vec![one],
    };
    if items.len() != n_texts {
        let (scores, texts) = (counted(items.len() as u64, "score"), counted(n_texts as u64, "text"));
        return Err(format!("{key} has {scores} for {texts}; give each text one, or leave {key} out"));
    }
    for (i, item) in items.iter().enumerate() {
        let number = item.as_f64().ok_or_else(|| format!("{key}[{i}] has to be a number, not {}", kind(item)))?;
        let score = number as f32;
        if !score.is_finite() {
            return Err(format!("{key}[{i}] is {number:?}, too large for a score"));
        }
        scores.push(score);
    }
    Ok(())
}
