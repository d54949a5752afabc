//! The subcommands: what each puts together from the library.

pub mod bench;
pub mod compare;
pub mod config;
mod device;
pub mod encode;
pub mod eval;
pub mod info;
pub mod mine;
mod output;
pub mod plan;
pub mod prepare;
pub mod trace;
pub mod train;

use hbt::backend::cuda::{self, CudaDevice, CudaElement, Kernels, Progress, Workload};
use hbt::backend::{Backend, Cpu, Cuda};
use hbt::cache::cache_dir;
use hbt::config::{Config, Dataset, Device, Draft, Precision};
use hbt::data::datasets::Datasets;
use hbt::data::formats::DataSource;
use hbt::data::shard::{TokenCache, TokenizeSpec};
use hbt::data::tokenize::TextTokenizer;
use hbt::eval::encode::TextKind;
use hbt::model::{ModelDir, hub};
use hbt::progress::{Counter, say};
use hbt::{Error, Result, embedded};
use std::path::{Path, PathBuf};

/// The finished configuration. Built-in questions are trained on and measured on by their parts, whatever the model;
/// the built-in model on them has settings that suit the two.
pub fn finish(draft: Draft) -> Result<Config> {
    let config = with_presets(draft)?.finish()?;
    if let Some(threads) = config.threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .map_err(|e| Error::config("threads", format!("{threads} cannot be started: {e}; lower it")))?;
    }
    Ok(config)
}

/// `draft` with the settings that suit what is built in, where it names nothing else.
fn with_presets(mut draft: Draft) -> Result<Draft> {
    let so_far = draft.so_far();
    let own_model = so_far.model.is_some();
    let own_data = so_far.data.is_some() || !so_far.datasets.is_empty();
    let own_eval_data = own_data || so_far.eval_data.is_some();
    if !own_data {
        draft.preset("built-in data", "split = 'train'")?;
    }
    if !own_eval_data {
        draft.preset("built-in data", "eval_split = 'test'")?;
    }
    if !own_model && !own_data {
        draft.preset("built-in model and data", embedded::PRESET)?;
    }
    Ok(draft)
}

/// Says what `config` allows but is seldom meant.
pub fn warned(config: Config) -> Config {
    config.warnings().iter().for_each(|warning| say(&format!("warning: {warning}")));
    config
}

/// Work that runs on any backend.
pub trait Job {
    /// What it gives.
    type Output;
    /// The kernels that it takes on a GPU.
    ///
    /// # Errors
    /// A model directory that cannot be read.
    fn kernels(&self) -> Result<Kernels>;
    /// Does it.
    fn run<B: Backend>(self, backend: B) -> Result<Self::Output>;
}

/// `config` with `precision = auto` replaced by what is fastest on its device, which it says. What a run saves must name
/// its precision: resumed on another machine, `auto` would mean another one.
pub fn settle_precision(config: Config) -> Config {
    if config.precision != Precision::Auto {
        return config;
    }
    let (precision, why) = device::auto_precision(device::resolve(config.device));
    say(&format!("precision {precision}: {why}"));
    Config { precision, ..config }
}

/// What the configured device is here. Fails where it is a GPU that is not there: for before anything is said of a run, or
/// done for it.
pub fn require_device(config: &Config) -> Result<Device> {
    let device = device::resolve(config.device);
    if device == Device::Cuda {
        first_gpu()?;
    }
    Ok(device)
}

/// Runs `job` on the configured device in the configured precision: the one place where backends are told apart.
pub fn on_device<J: Job>(config: &Config, job: J) -> Result<J::Output> {
    let device = require_device(config)?;
    let is_f32 = settle_precision(config.clone()).precision == Precision::F32;
    if device == Device::Cuda {
        let kernels = job.kernels()?;
        return if is_f32 { job.run(prepared::<f32>(kernels)?) } else { job.run(prepared::<half::bf16>(kernels)?) };
    }
    if is_f32 { job.run(Cpu::<f32>::new()) } else { job.run(Cpu::<half::bf16>::new()) }
}

/// The first GPU with these kernels.
fn prepared<E: CudaElement>(kernels: Kernels) -> Result<Cuda<E>> {
    let cuda = Cuda::new(FIRST_GPU)?;
    cuda.prepare(kernels, &|Progress { file, done, total, time }| {
        say(&format!("compiled kernels/{file}, {done} of {total}, once, in {:.1} s", time.as_secs_f64()));
    })?;
    Ok(cuda)
}

/// The one that CUDA_VISIBLE_DEVICES puts first.
const FIRST_GPU: usize = 0;

fn first_gpu() -> Result<CudaDevice> {
    cuda::require(FIRST_GPU).map_err(|why| Error::config("device", format!("{why}, or set device = \"cpu\"")))
}

/// The kernels that the model in `dir` takes.
pub fn kernels_of(dir: &Path, trains: bool) -> Result<Kernels> {
    let config = ModelDir::open(dir)?.config;
    Ok(Kernels::Of(Workload { head_size: config.head_size(), width: config.hidden_size, trains }))
}

/// The configured model as a directory on this machine.
pub fn model_dir(config: &Config) -> Result<PathBuf> {
    match &config.model {
        Some(model) => hub::resolve(model),
        None => embedded::model(&cache_dir()?),
    }
}

/// What reports call the configured model.
pub fn model_name(config: &Config) -> String {
    config.model.clone().unwrap_or_else(|| "built-in".to_owned())
}

/// The configured training data.
pub fn datasets(config: &Config) -> Result<Vec<Dataset>> {
    if !config.datasets.is_empty() {
        return Ok(config.datasets.clone());
    }
    let path = match &config.data {
        Some(path) => path.clone(),
        None => embedded::data(&cache_dir()?)?,
    };
    Ok(vec![Dataset::new(path)])
}

/// Where a dataset is, and how to read it.
pub fn data_source(config: &Config, dataset: &Dataset) -> DataSource {
    DataSource {
        path: dataset.data.clone(),
        format: dataset.data_format.unwrap_or(config.data_format),
        split: dataset.split.unwrap_or(config.split),
        passage_unit: dataset.passage_unit.unwrap_or(config.passage_unit),
    }
}

/// The training data, its queries and passages tokenized as `kinds` and the datasets say, now or in an earlier run.
pub fn tokenized(config: &Config, tokenizer: &TextTokenizer, kinds: &[TextKind; 2]) -> Result<Datasets> {
    let of = |dataset: &Dataset| {
        let cache = tokenized_one(config, dataset, tokenizer, kinds)?;
        Ok((dataset.label(), dataset.weight, cache))
    };
    let caches: Vec<_> = datasets(config)?.iter().map(of).collect::<Result<_>>()?;
    Ok(Datasets::new(caches))
}

/// The training data, if all of it was tokenized in an earlier run.
pub fn tokenized_before(config: &Config, dir: &ModelDir) -> Result<Option<Datasets>> {
    let (kinds, tokenizer) = (TextKind::of(config, dir), TextTokenizer::hash_file(&dir.tokenizer)?);
    let mut caches = Vec::new();
    for dataset in datasets(config)? {
        let spec = tokenize_spec(&dataset, &kinds);
        let Some(cache) = TokenCache::find(&data_source(config, &dataset), tokenizer, &spec, &cache_dir()?)? else {
            return Ok(None);
        };
        caches.push((dataset.label(), dataset.weight, cache));
    }
    Ok(Some(Datasets::new(caches)))
}

/// How a dataset's texts become tokens: as it says itself, else as all do.
pub fn tokenize_spec(dataset: &Dataset, [query, passage]: &[TextKind; 2]) -> TokenizeSpec {
    let prefix = |own: &Option<String>, kind: &TextKind| own.as_ref().unwrap_or(&kind.prefix).clone();
    TokenizeSpec {
        query_prefix: prefix(&dataset.query_prefix, query),
        passage_prefix: prefix(&dataset.passage_prefix, passage),
        query_max_len: query.max_len,
        passage_max_len: passage.max_len,
    }
}

fn tokenized_one(
    config: &Config,
    dataset: &Dataset,
    tokenizer: &TextTokenizer,
    kinds: &[TextKind; 2],
) -> Result<TokenCache> {
    let spec = tokenize_spec(dataset, kinds);
    let source = data_source(config, dataset);
    let counter = Counter::new("tokenized", 0);
    let progress = |done, total| counter.set(done, total);
    let cache = TokenCache::open_or_build(&source, tokenizer, &spec, &cache_dir()?, &progress)?;
    if cache.was_built() {
        counter.finish(&format!("{} texts of {} groups", cache.n_texts(), cache.n_groups()));
    }
    Ok(cache)
}
