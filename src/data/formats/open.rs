//! Opens text, packed or not.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

use crate::{Error, Result};

const BUFFER: usize = 1 << 20;

/// A text being read.
pub(in crate::data) struct Text {
    pub(in crate::data) reader: Box<dyn BufRead + Send>,
    /// For packed text, the bytes of the file taken so far.
    taken: Option<Arc<AtomicU64>>,
    n_reported: u64,
}

impl Text {
    /// Opens a file; gzip and zstd are known by their first bytes, whatever the file is called. Several gzip streams or
    /// zstd frames in one file are one text.
    ///
    /// # Errors
    /// A file that cannot be read, or that is no UTF-8 text from the start: UTF-16, or a pointer to a file that Git LFS
    /// has not fetched.
    pub(in crate::data) fn open(path: &Path) -> Result<Text> {
        let fail = |e| Error::io("read", path, e);
        let taken = Arc::new(AtomicU64::new(0));
        let counted = Counted { file: File::open(path).map_err(fail)?, taken: Arc::clone(&taken) };
        let mut file = BufReader::with_capacity(BUFFER, counted);
        let head = file.fill_buf().map_err(fail)?;
        let is_gzip = head.starts_with(b"\x1f\x8b");
        let is_zstd = head.starts_with(b"\x28\xb5\x2f\xfd");
        let mut reader: Box<dyn BufRead + Send> = if is_gzip {
            Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(file)))
        } else if is_zstd {
            let decoder = zstd::stream::read::Decoder::with_buffer(file).map_err(fail)?;
            Box::new(BufReader::with_capacity(BUFFER, decoder))
        } else {
            Box::new(file)
        };
        check_head(path, reader.fill_buf().map_err(fail)?)?;
        Ok(Text { reader, taken: (is_gzip || is_zstd).then_some(taken), n_reported: 0 })
    }

    /// Bytes of the file since the last call, if `n_read` bytes of text were read: the same, or what they are packed
    /// in, which is taken in larger pieces.
    pub(in crate::data) fn n_bytes(&mut self, n_read: usize) -> u64 {
        let Some(taken) = &self.taken else { return n_read as u64 };
        let taken = taken.load(Ordering::Relaxed);
        let new = taken - self.n_reported;
        self.n_reported = taken;
        new
    }
}

/// Whether a file's bytes are its text.
pub(super) fn is_plain(path: &Path) -> Result<bool> {
    let mut head = [0; 4];
    let n = File::open(path).and_then(|mut file| file.read(&mut head)).map_err(|e| Error::io("read", path, e))?;
    Ok(!head[..n].starts_with(b"\x1f\x8b") && !head[..n].starts_with(b"\x28\xb5\x2f\xfd"))
}

fn check_head(path: &Path, head: &[u8]) -> Result<()> {
    if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
        return Err(Error::file(path, "is UTF-16; save it as UTF-8"));
    }
    if head.starts_with(b"version https://git-lfs.github.com/spec/") {
        return Err(Error::file(path, "is a pointer to a file that Git LFS has not fetched; run git lfs pull"));
    }
    if head.starts_with(b"PAR1") {
        return Err(Error::file(path, "is Parquet; give it the ending .parquet"));
    }
    if head.starts_with(b"ARROW1") || head.starts_with(b"\xff\xff\xff\xff") {
        return Err(Error::file(path, "is Arrow; give it the ending .arrow"));
    }
    Ok(())
}

/// Counts what is read of a file.
pub(super) struct Counted {
    pub(super) file: File,
    pub(super) taken: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.taken.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

impl Seek for Counted {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}
