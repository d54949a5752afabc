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
figures before and after training, every pair of languages, mteb's tasks by subset, and several runs side by side. \
hbt train writes it into its run directory, hbt eval into that of --results, too.")]
pub struct ReportArgs {
    /// Run directories of hbt train, results of hbt eval --json, and directories of hbt eval --results, whose models are shown
    /// side by side
    #[arg(required = true, value_name = "RUN|EVAL.json|DIR")]
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
Without RUNs, trains three times. With them, trains nothing: RUNs are run directories of hbt train, results of \
hbt eval --json on the same data, and directories of hbt eval --results, each of whose models is one; the last is held \
against each of the others.")]
pub struct CompareArgs {
    /// What a run takes.
    #[command(flatten)]
    pub run: RunArgs,

    /// Runs and results to compare, in the place of the configuration
    #[arg(value_name = "RUN")]
    pub runs: Vec<PathBuf>,
}

impl CompareArgs {
    /// The runs to compare; `None` where they are to be trained first.
    ///
    /// # Errors
    /// Runs beside what is for training.
    pub fn runs(&mut self) -> Result<Option<Vec<PathBuf>>> {
        let first = &mut self.run.input.config.config;
        let is_result = |path: &mut PathBuf| path.is_dir() || path.extension().is_some_and(|ending| ending == "json");
        let Some(first) = first.take_if(|first| !self.runs.is_empty() || is_result(first)) else { return Ok(None) };
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
