//! Memory that the counting backend sees against what the processor's allocates, and work against formulas by hand.

use super::{Setting, config, groups_of};
use crate::allocations::{ALLOC, taken_in};
use crate::common::fixture;
use hbt::backend::cpu::CpuElement;
use hbt::backend::tally::{Work, WorkKind};
use hbt::backend::{
    AdamWCatchUp, Cpu, Device, Element, HostPairing, Ints, Operations, PackedBatch, Purpose, Tally, Tensor,
};
use hbt::config::Config;
use hbt::data::batch::{Batch, NegativeRules};
use hbt::data::bounds::BatchBounds;
use hbt::model::{Keep, ModelConfig, Packer, ParamSpec, Sequences, specs};
use hbt::model_dir::ModelDir;
use hbt::plan::{Batches, Exchanged, Held, MeanStep, Rehearsal};
use hbt::train::{Ranks, StepBounds};
use std::sync::Mutex;

const MOST: BatchBounds =
    BatchBounds { n_queries: 20, n_seqs: 70, n_tokens: 900, shortest: 3, longest: 24, shares_texts: true };

/// Functions that allocate memory on the host, as a backtrace names them.
const HOST: [&str; 2] =
    ["Cpu<E> as hbt::backend::device::Device>::host_block", "Cpu<E> as hbt::backend::device::Device>::readback"];

fn check<E: CpuElement>(model: &str, sets: &[&str], chunk_tokens: usize, n_ranks: usize) {
    let model = ModelDir::open(fixture(model)).unwrap();
    let settings = config(sets).training(&model).unwrap();
    let ranks = Ranks::imagined(n_ranks);
    let bounds = StepBounds::of_share(ranks.deal(), &MOST, chunk_tokens, model.config.vocab_size);
    let tally = Tally::new(1).among(n_ranks);
    let planned = Rehearsal::<E>::new(tally, &settings, &model, &bounds).unwrap().memory();
    // Kept until everything has been counted.
    let kept = Mutex::new(None);
    let held = || Held::new(&Cpu::<E>::new(), &settings, &model, &bounds, ranks.clone());
    let blocks = taken_in(1, || *kept.lock().unwrap() = Some(held()));
    // Not the lists that say how long a tensor is.
    let is_for_the_host = |place: &str| HOST.iter().any(|name| place.contains(name));
    let ours = blocks.into_iter().filter(|(_, place)| place.contains(ALLOC) || is_for_the_host(place));
    let (others, tensors): (Vec<_>, Vec<_>) = ours.partition(|(_, place)| is_for_the_host(place));
    let bytes = |blocks: Vec<(usize, String)>| blocks.iter().map(|(size, _)| *size as u64).sum::<u64>();
    let what = format!("{} {sets:?} in chunks of {chunk_tokens}, {n_ranks} ranks", E::NAME);
    assert_eq!(planned.on_device(), bytes(tensors), "{what}: {planned:?}");
    assert_eq!(planned.host, bytes(others), "{what}");
    // Two rows for each text of a batch, one for each of a chunk and, of several ranks, for each that a rank has of a batch, of
    // 32 dimensions, but for a model that has others.
    let own = if n_ranks > 1 { MOST.n_seqs.div_ceil(n_ranks) } else { 0 };
    let rows = 2 * bounds.n_seqs + own + bounds.chunk_seqs;
    let dim = model.dense.map_or(32, |dense| dense.out_features);
    assert_eq!(planned.of(Purpose::Cache), (rows * dim * size_of::<f32>()) as u64, "{what}");
    assert!(planned.of(Purpose::Other) == 0, "{what}: memory that no report names: {planned:?}");
}

#[test]
fn a_plan_counts_every_byte_that_is_allocated() {
    for (model, sets, chunk_tokens) in [
        ("bert", &[][..], 2000),
        ("bert", &["symmetric=true"], 300),
        ("xlmr", &["kept_chunks=3", "matryoshka_dims=[32, 16, 8]"], 300),
        ("bert", &["matryoshka_dims=[16, 8]", "symmetric=true", "kept_chunks=100"], 300),
        ("labse", &["query_negatives=true", "symmetric=true"], 500),
        ("labse", &["kept_chunks=2", "matryoshka_dims=[8]"], 24),
    ] {
        check::<f32>(model, sets, chunk_tokens, 1);
        check::<half::bf16>(model, sets, chunk_tokens, 1);
    }
    check::<half::bf16>("bert", &["symmetric=true", "kept_chunks=2"], 200, 2);
    check::<f32>("labse", &["matryoshka_dims=[8]"], 100, 3);
}

/// Three sequences of 5, 3 and 4 tokens and one of 140, two of them queries.
#[test]
fn work_of_a_step_is_what_formulas_say() {
    let model = ModelDir::open(fixture("xlmr")).unwrap();
    let mut model_config = model.config.clone();
    model_config.max_position_embeddings = 200;
    let model = ModelDir { config: model_config, ..model };
    let lens = [5usize, 3, 4, 140];
    let mut cu_seqlens = vec![0];
    cu_seqlens.extend(lens.iter().scan(0, |end, &len| {
        *end += len as i32;
        Some(*end)
    }));
    let n_tokens = 152;
    let ids: Vec<i32> = (0..n_tokens as i32).map(|i| i % 50).collect();
    let numbers = [0, 1, 2, 3];
    let pairing = HostPairing {
        n_queries: 2,
        places: &numbers,
        labels: &numbers,
        rejected: &[0; 4],
        left_out: &[],
        ..HostPairing::default()
    };
    let work = |chunk_tokens: usize, sets: &[&str]| -> Vec<(Work, u64)> {
        let settings = config(sets).training(&model).unwrap();
        let most = BatchBounds { n_queries: 2, n_seqs: 4, n_tokens, shortest: 3, longest: 140, shares_texts: false };
        let bounds = StepBounds::new(&most, chunk_tokens, model.config.vocab_size);
        let tally = Tally::<f32>::new(1);
        let held = Held::new(&tally, &settings, &model, &bounds, Ranks::default());
        let Held { mut encoder, mut stepper, slots: _slots } = held.unwrap();
        let mut packer = Packer::new(&model.config, chunk_tokens, Keep::Everything);
        let host = packer.pack_pairs(Sequences::new(&ids, &cu_seqlens), &pairing).unwrap();
        let mut batch = PackedBatch::new(&tally).unwrap();
        batch.upload(&tally, host).unwrap();
        let mut results = tally.readback(0).unwrap();
        stepper.step(&tally, &mut encoder, &batch, None, 1.0, &mut results).unwrap();
        tally.take_work()
    };
    let flops = |work: &[(Work, u64)], kind: WorkKind| -> u64 {
        work.iter().filter(|(work, _)| work.kind == kind).map(|(work, n)| work.flops * n).sum()
    };
    let (h, f, layers) = (model.config.hidden_size, model.config.intermediate_size, model.config.layers.len());
    let squares: usize = lens.iter().map(|len| len * len).sum();
    // Two products of a token with each weight forward, four back; three of the loss: two queries with two passages.
    let linear = 2 * layers * (4 * h * h + 2 * h * f) * n_tokens;
    let attention = layers * 2 * h * squares;
    let loss = 3 * 2 * (2 * 2 * h);
    let once = work(1000, &[]);
    assert_eq!(flops(&once, WorkKind::Product), (3 * linear + loss) as u64);
    assert_eq!(flops(&once, WorkKind::Attention), ((2 + 5) * attention) as u64);
    assert_eq!(flops(&once, WorkKind::Rows), 0);
    // Chunks of 12 and 140 tokens: the first runs forward twice, unless it is kept.
    let cut = work(140, &[]);
    let linear_of_first = linear * 12 / n_tokens;
    assert_eq!(flops(&cut, WorkKind::Product), (3 * linear + linear_of_first + loss) as u64);
    assert_eq!(flops(&work(140, &["kept_chunks=2"]), WorkKind::Product), flops(&once, WorkKind::Product));
    assert_eq!(
        flops(&work(1000, &["symmetric=true"]), WorkKind::Product),
        flops(&once, WorkKind::Product),
        "one chunk of rows"
    );
    // AdamW of all parameters but the word table: weight, gradient and two moments are read, all but the gradient written.
    let n_parameters: usize = specs(&model.config, None).iter().skip(1).map(ParamSpec::len).sum();
    let adamw = Work { kind: WorkKind::Rows, flops: 0, bytes: (7 * n_parameters * size_of::<f32>()) as u64 };
    assert_eq!(once.iter().find(|(work, _)| *work == adamw).map(|(_, times)| *times), Some(1));
}

/// Rows that catch up: their weights are read and written, and their moments, which stay as they are, read.
#[test]
fn catching_up_writes_no_moments() {
    fn bytes<E: Element>() -> u64 {
        let tally = Tally::<E>::new(1);
        let f32s = |shape: &[usize]| Tensor::<Tally<E>, f32>::zeros(&tally, shape).unwrap();
        let i32s = |n: usize| Tensor::<Tally<E>, i32>::zeros(&tally, &[n]).unwrap();
        let (mut weight, mut master) = (Tensor::zeros(&tally, &[10, 4]).unwrap(), f32s(&[10, 4]));
        let (m, v, history, decays) = (f32s(&[10, 4]), f32s(&[10, 4]), f32s(&[1, 3]), f32s(&[5, 2]));
        let (touched, mut current, rows) = (i32s(10), i32s(10), i32s(3));
        let args = AdamWCatchUp {
            weight: &mut weight,
            master: (!E::IS_F32).then_some(&mut master),
            m: &m,
            v: &v,
            touched: &touched,
            current: &mut current,
            rows: Some(Ints::all(&rows)),
            history: &history,
            update: 1,
            decays: &decays,
            eps: 1e-8,
        };
        tally.take_work();
        tally.adamw_catch_up(args).unwrap();
        tally.take_work()[0].0.bytes
    }
    assert_eq!((bytes::<f32>(), bytes::<half::bf16>()), (12 * (4 + 4 + 4 + 4), 12 * (2 + 4 + 4 + 4 + 4)));
}

/// Multiplications and additions of a step on `batch`, cut into chunks of which all but the last run forward twice.
fn flops(model: &ModelConfig, batch: &Batch, chunk_tokens: usize) -> f64 {
    let (h, f, layers) = (model.hidden_size, model.intermediate_size, model.layers.len());
    let Batch { ids, cu_seqlens, n_queries, n_passages, .. } = batch;
    let chunks: Vec<_> = Sequences::new(ids, cu_seqlens).chunks(chunk_tokens).collect();
    let mut flops = (6 * n_queries * n_passages * h) as f64;
    for (i, chunk) in chunks.iter().enumerate() {
        let lens = cu_seqlens[chunk.start..=chunk.end].windows(2).map(|w| (w[1] - w[0]) as usize);
        let (tokens, squares) = lens.fold((0, 0), |(sum, squares), len| (sum + len, squares + len * len));
        let again = usize::from(i + 1 < chunks.len());
        flops += ((6 + 2 * again) * layers * (4 * h * h + 2 * h * f) * tokens) as f64;
        flops += ((14 + 4 * again) * layers * h * squares) as f64;
    }
    flops
}

/// A plan's mean step, and the mean over all batches of the run: tokens, multiplications and additions.
fn means(setting: &Setting, config: &Config, chunk_tokens: usize) -> (Batches, [f64; 2], [f64; 2]) {
    let model = &setting.model;
    let settings = setting.settings(config);
    let batches = Batches::of_tokens(&settings, model.config.vocab_size, &setting.data).unwrap();
    let bounds = batches.step_bounds(chunk_tokens, model.config.vocab_size, true);
    let mut rehearsal = Rehearsal::<f32>::new(Tally::new(1), &settings, model, &bounds).unwrap();
    let MeanStep { work, exchanged } = rehearsal.mean_step(&batches).unwrap();
    assert_eq!(exchanged, Exchanged::default(), "one rank exchanges nothing");
    let planned = [batches.mean_tokens, work.iter().map(|(work, times)| work.flops as f64 * times).sum()];
    let sampler = settings.mixture_of(&setting.data.weighted()).unwrap();
    let rules = settings.negative_rules(&setting.data).unwrap();
    let mut all = [0.0; 2];
    for step in 0..batches.total_steps {
        let batch = Batch::pack(step, &sampler.batch(step), &setting.data, rules).unwrap();
        all[0] += batch.n_tokens() as f64 / batches.total_steps as f64;
        all[1] += flops(&model.config, &batch, chunk_tokens) / batches.total_steps as f64;
    }
    (batches, planned, all)
}

#[track_caller]
fn assert_near(planned: [f64; 2], all: [f64; 2], tolerance: f64, what: &str) {
    for (planned, all) in planned.into_iter().zip(all) {
        assert!((planned / all - 1.0).abs() < tolerance, "{what}: {planned} planned, {all} in truth");
    }
}

/// From few batches a plan knows the mean over all, though datasets and kinds of batches are nothing like one another.
#[test]
fn planned_work_is_the_mean_over_the_run() {
    let (short, long) = (groups_of("short", 2000, &["de", "en"], 3), groups_of("long", 300, &["de", "en", "tr"], 20));
    let setting = Setting::of(&[("short", &short), ("long", &long)]);
    for sets in [
        &["alpha=0.3"][..],
        &["dataset_sampling=weights", "mode=monolingual"],
        &["dataset_sampling=round_robin"],
        &["dataset_sampling=round_robin", "dataset_batches=mixed"],
        &["dataset_sampling=temperature", "mode=cross_lingual", "batch_size=100"],
    ] {
        let config = config(&[sets, &["epochs=12", "chunk_tokens=256"]].concat());
        let (batches, planned, all) = means(&setting, &config, 256);
        assert!(
            batches.total_steps > 250 && batches.some.len() <= 40,
            "{} of {}",
            batches.some.len(),
            batches.total_steps
        );
        assert_eq!(batches.scale, 1.0);
        assert_near(planned, all, 0.02, &format!("{sets:?}"));
    }
}

/// In a short run all batches are sampled.
#[test]
fn planned_tokens_of_a_short_run_are_those_of_the_run() {
    let setting = Setting::new();
    let config = config(&["chunk_tokens=64"]);
    let (batches, planned, all) = means(&setting, &config, 64);
    assert_eq!(batches.total_steps, 6, "60 groups in batches of 20, twice");
    assert!((planned[0] - all[0]).abs() < 1e-9 && batches.n_looked_at as f64 == 6.0 * all[0]);
    assert_near(planned, all, 1e-9, "a short run");
}

/// Of batches with very many tokens, few are sampled, and only in part.
#[test]
fn huge_batches_are_planned_by_their_parts() {
    let setting = Setting::of(&[("data", &groups_of("g", 30_000, &["de", "en"], 20))]);
    let config = config(&["batch_size=25000", "epochs=12", "chunk_tokens=8192"]);
    let (batches, planned, all) = means(&setting, &config, 8192);
    let n_kept: usize = batches.some.iter().map(|(batch, _)| batch.n_tokens()).sum();
    assert!(batches.scale > 1.9 && all[0] * batches.total_steps as f64 > 10e6, "{} {}", batches.scale, all[0]);
    assert!(batches.n_looked_at < 3 << 20 && n_kept < 3 << 19, "{} {n_kept}", batches.n_looked_at);
    assert_near(planned, all, 0.01, "huge batches");
    let sampler = setting.settings(&config).mixture_of(&setting.data.weighted()).unwrap();
    let batch = Batch::pack(0, &sampler.batch(0), &setting.data, NegativeRules::default()).unwrap();
    let n_chunks = Sequences::new(&batch.ids, &batch.cu_seqlens).chunks(8192).count();
    assert!(batches.n_chunks(8192).abs_diff(n_chunks) <= 3, "{} of {n_chunks}", batches.n_chunks(8192));
    assert!((batches.largest.n_tokens as f64 / batch.n_tokens() as f64 - 1.0).abs() < 0.02);
    // Smaller ones are known without looking at any.
    let smaller = batches.of_size(100);
    let config = Config { batch_size: 100, ..config };
    let exact = Batches::of_tokens(&setting.settings(&config), setting.model.config.vocab_size, &setting.data).unwrap();
    assert_eq!((smaller.bounds, smaller.some.len()), (exact.bounds, 0));
}
