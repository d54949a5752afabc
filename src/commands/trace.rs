//! `--trace`, and the profiler that started hbt: what records the ranges of a command, and where they go.

use hbt::model::fs::temporary_beside;
use hbt::progress::say;
use hbt::{Error, Result, trace};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use tempfile::NamedTempFile;

/// What a shell gives a process that Ctrl-C ended: `hbt train && upload` must not go on after it.
pub const INTERRUPTED: u8 = 130;

/// The trace's file until it is written, which happens once: at the end, or wherever the command ends early.
static TRACE: Mutex<Option<(NamedTempFile, PathBuf)>> = Mutex::new(None);

/// Runs a command, and writes its ranges to `file` when it ends: with a result, an error, a panic or by Ctrl-C. Whatever
/// is not in a command's own hands then, `ends_at_once` upon Ctrl-C.
pub fn traced<T>(file: Option<PathBuf>, ends_at_once: bool, command: impl FnOnce() -> Result<T>) -> Result<T> {
    if let Err(error) = trace::connect_profiler() {
        say(&format!("warning: {error}"));
    }
    let Some(file) = file else { return command() };
    open(&file)?;
    if ends_at_once {
        ctrlc::set_handler(|| interrupted()).map_err(|e| Error::other(format!("cannot handle Ctrl-C: {e}")))?;
    }
    let on_panic = WriteOnDrop;
    let result = command();
    std::mem::forget(on_panic);
    match (result, write()) {
        (Ok(_), Err(error)) => Err(error),
        (result, written) => {
            say_error(written);
            result
        }
    }
}

/// Ends the process as Ctrl-C does, with the trace of what it has done.
pub fn interrupted() -> ! {
    say_error(write());
    std::process::exit(INTERRUPTED.into());
}

/// Refuses a file that cannot be written, before any work is done for it.
fn open(path: &Path) -> Result<()> {
    if path.exists() && !path.is_file() {
        return Err(Error::config("--trace", format!("{} is no file; name one that can be replaced", path.display())));
    }
    *TRACE.lock().unwrap_or_else(PoisonError::into_inner) = Some((temporary_beside(path)?, path.to_owned()));
    trace::record();
    Ok(())
}

/// Gives the trace its name, unless that has been done.
fn write() -> Result<()> {
    let Some((file, path)) = TRACE.lock().unwrap_or_else(PoisonError::into_inner).take() else { return Ok(()) };
    trace::set_active(false);
    let failed = |e| Error::io("write", &path, e);
    let mut file = BufWriter::with_capacity(1 << 20, file);
    let written = trace::write_chrome_trace(&mut file).and_then(|written| file.flush().map(|()| written));
    let written = written.map_err(failed)?;
    let file = file.into_inner().map_err(|e| failed(e.into_error()))?;
    file.persist(&path).map_err(|e| failed(e.error))?;
    let left_out = match written.left_out {
        0 => String::new(),
        n => format!("; {n} later ones are left out: choose steps with --profile-steps"),
    };
    say(&format!("{}: {} ranges{left_out}; open it in ui.perfetto.dev", path.display(), written.n_ranges));
    Ok(())
}

/// For a command that ends with an error of its own.
fn say_error(written: Result<()>) {
    if let Err(error) = written {
        say(&format!("warning: no trace: {error}"));
    }
}

/// Writes the trace when a panic drops it.
struct WriteOnDrop;

impl Drop for WriteOnDrop {
    fn drop(&mut self) {
        say_error(write());
    }
}
