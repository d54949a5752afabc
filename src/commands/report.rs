//! `hbt report`, and the page that other commands leave beside their runs.

use super::inputs::Inputs;
use super::output::{Kind, refuse_foreign};
use hbt::cli::ReportArgs;
use hbt::files::{NewFile, write_file_atomic};
use hbt::progress::say;
use hbt::report::{Run, of_results, page, read};
use hbt::train::checkpoint::RunDir;
use hbt::{Error, Result};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Writes the page.
pub fn run(args: ReportArgs) -> Result<()> {
    NewFile::check(&args.output)?;
    let mut inputs = Inputs::default();
    for path in &args.runs {
        let [in_run, alone] = [path.join("eval.json"), path.clone()];
        inputs.add("a run", Some(if path.is_dir() { &in_run } else { &alone }));
    }
    inputs.refuse("--output", &args.output)?;
    if !args.overwrite {
        refuse_foreign("--output", &args.output, Kind::Page)?;
    }
    write_page(&args.runs, &args.output)?;
    crate::print(&format!("{}\n", args.output.display()))
}

/// Writes the page on the `results` of one model.
pub fn write_page_on(results: Vec<Value>, output: &Path) -> Result<()> {
    write(&[of_results(results)?], output)
}

/// Writes the page on what is in `paths`.
fn write_page(paths: &[PathBuf], output: &Path) -> Result<()> {
    write(&read(paths)?, output)
}

/// Writes a page, unless the file has it.
fn write(runs: &[Run], output: &Path) -> Result<()> {
    let page = page(runs)?;
    if fs::read(output).is_ok_and(|found| found == page.as_bytes()) {
        return Ok(());
    }
    write_file_atomic(output, page.as_bytes())
}

/// Leaves the page on `runs` in `directory`.
pub fn leave_page(runs: &[PathBuf], directory: &Path) {
    leave(&RunDir::new(directory).page(), |output| write_page(runs, output));
}

/// Leaves the page on `results` beside their file `json`, under its name.
pub fn leave_page_on(results: Vec<Value>, json: &Path) {
    leave(&json.with_extension("html"), |output| write_page_on(results, output));
}

/// Writes a page that is for people to look at, and no reason to fail: what stands in the way is said.
fn leave(output: &Path, write: impl FnOnce(&Path) -> Result<()>) {
    let is_own = || match refuse_foreign("--output", output, Kind::Page) {
        Err(Error::Config { .. }) => Err(Error::file(output, "is not hbt's, and stays as it is")),
        other => other,
    };
    match is_own().and_then(|()| write(output)) {
        Ok(()) => say(&format!("{}: curves and figures, for a browser", output.display())),
        Err(error) => say(&format!("warning: no report was written: {error}")),
    }
}
