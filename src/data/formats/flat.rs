//! Flat rows: `{"query": "...", "positive": "...", "negatives": ["..."], "query_lang": "en", "passage_lang": "de"}`
//! under the names in common use (`columns.rs`). FlagEmbedding's rows (`query`, `pos`, `neg`, `pos_scores`,
//! `neg_scores`, `prompt`), tevatron's (`query_id`, `query`, `positive_passages: [{docid, title, text}]`,
//! `negative_passages`), MEDI's (`task_name`, pairs of instruction and text) and those of sentence-transformers' miners
//! (`anchor`, `positive`, `negative_1`, ..., labels) are flat rows.

use std::fmt;

use serde_json::{Map, Value};

use super::columns::{self, Columns, Has, NEGATIVE_LANGS, PROMPT, TASK_NAME, find, missing, negative_number, take};
use super::labels::Beside;
use super::{Group, Text, UNKNOWN_LANG, check_text, kind, labels, language, scores, tables};
use crate::error::counted;

/// Parses one flat row as a group and leaves in it what was not used. `default_id` makes the id of a row that has none.
pub(super) fn parse(
    row: &mut Map<String, Value>,
    columns: &Columns,
    default_id: impl FnOnce() -> String,
) -> Result<Group, String> {
    if find(row, &columns.positive()).is_none() {
        tables::refuse_row(row)?;
    }
    let needed = |what: &str, names: &[&str]| {
        let name_it = || format!("{}; rename a column, or set {what}_column", missing(what, names, row));
        find(row, names).map(str::to_owned).ok_or_else(name_it)
    };
    let (query, positive) = (needed("query", &columns.query())?, needed("positive", &columns.positive())?);
    let lang = take_lang(row, &columns::LANG)?;
    let query_lang = take_lang(row, &columns::QUERY_LANG)?.or_else(|| lang.clone());
    let passage_lang = take_lang(row, &columns::PASSAGE_LANG)?.or(lang);
    if let Some((given, missing)) = one_sided(query_lang.as_ref(), passage_lang.as_ref()) {
        return Err(format!(
            "the row has {given} and no {missing}, so query and passage would count as in two languages; add {missing}, or \
             call the column lang if both are in one"
        ));
    }
    let has_languages = query_lang.is_some() || passage_lang.is_some();
    let query_lang = query_lang.as_deref().unwrap_or(UNKNOWN_LANG);
    let passage_lang = passage_lang.as_deref().unwrap_or(UNKNOWN_LANG);

    let id = id(row)?;
    let is_medi = row.contains_key(TASK_NAME) && is_pair(row.get(&query));
    let read = if is_medi { pairs } else { texts };
    let mut group = Group { id: id.clone().unwrap_or_default(), ..Group::default() };
    match row.remove(&query) {
        Some(Value::Object(_)) => {
            return Err(format!(
                "{query} is an object of texts by language; read such rows with data_format = \"parallel\""
            ));
        }
        value => read(&query, value, query_lang, &mut group.queries)?,
    }
    read(&positive, row.remove(&positive), passage_lang, &mut group.positives)?;
    for key in negative_keys(row, columns) {
        let value = row.remove(&key);
        read(&key, value, passage_lang, &mut group.negatives)?;
    }
    set_instruction(row, &mut group.queries)?;
    group.positive_scores = scores::of_flat(row, &columns::POSITIVE_SCORES, group.positives.len())?;
    group.negative_scores = scores::of_flat(row, &columns::NEGATIVE_SCORES, group.negatives.len())?;
    set_negative_langs(row.remove(NEGATIVE_LANGS), &mut group.negatives)?;
    for (key, texts) in [(&query, &group.queries), (&positive, &group.positives)] {
        if texts.is_empty() {
            return Err(format!("{key} is an empty list; give it a text or remove the row"));
        }
    }
    let has_negatives = !group.negatives.is_empty();
    let beside = labels::apply(row, &mut group)?;
    let is_labelled = beside == Beside::Labels;
    columns.check_left(row, Has { negatives: has_negatives, languages: has_languages, labels: is_labelled })?;
    identify(&mut group, id, beside, columns.join_by_id, default_id)?;
    Ok(group)
}

/// The column of languages that a row has and the one that it lacks, if it names the language of one side alone.
fn one_sided(query: Option<&String>, passage: Option<&String>) -> Option<(&'static str, &'static str)> {
    match (query, passage) {
        (Some(_), None) => Some((columns::QUERY_LANG[0], columns::PASSAGE_LANG[0])),
        (None, Some(_)) => Some((columns::PASSAGE_LANG[0], columns::QUERY_LANG[0])),
        _ => None,
    }
}

/// Ids are counted from zero in every file and language of many data sets, and label documents in others. So they join
/// rows only if these ask the same question, or if the user says that they may. Labelled rows are joined by the
/// question alone; rows with margins only if they have the same positive, too.
fn identify(
    group: &mut Group,
    id: Option<String>,
    beside: Beside,
    join_by_id: bool,
    default_id: impl FnOnce() -> String,
) -> Result<(), String> {
    let question = |id: &str| {
        let query = &group.queries[0];
        Some(format!("{id}\n{}\n{}", query.lang, query.text))
    };
    match id {
        Some(_) if join_by_id && beside == Beside::Margins => {
            return Err("margins are below the row's own positive, and join_by_id would join rows with others; give \
                        scores of the positive and the negatives, or set join_by_id = false"
                .to_owned());
        }
        Some(_) if join_by_id => {}
        _ if beside == Beside::Labels => group.identity = question(""),
        Some(id) if beside == Beside::Margins => {
            group.identity = question(&id).map(|question| format!("{question}\n{}", group.positives[0].text));
        }
        Some(id) => group.identity = question(&id),
        None => {}
    }
    if group.id.is_empty() {
        group.id = default_id();
    }
    Ok(())
}

/// The row's id as a string, if it has one.
pub(super) fn id(row: &mut Map<String, Value>) -> Result<Option<String>, String> {
    let Some((key, value)) = take(row, &columns::ID) else { return Ok(None) };
    let id = as_id(&value).filter(|id| !id.is_empty());
    id.map(Some).ok_or_else(|| format!("{key} has to be a number or a string that is not empty"))
}

/// An id as a string; numbers are ids too.
pub(super) fn as_id(value: &Value) -> Option<String> {
    match value {
        Value::String(id) => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    }
}

/// Makes strings of ids that are numbers too long to be kept in 64 bits; `text` is the row as it stands in the file.
pub(super) fn keep_digits(row: &mut Map<String, Value>, text: &str) {
    let is_rounded = |row: &Map<String, Value>, key: &str| row.get(key).is_some_and(Value::is_f64);
    if !columns::ID.iter().any(|key| is_rounded(row, key)) {
        return;
    }
    for (key, range) in super::negatives::members(text) {
        if columns::ID.contains(&key.as_str()) && is_rounded(row, &key) {
            row.insert(key, Value::String(text[range].to_owned()));
        }
    }
}

fn take_lang(row: &mut Map<String, Value>, names: &[&str]) -> Result<Option<String>, String> {
    match take(row, names) {
        None => Ok(None),
        Some((key, Value::String(lang))) => language(&lang).map(Some).map_err(|e| format!("{key}: {e}")),
        Some((key, other)) => Err(format!("{key} has to be a language code such as \"en\", not {}", kind(&other))),
    }
}

/// Place of a flat row's negatives, present or future.
pub(super) enum Place {
    /// Under one key.
    List(String),
    /// In the columns `negative_1`, `negative_2`, ... of sentence-transformers; holds the present ones, ascending.
    Columns(Vec<String>),
}

/// A row without negatives gets them in the place that its dialect uses; see [`super::negatives`].
pub(super) fn place_of_negatives(row: &Map<String, Value>, columns: &Columns) -> Place {
    // The last of several, so that new negatives come after all others.
    let numbered = numbered_negatives(row);
    if !numbered.is_empty() {
        return Place::Columns(numbered);
    }
    match (negative_keys(row, columns).pop(), find(row, &columns.query()), find(row, &columns.positive())) {
        (Some(key), ..) => Place::List(key),
        _ if columns.negative.is_some() => Place::List(columns.negative()[0].to_owned()),
        (None, Some("anchor"), _) => Place::Columns(numbered),
        (None, _, Some("pos")) => Place::List("neg".to_owned()),
        (None, _, Some("positive_passages")) => Place::List("negative_passages".to_owned()),
        _ => Place::List("negatives".to_owned()),
    }
}

/// The keys that hold negatives: lists first, then numbered columns, ascending.
pub(super) fn negative_keys(row: &Map<String, Value>, columns: &Columns) -> Vec<String> {
    let names = columns.negative();
    let lists = names.iter().filter(|name| find(row, &[name]).is_some()).map(|name| (*name).to_owned());
    lists.chain(numbered_negatives(row)).collect()
}

fn numbered_negatives(row: &Map<String, Value>) -> Vec<String> {
    let is_column = |(key, value): &(&String, &Value)| negative_number(key).is_some() && !value.is_null();
    let mut keys: Vec<String> = row.iter().filter(is_column).map(|(key, _)| key.clone()).collect();
    keys.sort_by_key(|key| negative_number(key));
    keys
}

/// FlagEmbedding's `prompt` stands before the row's query instead of the run's prefix.
fn set_instruction(row: &mut Map<String, Value>, queries: &mut [Text]) -> Result<(), String> {
    match row.remove(PROMPT) {
        None | Some(Value::Null) => {}
        Some(Value::String(prompt)) => queries.iter_mut().for_each(|query| query.instruction = Some(prompt.clone())),
        Some(other) => return Err(format!("{PROMPT} has to be a text to put before the query, not {}", kind(&other))),
    }
    Ok(())
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
        text.lang = language(&lang).map_err(|e| format!("{NEGATIVE_LANGS}[{i}]: {e}"))?;
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

/// Whether a value is an instruction and a text.
fn is_pair(value: Option<&Value>) -> bool {
    value.and_then(Value::as_array).is_some_and(|items| items.len() == 2 && items.iter().all(Value::is_string))
}

/// MEDI's `[instruction, text]`, or several of them.
fn pairs(key: &str, value: Option<Value>, lang: &str, out: &mut Vec<Text>) -> Result<(), String> {
    let pairs = match value {
        Some(Value::Array(items)) if !items.is_empty() && items.iter().all(|item| is_pair(Some(item))) => items,
        Some(pair) => vec![pair],
        None => vec![],
    };
    for pair in pairs {
        let Value::Array(mut items) = pair else {
            return Err(format!("{key} has to be an [instruction, text], as the row's {TASK_NAME} says"));
        };
        let (Some(text), Some(Value::String(instruction)), None) = (items.pop(), items.pop(), items.pop()) else {
            return Err(format!("{key} has to be an [instruction, text], as the row's {TASK_NAME} says"));
        };
        one_text(format_args!("{key}"), text, lang, out)?;
        out.last_mut().expect("a text was added").instruction = Some(instruction);
    }
    Ok(())
}

fn one_text(key: fmt::Arguments, value: Value, lang: &str, out: &mut Vec<Text>) -> Result<(), String> {
    let text = match value {
        Value::String(text) => text,
        Value::Object(object) => passage(key, object)?,
        other => return Err(format!("{key} has to be a string or a list of strings, not {}", kind(&other))),
    };
    check_text(key, &text)?;
    out.push(Text::new(lang, text));
    Ok(())
}

/// Title and text of a passage in one.
pub(super) fn passage(key: fmt::Arguments, mut passage: Map<String, Value>) -> Result<String, String> {
    match passage.remove("text") {
        Some(Value::String(text)) => Ok(behind_title(&mut passage, &text).unwrap_or(text)),
        _ => Err(format!("{key} has no \"text\"; expected a string or {{\"title\", \"text\"}}")),
    }
}

/// `text` behind the title that is taken out of its row; `None` if there is none, or a blank one.
pub fn behind_title(row: &mut Map<String, Value>, text: &str) -> Option<String> {
    match row.shift_remove("title") {
        Some(Value::String(title)) if !title.trim().is_empty() => Some(format!("{title} {text}")),
        _ => None,
    }
}
