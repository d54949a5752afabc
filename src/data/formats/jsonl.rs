//! JSONL files, read line by line.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use super::row::{DataFile, ParseRow, Row};
use super::{flat, parallel};
use crate::{Error, Result};

/// The lines of several files, one after the other. Holds one line at a time.
pub(super) struct Lines {
    files: std::vec::IntoIter<Arc<DataFile>>,
    current: Option<(Arc<DataFile>, BufReader<File>, u64)>,
    parse: ParseRow,
}

impl Lines {
    pub(super) fn new(files: Vec<Arc<DataFile>>, parallel: bool) -> Self {
        let parse: ParseRow =
            if parallel { |row, id| parallel::parse(row, id) } else { |row, id| flat::parse(row, id) };
        Lines { files: files.into_iter(), current: None, parse }
    }

    /// Continues at the first line that begins after byte `offset` of all files together. Lines are then numbered on
    /// from the byte where the search began, so that no two lines have the same number.
    pub(super) fn skip_to(&mut self, mut offset: u64) -> Result<()> {
        for file in self.files.by_ref() {
            let len = std::fs::metadata(&file.path).map_err(|e| Error::io("read", &file.path, e))?.len();
            if offset < len {
                let mut reader = open(&file.path)?;
                let sought = reader.seek(SeekFrom::Start(offset)).and_then(|_| reader.skip_until(b'\n'));
                sought.map_err(|e| Error::io("read", &file.path, e))?;
                self.current = Some((file, reader, offset));
                break;
            }
            offset -= len;
        }
        Ok(())
    }

    fn next_row(&mut self) -> Result<Option<Row>> {
        loop {
            let Some((file, reader, number)) = &mut self.current else {
                let Some(file) = self.files.next() else { return Ok(None) };
                let reader = open(&file.path)?;
                self.current = Some((file, reader, 0));
                continue;
            };
            let mut bytes = Vec::new();
            let n_read = reader.read_until(b'\n', &mut bytes).map_err(|e| Error::io("read", &file.path, e))?;
            if n_read == 0 {
                self.current = None;
                continue;
            }
            *number += 1;
            strip_bom(&mut bytes, *number);
            if !bytes.trim_ascii().is_empty() {
                return Ok(Some(Row::of_line(file, *number, n_read as u64, bytes, self.parse)));
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

/// The first line that is not blank, or `None`.
pub(super) fn first_line(path: &Path) -> Result<Option<Vec<u8>>> {
    let mut reader = open(path)?;
    for number in 1.. {
        let mut bytes = Vec::new();
        if reader.read_until(b'\n', &mut bytes).map_err(|e| Error::io("read", path, e))? == 0 {
            break;
        }
        strip_bom(&mut bytes, number);
        if !bytes.trim_ascii().is_empty() {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

fn open(path: &Path) -> Result<BufReader<File>> {
    let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
    Ok(BufReader::with_capacity(1 << 20, file))
}

/// Windows editors put a byte order mark at the head of a UTF-8 file.
fn strip_bom(line: &mut Vec<u8>, number: u64) {
    if number == 1 && line.starts_with(b"\xef\xbb\xbf") {
        line.drain(..3);
    }
}
