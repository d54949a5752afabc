//! `--output`: a file, or standard output.

use hbt::files::NewFile;
use hbt::{Error, Result};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Destination of `--output`.
pub enum Output {
    /// A file, which gets its name when it is complete.
    File(NewFile),
    /// Standard output, typed as `-`.
    Stdout(BufWriter<io::Stdout>),
}

impl Output {
    pub fn open(path: &Path) -> Result<Self> {
        match is_stdout(path) {
            true => Ok(Output::Stdout(BufWriter::new(io::stdout()))),
            false => NewFile::create(path).map(Output::File),
        }
    }

    /// Fails if [`open`](Self::open) would, and leaves nothing behind.
    pub fn check(path: &Path) -> Result<()> {
        if is_stdout(path) { Ok(()) } else { NewFile::check(path) }
    }

    pub fn write(&mut self, f: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
        match self {
            Output::File(file) => f(file).map_err(|e| Error::io("write", file.path(), e)),
            Output::Stdout(out) => f(out).map_err(crate::stdout_error),
        }
    }

    /// Completes what has been written.
    pub fn finish(self) -> Result<()> {
        match self {
            Output::File(file) => file.persist(),
            Output::Stdout(mut out) => out.flush().map_err(crate::stdout_error),
        }
    }
}

/// Whether `path` is `-`.
pub fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}
