//! `hbt eval`

use super::{Job, eval_set, finish, model_dir, model_name, on_device};
use hbt::backend::Backend;
use hbt::cli::EvalArgs;
use hbt::config::Config;
use hbt::eval::EvalReport;
use hbt::eval::encode::Retriever;
use hbt::eval::tasks::EvalSet;
use hbt::progress::Counter;
use hbt::{Error, Result};

/// Evaluates, prints the table, and writes the JSON if asked to.
pub fn run(args: EvalArgs) -> Result<()> {
    let config = finish(args.draft()?)?;
    // Found out now, not after an hour.
    let folder = args.json.as_deref().and_then(|path| path.parent()).filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        return Err(Error::config("--json", format!("there is no directory {}; create it first", folder.display())));
    }
    if let Some(path) = args.json.as_deref().filter(|path| path.is_dir()) {
        return Err(Error::config("--json", format!("{} is a directory; name a file in it", path.display())));
    }
    let set = eval_set(&config)?;
    let report = evaluate(&config, &set)?;
    crate::print(&format!("{report}\n"))?;
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report).map_err(|e| Error::other(e.to_string()))?;
        hbt::model::fs::write_file_atomic(path, format!("{text}\n").as_bytes())?;
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
