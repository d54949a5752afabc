//! Embeddings as a NumPy file: `numpy.load(path)` gives an f32 array of shape (texts, dimension).
//!
//! Format 1.0: magic, version, a header of fixed length, then the values, little-endian and row-major. The number of rows is
//! known only at the end of a stream, so the header is padded generously and written again when it is.

use crate::files::NewFile;
use crate::{Error, Result};
use half::f16;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

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

/// An `.npy` file of rows, read from place to place: a matrix, row by row, of f32, f16 or f64, little-endian.
pub struct NpyReader {
    path: PathBuf,
    file: File,
    /// Bytes of a value.
    size: usize,
    /// Where the values begin.
    start: u64,
    n_rows: u64,
    dim: usize,
}

impl NpyReader {
    /// Opens a file.
    ///
    /// # Errors
    /// If it cannot be read, is not such a file, or is shorter than it says.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(|e| Error::io("read", path, e))?;
        let Some((start, header)) = read_header(&mut file) else {
            return Err(Error::file(path, "is not an .npy file; write it with numpy.save"));
        };
        let size = match entry(&header, "descr") {
            Some("'<f2'") => 2,
            Some("'<f4'") => 4,
            Some("'<f8'") => 8,
            other => {
                let kind = other.unwrap_or("no type");
                return Err(Error::file(path, format!("holds {kind}; save it as numpy.float32")));
            }
        };
        let shape = entry(&header, "shape").and_then(shape);
        let (Some([n_rows, dim]), Some("False")) = (shape, entry(&header, "fortran_order")) else {
            return Err(Error::file(path, "is not one matrix with a row a text; save numpy.ascontiguousarray of it"));
        };
        if dim == 0 {
            return Err(Error::file(path, format!("has rows of no values, ({n_rows}, 0); save embeddings in it")));
        }
        let n_bytes = file.metadata().map_err(|e| Error::io("read", path, e))?.len();
        let needed = n_rows.checked_mul(dim).and_then(|n| n.checked_mul(size)).and_then(|n| n.checked_add(start));
        match needed {
            Some(needed) if needed <= n_bytes => {
                let path = path.to_owned();
                Ok(NpyReader { path, file, size: size as usize, start, n_rows, dim: dim as usize })
            }
            _ => Err(Error::file(path, format!("has {n_bytes} bytes, too few for ({n_rows}, {dim}); save it again"))),
        }
    }

    /// Number of rows.
    pub fn n_rows(&self) -> u64 {
        self.n_rows
    }

    /// Values in a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Appends rows `first` to `first + n` as f32.
    ///
    /// # Errors
    /// If they are not there, or cannot be read.
    pub fn read_rows(&mut self, first: u64, n: usize, out: &mut Vec<f32>) -> Result<()> {
        if first.checked_add(n as u64).is_none_or(|end| end > self.n_rows) {
            let message =
                format!("has {} rows, and row {} is wanted; it belongs to other texts", self.n_rows, first + n as u64);
            return Err(Error::file(&self.path, message));
        }
        let row = self.dim * self.size;
        let mut read = |bytes: &mut [u8]| {
            let found = self.file.seek(SeekFrom::Start(self.start + first * row as u64));
            found.and_then(|_| self.file.read_exact(bytes)).map_err(|e| Error::io("read", &self.path, e))
        };
        if self.size == size_of::<f32>() && cfg!(target_endian = "little") {
            let before = out.len();
            out.resize(before + n * self.dim, 0.0);
            return read(bytemuck::cast_slice_mut(&mut out[before..]));
        }
        let mut bytes = vec![0; n * row];
        read(&mut bytes)?;
        let values = bytes.chunks_exact(self.size);
        match self.size {
            2 => out.extend(values.map(|v| f16::from_le_bytes([v[0], v[1]]).to_f32())),
            4 => out.extend(values.map(|v| f32::from_le_bytes([v[0], v[1], v[2], v[3]]))),
            _ => out.extend(values.map(|v| f64::from_le_bytes(v.try_into().expect("eight bytes")) as f32)),
        }
        Ok(())
    }
}

/// Where the values begin, and the dictionary before them.
fn read_header(file: &mut File) -> Option<(u64, String)> {
    let mut head = [0; 8];
    file.read_exact(&mut head).ok()?;
    // Format 1.0 has a length of two bytes, later ones of four.
    let n_bytes = match &head {
        b"\x93NUMPY\x01\x00" => 2,
        b"\x93NUMPY\x02\x00" | b"\x93NUMPY\x03\x00" => 4,
        _ => return None,
    };
    let mut length = [0; 4];
    file.read_exact(&mut length[..n_bytes]).ok()?;
    let length = u64::from(u32::from_le_bytes(length));
    let mut header = String::new();
    file.take(length).read_to_string(&mut header).ok()?;
    (header.len() as u64 == length).then_some((8 + n_bytes as u64 + length, header))
}

/// The value of a key of the header's dictionary.
fn entry<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = header.split_once(&format!("'{key}':"))?;
    let rest = rest.trim_start();
    // A shape has commas of its own.
    let end = if rest.starts_with('(') { rest.find(')')? + 1 } else { rest.find([',', '}'])? };
    Some(rest[..end].trim_end())
}

/// The two numbers of `(3, 4)`.
fn shape(text: &str) -> Option<[u64; 2]> {
    let (rows, dim) = text.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
    Some([rows.trim().parse().ok()?, dim.trim().trim_end_matches(',').parse().ok()?])
}
