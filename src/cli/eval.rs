//! Options of `hbt eval`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;

use super::{ComputeArgs, ConfigArgs, TraceArgs};
use crate::config::Draft;
use crate::eval::tasks;
use crate::{Error, Result};

/// Options of `hbt eval`.
#[derive(Debug, Default, Args)]
pub struct EvalArgs {
    /// Model directory or Hugging Face hub id [default: a small built-in encoder]
    #[arg(long, value_name = "DIR|ID")]
    pub model: Option<String>,

    /// Tasks and benchmarks, of hbt or by mteb's names; --list prints them [default: auto, by the layout of the data]
    #[arg(long, value_name = "NAME,...")]
    pub task: Option<String>,

    /// Print the tasks with their type, languages, size and main metric
    #[arg(long, exclusive = true)]
    pub list: bool,

    /// Evaluation data: SQuAD layout such as XQuAD-R's, rows, BEIR's layout or the hub's [default: of mteb's tasks, the hub's
    /// cache; else built-in parallel questions]
    #[arg(long, value_name = "FILE|DIR")]
    pub data: Option<String>,

    /// Part of the data, where it is divided [default: auto, the one for tests]
    #[arg(long, value_parser = PossibleValuesParser::new(["auto", "all", "train", "validation", "test"]))]
    pub split: Option<String>,

    /// Only these languages, as in de,en; of mteb's tasks the subsets that are in these alone
    #[arg(long, value_name = "LANG,...")]
    pub languages: Option<String>,

    /// Also write the result into this file, as JSON, and beside it, as FILE.html, the page of --report
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Also write a page for a browser into this file, as hbt report does
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,

    /// Also write result files into a cache of mteb's: DIR/results/ORG__MODEL/REVISION/TASK.json; what is there already is not
    /// computed again; with a page on all models in it, DIR/report.html
    #[arg(long, value_name = "DIR")]
    pub results: Option<PathBuf>,

    /// Also write the rankings, as TREC run files: DIR/TASK/SUBSET.SPLIT.trec
    #[arg(long, value_name = "DIR")]
    pub runs: Option<PathBuf>,

    /// Also write the rankings as mteb's predictions: DIR/TASK_predictions.json
    #[arg(long, value_name = "DIR")]
    pub predictions: Option<PathBuf>,

    /// Also write the embeddings: DIR/SUBSET.queries.npy and DIR/SUBSET.corpus.npy, a row for each row of the data
    #[arg(long, value_name = "DIR")]
    pub save_embeddings: Option<PathBuf>,

    /// Judge the embeddings in such a directory, whatever made them, instead of a model's
    #[arg(long, value_name = "DIR", conflicts_with_all = ["model", "save_embeddings"])]
    pub embeddings: Option<PathBuf>,

    /// Neither take embeddings of earlier evaluations from the cache nor keep any
    #[arg(long)]
    pub no_cache: bool,

    /// Gigabytes that kept embeddings may take up, of all models together
    #[arg(long, value_name = "GB", default_value_t = 20.0, value_parser = gigabytes)]
    pub cache_limit: f64,

    /// Replace what is there: files of --runs, --predictions and --save-embeddings, and those of --json and --report that
    /// this command did not write
    #[arg(long)]
    pub overwrite: bool,

    /// The trace.
    #[command(flatten)]
    pub trace: TraceArgs,

    /// Device and precision.
    #[command(flatten)]
    pub compute: ComputeArgs,

    /// Configuration file and `--set`.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// A size that a cache can have.
fn gigabytes(text: &str) -> std::result::Result<f64, String> {
    let size: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if size.is_finite() && size >= 0.0 { Ok(size) } else { Err("expected a number of gigabytes, 0 or more".to_owned()) }
}

impl EvalArgs {
    /// Fails on options that only retrieval over a corpus has.
    ///
    /// # Errors
    /// The first of them that was given.
    pub fn refuse_for_retrieval(&self) -> Result<()> {
        let given = [
            ("--results", self.results.is_some()),
            ("--runs", self.runs.is_some()),
            ("--predictions", self.predictions.is_some()),
            ("--embeddings", self.embeddings.is_some()),
            ("--save-embeddings", self.save_embeddings.is_some()),
            ("--no-cache", self.no_cache),
        ];
        match given.iter().find(|(_, is_given)| *is_given) {
            Some((option, _)) => Err(Error::usage(format!(
                "{option} is for retrieval over a corpus (--task retrieval, or a task of mteb's); take it away"
            ))),
            None => Ok(()),
        }
    }

    /// The configuration that the options give. `--data` is `eval_data` here, `--task` `eval_task` where it is one that
    /// training can evaluate on, too.
    pub fn draft(&self) -> Result<Draft> {
        let is_own = |name: &String| name == "auto" || tasks::named(name).is_some();
        let task = self.task.clone().filter(is_own);
        self.compute.apply(self.config.draft(&[
            ("--model", "model", &self.model),
            ("--task", "eval_task", &task),
            ("--data", "eval_data", &self.data),
            ("--split", "eval_split", &self.split),
        ])?)
    }
}
