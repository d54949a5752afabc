//! Flat rows: `{"query": "...", "positive": "...", "negatives": ["..."], "query_lang": "en", "passage_lang": "de"}`
//! under the names in common use. FlagEmbedding's rows (`query`, `pos`, `neg`, `pos_scores`, `neg_scores`) and
//! tevatron's (`query_id`, `query`, `positive_passages: [{docid, title, text}]`, `negative_passages`) are flat rows.

use std::fmt;

use serde_json::{Map, Value};

use super::{Group, Text, UNKNOWN_LANG, check_lang, check_text, kind, scores};
use crate::error::counted;

/// In order of precedence: in a row with both `positive` and a short `answer`, the positive is the passage.
const QUERY: [&str; 3] = ["query", "anchor", "question"];
const POSITIVE: [&str; 5] = ["positive", "pos", "positive_passages", "passage", "answer"];
const NEGATIVE: [&str; 4] = ["negative", "negatives", "neg", "negative_passages"];
/// Key for the language of each negative, in their order, if not all are in the language of the passages.
pub(super) const NEGATIVE_LANGS: &str = "negative_langs";
/// Names of the row's id; shared with the parallel format.
pub(super) const ID: [&str; 2] = ["id", "query_id"];

/// Parses one flat row as a group. `default_id` makes the id of a row that has none. Unknown keys are ignored.
pub(super) fn parse(mut row: Map<String, Value>, default_id: impl FnOnce() -> String) -> Result<Group, String> {
    let query = find(&row, &QUERY).ok_or_else(|| missing("query", &QUERY, &row))?;
    let positive = find(&row, &POSITIVE).ok_or_else(|| missing("positive", &POSITIVE, &row))?;
    let lang = take_lang(&mut row, "lang")?;
    let query_lang = take_lang(&mut row, "query_lang")?.or_else(|| lang.clone());
    let query_lang = query_lang.as_deref().unwrap_or(UNKNOWN_LANG);
    let passage_lang = take_lang(&mut row, "passage_lang")?.or(lang);
    let passage_lang = passage_lang.as_deref().unwrap_or(UNKNOWN_LANG);

    let mut group = Group { id: id(&mut row, default_id)?, ..Group::default() };
    match row.remove(query) {
        Some(Value::Object(_)) => {
            return Err(format!(
                "{query} is an object of texts by language; read such rows with data_format = \"parallel\""
            ));
        }
        value => texts(query, value, query_lang, &mut group.queries)?,
    }
    texts(positive, row.remove(positive), passage_lang, &mut group.positives)?;
    for key in negative_keys(&row) {
        let value = row.remove(&key);
        texts(&key, value, passage_lang, &mut group.negatives)?;
    }
    group.positive_scores = scores::of_flat(&mut row, &scores::POSITIVE, group.positives.len())?;
    group.negative_scores = scores::of_flat(&mut row, &scores::NEGATIVE, group.negatives.len())?;
    set_negative_langs(row.remove(NEGATIVE_LANGS), &mut group.negatives)?;
    for (key, texts) in [(query, &group.queries), (positive, &group.positives)] {
        if texts.is_empty() {
            return Err(format!("{key} is an empty list; give it a text or remove the row"));
        }
    }
    Ok(group)
}

/// The row's id as a string; numbers are ids too.
pub(super) fn id(row: &mut Map<String, Value>, default_id: impl FnOnce() -> String) -> Result<String, String> {
    let Some(key) = find(row, &ID) else { return Ok(default_id()) };
    match row.remove(key) {
        Some(Value::String(id)) if !id.is_empty() => Ok(id),
        Some(Value::Number(id)) => Ok(id.to_string()),
        _ => Err(format!("{key} has to be a number or a string that is not empty")),
    }
}

/// The first of `names` that the row has; null counts as absent.
pub(super) fn find<'a>(row: &Map<String, Value>, names: &[&'a str]) -> Option<&'a str> {
    names.iter().copied().find(|name| row.get(*name).is_some_and(|value| !value.is_null()))
}

/// The error about a missing key: what was looked for and what the row has instead.
pub(super) fn missing(what: &str, names: &[&str], row: &Map<String, Value>) -> String {
    let keys: Vec<&str> = row.iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| key.as_str()).collect();
    let keys = if keys.is_empty() { "nothing".to_string() } else { keys.join(", ") };
    format!("no {what}: expected one of {}; the row has {keys}", names.join(", "))
}

fn take_lang(row: &mut Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    match row.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(lang)) => check_lang(&lang).map(|()| Some(lang)).map_err(|e| format!("{key}: {e}")),
        Some(other) => Err(format!("{key} has to be a language code such as \"en\", not {}", kind(&other))),
    }
}

/// Place of a flat row's negatives, present or future.
pub(super) enum Place {
    /// Under one key.
    List(&'static str),
    /// In the columns `negative_1`, `negative_2`, ... of sentence-transformers; holds the present ones, ascending.
    Columns(Vec<String>),
}

/// A row without negatives gets them in the place that its dialect uses; see [`super::add_negatives`].
pub(super) fn place_of_negatives(row: &Map<String, Value>) -> Place {
    let is_column = |(key, value): &(&String, &Value)| column_number(key).is_some() && !value.is_null();
    let mut columns: Vec<String> = row.iter().filter(is_column).map(|(key, _)| key.clone()).collect();
    columns.sort_by_key(|key| column_number(key));
    match (find(row, &NEGATIVE), find(row, &QUERY), find(row, &POSITIVE)) {
        (Some(key), ..) => Place::List(key),
        _ if !columns.is_empty() => Place::Columns(columns),
        (None, Some("anchor"), _) => Place::Columns(columns),
        (None, _, Some("pos")) => Place::List("neg"),
        (None, _, Some("positive_passages")) => Place::List("negative_passages"),
        _ => Place::List("negatives"),
    }
}

/// The number in the key of a numbered column.
pub(super) fn column_number(key: &str) -> Option<u32> {
    key.strip_prefix("negative_")?.parse().ok()
}

/// The keys that hold the negatives.
fn negative_keys(row: &Map<String, Value>) -> Vec<String> {
    match place_of_negatives(row) {
        Place::List(key) => find(row, &[key]).map(str::to_owned).into_iter().collect(),
        Place::Columns(keys) => keys,
    }
}

fn set_negative_langs(langs: Option<Value>, negatives: &mut [Text]) -> Result<(), String> {
    let langs = match langs {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Array(langs)) if langs.len() == negatives.len() => langs,
        Some(Value::Array(langs)) => {
            let (langs, negatives) =
                (counted(langs.len() as u64, "language"), counted(negatives.len() as u64, "negative"));
            return Err(format!("{NEGATIVE_LANGS} has {langs} for {negatives}; give each one its own"));
        }
        Some(other) => return Err(format!("{NEGATIVE_LANGS} has to be a list of languages, not {}", kind(&other))),
    };
    for (i, (text, lang)) in negatives.iter_mut().zip(langs).enumerate() {
        let Value::String(lang) = lang else {
            return Err(format!("{NEGATIVE_LANGS}[{i}] has to be a language code such as \"en\", not {}", kind(&lang)));
        };
        check_lang(&lang).map_err(|e| format!("{NEGATIVE_LANGS}[{i}]: {e}"))?;
        text.lang = lang;
    }
    Ok(())
}

fn texts(key: &str, value: Option<Value>, lang: &str, out: &mut Vec<Text>) -> Result<(), String> {
    match value {
        Some(Value::Array(items)) => items
            .into_iter()
            .enumerate()
            .try_for_each(|(i, item)| one_text(format_args!("{key}[{i}]"), item, lang, out)),
        Some(value) => one_text(format_args!("{key}"), value, lang, out),
        None => Ok(()),
    }
}

fn one_text(key: fmt::Arguments, value: Value, lang: &str, out: &mut Vec<Text>) -> Result<(), String> {
    let text = match value {
        Value::String(text) => text,
        Value::Object(mut passage) => {
            let title = passage.remove("title");
            match (title, passage.remove("text")) {
                (Some(Value::String(title)), Some(Value::String(text))) if !title.trim().is_empty() => {
                    format!("{title} {text}")
                }
                (_, Some(Value::String(text))) => text,
                _ => return Err(format!("{key} has no \"text\"; expected a string or {{\"title\", \"text\"}}")),
            }
        }
        other => return Err(format!("{key} has to be a string or a list of strings, not {}", kind(&other))),
    };
    check_text(key, &text)?;
    out.push(Text { lang: lang.to_string(), text });
    Ok(())
}
