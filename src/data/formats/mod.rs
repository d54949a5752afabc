//! Reading training data: one file a format, all giving [`Group`]s.
//!
//! A [`DataSource`] says where the data is. [`DataSource::resolve`] finds its files and its format, and
//! [`Resolved::rows`] streams [`Row`]s: a JSONL row is still text, so that readers can parse in parallel. A row becomes
//! a group, or a part of one: rows with the same [identity](Group::identity), in any files, make one group. What is not
//! used is [noted](Notes).

mod arrow;
mod beir;
mod columns;
mod delimited;
pub(in crate::data) mod files;
mod flat;
mod labels;
mod lang;
pub(in crate::data) mod lines;
mod negatives;
mod notes;
pub(in crate::data) mod object;
pub(in crate::data) mod open;
mod parallel;
mod parquet;
pub(in crate::data) mod part;
pub(in crate::data) mod records;
mod row;
mod scores;
mod settle;
mod shared_ids;
mod source;
pub mod squad;
mod table_rows;
mod tables;

use std::fmt;
use std::path::Path;

use crate::Error;

pub use columns::{Columns, names_negatives};
pub use flat::behind_title;
pub use lang::language;
pub use negatives::parallel_row;
pub use notes::{Note, Notes};
pub use object::parse_object;
pub use part::Purpose;
pub use row::Row;
pub use shared_ids::SharedIds;
pub use source::{DataSource, Resolved, Rows};

/// A text and its language.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Text {
    /// ISO 639 code, perhaps with script or region (`zh-Hant`); [`UNKNOWN_LANG`] if the data names none.
    pub lang: String,
    /// The text as the file has it; never empty or only white space.
    pub text: String,
    /// What the data puts before this text, instead of the prefix of its role.
    pub instruction: Option<String>,
}

impl Text {
    /// A text without an instruction.
    pub fn new(lang: impl Into<String>, text: impl Into<String>) -> Self {
        Text { lang: lang.into(), text: text.into(), instruction: None }
    }
}

/// The versions of one question, its positives and its negatives: a whole group, or the part that one row holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// The data's own id, or `FILE:LINE` if it has none.
    pub id: String,
    /// What rows of one group have in common, where that is not the id.
    pub identity: Option<String>,
    /// Queries, at least one.
    pub queries: Vec<Text>,
    /// Positives, at least one in a whole group.
    pub positives: Vec<Text>,
    /// Mined hard negatives, if any.
    pub negatives: Vec<Text>,
    /// A teacher's score for each of the positives; empty if there are none.
    pub positive_scores: Vec<f32>,
    /// A teacher's score for each of the negatives; empty if there are none.
    pub negative_scores: Vec<f32>,
}

impl Group {
    /// What tells this group from others: parts of it have the same.
    pub fn identity(&self) -> &str {
        self.identity.as_deref().unwrap_or(&self.id)
    }
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
        /// A directory in BEIR's layout, or one of such directories, one a language.
        Beir = "beir",
    }
}

impl DataFormat {
    /// Whether a file's rows are groups only together with others.
    pub(super) fn is_of_files(self) -> bool {
        matches!(self, DataFormat::Squad | DataFormat::Beir)
    }
}

crate::choices::choices! {
    /// Part of the data.
    Split {
        /// Everything.
        All = "all",
        /// The training part.
        Train = "train",
        /// The part to choose a model by.
        Validation = "validation",
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

/// The error of a group that has no positive.
pub(super) fn without_positive(path: &Path, id: &str) -> Error {
    Error::file(
        path,
        format!("{id}: every passage of this query is labelled 0; label one 1, or remove the query's rows"),
    )
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
