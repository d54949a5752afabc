//! `hbt eval`

use super::data::say_notes;
use super::device::{Job, on_device};
use super::gpus::asked_for;
use super::inputs::Inputs;
use super::model::{kernels_of, model_dir, model_name};
use super::output::{Kind, refuse_foreign};
use super::ranks;
use super::report::{leave_page, leave_page_on, write_page_on};
use super::setup::finish;
use super::tasks::{self as named_tasks, Wanted};
use hbt::backend::Backend;
use hbt::backend::cuda::Kernels;
use hbt::cache::cache_dir;
use hbt::cli::EvalArgs;
use hbt::config::{Auto, Config, Draft};
use hbt::data::formats::Purpose;
use hbt::eval::report::Origin;
use hbt::eval::tasks::{self, EvalSet};
use hbt::eval::{EvalReport, Evaluated, FigureKey, evaluate_retriever};
use hbt::files::{NewFile, write_file_atomic};
use hbt::model_dir::ModelDir;
use hbt::progress::{Counter, say};
use hbt::retriever::{Retriever, RetrieverSettings};
use hbt::train::Ranks;
use hbt::{Error, Result, embedded};
use serde_json::{Value, json};
use std::slice;

/// Evaluates, prints the tables, and writes the JSON if asked to.
pub fn run(args: EvalArgs) -> Result<()> {
    if args.list {
        return ranks::once(|| crate::print(&named_tasks::list()));
    }
    // Read once: a configuration may come through a pipe.
    let draft = args.draft();
    ranks::run(asked_for(&draft), |ranks| eval_among(&args, draft?, ranks))
}

fn eval_among(args: &EvalArgs, draft: Draft, ranks: &Ranks) -> Result<()> {
    say_unused(&draft);
    let wanted = ranks::first_of_machine(ranks, || wanted(args, &draft))?;
    let config = finish(draft)?;
    let inputs = Inputs::of(&config, args.config.config.as_deref());
    inputs.refuse_trace(&args.trace)?;
    if ranks.leads() {
        check_outputs(args, &inputs)?;
    }
    let own: Vec<_> = wanted.iter().filter_map(Wanted::own).collect();
    let others: Vec<&Wanted> = wanted.iter().filter(|wanted| wanted.own().is_none()).collect();
    if others.is_empty() {
        args.refuse_for_retrieval()?;
    }
    let mut results = Vec::new();
    for task in own {
        let config = Config { eval_task: task, ..config.clone() };
        let mut set = ranks::first_of_machine(ranks, || eval_set(&config, Purpose::Test))?;
        if let Some(languages) = &args.languages {
            let languages: Vec<String> = languages.split(',').map(|code| code.trim().to_owned()).collect();
            set = set.only(&languages).map_err(|message| Error::config("--languages", message))?;
        }
        ranks.require_same("evaluation data", &set.key())?;
        let report = evaluate(&config, &set, None, ranks)?;
        if ranks.leads() {
            crate::print(&format!("{report}\n"))?;
        }
        results.push(serde_json::to_value(&report).map_err(|e| Error::other(e.to_string()))?);
    }
    if !others.is_empty() {
        results.extend(named_tasks::run(args, &config, &others, ranks)?);
    }
    if ranks.leads() { write(args, results) } else { Ok(()) }
}

/// Fails where a file cannot be written, or would replace what it must not: now, not after an hour.
fn check_outputs(args: &EvalArgs, inputs: &Inputs) -> Result<()> {
    for (option, path, kind) in [("--json", &args.json, Kind::Report), ("--report", &args.report, Kind::Page)] {
        let Some(path) = path else { continue };
        NewFile::check(path)?;
        inputs.refuse(option, path)?;
        if !args.overwrite {
            refuse_foreign(option, path, kind)?;
        }
    }
    Ok(())
}

/// Says what was given for training alone.
fn say_unused(draft: &Draft) {
    if draft.is_typed("split") && !draft.is_typed("eval_split") {
        say("warning: split has no effect here: it is of training; set eval_split, or --split");
    }
    if !draft.so_far().evaluations.is_empty() {
        say(
            "warning: evaluations have no effect here: they are of training; name one's task and data, as in --task --data",
        );
    }
}

/// Writes what was asked for, and the page.
fn write(args: &EvalArgs, results: Vec<Value>) -> Result<()> {
    if let Some(path) = &args.json {
        let all = || json!({ "results": results });
        let result = if let [only] = &results[..] { only.clone() } else { all() };
        write_file_atomic(path, format!("{result:#}\n").as_bytes())?;
    }
    if let Some(directory) = &args.results {
        leave_page(slice::from_ref(directory), directory);
    }
    match (&args.report, &args.json) {
        (Some(path), _) => write_page_on(results, path),
        (None, Some(json)) if args.results.is_none() && json.is_file() => {
            leave_page_on(results, json);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The tasks that `--task` names; without it, what the data looks like.
fn wanted(args: &EvalArgs, draft: &Draft) -> Result<Vec<Wanted>> {
    let so_far = draft.so_far();
    let is_named = args.task.as_ref().is_some_and(|names| names != "auto");
    if let Some(names) = args.task.as_deref().filter(|_| is_named) {
        return Wanted::parse(names);
    }
    let is_auto = so_far.eval_task == Some(Auto::Auto);
    match so_far.eval_data.as_ref().filter(|path| is_auto && named_tasks::is_collection(path)) {
        Some(_) => Ok(vec![Wanted::Directory]),
        None => Ok(vec![Wanted::of(so_far.eval_task)]),
    }
}

/// The configured model on `set`, by its task's figures and one `more`, as all of `ranks` do.
pub fn evaluate(config: &Config, set: &EvalSet, more: Option<FigureKey>, ranks: &Ranks) -> Result<EvalReport> {
    let dir = ranks::first_of_machine(ranks, || model_dir(config))?;
    let settings = config.retriever(&dir)?;
    on_device(config, EvalJob { dir, settings, config, ranks, set, more })
}

struct EvalJob<'a> {
    dir: ModelDir,
    settings: RetrieverSettings,
    config: &'a Config,
    ranks: &'a Ranks,
    set: &'a EvalSet,
    more: Option<FigureKey>,
}

impl Job for EvalJob<'_> {
    type Output = EvalReport;

    fn kernels(&self) -> Result<Kernels> {
        Ok(kernels_of(&self.dir, false))
    }

    fn ranks(&self) -> Ranks {
        self.ranks.clone()
    }

    fn run<B: Backend>(self, backend: B) -> Result<EvalReport> {
        let retriever = Retriever::load(backend, self.dir, self.settings)?;
        ranks::require_same_model(self.ranks, self.config, &retriever)?;
        let (n_queries, n_passages) = (self.set.queries.len(), self.set.passages.len());
        let total = (n_queries + n_passages) as u64;
        let counter = Counter::new("evaluated", total);
        let kinds = [&retriever.settings.query, &retriever.settings.passage];
        let progress = &mut |n| counter.set(n as u64, total);
        let name = model_name(self.config);
        let Evaluated { report, cut, warning } =
            evaluate_retriever(&retriever, self.ranks.peers(), kinds, &name, self.set, self.more, progress)?;
        counter.finish(&format!("{n_queries} queries on {n_passages} passages"));
        cut.iter().for_each(|note| say(note));
        warning.iter().for_each(|warning| say(&format!("warning: {warning}")));
        Ok(EvalReport { hbt: Some(Origin::new(retriever.in_words(kinds)?)), ..report })
    }
}

/// The configured benchmark.
///
/// # Errors
/// When none is configured, and data that is not what it reads.
pub fn eval_set(config: &Config, purpose: Purpose) -> Result<EvalSet> {
    if config.eval_data.is_none() && config.eval_fraction.is_some() {
        let message =
            "is for training, which holds questions out by it; name eval_data here, or set eval_fraction to none";
        return Err(Error::config("eval_fraction", message));
    }
    if config.eval_data.is_none() && !config.datasets.is_empty() {
        return Err(Error::config("eval_data", "is missing: with several datasets, name what to evaluate on"));
    }
    let path = match config.eval_data.as_ref().or(config.data.as_ref()) {
        Some(path) => named_tasks::fetched(path)?,
        None => embedded::data(&cache_dir()?)?,
    };
    let source = config.eval_source(path, purpose);
    let task = match config.eval_task {
        Some(Auto::Of(task)) => task,
        Some(Auto::Auto) => tasks::recognised(&source)?,
        None => {
            let message = format!("is none, so there is nothing to evaluate; set auto or one of {}", tasks::names());
            return Err(Error::config("eval_task", message));
        }
    };
    let set = (task.load)(&source)?;
    say_notes(&set.notes);
    Ok(set)
}
