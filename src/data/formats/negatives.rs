//! Writing negatives into a row, in the row's own dialect.
//!
//! A row is edited as text, so everything but its negatives stays byte for byte: numbers of any size, keys that hbt
//! does not know, escapes. Negatives go where the row's dialect has them, so that the tool that the row was written for
//! reads them.

use std::ops::Range;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Deserializer, Map, Value, json};

use super::columns::{self, Columns, NEGATIVE_LANGS, find, negative_number};
use super::flat::{self, Place};
use super::{Group, Text, parallel, parse_object};

/// A row, parallel or flat, with `negatives` after those it has, or instead of them.
///
/// In a parallel row each stands under its language. In a flat row they join the list that is there (`negatives`,
/// `neg`, `negative`, `negative_passages`) or the columns `negative_1`, `negative_2`, ...; if there are none,
/// FlagEmbedding's rows (`pos`) get `neg`, tevatron's (`positive_passages`) `negative_passages`, sentence-transformers'
/// (`anchor`) columns, and others `negatives`. A flat row whose negatives are not all in the language of its passages
/// gets their languages as `negative_langs`.
///
/// # Errors
/// A message without file and line, for a row that cannot be read, or whose negatives have scores that would no longer
/// fit.
pub(super) fn add(
    line: &[u8],
    is_parallel: bool,
    columns: &Columns,
    negatives: &[Text],
    replace: bool,
) -> std::result::Result<String, String> {
    let row = parse_object(line)?;
    if let Some(key) = find(&row, &columns::LABELS) {
        return Err(format!(
            "{key} makes negatives of passages, and mined ones have none; write a row for each query with its \
             negatives in a list"
        ));
    }
    if let Some(key) = find(&row, &columns::NEGATIVE_SCORES).or_else(|| find(&row, &columns::SCORES)) {
        return Err(format!(
            "{key} has a score for every negative but none for mined ones; remove it from the data and score the \
             negatives again when they are mined"
        ));
    }
    if row.contains_key(columns::TASK_NAME) {
        return Err(format!(
            "{} says that texts have instructions, and mined ones have none; leave it out, and put the instructions into \
             the texts or the prefixes",
            columns::TASK_NAME
        ));
    }
    let text = std::str::from_utf8(line).expect("parse_object has read it").trim();
    match is_parallel {
        true => add_to_parallel(text.to_owned(), &row, negatives, replace),
        false => add_to_flat(text.to_owned(), row, columns, negatives, replace),
    }
}

/// A group without scores as a parallel row. A language with one query or positive holds a string, with more a list;
/// negatives are always lists.
pub fn parallel_row(group: &Group) -> String {
    let lists = |texts: &[Text]| {
        let mut by_lang = Map::new();
        texts.iter().for_each(|text| push(&mut by_lang, &text.lang, &text.text));
        by_lang
    };
    let by_lang = |texts: &[Text]| {
        let mut by_lang = lists(texts);
        for texts in by_lang.values_mut() {
            if let [one] = texts.as_array().map_or(&[][..], Vec::as_slice) {
                *texts = one.clone();
            }
        }
        by_lang
    };
    let Group { id, queries, positives, negatives, .. } = group;
    json!({"id": id, "query": by_lang(queries), "positive": by_lang(positives), "negatives": lists(negatives)})
        .to_string()
}

fn add_to_parallel(
    line: String,
    row: &Map<String, Value>,
    negatives: &[Text],
    replace: bool,
) -> std::result::Result<String, String> {
    let key = find(row, &parallel::NEGATIVE).unwrap_or("negatives");
    let mut by_lang = match row.get(key) {
        Some(Value::Object(by_lang)) if !replace => by_lang.clone(),
        _ => Map::new(),
    };
    for text in negatives {
        push(&mut by_lang, &text.lang, &text.text);
    }
    Ok(with_member(line, key, &Value::Object(by_lang)))
}

fn add_to_flat(
    mut line: String,
    row: Map<String, Value>,
    columns: &Columns,
    negatives: &[Text],
    replace: bool,
) -> std::result::Result<String, String> {
    let place = flat::place_of_negatives(&row, columns);
    let has_langs = row.get(NEGATIVE_LANGS).is_some_and(|langs| !langs.is_null());
    let group = flat::parse(&mut row.clone(), columns, String::new)?;
    let passage_lang = &group.positives[0].lang;
    let mut langs: Vec<&str> = group.negatives.iter().map(|text| text.lang.as_str()).collect();
    if replace {
        langs.clear();
    }
    langs.extend(negatives.iter().map(|text| text.lang.as_str()));
    if has_langs || langs.iter().any(|lang| lang != passage_lang) {
        line = with_member(line, NEGATIVE_LANGS, &json!(langs));
    }
    // Columns beside the place are set to null, which counts as absent.
    for key in flat::negative_keys(&row, columns).iter().filter(|_| replace) {
        line = with_member(line, key, &Value::Null);
    }
    match place {
        Place::List(key) => {
            let mut items = match row.get(&key) {
                Some(Value::Array(items)) if !replace => items.clone(),
                Some(Value::Null) | None => vec![],
                Some(_) if replace => vec![],
                Some(one) => vec![one.clone()],
            };
            // tevatron's passages are objects.
            let is_object = items.first().map_or(key == "negative_passages", Value::is_object);
            items.extend(negatives.iter().map(|text| match is_object {
                true => json!({"text": text.text}),
                false => json!(text.text),
            }));
            Ok(with_member(line, &key, &Value::Array(items)))
        }
        Place::Columns(there) => {
            let numbers = there.iter().filter_map(|key| negative_number(key));
            let first = if replace { 1 } else { 1 + numbers.max().unwrap_or(0) };
            for (number, text) in (first..).zip(negatives) {
                line = with_member(line, &format!("negative_{number}"), &json!(text.text));
            }
            Ok(line)
        }
    }
}

/// Appends a text to those of its language.
fn push(by_lang: &mut Map<String, Value>, lang: &str, text: &str) {
    let texts = by_lang.entry(lang).or_insert_with(|| json!([]));
    match texts {
        Value::Array(texts) => texts.push(json!(text)),
        Value::Null => *texts = json!([text]),
        one => *one = json!([one.take(), text]),
    }
}

/// The text of a JSON object with the value of one member set, and nothing else changed. A new member comes last.
fn with_member(mut object: String, key: &str, value: &Value) -> String {
    let members = members(&object);
    match members.iter().rfind(|(name, _)| name == key) {
        Some((_, range)) => object.replace_range(range.clone(), &value.to_string()),
        None => {
            let end = object.rfind('}').expect("an object ends in a brace");
            let comma = if members.is_empty() { "" } else { ", " };
            object.insert_str(end, &format!("{comma}{}: {value}", json!(key)));
        }
    }
    object
}

/// The keys of a valid JSON object, and where their values are in its text.
pub(super) fn members(object: &str) -> Vec<(String, Range<usize>)> {
    let is_between = |c: char| c.is_ascii_whitespace() || c == ',' || c == ':';
    let skip = |at: usize| object.len() - object[at..].trim_start_matches(is_between).len();
    let mut members = Vec::new();
    let mut at = skip(1 + object.find('{').unwrap_or(0));
    while object[at..].starts_with('"') {
        let (key, key_len) = first_value::<String>(&object[at..]);
        let start = skip(at + key_len);
        let (IgnoredAny, len) = first_value(&object[start..]);
        members.push((key, start..start + len));
        at = skip(start + len);
    }
    members
}

/// The JSON value that a text begins with, and its length.
fn first_value<T: DeserializeOwned>(text: &str) -> (T, usize) {
    let mut values = Deserializer::from_str(text).into_iter::<T>();
    let value = values.next().and_then(std::result::Result::ok).expect("the object has been parsed before");
    (value, values.byte_offset())
}
