//! `--output`: a file, or standard output.

use hbt::data::formats::names_negatives;
use hbt::eval::EvalReport;
use hbt::eval::mteb::files::is_result;
use hbt::files::NewFile;
use hbt::report::is_page;
use hbt::{Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
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

/// What an output holds, by which hbt knows a file that it may replace.
#[derive(Clone, Copy)]
pub enum Kind {
    /// A report of `hbt eval`.
    Report,
    /// Embeddings, as an array or as JSON Lines.
    Embeddings,
    /// Rows with negatives.
    Rows,
    /// A page of `hbt report`.
    Page,
}

impl Kind {
    /// Whether a file begins as one of this kind does.
    fn is_kind_of(self, path: &Path) -> io::Result<bool> {
        let mut reader = BufReader::new(File::open(path)?);
        let begin = reader.fill_buf()?;
        if begin.is_empty() {
            return Ok(true);
        }
        match self {
            Kind::Embeddings if begin.starts_with(b"\x93NUMPY") => Ok(true),
            Kind::Page => Ok(is_page(begin)),
            Kind::Report => Ok(serde_json::from_reader(reader).is_ok_and(is_report)),
            Kind::Embeddings | Kind::Rows => {
                let mut line = Vec::new();
                reader.take(MOST_OF_A_LINE).read_until(b'\n', &mut line)?;
                let row = serde_json::from_slice::<Map<String, Value>>(&line).unwrap_or_default();
                let has_list = |key: &str| row.get(key).is_some_and(Value::is_array);
                Ok(match self {
                    Kind::Embeddings => has_list("embedding"),
                    _ => names_negatives(&row),
                })
            }
        }
    }
}

/// Whether this is a report, a result file of mteb's form by hbt, or several.
fn is_report(value: Value) -> bool {
    match value.get("results").and_then(Value::as_array) {
        Some(results) => results.iter().cloned().all(is_report),
        None => is_result(&value) || EvalReport::deserialize(value).is_ok(),
    }
}

/// Longer first lines are nobody's embedding, and no row that anybody mined.
const MOST_OF_A_LINE: u64 = 16 << 20;

/// Fails if `path`, the value of `option`, is a file of others, which the output would replace: one that does not look like
/// what hbt writes there.
///
/// # Errors
/// If it is, and cannot be read.
pub fn refuse_foreign(option: &str, path: &Path, kind: Kind) -> Result<()> {
    // Directories, pipes and devices are refused elsewhere, with words of their own.
    if is_stdout(path) || !path.is_file() {
        return Ok(());
    }
    if kind.is_kind_of(path).map_err(|e| Error::io("read", path, e))? {
        return Ok(());
    }
    let message = format!(
        "{} is there already, and does not look like an output of this command; name another file, or add --overwrite",
        path.display()
    );
    Err(Error::config(option, message))
}

/// Fails if a file of JSON Lines is called like another format.
///
/// # Errors
/// If it is.
pub fn refuse_other_name(option: &str, path: &Path) -> Result<()> {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
    if !OTHERS.contains(&ending.as_str()) {
        return Ok(());
    }
    let message =
        format!("what is written is JSON Lines, not .{ending}; call it {}", path.with_extension("jsonl").display());
    Err(Error::config(option, message))
}

/// Endings of formats that hbt does not write there.
const OTHERS: [&str; 9] = ["csv", "tsv", "tab", "parquet", "arrow", "xlsx", "gz", "zst", "zstd"];

/// Whether `path` is `-`.
pub fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}
