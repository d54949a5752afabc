//! Evaluates tasks, subset by subset, and writes what is asked for as it goes.

use super::super::device::resolve;
use super::super::{gpus, ranks};
use super::model::content_of_data;
use super::outputs;
use super::pairs;
use super::planned::{Part, Planned};
use super::prompts::{TaskPrompts, with_kinds};
use super::shown;
use hbt::backend::{Cpu, Cuda};
use hbt::cli::EvalArgs;
use hbt::config::{Config, Device};
use hbt::data::collection::Collection;
use hbt::dist::Peers;
use hbt::eval::mteb::Numbers;
use hbt::eval::mteb::entries::{Entry, Phase};
use hbt::eval::mteb::files::{Settings, TaskResult};
use hbt::eval::mteb::folder::{Earlier, ModelFolder, ModelMeta, ModelName};
use hbt::eval::mteb::numbers::retrieval_numbers;
use hbt::eval::mteb::rankings::{Predictions, TrecRun};
use hbt::eval::mteb::table::TaskKind;
use hbt::eval::rerank::{instruction_numbers, subquery_numbers};
use hbt::eval::retrieval::{Searched, Vectors, outcomes, ranking, search};
use hbt::eval::top::{Found, nearest};
use hbt::progress::{Counter, say};
use hbt::retriever::{COLLAPSED, Embeddings};
use hbt::train::Ranks;
use hbt::{Error, Result};
use serde_json::Value;
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Where the search runs, in f32.
pub enum Searcher {
    Cpu(Cpu<f32>),
    Cuda(Cuda<f32>),
}

impl Searcher {
    /// On the configured device.
    pub fn new(config: &Config) -> Result<Self> {
        Ok(match resolve(config.device) {
            Device::Cuda => Searcher::Cuda(Cuda::new(gpus::ordinal())?),
            Device::Cpu => Searcher::Cpu(Cpu::new()),
        })
    }

    fn search(
        &self,
        peers: &Peers,
        collection: &Collection,
        folder: &Path,
        vectors: &mut dyn Vectors,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Searched> {
        match self {
            Searcher::Cpu(cpu) => search(cpu, peers, collection, folder, vectors, progress),
            Searcher::Cuda(cuda) => search(cuda, peers, collection, folder, vectors, progress),
        }
    }

    /// See [`nearest`].
    pub fn nearest(&self, peers: &Peers, queries: Embeddings, documents: &Embeddings) -> Result<Vec<u32>> {
        match self {
            Searcher::Cpu(cpu) => nearest(cpu, peers, queries, documents),
            Searcher::Cuda(cuda) => nearest(cuda, peers, queries, documents),
        }
    }
}

/// The numbers of a search, and those of groups of queries by name.
type Ranked = (Numbers, Vec<(String, Numbers)>);

/// An evaluation of one model, by all ranks. The first says what is there already, computes the numbers and writes.
pub struct Evaluation<'a> {
    pub args: &'a EvalArgs,
    pub ranks: &'a Ranks,
    pub searcher: Searcher,
    pub name: ModelName,
    pub meta: ModelMeta,
    pub settings: Settings,
    /// How the model embeds texts, unless embeddings are given.
    pub prompts: Option<TaskPrompts>,
}

impl Evaluation<'_> {
    /// Evaluates all tasks, one after the other.
    pub fn run_all(&self, tasks: &[Planned], vectors: &mut dyn Vectors) -> Result<Vec<Value>> {
        let mut results = Vec::new();
        for task in tasks {
            let result = self.run(tasks, task, vectors)?;
            if self.ranks.leads() {
                crate::print(&shown::table(task, &result))?;
                results.push(result.to_json(&self.name));
            }
        }
        Ok(results)
    }

    /// Evaluates a task, and goes on from an earlier result of the same.
    fn run(&self, tasks: &[Planned], task: &Planned, vectors: &mut dyn Vectors) -> Result<TaskResult> {
        let results = self.args.results.as_deref().filter(|_| self.ranks.leads());
        let folder = results.map(|results| ModelFolder::new(results, self.name.clone()));
        let revision = match (&task.revision, &folder) {
            (Some(revision), _) => revision.clone(),
            // A result may be gone on from only on the same data.
            (None, Some(_)) => content_of_data(task)?,
            (None, None) => "local".to_owned(),
        };
        let kinds = self.prompts.as_ref().map(|prompts| prompts.of(task.row));
        kinds.iter().for_each(|kinds| vectors.begin(kinds));
        let settings = kinds.map_or_else(|| self.settings.clone(), |kinds| with_kinds(&self.settings, &kinds));
        let mut result = TaskResult::new(&task.name, &revision, settings.clone());
        if let Some(folder) = &folder {
            folder.has_meta()?;
            match folder.read(&task.name, &revision, &settings)? {
                Earlier::Nothing => {}
                Earlier::Same(earlier) => result = earlier,
                Earlier::Other(why) => say(&format!("{}: all is computed again: {why}", task.name)),
            }
        }
        let mut predictions = self.predictions(task)?;
        let needs_rankings = self.args.runs.is_some() || predictions.is_some() || self.args.save_embeddings.is_some();
        let is_there = |part: &Part| !needs_rankings && result.entry(&part.split, &part.subset.name).is_some();
        let mut there: Vec<u8> = task.parts.iter().map(|part| u8::from(is_there(part))).collect();
        self.ranks.peers().broadcast_bytes(0, &mut there)?;
        for (part, is_there) in task.parts.iter().zip(there) {
            if is_there != 0 {
                say(&format!("{}: {} is there already", task.name, shown::part(part)));
                continue;
            }
            let start = Instant::now();
            let place = outputs::place(tasks, task, part);
            let entry = self.evaluate(task, part, &place, vectors, &mut predictions)?;
            let Some(entry) = entry else { continue };
            result.evaluation_phases.push(Phase {
                name: "Encoding and searching".to_owned(),
                start: 0.0,
                end: start.elapsed().as_secs_f64(),
                split: part.split.clone(),
                subset: part.subset.name.clone(),
            });
            if result.entry(&part.split, &part.subset.name).is_none() {
                result.record(&part.split, entry);
            }
            result.evaluation_time += start.elapsed().as_secs_f64();
            result.date = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
            if let Some(folder) = &folder {
                folder.write_meta(&self.meta)?;
                folder.write(&result)?;
            }
        }
        predictions.map_or(Ok(()), Predictions::finish)?;
        Ok(result)
    }

    fn predictions(&self, task: &Planned) -> Result<Option<Predictions>> {
        let Some(directory) = self.args.predictions.as_ref().filter(|_| self.ranks.leads()) else { return Ok(None) };
        std::fs::create_dir_all(directory).map_err(|e| Error::io("create", directory, e))?;
        Predictions::create(&outputs::predictions(directory, task), &self.name).map(Some)
    }

    /// The numbers of a subset, which the first rank has.
    fn evaluate(
        &self,
        task: &Planned,
        part: &Part,
        place: &Path,
        vectors: &mut dyn Vectors,
        predictions: &mut Option<Predictions>,
    ) -> Result<Option<Entry>> {
        ranks::first_of_machine(self.ranks, || task.data.fetch(part))?;
        let found = match task.row.filter(|row| !row.kind.has_queries()) {
            Some(row) => {
                let counter = Counter::new("evaluated", 1);
                let (numbers, n_pairs) = pairs::evaluate(&self.searcher, self.ranks, task, row, part, vectors)?;
                counter.finish(&format!("{}, {n_pairs} pairs,", shown::part(part)));
                numbers.map(|numbers| (numbers, Vec::new()))
            }
            None => self.rank(task, part, place, vectors, predictions)?,
        };
        let Some((numbers, groups)) = found else { return Ok(None) };
        let main = numbers.iter().find(|(name, _)| *name == task.main_score);
        let main_score = main.ok_or_else(|| Error::other(format!("{} is not among the numbers", task.main_score)))?.1;
        let (hf_subset, languages) = (part.subset.name.clone(), part.subset.languages.clone());
        Ok(Some(Entry { numbers, groups, main_score, hf_subset, languages }))
    }

    /// The numbers of a search, and those of groups of queries, which the first rank has.
    fn rank(
        &self,
        task: &Planned,
        part: &Part,
        place: &Path,
        vectors: &mut dyn Vectors,
        predictions: &mut Option<Predictions>,
    ) -> Result<Option<Ranked>> {
        let (collection, peers) = (task.data.collection(part)?, self.ranks.peers());
        let counter = Counter::new("evaluated", 100);
        let progress = &mut |share: f64| counter.set((100.0 * share) as u64, 100);
        let Searched { found, notes, is_collapsed } =
            self.searcher.search(peers, &collection, place, vectors, progress)?;
        let (n_queries, n_documents) = (collection.queries.len(), found.n_documents);
        if n_documents == 0 {
            let message = format!("has no document to rank for subset {}", shown::part(part));
            return Err(Error::file(&task.data.root, message));
        }
        if !self.ranks.leads() {
            return Ok(None);
        }
        counter.finish(&format!("{}, {n_queries} queries on {n_documents} documents,", shown::part(part)));
        if is_collapsed {
            say(&format!("warning: {COLLAPSED}"));
        }
        for notes in [&collection.notes, &notes] {
            super::super::data::say_notes(notes);
        }
        let rules = task.ignores_identical_ids();
        if let Some(directory) = &self.args.runs {
            write_run(&outputs::run(directory, task, part), &collection, &found, rules, self.name.name())?;
        }
        if let Some(predictions) = predictions {
            predictions.begin(&part.subset.name, &part.split)?;
            for (number, query) in collection.queries.iter().enumerate() {
                predictions.write(&query.id, ranking(query, &found, number, rules))?;
            }
        }
        Ok(Some(match task.row.map(|row| row.kind) {
            Some(TaskKind::InstructionReranking) => instruction_numbers(&collection, &found),
            _ if task.main_score.starts_with("max_over_subqueries") => {
                (subquery_numbers(&collection, &found), Vec::new())
            }
            _ => (retrieval_numbers(&outcomes(&collection, &found, rules)), Vec::new()),
        }))
    }
}

/// Writes the rankings of a subset as a TREC run.
fn write_run(
    path: &Path,
    collection: &Collection,
    found: &Found,
    ignores_identical_ids: bool,
    tag: &str,
) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
    let mut run = TrecRun::create(path, tag)?;
    for (number, query) in collection.queries.iter().enumerate() {
        run.write(&query.id, ranking(query, found, number, ignores_identical_ids))?;
    }
    run.finish()
}
