//! Parallel rows, one group a line:
//! `{"id": "...", "query": {"en": "...", "ar": "..."}, "positive": {"en": "..."}, "negatives": {"en": ["..."]}}`.
//! Each language holds a string or a list of strings.

use serde_json::{Map, Value};

use super::columns::{self, find, missing, take};
use super::{Group, Text, check_text, flat, kind, language, scores};

const QUERY: [&str; 2] = ["query", "queries"];
const POSITIVE: [&str; 4] = ["positive", "positives", "pos", "passage"];
pub(super) const NEGATIVE: [&str; 3] = ["negatives", "negative", "neg"];

/// Parses one parallel row as a group and leaves in it what was not used. `default_id` makes the id of a row that has
/// none.
pub(super) fn parse(row: &mut Map<String, Value>, default_id: impl FnOnce() -> String) -> Result<Group, String> {
    let query = find(row, &QUERY).ok_or_else(|| missing("query", &QUERY, row))?;
    let positive = find(row, &POSITIVE).ok_or_else(|| missing("positive", &POSITIVE, row))?;
    let mut group = Group {
        id: flat::id(row)?.unwrap_or_else(default_id),
        queries: texts(query, row.remove(query))?,
        positives: texts(positive, row.remove(positive))?,
        negatives: match take(row, &NEGATIVE) {
            Some((key, value)) => texts(key, Some(value))?,
            None => vec![],
        },
        ..Group::default()
    };
    group.positive_scores = scores::of_parallel(row, &columns::POSITIVE_SCORES, &group.positives)?;
    group.negative_scores = scores::of_parallel(row, &columns::NEGATIVE_SCORES, &group.negatives)?;
    for (key, texts) in [(query, &group.queries), (positive, &group.positives)] {
        if texts.is_empty() {
            return Err(format!("{key} holds no text; give it one or remove the row"));
        }
    }
    if let Some((key, _)) = take(row, &columns::LABELS) {
        return Err(format!("{key} labels the passages of flat rows; put negatives of a parallel row under negatives"));
    }
    let has = columns::Has { negatives: !group.negatives.is_empty(), languages: true, labels: true };
    columns::Columns::default().check_left(row, has)?;
    Ok(group)
}

/// Whether a row is parallel rather than flat: its query is an object of languages.
pub(super) fn looks_parallel(row: &Map<String, Value>) -> bool {
    QUERY.iter().any(|key| row.get(*key).is_some_and(Value::is_object))
}

fn texts(key: &str, value: Option<Value>) -> Result<Vec<Text>, String> {
    let Some(Value::Object(by_lang)) = value else {
        let found = value.as_ref().map_or("nothing", kind);
        return Err(format!(
            "{key} has to be an object of texts by language such as {{\"en\": \"...\"}}, not {found}; \
             read rows of plain strings with data_format = \"flat\""
        ));
    };
    let mut out = Vec::new();
    for (lang, value) in by_lang {
        let code = language(&lang).map_err(|e| format!("{key}: {e}"))?;
        let items = match value {
            Value::Array(items) => items,
            Value::Null => vec![],
            one => vec![one],
        };
        for item in items {
            let Value::String(text) = item else {
                return Err(format!("{key}.{lang} has to be a string or a list of strings, not {}", kind(&item)));
            };
            check_text(format_args!("{key}.{lang}"), &text)?;
            out.push(Text::new(&code, text));
        }
    }
    Ok(out)
}
