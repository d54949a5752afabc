//! `--trace` and external profilers: who records the ranges of a command, and the file of the trace.

use hbt::files::{NewFile, remove_unfinished};
use hbt::progress::say;
use hbt::{Error, Result, signals, trace};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Exit code of a process that Ctrl-C ended, as shells give it: `hbt train && upload` must not go on after it.
pub const INTERRUPTED: u8 = 130;

/// File of the trace until it is written, which happens once: at the end, or wherever the command ends early.
static TRACE: Mutex<Option<NewFile>> = Mutex::new(None);

/// Whether the command knows its inputs, and that the trace's file is none of them.
static IS_CONFIRMED: AtomicBool = AtomicBool::new(false);

/// Runs a command, and writes its ranges to `file`, if one is named, when it ends: with a result, an error, a panic or by
/// Ctrl-C. With `ends_at_once`, Ctrl-C ends the process here; otherwise the command handles it.
pub fn traced<T>(file: Option<PathBuf>, ends_at_once: bool, command: impl FnOnce() -> Result<T>) -> Result<T> {
    if let Err(error) = trace::connect_profiler() {
        say(&format!("warning: {error}"));
    }
    if let Some(file) = &file {
        open(file)?;
    }
    if ends_at_once {
        signals::on_interrupt(|| interrupted())?;
    }
    if file.is_none() {
        return command();
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

/// Ends the process as Ctrl-C does, after writing the trace of its work so far and removing what is not complete.
pub fn interrupted() -> ! {
    say_error(write());
    remove_unfinished();
    std::process::exit(INTERRUPTED.into());
}

/// Opens the trace's file; fails before any work if it cannot be written.
fn open(path: &Path) -> Result<()> {
    *TRACE.lock().unwrap_or_else(PoisonError::into_inner) = Some(NewFile::create(path)?);
    trace::record();
    Ok(())
}

/// Says that the trace may be written: its file is none that the command reads.
pub fn confirm() {
    IS_CONFIRMED.store(true, Ordering::Relaxed);
}

/// Completes the trace's file, unless that has been done or it was not [confirmed](confirm).
fn write() -> Result<()> {
    let Some(mut file) = TRACE.lock().unwrap_or_else(PoisonError::into_inner).take() else { return Ok(()) };
    if !IS_CONFIRMED.load(Ordering::Relaxed) {
        return Ok(());
    }
    trace::set_active(false);
    let path = file.path().to_owned();
    let written = trace::write_chrome_trace(&mut file).map_err(|e| Error::io("write", &path, e))?;
    file.persist()?;
    let left_out = match written.left_out {
        0 => String::new(),
        n => format!("; {n} later ones are left out: choose steps with --profile-steps"),
    };
    say(&format!("{}: {} ranges{left_out}; open it in ui.perfetto.dev", path.display(), written.n_ranges));
    Ok(())
}

/// Reports a failed write of a command that ends with an error of its own.
fn say_error(written: Result<()>) {
    if let Err(error) = written {
        say(&format!("warning: no trace: {error}"));
    }
}

/// Writes the trace if a panic drops this value.
struct WriteOnDrop;

impl Drop for WriteOnDrop {
    fn drop(&mut self) {
        say_error(write());
    }
}
