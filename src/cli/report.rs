//! Options of `hbt report`, and those of `hbt compare`, which trains or shows what was trained.

use std::path::PathBuf;

use clap::Args;

use super::RunArgs;
use crate::config::{Draft, KEYS};
use crate::{Error, Result};

/// Options of `hbt report`.
#[derive(Debug, Args)]
#[command(after_help = "\
The page is one file that needs no network: curves of the loss, the learning rate and every figure over the steps, \
figures before and after training, every pair of languages, and several runs side by side. hbt train writes it into \
its run directory, too.")]
pub struct ReportArgs {
    /// Run directories of hbt train, and results of hbt eval --json
    #[arg(required = true, value_name = "RUN|EVAL.json")]
    pub runs: Vec<PathBuf>,

    /// Where the page goes
    #[arg(long, value_name = "FILE.html", default_value = "report.html")]
    pub output: PathBuf,

    /// Replace the output even if it is a file that does not look like one of this command
    #[arg(long)]
    pub overwrite: bool,
}

/// Options of `hbt compare`.
#[derive(Debug, Default, Args)]
#[command(after_help = "\
Without RUNs, trains three times. With them, trains nothing: RUNs are run directories of hbt train and results of \
hbt eval --json on the same data, and the last one is held against each of the others.")]
pub struct CompareArgs {
    /// What a run takes.
    #[command(flatten)]
    pub run: RunArgs,

    /// Runs and results to compare, two or more, in the place of the configuration
    #[arg(value_name = "RUN")]
    pub runs: Vec<PathBuf>,
}

impl CompareArgs {
    /// The runs to compare; `None` where they are to be trained first.
    ///
    /// # Errors
    /// A single run, and runs beside what is for training.
    pub fn runs(&mut self) -> Result<Option<Vec<PathBuf>>> {
        let first = &mut self.run.input.config.config;
        let is_result = |path: &mut PathBuf| path.is_dir() || path.extension().is_some_and(|ending| ending == "json");
        let Some(first) = first.take_if(|first| !self.runs.is_empty() || is_result(first)) else { return Ok(None) };
        if self.runs.is_empty() {
            let message = format!("{} alone cannot be compared; name another run or result, too", first.display());
            return Err(Error::usage(message));
        }
        let typed = self.run.draft()?;
        if let Some(key) = KEYS.iter().find(|key| typed.is_given(key.name)) {
            let message = format!("runs that are there are compared as they are; take {} away", key.name);
            return Err(Error::usage(message));
        }
        Ok(Some(std::iter::once(first).chain(self.runs.drain(..)).collect()))
    }

    /// The configuration to train by, which has a default directory of its own.
    ///
    /// # Errors
    /// Those of [`RunArgs::draft`].
    pub fn draft(&self) -> Result<Draft> {
        let mut draft = self.run.draft()?;
        draft.preset("hbt compare", "out = 'runs/compare'")?;
        Ok(draft)
    }
}
