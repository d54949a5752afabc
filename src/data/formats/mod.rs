//! Reading training data: one file a format, all giving [`Group`]s.
//!
//! A [`DataSource`] says where the data is. [`DataSource::resolve`] finds its files and its format, and
//! [`Resolved::rows`] streams [`Row`]s: a JSONL row is still text, so that readers can parse in parallel. A row becomes
//! a group, or a part of one: rows that share an `id`, in any files, are versions of the same group.

mod flat;
mod jsonl;
mod negatives;
mod parallel;
mod row;
mod scores;
mod source;
pub mod squad;

use std::fmt;

pub use negatives::{add_negatives, parallel_row};
pub use row::{Row, parse_object};
pub use source::{DataSource, Resolved, Rows};

/// A text and its language.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Text {
    /// ISO 639 code, perhaps with script or region (`zh-Hant`); [`UNKNOWN_LANG`] if the data names none.
    pub lang: String,
    /// The text as the file has it; never empty or only white space.
    pub text: String,
}

/// The versions of one question, its positives and its negatives: a whole group, or the part that one row holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// The data's own id, or `FILE:LINE` if it has none.
    pub id: String,
    /// Queries, at least one.
    pub queries: Vec<Text>,
    /// Positives, at least one.
    pub positives: Vec<Text>,
    /// Mined hard negatives, if any.
    pub negatives: Vec<Text>,
    /// A teacher's score for each of the positives; empty if there are none.
    pub positive_scores: Vec<f32>,
    /// A teacher's score for each of the negatives; empty if there are none.
    pub negative_scores: Vec<f32>,
}

/// The language of texts whose language the data does not name (ISO 639-2 for "undetermined").
pub const UNKNOWN_LANG: &str = "und";

crate::choices::choices! {
    /// Layout of the data.
    DataFormat {
        /// JSON lines, one group a line: `{"id", "query": {"en": "..."}, "positive": {...}, "negatives": {"en": ["..."]}}`.
        Parallel = "parallel",
        /// JSON lines, one row a line: `{"query": "...", "positive": "...", "negatives": ["..."]}` and its many dialects.
        Flat = "flat",
        /// A directory with one SQuAD file a language, like XQuAD-R.
        Squad = "squad",
    }
}

crate::choices::choices! {
    /// Part of the data.
    #[derive(Default)]
    Split {
        /// Everything.
        #[default]
        All = "all",
        /// The training part.
        Train = "train",
        /// The held-out part.
        Test = "test",
    }
}

crate::choices::choices! {
    /// Unit that is the passage of a SQuAD question.
    #[derive(Default)]
    PassageUnit {
        /// The sentence that holds the answer.
        #[default]
        Sentence = "sentence",
        /// The paragraph around it.
        Paragraph = "paragraph",
    }
}

/// ISO 639-1: the two-letter codes. A slip such as `ge` for `de` would otherwise become a language of its own.
const ISO_639_1: &str = "\
    aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el \
    en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it \
    iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt \
    my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl \
    sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo \
    za zh zu";

/// Checks a language code: `en`, `sw`, `yue`, `zh-Hant`, `pt-BR`, `zh-Hant-TW`. The error is a message without file and
/// line.
pub fn check_lang(lang: &str) -> Result<(), String> {
    let mut parts = lang.split('-');
    let primary = parts.next().unwrap_or_default();
    let suffix = |part: &str| match part.len() {
        4 => part.starts_with(|c: char| c.is_ascii_uppercase()) && part[1..].bytes().all(|b| b.is_ascii_lowercase()),
        3 => part.bytes().all(|b| b.is_ascii_digit()),
        2 => part.bytes().all(|b| b.is_ascii_uppercase()),
        _ => false,
    };
    let primary_ok = match primary.len() {
        2 => ISO_639_1.split(' ').any(|code| code == primary),
        3 => primary.bytes().all(|b| b.is_ascii_lowercase()),
        _ => false,
    };
    if primary_ok && lang.is_ascii() && parts.all(suffix) {
        return Ok(());
    }
    Err(format!("unknown language {lang:?}; write its ISO 639 code in lower case, such as en, sw, yue or zh-Hant"))
}

/// Fails on an empty or blank text; `key` is its place in the row.
fn check_text(key: fmt::Arguments, text: &str) -> Result<(), String> {
    match text.trim().is_empty() {
        true => Err(format!("{key} is empty; give it a text or remove the row")),
        false => Ok(()),
    }
}

/// JSON's name for the type of a value, for messages.
fn kind(value: &serde_json::Value) -> &'static str {
    match value {
        serde_json::Value::Null => "null",
        serde_json::Value::Bool(_) => "a boolean",
        serde_json::Value::Number(_) => "a number",
        serde_json::Value::String(_) => "a string",
        serde_json::Value::Array(_) => "a list",
        serde_json::Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn language_codes() {
        for lang in ["en", "yue", "und", "zh-Hant", "pt-BR", "zh-Hant-TW", "es-419"] {
            assert_eq!(check_lang(lang), Ok(()), "{lang}");
        }
        for lang in ["", "e", "EN", "english", "zh_Hant", "zh-", "zh-hant", "en-us", "日本", "zh-日本", "-en"] {
            assert!(check_lang(lang).unwrap_err().contains(&format!("{lang:?}")), "{lang}");
        }
    }
}
