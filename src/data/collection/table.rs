//! Rows of files of any container, of which only the columns that are wanted are kept.

use std::fmt;
use std::io::BufRead;
use std::sync::Arc;

use super::cell::{Cell, Column, Parsed, Wanted, check_columns, missing_or_text, split};
use super::parquet::Parquet;
use crate::data::formats::files::{DataFile, Kind};
use crate::data::formats::lines::strip_bom;
use crate::data::formats::object::{parse_line, parse_object};
use crate::data::formats::open::Text;
use crate::data::formats::records::Records;
use crate::{Error, Result};

/// A row: its line or, of Parquet, its number in the file, both from 1; and a cell for each wanted column. Of text without
/// named columns, all cells.
pub(super) struct Row {
    pub(super) number: u64,
    pub(super) cells: Vec<Cell>,
}

/// The rows of a file. Holds one line, or some rows of each column.
pub(super) struct Table<'a> {
    file: Arc<DataFile>,
    columns: &'a [Column<'a>],
    source: Source,
    n_bytes: u64,
}

enum Source {
    Lines {
        text: Text,
        number: u64,
        line: Vec<u8>,
    },
    /// Commas, and a header: the place of each wanted column, if it is there.
    Commas {
        records: Records,
        places: Vec<Option<usize>>,
    },
    Parquet(Parquet),
}

impl<'a> Table<'a> {
    /// Opens a file.
    ///
    /// # Errors
    /// A file that cannot be read, or Parquet or a table of commas without a needed column.
    pub(super) fn open(file: &Arc<DataFile>, columns: &'a [Column<'a>]) -> Result<Table<'a>> {
        let source = match file.kind {
            Kind::Parquet => Source::Parquet(Parquet::open(&file.path, columns)?),
            Kind::Delimited(b',') => commas(file, columns)?,
            Kind::Arrow => {
                let what_to_do = "write it as Parquet: Dataset.from_file(FILE).to_parquet(\"data.parquet\")";
                return Err(Error::file(
                    &file.path,
                    format!("retrieval tasks are not read from .arrow files; {what_to_do}"),
                ));
            }
            _ => Source::Lines { text: Text::open(&file.path)?, number: 0, line: Vec::new() },
        };
        Ok(Table { file: Arc::clone(file), columns, source, n_bytes: 0 })
    }

    /// The next row; `None` behind the last one.
    ///
    /// # Errors
    /// What cannot be read, and a line without a needed column. Nothing can be read behind an error.
    pub(super) fn next_row(&mut self) -> Result<Option<Row>> {
        match &mut self.source {
            Source::Parquet(parquet) => {
                let row = parquet.next_row();
                self.n_bytes = parquet.n_bytes_done();
                row
            }
            Source::Commas { records, places } => {
                let Some(record) = records.next_record()? else { return Ok(None) };
                self.n_bytes = records.n_bytes();
                let cell = |place: &Option<usize>| missing_or_text(place.and_then(|place| record.get(place)));
                Ok(Some(Row { number: records.line(&record), cells: places.iter().map(cell).collect() }))
            }
            Source::Lines { text, number, line } => loop {
                line.clear();
                let n_read = text.reader.read_until(b'\n', line);
                let n_read = n_read.map_err(|e| Error::io("read", &self.file.path, e))?;
                if n_read == 0 {
                    return Ok(None);
                }
                *number += 1;
                self.n_bytes += text.n_bytes(n_read);
                strip_bom(line, *number);
                if !line.trim_ascii().is_empty() {
                    let cells = match self.file.kind {
                        Kind::Delimited(_) => split(line),
                        _ => object(line, self.columns),
                    };
                    let cells = cells.map_err(|message| Error::line(&self.file.path, *number, message))?;
                    return Ok(Some(Row { number: *number, cells }));
                }
            },
        }
    }

    /// Bytes of the file that have been read: the unit of progress.
    pub(super) fn n_bytes_done(&self) -> u64 {
        self.n_bytes
    }

    /// An error at a row.
    pub(super) fn error(&self, number: u64, message: impl fmt::Display) -> Error {
        error_at(&self.file, number, message)
    }
}

/// Opens a table of commas.
fn commas(file: &Arc<DataFile>, columns: &[Column]) -> Result<Source> {
    let (records, header) = Records::open(file, b',')?;
    let header: Vec<&str> = header.iter().flatten().map(|name| name.trim_start_matches('\u{feff}')).collect();
    let place = |name: &str| header.iter().position(|of| *of == name);
    check_columns(columns, |name| place(name).is_some(), &header).map_err(|e| Error::line(&file.path, 1, e))?;
    let places = columns.iter().map(|column| column.names.iter().find_map(|name| place(name))).collect();
    Ok(Source::Commas { records, places })
}

/// An error at a row of a file.
pub(super) fn error_at(file: &DataFile, number: u64, message: impl fmt::Display) -> Error {
    match file.kind {
        Kind::Parquet => Error::file(&file.path, format!("row {number}: {message}")),
        _ => Error::line(&file.path, number, message.to_string()),
    }
}

/// The wanted columns of a line.
fn object(line: &[u8], columns: &[Column]) -> Parsed<Vec<Cell>> {
    let ((cells, is_complete), _) = parse_line(line, Wanted(columns))?;
    if !is_complete {
        let row = parse_object(line)?;
        let keys: Vec<&str> = row.keys().map(String::as_str).collect();
        check_columns(columns, |name| row.contains_key(name), &keys)?;
    }
    Ok(cells)
}
