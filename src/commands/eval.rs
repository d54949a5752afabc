//! `hbt eval`

use super::{Job, eval_set, finish, kernels_of, model_dir, model_name, on_device};
use hbt::backend::Backend;
use hbt::backend::cuda::Kernels;
use hbt::cli::EvalArgs;
use hbt::config::Config;
use hbt::eval::EvalReport;
use hbt::eval::encode::Retriever;
use hbt::eval::tasks::EvalSet;
use hbt::files::{NewFile, write_file_atomic};
use hbt::progress::Counter;
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
    on_device(config, EvalJob { config, set })
}

struct EvalJob<'a> {
    config: &'a Config,
    set: &'a EvalSet,
}

impl Job for EvalJob<'_> {
    type Output = EvalReport;

    fn kernels(&self) -> Result<Kernels> {
        kernels_of(&model_dir(self.config)?, false)
    }

    fn run<B: Backend>(self, backend: B) -> Result<EvalReport> {
        let retriever = Retriever::load(backend, &model_dir(self.config)?, self.config)?;
        let (n_queries, n_passages) = (self.set.queries.len(), self.set.passages.len());
        let total = (n_queries + n_passages) as u64;
        let counter = Counter::new("evaluated", total);
        let report = retriever.evaluate(self.set, &model_name(self.config), &mut |n| counter.set(n as u64, total))?;
        counter.finish(&format!("{n_queries} queries on {n_passages} passages"));
        Ok(report)
    }
}
