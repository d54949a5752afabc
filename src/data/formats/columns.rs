//! Names of columns: those that trainers and data sets use, and those that users name themselves.

use serde_json::{Map, Value};
use strsim::damerau_levenshtein;

/// In order of precedence: in a row with both `positive` and a short `answer`, the positive is the passage.
const QUERY: [&str; 4] = ["query", "anchor", "question", "sentence1"];
const POSITIVE: [&str; 8] =
    ["positive", "positives", "pos", "positive_passages", "passage", "context", "answer", "sentence2"];
const NEGATIVE: [&str; 6] = ["negative", "negatives", "neg", "negative_passages", "hard_negatives", "hard_negative"];
/// Names of the row's id.
pub(super) const ID: [&str; 4] = ["id", "query_id", "qid", "_id"];
/// The language of query and passage both.
pub(super) const LANG: [&str; 3] = ["lang", "language", "locale"];
/// The language of the query.
pub(super) const QUERY_LANG: [&str; 3] = ["query_lang", "query_language", "query_locale"];
/// The language of the positives and, if [`NEGATIVE_LANGS`] says nothing else, of the negatives.
pub(super) const PASSAGE_LANG: [&str; 3] = ["passage_lang", "passage_language", "passage_locale"];
/// The language of each negative, in their order, if not all are in the language of the passages.
pub(super) const NEGATIVE_LANGS: &str = "negative_langs";
/// Whether a passage is a positive (1) or a negative (0).
pub(super) const LABELS: [&str; 2] = ["label", "labels"];
/// A label, or a teacher's scores: those of sentence-transformers' miners.
pub(super) const SCORES: [&str; 2] = ["score", "scores"];
/// Key names of the positives' scores by a teacher.
pub(super) const POSITIVE_SCORES: [&str; 2] = ["pos_scores", "positive_scores"];
/// Key names of the negatives' scores by a teacher.
pub(super) const NEGATIVE_SCORES: [&str; 2] = ["neg_scores", "negative_scores"];
/// FlagEmbedding: text before this row's query, instead of the model's prefix.
pub(super) const PROMPT: &str = "prompt";
/// MEDI's rows have it, and `[instruction, text]` where others have a text.
pub(super) const TASK_NAME: &str = "task_name";

/// Names that the user has given; they are looked for instead of the known ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// Column of the queries.
    pub query: Option<String>,
    /// Column of the positives.
    pub positive: Option<String>,
    /// Column of the negatives.
    pub negative: Option<String>,
    /// Whether rows with one id are versions of one question, in all files and languages.
    pub join_by_id: bool,
}

impl Columns {
    /// Where a query may be.
    pub(super) fn query(&self) -> Vec<&str> {
        names(&self.query, &QUERY)
    }

    /// Where positives may be.
    pub(super) fn positive(&self) -> Vec<&str> {
        names(&self.positive, &POSITIVE)
    }

    /// Where a list of negatives may be.
    pub(super) fn negative(&self) -> Vec<&str> {
        names(&self.negative, &NEGATIVE)
    }

    /// Whether a first line with these cells names columns, rightly or nearly so.
    pub(super) fn is_header(&self, cells: &[String]) -> bool {
        let known = [self.query(), self.positive(), self.negative()].concat();
        cells.iter().any(|cell| known.contains(&cell.as_str()) || nearest(cell, &known).is_some())
    }

    /// Fails if what is left of a row has nearly the name of a column that the row lacks: it was meant to be one.
    pub(super) fn check_left(&self, left: &Map<String, Value>, has: Has) -> Result<(), String> {
        let mut lacking: Vec<&str> = Vec::new();
        if !has.negatives {
            lacking.extend(self.negative());
            lacking.extend(NEGATIVE_SCORES);
        }
        if !has.languages {
            lacking.extend(LANG.iter().chain(&QUERY_LANG).chain(&PASSAGE_LANG));
        }
        if !has.labels {
            lacking.extend(LABELS);
        }
        let present = left.iter().filter(|(_, value)| !value.is_null());
        for (column, _) in present {
            if let Some(near) = nearest(column, &lacking) {
                return Err(format!("unknown column {column:?}; did you mean {near:?}? Rename it, or remove it"));
            }
        }
        Ok(())
    }
}

/// What a row has, so that no misspelled column can have been meant.
#[derive(Clone, Copy)]
pub(super) struct Has {
    pub(super) negatives: bool,
    pub(super) languages: bool,
    pub(super) labels: bool,
}

/// The number in the key of a numbered column, `negative_1` and so on.
pub(super) fn negative_number(key: &str) -> Option<u32> {
    key.strip_prefix("negative_")?.parse().ok()
}

/// Whether a row has a column of negatives, called as hbt knows it.
pub fn names_negatives(row: &Map<String, Value>) -> bool {
    row.keys().any(|key| NEGATIVE.contains(&key.as_str()) || negative_number(key).is_some())
}

/// The first of `names` that the row has; null counts as absent.
pub(super) fn find<'a>(row: &Map<String, Value>, names: &[&'a str]) -> Option<&'a str> {
    names.iter().copied().find(|name| row.get(*name).is_some_and(|value| !value.is_null()))
}

/// Takes the first of `names` that the row has.
pub(super) fn take<'a>(row: &mut Map<String, Value>, names: &[&'a str]) -> Option<(&'a str, Value)> {
    let name = find(row, names)?;
    row.remove(name).map(|value| (name, value))
}

/// The error about a missing column: what was looked for and what the row has instead.
pub(super) fn missing(what: &str, names: &[&str], row: &Map<String, Value>) -> String {
    let keys: Vec<&str> = row.iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| key.as_str()).collect();
    let keys = if keys.is_empty() { "nothing".to_string() } else { keys.join(", ") };
    format!("no {what}: expected one of {}; the row has {keys}", names.join(", "))
}

fn names<'a>(given: &'a Option<String>, known: &[&'a str]) -> Vec<&'a str> {
    given.as_deref().map_or_else(|| known.to_vec(), |name| vec![name])
}

/// The known name that a column's may be a slip of: one letter of five or more, or two of eight or more.
fn nearest<'a>(column: &str, known: &[&'a str]) -> Option<&'a str> {
    let lower = column.to_lowercase();
    let is_near = |name: &&&str| {
        let most = if name.len() >= 8 { 2 } else { usize::from(name.len() >= 5) };
        **name != column && damerau_levenshtein(&lower, name) <= most
    };
    known.iter().filter(is_near).min_by_key(|name| damerau_levenshtein(&lower, name)).copied()
}
