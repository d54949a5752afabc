//! `hbt eval`

use super::device::{Job, on_device};
use super::eval_set;
use super::model::{kernels_of, model_dir, model_name};
use super::setup::finish;
use hbt::backend::Backend;
use hbt::backend::cuda::Kernels;
use hbt::cli::EvalArgs;
use hbt::config::Config;
use hbt::eval::tasks::EvalSet;
use hbt::eval::{EvalReport, evaluate_retriever};
use hbt::files::{NewFile, write_file_atomic};
use hbt::model_dir::ModelDir;
use hbt::progress::Counter;
use hbt::retriever::{Retriever, RetrieverSettings};
use hbt::{Error, Result};

/// Evaluates, prints the table, and writes the JSON if asked to.
pub fn run(args: EvalArgs) -> Result<()> {
    let config = finish(args.draft()?)?;
    if let Some(path) = &args.json {
        // Found out now, not after an hour.
        NewFile::check(path)?;
    }
    let set = eval_set(&config)?;
    let report = evaluate(&config, &set)?;
    crate::print(&format!("{report}\n"))?;
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report).map_err(|e| Error::other(e.to_string()))?;
        write_file_atomic(path, format!("{text}\n").as_bytes())?;
    }
    Ok(())
}

/// The configured model on `set`.
pub fn evaluate(config: &Config, set: &EvalSet) -> Result<EvalReport> {
    let dir = model_dir(config)?;
    let settings = config.retriever(&dir)?;
    on_device(config, EvalJob { dir, settings, name: model_name(config), set })
}

struct EvalJob<'a> {
    dir: ModelDir,
    settings: RetrieverSettings,
    name: String,
    set: &'a EvalSet,
}

impl Job for EvalJob<'_> {
    type Output = EvalReport;

    fn kernels(&self) -> Result<Kernels> {
        Ok(kernels_of(&self.dir, false))
    }

    fn run<B: Backend>(self, backend: B) -> Result<EvalReport> {
        let retriever = Retriever::load(backend, self.dir, self.settings)?;
        let (n_queries, n_passages) = (self.set.queries.len(), self.set.passages.len());
        let total = (n_queries + n_passages) as u64;
        let counter = Counter::new("evaluated", total);
        let report = evaluate_retriever(&retriever, &self.name, self.set, &mut |n| counter.set(n as u64, total))?;
        counter.finish(&format!("{n_queries} queries on {n_passages} passages"));
        Ok(report)
    }
}
