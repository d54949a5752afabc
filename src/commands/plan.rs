//! `hbt plan`, and the plan that a run begins with.

use super::eval::training_eval_set;
use super::{
    FIRST_GPU, Job, data_source, datasets, device, finish, first_gpu, info, model_dir, model_name, on_device,
    tokenize_spec, tokenized, tokenized_before,
};
use hbt::backend::Backend;
use hbt::backend::cuda::{self, Kernels};
use hbt::cli::PlanArgs;
use hbt::config::{Amount, Config, Dataset, Device, Precision};
use hbt::data::datasets::Datasets;
use hbt::data::tokenize::TextTokenizer;
use hbt::eval::encode::TextKind;
use hbt::eval::tasks::EvalSet;
use hbt::model::ModelDir;
use hbt::plan::report::Report;
use hbt::plan::{Data, Machine, Plan, Question, Sample, SampleSource, Speed, Target, WORKSPACE_BYTES};
use hbt::progress::say;
use hbt::{Result, memory};
use std::path::Path;

/// Prints what a run would take.
pub fn run(args: PlanArgs) -> Result<()> {
    let mut config = finish(args.draft()?)?;
    let device = if args.target == Target::This { device::resolve(config.device) } else { Device::Cuda };
    if config.precision == Precision::Auto {
        config.precision = device::auto_precision(device).0;
    }
    let model = ModelDir::open(model_dir(&config)?)?;
    model.pooling_or(config.pooling)?;
    let eval_set = training_eval_set(&config)?;
    let machine = match args.target.machine(config.precision == Precision::F32) {
        Some(machine) => machine,
        None => this_machine(&config, true)?,
    };
    let tokens = tokenized_before(&config, &model)?;
    let sample = if tokens.is_none() { Some(sample(&config, &model)?) } else { None };
    let data = match (&tokens, &sample) {
        (Some(tokens), _) => Data::Tokens(tokens),
        (None, Some(sample)) => Data::Sample(sample),
        (None, None) => unreachable!("data is tokenized, or else a sample was taken"),
    };
    let question =
        Question { config: &config, model: &model, data, eval_texts: eval_texts(eval_set.as_ref()), machine: &machine };
    let plan = Plan::new(&question)?;
    let report = Report { question: &question, model_name: &model_name(&config), plan: &plan };
    match args.json {
        true => crate::print(&format!("{:#}\n", report.to_json())),
        false => crate::print(&report.to_string()),
    }
}

/// The configuration with numbers for what it leaves to a plan, and the data, tokenized if it was not; `dir` holds the model.
/// Refuses a run that cannot fit.
pub fn planned(config: Config, dir: &Path, eval_set: Option<&EvalSet>) -> Result<(Config, Datasets)> {
    let model = ModelDir::open(dir)?;
    let data = match tokenized_before(&config, &model)? {
        Some(data) => data,
        None => tokenized(&config, &TextTokenizer::from_file(&model.tokenizer)?, &TextKind::of(&config, &model))?,
    };
    memory::trim();
    let machine = this_machine(&config, false)?;
    let question = Question {
        config: &config,
        model: &model,
        data: Data::Tokens(&data),
        eval_texts: eval_texts(eval_set),
        machine: &machine,
    };
    let plan = Plan::new(&question)?;
    plan.require(&machine)?;
    if let Some(warning) = plan.warning(&machine) {
        say(&format!("warning: {warning}"));
    }
    if config.chunk_tokens == Amount::Auto || question.keeps_what_fits() {
        let (chunk_tokens, kept_chunks) = (plan.config.chunk_tokens.or(0), plan.config.n_kept_chunks());
        say(&format!("chunk_tokens = {chunk_tokens}, kept_chunks = {kept_chunks} by plan"));
    }
    Ok((plan.config, data))
}

fn eval_texts(set: Option<&EvalSet>) -> Option<[usize; 2]> {
    set.map(|set| [set.queries.len(), set.passages.len()])
}

fn sample(config: &Config, model: &ModelDir) -> Result<Sample> {
    let kinds = TextKind::of(config, model);
    let source = |dataset: &Dataset| SampleSource {
        name: dataset.label(),
        weight: dataset.weight,
        data: data_source(config, dataset),
        spec: tokenize_spec(dataset, &kinds),
    };
    let sources: Vec<_> = datasets(config)?.iter().map(source).collect();
    Sample::read(&sources, &model.tokenizer, model.config.vocab_size)
}

/// The configured device of this machine.
fn this_machine(config: &Config, with_speed: bool) -> Result<Machine> {
    let is_gpu = device::resolve(config.device) == Device::Cuda;
    let (name, memory, in_all, overhead, published) = if is_gpu {
        let gpu = first_gpu()?;
        let known = Target::of_name(&gpu.name).and_then(|gpu| gpu.machine(config.precision == Precision::F32));
        let (free, all) = cuda::memory(FIRST_GPU)?;
        (gpu.name, Some(free), Some(all), WORKSPACE_BYTES, known.and_then(|machine| machine.speed))
    } else {
        let name =
            format!("this machine's processor ({}, {} threads)", info::cpu_model(), rayon::current_num_threads());
        (name, memory::available(), None, 0, None)
    };
    let speed = match published {
        _ if !with_speed => None,
        Some(speed) => Some(speed),
        None => Some(on_device(config, Measure { is_gpu })?),
    };
    Ok(Machine { name, is_gpu, memory, in_all, overhead, speed })
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
