//! `hbt plan`, and the plan that a run begins with.

use super::data::{dataset_sources, held_out_set, keys_of, say_cut, say_notes, taken, tokenized, tokenized_before};
use super::device::{self, Job, on_device};
use super::evaluations::{training_eval_sets, with_held_out};
use super::gpus;
use super::info;
use super::model::{model_dir, model_name};
use super::ranks::{first_of_machine, least, of_first};
use super::setup::finish;
use hbt::backend::cuda::{self, Kernels};
use hbt::backend::{Backend, Precision};
use hbt::cli::PlanArgs;
use hbt::config::{Config, Device};
use hbt::data::datasets::{Datasets, HeldOut};
use hbt::data::tokenize::TextTokenizer;
use hbt::error::counted;
use hbt::model_dir::ModelDir;
use hbt::plan::report::Report;
use hbt::plan::{
    Cluster, Data, LINK_OF_PROCESSES, Machine, Part, Plan, Question, Sample, Speed, Target, WORKSPACE_BYTES,
};
use hbt::progress::say;
use hbt::train::{NamedSet, Ranks, TrainSettings};
use hbt::{Error, Result, memory};

/// Prints the plan of a run.
pub fn run(args: PlanArgs) -> Result<()> {
    let config = finish(args.draft()?)?;
    let device = if args.target == Target::This { device::resolve(config.device) } else { Device::Cuda };
    let precision = config.precision.or_else(|| device::auto_precision(device).0);
    let config = Config { precision: precision.into(), ..config };
    let model = model_dir(&config)?;
    // Fails where the run would fail.
    config.retriever(&model)?;
    let eval_sets = training_eval_sets(&config)?;
    let cluster = args.cluster()?;
    let machine = match args.target.machine(precision == Precision::F32) {
        Some(machine) => machine,
        None => a_rank_of(this_machine(&config, precision, true)?, cluster.devices),
    };
    if cluster.size() > 1 && cluster.bandwidth(&machine).is_none() {
        let message =
            format!("nothing says how fast several {} exchange; say it in GB/s with --gpu-link", machine.name);
        return Err(Error::usage(message));
    }
    let sources = dataset_sources(&config, &model)?;
    let tokens = tokenized_before(&sources, &model)?.map(|data| taken(&config, data)).transpose()?;
    let sample = match tokens {
        Some(_) => None,
        None => {
            let excluded = config.exclude_languages.as_deref().unwrap_or_default();
            let part = Part { excluded, held_out: config.held_out_share().unwrap_or(0.0) };
            Some(Sample::read(&sources, &part, &model.tokenizer, model.config.vocab_size)?)
        }
    };
    let (data, held_out) = match (&tokens, &sample) {
        (Some((tokens, held_out)), _) => (Data::Tokens(tokens), held_out.as_ref().map(HeldOut::n_texts)),
        (None, Some(sample)) => (Data::Sample(sample), sample.held_out()),
        (None, None) => unreachable!("data is tokenized, or else a sample was taken"),
    };
    let question = Question {
        settings: config.training(&model)?,
        open: config.open(machine.is_gpu),
        precision,
        from_scratch: config.from_scratch,
        model: &model,
        data,
        eval_texts: eval_texts(&eval_sets, held_out),
        machine: &machine,
        cluster,
    };
    let plan = Plan::new(&question)?;
    let report = Report { question: &question, model_name: &model_name(&config), plan: &plan };
    match args.json {
        true => crate::print(&format!("{:#}\n", report.to_json())),
        false => crate::print(&report.to_string()),
    }
}

/// A run with a plan.
pub struct Planned {
    /// The configuration, with the plan's numbers for keys that leave them to it.
    pub config: Config,
    /// The settings that it gives.
    pub settings: TrainSettings,
    /// The data, tokenized.
    pub data: Datasets,
    /// What to evaluate on, if anything, the deciding one first.
    pub eval_sets: Vec<NamedSet>,
}

/// Plans a run from the model in `dir`, as all ranks do; tokenizes its data if necessary. `eval_sets` are what it evaluates on,
/// besides what it holds out of the data. Refuses a run that cannot fit.
pub fn planned(config: Config, dir: &ModelDir, mut eval_sets: Vec<NamedSet>, ranks: &Ranks) -> Result<Planned> {
    let precision = device::precision(&config);
    let settings = config.training(dir)?;
    config.retriever(dir)?;
    let sources = dataset_sources(&config, dir)?;
    if !ranks.is_alone() {
        // Before anyone tokenizes.
        ranks.require_same("content of the data", &keys_of(&sources, dir)?)?;
    }
    let data = first_of_machine(ranks, || match tokenized_before(&sources, dir)? {
        Some(data) => Ok(data),
        None => tokenized(sources.clone(), &TextTokenizer::from_file(&dir.tokenizer)?),
    })?;
    data.caches().for_each(|cache| say_notes(cache.notes()));
    say_cut(&data, &config.text_kinds(dir)?);
    let (data, held_out) = taken(&config, data)?;
    if let Some(held_out) = held_out {
        eval_sets = with_held_out(&config, held_out_set(&sources, &held_out)?, eval_sets)?;
    }
    memory::trim();
    let machine = this_machine(&config, precision, false)?;
    let machine = Machine { memory: least_memory(ranks, machine.memory)?, ..machine };
    let open = config.open(machine.is_gpu);
    let question = Question {
        settings,
        open,
        precision,
        from_scratch: config.from_scratch,
        model: dir,
        data: Data::Tokens(&data),
        eval_texts: eval_texts(&eval_sets, None),
        machine: &machine,
        cluster: Cluster::of(ranks.deal().size),
    };
    let plan = Plan::new(&question)?;
    plan.require(&machine)?;
    if let Some(warning) = plan.warning(&machine) {
        say(&format!("warning: {warning}"));
    }
    // Its numbers hold for all: they are chosen for the least memory, but devices may differ in more.
    let TrainSettings { chunk_tokens, kept_chunks, .. } = plan.settings;
    let (chunk_tokens, kept_chunks) = of_first(ranks, || Ok((chunk_tokens, kept_chunks)))?;
    let settings = TrainSettings { chunk_tokens, kept_chunks, ..plan.settings };
    if open.chunk_tokens || open.kept_chunks {
        say(&format!("chunk_tokens = {chunk_tokens}, kept_chunks = {kept_chunks} by plan"));
    }
    Ok(Planned { config: config.planned(&settings), settings, data, eval_sets })
}

/// The memory of the rank that has least, if all know theirs.
fn least_memory(ranks: &Ranks, own: Option<u64>) -> Result<Option<u64>> {
    let least = least(ranks, own.unwrap_or(0))?;
    Ok((least > 0).then_some(least))
}

/// The most queries and passages of an evaluation, `more` being those of one whose texts have not been read.
fn eval_texts(sets: &[NamedSet], more: Option<[usize; 2]>) -> Option<[usize; 2]> {
    let of_sets = sets.iter().map(|of| [of.set.queries.len(), of.set.passages.len()]);
    of_sets.chain(more).reduce(|[a, b], [c, d]| [a.max(c), b.max(d)])
}

/// This machine, as the configured device of a plan.
fn this_machine(config: &Config, precision: Precision, with_speed: bool) -> Result<Machine> {
    let is_gpu = device::resolve(config.device) == Device::Cuda;
    let (name, memory, in_all, overhead, published, link) = if is_gpu {
        let gpu = device::gpu()?;
        let known = Target::of_name(&gpu.name).and_then(|gpu| gpu.machine(precision == Precision::F32));
        let (free, all) = cuda::memory(gpus::ordinal())?;
        let (speed, link) = known.map_or((None, None), |machine| (machine.speed, machine.link));
        (gpu.name, Some(free / gpus::n_sharers()), Some(all), WORKSPACE_BYTES, speed, link)
    } else {
        let threads = counted(rayon::current_num_threads() as u64, "thread");
        let name = format!("this machine's processor ({}, {threads})", info::cpu_model());
        (name, memory::available(), None, 0, None, Some(LINK_OF_PROCESSES))
    };
    let speed = match published {
        _ if !with_speed => None,
        Some(speed) => Some(speed),
        None => Some(on_device(config, Measure { is_gpu })?),
    };
    Ok(Machine { name, is_gpu, memory, in_all, overhead, speed, link })
}

/// What each of `n` ranks has of a machine: a GPU, or their share of the processor.
fn a_rank_of(machine: Machine, n: usize) -> Machine {
    if machine.is_gpu || n == 1 {
        return machine;
    }
    let share = |speed: Speed| Speed {
        products: speed.products / n as f64,
        memory: speed.memory / n as f64,
        measured: speed.measured,
    };
    Machine { memory: machine.memory.map(|memory| memory / n as u64), speed: machine.speed.map(share), ..machine }
}

struct Measure {
    is_gpu: bool,
}

impl Job for Measure {
    type Output = Speed;

    fn kernels(&self) -> Result<Kernels> {
        Ok(Kernels::AsUsed)
    }

    fn run<B: Backend>(self, backend: B) -> Result<Speed> {
        Speed::measure(&backend, self.is_gpu)
    }
}
