//! Safetensors files: read through a map of memory, and streamed to the disk.

use crate::mapped::Mapped;
use crate::{Error, Result, files};
pub use safetensors::Dtype;
use safetensors::tensor::Metadata;
pub use safetensors::tensor::TensorInfo;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// One memory-mapped safetensors file whose header has been checked against its length.
pub struct TensorFile {
    path: PathBuf,
    map: Mapped,
    /// Where the tensors' bytes start.
    data_start: usize,
    metadata: Metadata,
}

impl TensorFile {
    /// Reads the header. `remedy` is what errors ask to do about a file that is damaged.
    ///
    /// # Errors
    /// No such file; one that is truncated, or whose header lies.
    pub fn open(path: &Path, remedy: &str) -> Result<TensorFile> {
        let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
        let map = Mapped::new(&file, path).map_err(|e| Error::io("read", path, e))?;
        let damaged = |what: String| Error::file(path, format!("{what}; {remedy}"));
        let (length, rest) = map
            .split_first_chunk::<8>()
            .ok_or_else(|| damaged(format!("is truncated: {} bytes are no safetensors file", map.len())))?;
        let length = u64::from_le_bytes(*length);
        let header = usize::try_from(length).ok().and_then(|length| rest.get(..length)).ok_or_else(|| {
            damaged(format!("is truncated or no safetensors file: it has {} bytes, its header {length}", map.len()))
        })?;
        // Reading the header checks that tensors follow one another without gap or overlap, and that each has the size
        // that its shape and type ask for.
        let metadata: Metadata =
            serde_json::from_slice(header).map_err(|e| damaged(format!("has an invalid safetensors header: {e}")))?;
        let (expected, found) = (metadata.data_len(), rest.len() - header.len());
        if found != expected {
            let what = if found < expected { "is truncated" } else { "is too long" };
            return Err(damaged(format!("{what}: its header describes {expected} bytes of tensors, it holds {found}")));
        }
        let data_start = 8 + header.len();
        Ok(TensorFile { path: path.to_owned(), map, data_start, metadata })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All its bytes, header included.
    pub fn whole(&self) -> &[u8] {
        &self.map
    }

    /// Its tensors' names, in the order of their bytes.
    pub fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// Type, shape and place of a tensor.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.metadata.info(name)
    }

    /// A tensor's values, little-endian and row-major, not necessarily aligned.
    pub fn bytes(&self, info: &TensorInfo) -> &[u8] {
        let (start, end) = info.data_offsets;
        &self.map[self.data_start..][start..end]
    }
}

/// A tensor of a file to be written.
pub struct TensorHeader {
    /// Unique in the file.
    pub name: String,
    /// `F32` or `I32`.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
}

/// Values of tensors that follow one another.
pub enum Block {
    /// Of type `F32`.
    F32(Vec<f32>),
    /// Of type `I32`.
    I32(Vec<i32>),
}

/// Writes tensors of the given names, types and shapes into one file. `blocks` are their values in the same order; a block
/// may span several tensors or be a part of one, and one block at a time is in host memory.
///
/// # Errors
/// The first error of `blocks`, or when the file cannot be written.
pub fn write(path: &Path, tensors: &[TensorHeader], blocks: impl IntoIterator<Item = Result<Block>>) -> Result<()> {
    // An error of `blocks` has to pass through a writer that knows I/O errors only.
    let mut failed = None;
    let written = files::write_file(path, |out| {
        write_header(out, tensors)?;
        for block in blocks {
            match block {
                Ok(Block::F32(values)) => write_values(out, &values, f32::to_le_bytes)?,
                Ok(Block::I32(values)) => write_values(out, &values, i32::to_le_bytes)?,
                Err(e) => {
                    failed = Some(e);
                    return Ok(());
                }
            }
        }
        Ok(())
    });
    failed.map_or(written, Err)
}

fn write_header(out: &mut impl Write, tensors: &[TensorHeader]) -> io::Result<()> {
    let mut infos = Vec::with_capacity(tensors.len());
    let mut end = 0;
    for TensorHeader { name, dtype, shape } in tensors {
        let start = end;
        end += shape.iter().product::<usize>() * dtype.bitsize() / 8;
        infos.push((name.clone(), TensorInfo { dtype: *dtype, shape: shape.clone(), data_offsets: (start, end) }));
    }
    // transformers refuses a file that does not say which framework wrote it.
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata = Metadata::new(Some(format), infos).map_err(io::Error::other)?;
    let mut header = serde_json::to_vec(&metadata)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)
}

fn write_values<T: bytemuck::Pod>(
    out: &mut BufWriter<File>,
    values: &[T],
    to_le_bytes: fn(T) -> [u8; 4],
) -> io::Result<()> {
    if cfg!(target_endian = "little") {
        return out.write_all(bytemuck::cast_slice(values));
    }
    values.iter().try_for_each(|value| out.write_all(&to_le_bytes(*value)))
}
