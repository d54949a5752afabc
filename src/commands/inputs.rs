//! What a command reads, which no output of it may replace.

use super::trace;
use hbt::cli::TraceArgs;
use hbt::config::Config;
use hbt::data::formats::{DataSource, Split};
use hbt::files::owned::MANIFEST;
use hbt::model_dir::DESCRIBING;
use hbt::train::checkpoint::RunDir;
use hbt::{Error, Result};
use std::path::{Path, PathBuf};

/// Files of a model directory besides [those that describe it](DESCRIBING), weights and what is in folders.
const MORE_MODEL_FILES: [&str; 2] = [MANIFEST, "README.md"];

/// Files that a command reads, each with what messages call it.
#[derive(Default)]
pub struct Inputs(Vec<(&'static str, PathBuf)>);

impl Inputs {
    /// All that `config`, read from `file`, names. What cannot be found is left to whoever reads it to report.
    pub fn of(config: &Config, file: Option<&Path>) -> Self {
        let mut inputs = Inputs::default();
        inputs.add("the configuration", file);
        // What is built in lies in the cache, and is written again where it is gone.
        for dataset in config.training_data(|| Err(Error::other("built in"))).unwrap_or_default() {
            inputs.add_data("the data", &config.data_source(&dataset));
        }
        if let Some(path) = &config.eval_data {
            inputs.add_data("the evaluation data", &DataSource::new(path));
        }
        for source in config.evaluations.iter().filter_map(|evaluation| config.evaluation_source(evaluation)) {
            inputs.add_data("the evaluation data", &source);
        }
        if let Some(model) = config.model.as_deref().map(Path::new).filter(|model| model.is_dir()) {
            inputs.0.push(("the model", model.to_owned()));
        }
        inputs
    }

    /// Adds a file, if there is one.
    pub fn add(&mut self, what: &'static str, file: Option<&Path>) {
        self.0.extend(file.map(|file| (what, file.to_owned())));
    }

    fn add_data(&mut self, what: &'static str, data: &DataSource) {
        // A pipe has no second reading to spare for a look at it, and no output can replace it.
        let is_readable = data.path.is_dir() || data.path.is_file();
        // Every part of it, whichever the command reads.
        let all = DataSource { split: Split::All.into(), ..data.clone() };
        if let Some(resolved) = is_readable.then(|| all.resolve().ok()).flatten() {
            self.0.extend(resolved.files().map(|(_, file)| (what, file.to_owned())));
        }
    }

    /// Fails if `output`, the value of `option`, would replace an input.
    ///
    /// # Errors
    /// If it would.
    pub fn refuse(&self, option: &str, output: &Path) -> Result<()> {
        // What is not there replaces nothing.
        let Ok(output) = output.canonicalize() else { return Ok(()) };
        let is_input = |input: &Path| match input.canonicalize() {
            Ok(model) if model.is_dir() => output.strip_prefix(model).is_ok_and(is_model_file),
            found => found.is_ok_and(|found| found == output),
        };
        match self.0.iter().find(|(_, input)| is_input(input)) {
            Some((what, _)) => Err(Error::config(option, format!("is a file of {what} itself; name another one"))),
            None => Ok(()),
        }
    }

    /// Fails if the trace would replace an input; else it may be written from here on.
    ///
    /// # Errors
    /// If it would.
    pub fn refuse_trace(&self, args: &TraceArgs) -> Result<()> {
        if let Some(path) = &args.trace {
            self.refuse("--trace", path)?;
        }
        trace::confirm();
        Ok(())
    }

    /// Fails if a run that begins in `run_dir` would save over an input.
    ///
    /// # Errors
    /// If it would.
    pub fn refuse_run(&self, run_dir: &RunDir) -> Result<()> {
        for directory in [run_dir.last(), run_dir.best()] {
            let Ok(directory) = directory.canonicalize() else { continue };
            let is_in_it = |input: &PathBuf| input.canonicalize().is_ok_and(|input| input.starts_with(&directory));
            if let Some((what, input)) = self.0.iter().find(|(_, input)| is_in_it(input)) {
                let message =
                    format!("{what} is read from {}, where the run would save; choose another", input.display());
                return Err(Error::config("out", message));
            }
        }
        Ok(())
    }
}

/// Whether a file of a model directory, named from there, is of the model.
fn is_model_file(name: &Path) -> bool {
    let is_below = name.components().count() > 1;
    let is_weights = name.extension().is_some_and(|extension| extension == "safetensors");
    is_below
        || is_weights
        || name.to_str().is_some_and(|name| {
            DESCRIBING.contains(&name) || MORE_MODEL_FILES.contains(&name) || name.ends_with(".index.json")
        })
}
