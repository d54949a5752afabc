//! Columns between commas or tabs, with a header or, between tabs, as MS MARCO's triples without one.

use std::sync::Arc;

use csv::StringRecord;
use serde_json::{Map, Value};

use super::columns::{LABELS, NEGATIVE_SCORES, POSITIVE_SCORES, SCORES};
use super::files::DataFile;
use super::notes::Note;
use super::records::Records;
use super::row::{Body, Layout, Place, Row};
use super::tables;
use crate::{Error, Result};

/// The rows of a file.
pub(super) struct Delimited {
    file: Arc<DataFile>,
    layout: Arc<Layout>,
    records: Records,
    header: Vec<String>,
    /// The first line, if it is no header.
    first: Option<StringRecord>,
    n_reported: u64,
}

/// Columns of files without a header: those of MS MARCO's `triples.train.small.tsv`, or pairs.
const TRIPLE: [&str; 3] = ["query", "positive", "negative"];

impl Delimited {
    pub(super) fn open(file: &Arc<DataFile>, layout: &Arc<Layout>, delimiter: u8) -> Result<Self> {
        let is_tab = delimiter == b'\t';
        let (records, first) = Records::open(file, delimiter)?;
        let cells = first.iter().flatten();
        let mut header: Vec<String> = cells.map(|cell| cell.trim_start_matches('\u{feff}').to_owned()).collect();
        let mut rows = Delimited {
            file: Arc::clone(file),
            layout: Arc::clone(layout),
            records,
            header: Vec::new(),
            first: None,
            n_reported: 0,
        };
        if first.is_some() && !layout.columns.is_header(&header) {
            if !is_tab || !(2..=3).contains(&header.len()) {
                header.iter_mut().for_each(|cell| *cell = cell.chars().take(40).collect());
                let message = format!(
                    "the first line names no column that hbt knows ({}); it has to be a header, with query and positive",
                    header.join(", ")
                );
                return Err(Error::line(&file.path, 1, message));
            }
            let n_columns = header.len();
            let names = if layout.tables.is_some() { tables::TRIPLE } else { TRIPLE };
            header = names[..n_columns].iter().map(|name| (*name).to_owned()).collect();
            layout.note(Note::NoHeader(header.join(", ")), 1);
            rows.first = first;
        } else if let Some(twice) = header.iter().enumerate().find(|(i, name)| header[..*i].contains(name)) {
            return Err(Error::line(&file.path, 1, format!("the column {:?} stands twice in the header", twice.1)));
        }
        rows.header = header;
        Ok(rows)
    }

    fn next_row(&mut self) -> Result<Option<Row>> {
        let next = self.first.take().map_or_else(|| self.records.next_record(), |first| Ok(Some(first)));
        let Some(record) = next? else { return Ok(None) };
        let line = self.records.line(&record);
        let cells = self.header.iter().zip(&record).map(|(name, cell)| (name.clone(), value(name, cell)));
        let record: Map<String, Value> = cells.collect();
        let n_bytes = self.records.n_bytes();
        let new = n_bytes - std::mem::replace(&mut self.n_reported, n_bytes);
        Ok(Some(Row::new(&self.file, &self.layout, Place::Line(line), new, Body::Record(record))))
    }
}

impl Iterator for Delimited {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_row().transpose()
    }
}

/// A cell as JSON would have it: nothing where it is empty, numbers and lists of them where the column holds these, and
/// a list of texts where a program has written it as JSON.
fn value(column: &str, cell: &str) -> Value {
    if cell.is_empty() {
        return Value::Null;
    }
    let is_number = [LABELS, SCORES, POSITIVE_SCORES, NEGATIVE_SCORES].concat().contains(&column);
    let json: Option<Value> = if is_number || cell.starts_with('[') { serde_json::from_str(cell).ok() } else { None };
    let is_meant = |value: &Value| match value {
        Value::Array(items) => items.iter().all(if is_number { Value::is_number } else { Value::is_string }),
        other => other.is_number() || other.is_boolean(),
    };
    json.filter(is_meant).unwrap_or_else(|| Value::String(cell.to_owned()))
}
