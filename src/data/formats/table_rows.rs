//! Rows of files in columns, which a library reads record by record.

use std::sync::Arc;

use serde_json::{Map, Number, Value};

use super::files::DataFile;
use super::row::{Body, Layout, Place, Row};
use crate::data::guard::guarded;
use crate::{Error, Result};

/// What a library reads of a file.
pub(super) trait RecordReader: Sized + Send {
    /// What the format is called.
    const FORMAT: &'static str;

    /// The next record's columns by name; `None` behind the last one.
    ///
    /// # Errors
    /// The library's own words.
    fn next_record(&mut self) -> std::result::Result<Option<Map<String, Value>>, String>;

    /// Bytes of the file that have been read when `n` records have come.
    fn n_bytes_done(&self, n: u64) -> u64;
}

/// The rows of a file.
pub(super) struct TableRows<R> {
    file: Arc<DataFile>,
    layout: Arc<Layout>,
    records: R,
    number: u64,
    n_reported: u64,
    has_failed: bool,
}

impl<R: RecordReader> TableRows<R> {
    /// Those that `open` finds.
    ///
    /// # Errors
    /// What is not in the format.
    pub(super) fn open(
        file: &Arc<DataFile>,
        layout: &Arc<Layout>,
        open: impl FnOnce() -> std::result::Result<R, String>,
    ) -> Result<Self> {
        let records = guarded(open).map_err(|e| {
            let message = format!("not {} that hbt can read ({}); write it again", R::FORMAT, first_line(&e));
            Error::file(&file.path, message)
        })?;
        let (file, layout) = (Arc::clone(file), Arc::clone(layout));
        Ok(TableRows { file, layout, records, number: 0, n_reported: 0, has_failed: false })
    }
}

impl<R: RecordReader> Iterator for TableRows<R> {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_failed {
            return None;
        }
        let record = guarded(|| self.records.next_record()).transpose()?;
        self.number += 1;
        let done = self.records.n_bytes_done(self.number);
        let n_bytes = done - std::mem::replace(&mut self.n_reported, done);
        self.has_failed = record.is_err();
        Some(match record {
            Ok(record) => {
                Ok(Row::new(&self.file, &self.layout, Place::Row(self.number), n_bytes, Body::Record(record)))
            }
            Err(e) => {
                let message = format!("row {}: {}; write the file again", self.number, first_line(&e));
                Err(Error::file(&self.file.path, message))
            }
        })
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// A number as JSON has it, which knows nothing that is not finite.
pub(super) fn float(number: f64) -> Value {
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}
