//! A row of a data file, before and after it is parsed.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::Group;
use crate::{Error, Result};

/// A row that has been read but, if it comes from JSONL, not yet parsed.
pub struct Row {
    file: Arc<DataFile>,
    n_bytes: u64,
    body: Body,
}

enum Body {
    Line { number: u64, bytes: Vec<u8>, parse: ParseRow },
    Group(Group),
}

/// A format's function from a row to a group; the closure makes the id of a row that has none.
pub(super) type ParseRow = fn(Map<String, Value>, &dyn Fn() -> String) -> std::result::Result<Group, String>;

/// A file of the data set.
#[derive(Debug)]
pub(super) struct DataFile {
    pub(super) path: PathBuf,
    /// Path within the data set, with slashes; part of the ids of rows without an id.
    pub(super) name: String,
}

impl Row {
    /// Row on line `number` (1-based) of a file, which is `n_bytes` long there.
    pub(super) fn of_line(file: &Arc<DataFile>, number: u64, n_bytes: u64, bytes: Vec<u8>, parse: ParseRow) -> Self {
        Row { file: Arc::clone(file), n_bytes, body: Body::Line { number, bytes, parse } }
    }

    /// A row of a format that is not read line by line.
    pub(super) fn of_group(file: &Arc<DataFile>, n_bytes: u64, group: Group) -> Self {
        Row { file: Arc::clone(file), n_bytes, body: Body::Group(group) }
    }

    /// Bytes of the data files that this row takes up: the unit of progress.
    pub fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// The row as a group, or as a part of the group with its id.
    ///
    /// # Errors
    /// Invalid UTF-8 or JSON, or a row without a required field; the message names the line.
    pub fn parse(&self) -> Result<Group> {
        match &self.body {
            Body::Group(group) => Ok(group.clone()),
            Body::Line { number, bytes, parse } => {
                let group = parse_object(bytes).and_then(|row| parse(row, &|| self.place(*number)));
                group.map_err(|message| Error::line(&self.file.path, *number, message))
            }
        }
    }

    /// Whether `id`, returned by parsing, comes from the data, so that other rows may have it too, and not from this
    /// row's place.
    pub fn is_named(&self, id: &str) -> bool {
        match self.body {
            Body::Group(_) => true,
            Body::Line { number, .. } => id != self.place(number),
        }
    }

    /// Id of a row that has none.
    fn place(&self, number: u64) -> String {
        format!("{}:{number}", self.file.name)
    }

    /// The row's line in the file, if the format is read line by line.
    pub fn line(&self) -> Option<&[u8]> {
        match &self.body {
            Body::Line { bytes, .. } => Some(bytes),
            Body::Group(_) => None,
        }
    }

    /// An error at this row's place.
    pub fn error(&self, message: impl std::fmt::Display) -> Error {
        match &self.body {
            Body::Line { number, .. } => Error::line(&self.file.path, *number, message.to_string()),
            Body::Group(group) => Error::file(&self.file.path, format!("question {}: {message}", group.id)),
        }
    }
}

/// Parses one line as a JSON object; the error is a message without file and line.
pub fn parse_object(line: &[u8]) -> std::result::Result<Map<String, Value>, String> {
    // Without the line's end, so that the column of an error is one of this line.
    let text = std::str::from_utf8(line.trim_ascii_end())
        .map_err(|e| format!("invalid UTF-8 at byte {} of the line; save the file as UTF-8", e.valid_up_to() + 1))?;
    let value: Value = serde_json::from_str(text).map_err(|e| {
        // The message ends in a line number of its own, which is always 1 and would mislead.
        let message = e.to_string();
        let what = message.split(" at line ").next().unwrap_or(&message);
        format!("invalid JSON: {what} at column {}", e.column())
    })?;
    match value {
        Value::Object(row) => Ok(row),
        other => Err(format!("expected one JSON object a line, found {}", super::kind(&other))),
    }
}
