//! Retrieval tasks of `hbt eval`: directories with corpus, queries and judgements, and mteb's tasks.

mod data;
mod evaluation;
mod model;
mod outputs;
mod pairs;
mod planned;
mod prompts;
mod shown;
mod training;
mod wanted;

pub use data::{fetched, is_collection};
pub use shown::list;
pub use training::eval_set;
pub use wanted::Wanted;

use super::device::{self, Job};
use super::model::{content_key, kernels_of, model_dir};
use super::ranks;
use evaluation::{Evaluation, Searcher};
use hbt::Result;
use hbt::backend::Backend;
use hbt::backend::cuda::Kernels;
use hbt::cache::cache_dir;
use hbt::cli::EvalArgs;
use hbt::config::Config;
use hbt::eval::mteb::files::Settings;
use hbt::eval::mteb::folder::ModelMeta;
use hbt::eval::vectors::{Counts, FileVectors, ModelVectors};
use hbt::model_dir::ModelDir;
use hbt::progress::say;
use hbt::retriever::kept::{KeptEmbeddings, make_room};
use hbt::retriever::{Retriever, RetrieverSettings};
use hbt::train::Ranks;
use planned::Planned;
use prompts::TaskPrompts;
use serde_json::Value;

/// Evaluates on such tasks, as all ranks do; the first prints what comes out, and returns it.
pub fn run(args: &EvalArgs, config: &Config, wanted: &[&Wanted], ranks: &Ranks) -> Result<Vec<Value>> {
    // Found out now, not after hours.
    let planned = ranks::first_of_machine(ranks, || Planned::all(wanted, args, config))?;
    if ranks.leads() {
        outputs::check(args, &planned)?;
    }
    ranks.require_same("evaluation", &planned.iter().map(Planned::in_words).collect::<String>())?;
    if let Some(directory) = &args.embeddings {
        let evaluation = Evaluation {
            args,
            ranks,
            searcher: Searcher::new(config)?,
            name: model::of_embeddings(directory)?,
            meta: ModelMeta::default(),
            settings: Settings::from([("embeddings".to_owned(), "given".to_owned())]),
            prompts: None,
        };
        return evaluation.run_all(&planned, &mut FileVectors::new(directory));
    }
    let dir = ranks::first_of_machine(ranks, || model_dir(config))?;
    let settings = config.retriever(&dir)?;
    device::on_device(config, RetrievalJob { args, config, ranks, dir, settings, planned })
}

struct RetrievalJob<'a> {
    args: &'a EvalArgs,
    config: &'a Config,
    ranks: &'a Ranks,
    dir: ModelDir,
    settings: RetrieverSettings,
    planned: Vec<Planned>,
}

impl Job for RetrievalJob<'_> {
    type Output = Vec<Value>;

    fn kernels(&self) -> Result<Kernels> {
        Ok(kernels_of(&self.dir, false))
    }

    fn ranks(&self) -> Ranks {
        self.ranks.clone()
    }

    fn run<B: Backend>(self, backend: B) -> Result<Vec<Value>> {
        let RetrievalJob { args, config, ranks, dir, settings, planned } = self;
        let name = model::of_model(config, &dir)?;
        let retriever = Retriever::load(backend, dir, settings)?;
        ranks::require_same_model(ranks, config, &retriever)?;
        let n_parameters = retriever.encoder.weights.iter().map(|weight| weight.len() as u64).sum();
        let evaluation = Evaluation {
            args,
            ranks,
            searcher: Searcher::new(config)?,
            name,
            meta: model::meta(config, &retriever.dir, &retriever.settings, n_parameters),
            settings: retriever.in_words([&retriever.settings.query, &retriever.settings.passage])?,
            prompts: Some(TaskPrompts::new(config, &retriever.dir.prompts, &retriever.settings)),
        };
        // Of several ranks the first keeps, and writes.
        let leads = ranks.leads();
        let kept = if args.no_cache || !leads { None } else { kept(args, config, &retriever) };
        let saved = args.save_embeddings.clone().filter(|_| leads);
        let mut vectors = ModelVectors::new(&retriever, ranks.peers(), kept, saved);
        let results = evaluation.run_all(&planned, &mut vectors)?;
        let Counts { n_texts, n_embedded, n_cut } = vectors.counts();
        let cut = if n_cut > 0 { format!(", {n_cut} of them cut") } else { String::new() };
        say(&format!("{n_texts} texts, of which {n_embedded} were embedded now{cut}"));
        Ok(results)
    }
}

/// The embeddings that are kept of a model. A cache that cannot be used is no reason to stop.
fn kept<B: Backend>(args: &EvalArgs, config: &Config, retriever: &Retriever<B>) -> Option<KeptEmbeddings> {
    let open = || {
        let folder = cache_dir()?.join("embeddings");
        let directory = folder.join(content_key(config, retriever)?);
        let limit = (args.cache_limit * 1e9) as u64;
        let left = make_room(&folder, &directory, limit)?;
        KeptEmbeddings::open(&directory, retriever.embedding_size(), left)
    };
    match open() {
        Ok(kept) => Some(kept),
        Err(error) => {
            say(&format!("warning: no embeddings are kept: {error}"));
            None
        }
    }
}
