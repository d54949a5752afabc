//! Records of columns between delimiters, and the lines that they begin in.

use std::sync::Arc;

use csv::{ReaderBuilder, StringRecord};

use super::files::DataFile;
use super::open::Text;
use crate::{Error, Result};

/// The records of a file.
pub(in crate::data) struct Records {
    file: Arc<DataFile>,
    reader: csv::Reader<Counted>,
    /// Lines that the library does not count: it begins the second row at the end of the first one's `\r\n`.
    uncounted: u64,
    /// Line of the last record, if its last cell has several lines.
    long_record: Option<u64>,
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

impl Records {
    /// Opens a file and reads its first record, a header perhaps; an empty file has none.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(in crate::data) fn open(file: &Arc<DataFile>, delimiter: u8) -> Result<(Records, Option<StringRecord>)> {
        let text = Text::open(&file.path)?;
        let mut builder = ReaderBuilder::new();
        // A tab never stands in a text, so that quotes are part of it.
        builder.has_headers(false).delimiter(delimiter).quoting(delimiter != b'\t').flexible(false);
        let mut reader = builder.from_reader(Counted { text, n_bytes: 0, n_quotes: 0 });
        let mut first = StringRecord::new();
        let is_any = reader.read_record(&mut first).map_err(|e| fail(file, &e))?;
        let n_breaks: usize = first.iter().map(|cell| cell.matches('\n').count()).sum();
        let uncounted = (2 + n_breaks as u64).saturating_sub(reader.position().line());
        let records = Records { file: Arc::clone(file), reader, uncounted, long_record: None };
        Ok((records, is_any.then_some(first)))
    }

    /// The next record; `None` behind the last one.
    ///
    /// # Errors
    /// What cannot be read; a record with more or fewer cells than the first; a quote that is not closed.
    pub(in crate::data) fn next_record(&mut self) -> Result<Option<StringRecord>> {
        let mut record = StringRecord::new();
        if !self.reader.read_record(&mut record).map_err(|e| fail(&self.file, &e))? {
            return self.check_end().map(|()| None);
        }
        let is_long = record.iter().next_back().is_some_and(|cell| cell.contains('\n'));
        self.long_record = is_long.then(|| self.line(&record));
        Ok(Some(record))
    }

    /// The line that a record begins in, from 1.
    pub(in crate::data) fn line(&self, record: &StringRecord) -> u64 {
        record.position().map_or(1, |at| if at.byte() == 0 { 1 } else { at.line() + self.uncounted })
    }

    /// Bytes of the file that have been read.
    pub(in crate::data) fn n_bytes(&self) -> u64 {
        self.reader.get_ref().n_bytes
    }

    /// A quote that is not closed makes one cell of all lines to the end, and the library takes that for what was meant.
    fn check_end(&mut self) -> Result<()> {
        let is_odd = self.reader.get_ref().n_quotes % 2 == 1;
        match self.long_record.take().filter(|_| is_odd) {
            Some(line) => Err(Error::line(
                &self.file.path,
                line,
                "a quote that opens in this row is not closed before the end of the file; close it, or double it",
            )),
            None => Ok(()),
        }
    }
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
