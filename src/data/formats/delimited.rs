//! Columns between commas or tabs, with a header or, between tabs, as MS MARCO's triples without one.

use std::sync::Arc;

use csv::{ReaderBuilder, StringRecord};
use serde_json::{Map, Value};

use super::columns::{LABELS, NEGATIVE_SCORES, POSITIVE_SCORES, SCORES};
use super::files::DataFile;
use super::notes::Note;
use super::open::Text;
use super::row::{Body, Layout, Place, Row};
use super::tables;
use crate::{Error, Result};

/// The rows of a file.
pub(super) struct Delimited {
    file: Arc<DataFile>,
    layout: Arc<Layout>,
    reader: csv::Reader<Counted>,
    header: Vec<String>,
    /// The first line, if it is no header.
    first: Option<StringRecord>,
    /// Lines that the library does not count: it begins the second row at the end of the first one's `\r\n`.
    uncounted: u64,
    /// Line of the last row, if its last cell has several lines.
    long_row: Option<u64>,
    n_reported: u64,
}

/// A text with the bytes of the file that it has taken.
struct Counted {
    text: Text,
    n_bytes: u64,
    n_quotes: u64,
}

impl std::io::Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.text.reader.read(buffer)?;
        self.n_bytes += self.text.n_bytes(n);
        self.n_quotes += buffer[..n].iter().filter(|byte| **byte == b'"').count() as u64;
        Ok(n)
    }
}

/// Columns of files without a header: those of MS MARCO's `triples.train.small.tsv`, or pairs.
const TRIPLE: [&str; 3] = ["query", "positive", "negative"];

impl Delimited {
    pub(super) fn open(file: &Arc<DataFile>, layout: &Arc<Layout>, delimiter: u8) -> Result<Self> {
        let text = Text::open(&file.path)?;
        let is_tab = delimiter == b'\t';
        let mut builder = ReaderBuilder::new();
        // A tab never stands in a text, so that quotes are part of it.
        builder.has_headers(false).delimiter(delimiter).quoting(!is_tab).flexible(false);
        let mut reader = builder.from_reader(Counted { text, n_bytes: 0, n_quotes: 0 });
        let mut first = StringRecord::new();
        let is_any = reader.read_record(&mut first).map_err(|e| fail(file, &e))?;
        let mut header: Vec<String> = first.iter().map(|cell| cell.trim_start_matches('\u{feff}').to_owned()).collect();
        let n_breaks: usize = first.iter().map(|cell| cell.matches('\n').count()).sum();
        let uncounted = (2 + n_breaks as u64).saturating_sub(reader.position().line());
        let mut rows = Delimited {
            file: Arc::clone(file),
            layout: Arc::clone(layout),
            reader,
            header: Vec::new(),
            first: None,
            uncounted,
            long_row: None,
            n_reported: 0,
        };
        if is_any && !layout.columns.is_header(&header) {
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
            rows.first = Some(first);
        } else if let Some(twice) = header.iter().enumerate().find(|(i, name)| header[..*i].contains(name)) {
            return Err(Error::line(&file.path, 1, format!("the column {:?} stands twice in the header", twice.1)));
        }
        rows.header = header;
        Ok(rows)
    }

    /// A quote that is not closed makes one cell of all lines to the end, and the library takes that for what was meant.
    fn check_end(&mut self) -> Result<()> {
        let is_odd = self.reader.get_ref().n_quotes % 2 == 1;
        match self.long_row.take().filter(|_| is_odd) {
            Some(line) => Err(Error::line(
                &self.file.path,
                line,
                "a quote that opens in this row is not closed before the end of the file; close it, or double it",
            )),
            None => Ok(()),
        }
    }

    fn next_row(&mut self) -> Result<Option<Row>> {
        let record = match self.first.take() {
            Some(first) => first,
            None => {
                let mut record = StringRecord::new();
                if !self.reader.read_record(&mut record).map_err(|e| fail(&self.file, &e))? {
                    return self.check_end().map(|()| None);
                }
                record
            }
        };
        let line = record.position().map_or(1, |at| if at.byte() == 0 { 1 } else { at.line() + self.uncounted });
        self.long_row = record.iter().next_back().is_some_and(|cell| cell.contains('\n')).then_some(line);
        let cells = self.header.iter().zip(&record).map(|(name, cell)| (name.clone(), value(name, cell)));
        let record: Map<String, Value> = cells.collect();
        let n_bytes = self.reader.get_ref().n_bytes;
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

fn fail(file: &DataFile, e: &csv::Error) -> Error {
    match e.kind() {
        csv::ErrorKind::Io(_) => Error::file(&file.path, format!("cannot be read: {e}")),
        csv::ErrorKind::Utf8 { pos: Some(pos), .. } => {
            Error::line(&file.path, pos.line(), "invalid UTF-8; save the file as UTF-8")
        }
        csv::ErrorKind::UnequalLengths { pos: Some(pos), expected_len, len } => {
            let message =
                format!("{len} columns, where the first line has {expected_len}; quote cells with delimiters");
            Error::line(&file.path, pos.line(), message)
        }
        _ => Error::file(&file.path, format!("cannot be read: {e}")),
    }
}
