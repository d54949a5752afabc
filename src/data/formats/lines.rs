//! JSON text: an object a line, or one list of objects.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use serde_json::value::RawValue;
use serde_json::{Deserializer, Map, Value};

use super::files::DataFile;
use super::open::Text;
use super::row::{Body, Layout, Place, Row};
use crate::{Error, Result};

/// The rows of a file of lines. Holds one line at a time.
pub(super) struct Lines {
    file: Arc<DataFile>,
    layout: Arc<Layout>,
    text: Text,
    number: u64,
}

impl Lines {
    pub(super) fn open(file: &Arc<DataFile>, layout: &Arc<Layout>) -> Result<Self> {
        Ok(Lines { file: Arc::clone(file), layout: Arc::clone(layout), text: Text::open(&file.path)?, number: 0 })
    }

    /// Starts at the first line that begins after byte `offset` of a file that is not packed. Lines are then numbered
    /// on from the byte where the search began, so that no two lines have the same number.
    pub(super) fn open_behind(file: &Arc<DataFile>, layout: &Arc<Layout>, offset: u64) -> Result<Self> {
        let mut lines = Lines::open(file, layout)?;
        let mut reader = BufReader::with_capacity(1 << 20, File::open(&file.path).map_err(|e| lines.fail(e))?);
        let sought = reader.seek(SeekFrom::Start(offset)).and_then(|_| reader.skip_until(b'\n'));
        sought.map_err(|e| lines.fail(e))?;
        lines.text.reader = Box::new(reader);
        lines.number = offset;
        Ok(lines)
    }

    fn fail(&self, e: std::io::Error) -> Error {
        Error::io("read", &self.file.path, e)
    }

    fn next_row(&mut self) -> Result<Option<Row>> {
        loop {
            let mut line = Vec::new();
            let n_read = self.text.reader.read_until(b'\n', &mut line).map_err(|e| self.fail(e))?;
            if n_read == 0 {
                return Ok(None);
            }
            self.number += 1;
            strip_bom(&mut line, self.number);
            let n_bytes = self.text.n_bytes(n_read);
            if !line.trim_ascii().is_empty() {
                let place = Place::Line(self.number);
                return Ok(Some(Row::new(&self.file, &self.layout, place, n_bytes, Body::Json(line))));
            }
        }
    }
}

impl Iterator for Lines {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_row().transpose()
    }
}

/// The rows of a file that is one list of objects; it takes the memory of the file.
pub(super) fn of_list(file: &Arc<DataFile>, layout: &Arc<Layout>) -> Result<Vec<Row>> {
    let mut text = Text::open(&file.path)?;
    let mut bytes = Vec::new();
    let n_read = text.reader.read_to_end(&mut bytes).map_err(|e| Error::io("read", &file.path, e))?;
    let n_bytes = text.n_bytes(n_read);
    strip_bom(&mut bytes, 1);
    let items: Vec<Box<RawValue>> = serde_json::from_slice(&bytes).map_err(|e| {
        let message = e.to_string();
        let what = message.split(" at line ").next().unwrap_or(&message);
        Error::line(&file.path, e.line() as u64, format!("invalid JSON: {what} at column {}", e.column()))
    })?;
    let n_bytes = n_bytes / items.len().max(1) as u64;
    let row = |(item, number): (Box<RawValue>, u64)| {
        let text = String::from(Box::<str>::from(item));
        Row::new(file, layout, Place::Row(number), n_bytes, Body::Json(text.into_bytes()))
    };
    Ok(items.into_iter().zip(1..).map(row).collect())
}

/// The first object of a file that is one list, if it begins with one; nothing behind it is read.
pub(super) fn first_of_list(file: &DataFile) -> Result<Option<Map<String, Value>>> {
    let mut text = Text::open(&file.path)?;
    text.reader.skip_until(b'[').map_err(|e| Error::io("read", &file.path, e))?;
    Ok(Deserializer::from_reader(text.reader).into_iter().next().and_then(std::result::Result::ok))
}

/// The first line that is not blank, or `None`.
pub(super) fn first_line(path: &Path) -> Result<Option<Vec<u8>>> {
    let mut text = Text::open(path)?;
    for number in 1.. {
        let mut bytes = Vec::new();
        if text.reader.read_until(b'\n', &mut bytes).map_err(|e| Error::io("read", path, e))? == 0 {
            break;
        }
        strip_bom(&mut bytes, number);
        if !bytes.trim_ascii().is_empty() {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

/// Windows editors put a byte order mark at the head of a UTF-8 file.
pub(in crate::data) fn strip_bom(line: &mut Vec<u8>, number: u64) {
    if number == 1 && line.starts_with(b"\xef\xbb\xbf") {
        line.drain(..3);
    }
}
