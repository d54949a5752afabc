//! The configured training data.

use hbt::cache::cache_dir;
use hbt::config::{Config, Dataset};
use hbt::data::catalog::Role;
use hbt::data::datasets::{DatasetSource, Datasets, HeldOut};
use hbt::data::formats::{DataSource, Notes};
use hbt::data::shard::TokenCache;
use hbt::data::tokenize::TextTokenizer;
use hbt::error::counted;
use hbt::eval::tasks::{EvalSet, parallel};
use hbt::model_dir::{DataName, ModelDir};
use hbt::progress::{Counter, say};
use hbt::retriever::TextKind;
use hbt::{Result, embedded};
use rayon::prelude::*;

/// The datasets of the configuration.
pub fn datasets(config: &Config) -> Result<Vec<Dataset>> {
    config.training_data(|| embedded::data(&cache_dir()?))
}

/// The datasets of the configuration, with the limits and prefixes of the model in `dir`.
pub fn dataset_sources(config: &Config, dir: &ModelDir) -> Result<Vec<DatasetSource>> {
    let kinds = config.text_kinds(dir)?;
    Ok(datasets(config)?.iter().map(|dataset| config.dataset_source(dataset, &kinds)).collect())
}

/// The datasets of the configuration, as a model card names them.
pub fn data_names(config: &Config) -> Vec<DataName> {
    let paths = config.data.iter().chain(config.datasets.iter().map(|dataset| &dataset.data));
    let names: Vec<DataName> = paths.map(|path| DataName::of(path)).collect();
    if names.is_empty() { vec![DataName::BuiltIn] } else { names }
}

/// Says what reading data left out, joined or mended.
pub fn say_notes(notes: &Notes) {
    notes.lines().iter().for_each(|line| say(line));
}

/// The datasets, tokenized now or in an earlier run.
pub fn tokenized(sources: Vec<DatasetSource>, tokenizer: &TextTokenizer) -> Result<Datasets> {
    let of = |DatasetSource { name, weight, data, spec }| {
        let counter = Counter::new("tokenized", 0);
        let progress = |done, total| counter.set(done, total);
        let cache = TokenCache::open_or_build(&data, tokenizer, &spec, &cache_dir()?, &progress)?;
        if cache.was_built() {
            counter.finish(&format!("{} of {}", counted(cache.n_texts(), "text"), counted(cache.n_groups(), "group")));
        }
        Ok((name, weight, cache))
    };
    Ok(Datasets::new(sources.into_iter().map(of).collect::<Result<_>>()?))
}

/// What a run takes of its data: without the languages that it leaves out, and without the questions that it holds out to
/// evaluate on.
pub fn taken(config: &Config, mut data: Datasets) -> Result<(Datasets, Option<HeldOut>)> {
    if let Some(languages) = &config.exclude_languages {
        data = data.exclude(languages)?;
    }
    let Some(fraction) = config.held_out_share() else { return Ok((data, None)) };
    let (data, held_out) = data.hold_out(fraction, config.seed)?;
    Ok((data, Some(held_out)))
}

/// The benchmark that is held out of the data in `sources`.
pub fn held_out_set(sources: &[DatasetSource], held_out: &HeldOut) -> Result<EvalSet> {
    let data: Vec<DataSource> = sources.iter().map(|source| source.data.clone()).collect();
    let set = parallel::held_out(&data, held_out)?;
    let languages = counted(set.languages.len() as u64, "language");
    say(&format!("{held_out}: {} in {languages}", counted(set.queries.len() as u64, "evaluation question")));
    Ok(set)
}

/// Says how many texts of the data were cut, if any were.
pub fn say_cut(data: &Datasets, [query, passage]: &[TextKind; 2]) {
    for (kind, what, roles) in
        [(query, "queries", &[Role::Query][..]), (passage, "passages", &[Role::Positive, Role::Negative])]
    {
        let of_cache = |cache: &TokenCache| {
            let infos = (0..cache.n_texts()).into_par_iter().map(|text| cache.text_info(text));
            let of_role = infos.filter(|info| roles.contains(&info.role));
            of_role
                .map(|info| [u64::from(info.full_len > info.len), 1])
                .reduce(|| [0; 2], |[a, b], [c, d]| [a + c, b + d])
        };
        let [n_cut, n] = data.caches().map(of_cache).fold([0; 2], |[a, b], [c, d]| [a + c, b + d]);
        kind.cut_note(n_cut, n, what).iter().for_each(|note| say(note));
    }
}

/// What the datasets hold and how they become tokens, a line each: the same in any place.
pub fn keys_of(sources: &[DatasetSource], dir: &ModelDir) -> Result<String> {
    let tokenizer = TextTokenizer::hash_file(&dir.tokenizer)?;
    // What is built in lies in the cache, and so has another name on each machine.
    let line = |(number, source): (usize, &DatasetSource)| {
        Ok(format!("dataset {} {}", number + 1, TokenCache::key_of(&source.data, tokenizer, &source.spec)?))
    };
    Ok(sources.iter().enumerate().map(line).collect::<Result<Vec<_>>>()?.join("\n"))
}

/// The datasets, if all of them were tokenized in an earlier run.
pub fn tokenized_before(sources: &[DatasetSource], dir: &ModelDir) -> Result<Option<Datasets>> {
    let tokenizer = TextTokenizer::hash_file(&dir.tokenizer)?;
    let mut caches = Vec::new();
    for DatasetSource { name, weight, data, spec } in sources {
        let Some(cache) = TokenCache::find(data, tokenizer, spec, &cache_dir()?)? else {
            return Ok(None);
        };
        caches.push((name.clone(), *weight, cache));
    }
    Ok(Some(Datasets::new(caches)))
}
