//! Trains through the library, and embeds with what came of it: the built-in encoder on the built-in questions, for a few
//! steps, offline.
//!
//! ```sh
//! cargo run --release --example train_and_encode
//! ```

use hbt::Result;
use hbt::backend::Cpu;
use hbt::cache::cache_dir;
use hbt::config::{Assignment, Draft};
use hbt::data::datasets::Datasets;
use hbt::data::shard::TokenCache;
use hbt::data::tokenize::TextTokenizer;
use hbt::embedded;
use hbt::model_dir::ModelDir;
use hbt::retriever::Retriever;
use hbt::train::checkpoint::RunDir;
use hbt::train::{Setup, run};
use std::sync::Arc;

fn main() -> Result<()> {
    // The keys of `hbt config`, from any number of sources.
    let mut draft = Draft::new();
    draft.preset("the built-in encoder", embedded::PRESET)?;
    for assignment in ["steps=20", "batch_size=32", "split=train"] {
        draft.set(&assignment.parse::<Assignment>().expect("key=value"))?;
    }
    let config = draft.finish()?;

    // A model directory, here that of the built-in encoder, and what the configuration comes to for it.
    let cache = cache_dir()?;
    let dir = ModelDir::open(embedded::model(&cache)?)?;
    let settings = config.training(&dir)?;

    // The data, tokenized once and kept in the cache.
    let tokenizer = TextTokenizer::from_file(&dir.tokenizer)?;
    let mut datasets = Vec::new();
    for dataset in config.training_data(|| embedded::data(&cache))? {
        let source = config.dataset_source(&dataset, &config.text_kinds(&dir)?);
        let tokens = TokenCache::open_or_build(&source.data, &tokenizer, &source.spec, &cache, &|_, _| ())?;
        datasets.push((source.name, source.weight, tokens));
    }

    let mut retriever = Retriever::load(Cpu::<f32>::new(), dir.clone(), config.retriever(&dir)?)?;
    let out = tempfile::tempdir().expect("a directory for the run");
    let data = Arc::new(Datasets::new(datasets));
    let outcome = run(&mut retriever, Setup::new(settings, config.to_toml(), RunDir::new(out.path()), data))?;
    println!("trained for {} steps", outcome.state.step);

    // The same model as it was saved, which other tools load as well.
    let saved = ModelDir::open(out.path().join("last"))?;
    let retriever = Retriever::load(Cpu::<f32>::new(), saved.clone(), config.retriever(&saved)?)?;
    let [query, passage] = [&retriever.settings.query, &retriever.settings.passage];
    let queries = retriever.encode(query, &["Which country is Oslo the capital of?"], &mut |_| ())?;
    let texts = ["Oslo ist die Hauptstadt von Norwegen.", "Die Posaune ist ein Blechblasinstrument."];
    let passages = retriever.encode(passage, &texts, &mut |_| ())?;
    for (text, vector) in texts.iter().zip(passages.values().chunks_exact(passages.dim())) {
        let cosine: f32 = queries.values().iter().zip(vector).map(|(a, b)| a * b).sum();
        println!("{cosine:.3}  {text}");
    }
    Ok(())
}
