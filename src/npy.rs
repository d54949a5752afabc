//! Embeddings as a NumPy file: `numpy.load(path)` gives an f32 array of shape (texts, dimension).
//!
//! Format 1.0: magic, version, a header of fixed length, then the values, little-endian and row-major. The number of rows is
//! known only at the end of a stream, so the header is padded generously and written again when it is.

use crate::files::NewFile;
use crate::{Error, Result};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

/// Bytes before the values. The format asks for a multiple of 64; 128 hold any shape.
const HEADER_LEN: usize = 128;

/// Writes an `.npy` file row by row. Nothing appears under the final name until [`NpyWriter::finish`]; a writer that
/// is dropped before leaves nothing behind.
pub struct NpyWriter {
    dim: usize,
    n_rows: u64,
    file: NewFile,
}

impl NpyWriter {
    /// Starts a file of rows of `dim` values.
    ///
    /// # Errors
    /// As [`NewFile::create`].
    pub fn create(path: impl AsRef<Path>, dim: usize) -> Result<Self> {
        let mut writer = Self { dim, n_rows: 0, file: NewFile::create(path.as_ref())? };
        writer.write(|file| file.write_all(&header(0, dim)))?;
        Ok(writer)
    }

    /// Appends whole rows: `(k, dim)` values, row-major.
    ///
    /// # Errors
    /// When the values cannot be written.
    pub fn write_rows(&mut self, rows: &[f32]) -> Result<()> {
        assert!(rows.len().is_multiple_of(self.dim), "{} values are no rows of {}", rows.len(), self.dim);
        self.n_rows += (rows.len() / self.dim) as u64;
        self.write(|file| rows.iter().try_for_each(|x| file.write_all(&x.to_le_bytes())))
    }

    /// Completes the file and gives it its name, replacing a file that had it.
    ///
    /// # Errors
    /// As [`NewFile::persist`].
    pub fn finish(mut self) -> Result<()> {
        let header = header(self.n_rows, self.dim);
        self.write(|file| {
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&header)
        })?;
        self.file.persist()
    }

    fn write(&mut self, f: impl FnOnce(&mut NewFile) -> io::Result<()>) -> Result<()> {
        f(&mut self.file).map_err(|e| Error::io("write", self.file.path(), e))
    }
}

/// Magic, version 1.0, length of the rest, and a Python dictionary padded with spaces up to a final line feed.
fn header(n_rows: u64, dim: usize) -> [u8; HEADER_LEN] {
    let mut out = [b' '; HEADER_LEN];
    out[..8].copy_from_slice(b"\x93NUMPY\x01\x00");
    out[8..10].copy_from_slice(&(HEADER_LEN as u16 - 10).to_le_bytes());
    let dict = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({n_rows}, {dim}), }}");
    out[10..10 + dict.len()].copy_from_slice(dict.as_bytes());
    out[HEADER_LEN - 1] = b'\n';
    out
}
