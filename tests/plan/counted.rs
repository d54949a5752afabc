//! Memory that the counting backend sees against what the processor's allocates, and work against formulas by hand.

use super::{Setting, config};
use crate::allocations::taken_in;
use crate::common::fixture;
use hbt::backend::cpu::CpuElement;
use hbt::backend::tally::{Kind, Work};
use hbt::backend::{Backend, Cpu, Element, HostPairing, PackedBatch, Pooling, Purpose, Tally, Tensor};
use hbt::config::Config;
use hbt::data::bounds::BatchBounds;
use hbt::model::{Encoder, Keep, ModelDir, Packer, Sequences, specs};
use hbt::plan::{Batches, Rehearsal};
use hbt::train::{Slot, StepBounds, Stepper};
use std::sync::Mutex;

const MOST: BatchBounds = BatchBounds { n_queries: 20, n_seqs: 70, n_tokens: 900, shortest: 3, longest: 24 };

/// All that a trainer has on `backend` before its first step.
struct Held<B: Backend> {
    encoder: Encoder<B>,
    stepper: Stepper<B>,
    slots: Vec<Slot<B>>,
}

fn held<B: Backend>(backend: &B, model: &ModelDir, config: &Config, bounds: &StepBounds) -> Held<B> {
    let specs = specs(&model.config, model.dense.as_ref());
    let weights = specs.try_map(|spec| Tensor::zeros(backend, &spec.shape)).unwrap();
    let encoder = Encoder { config: model.config.clone(), pooling: Pooling::Mean, weights };
    let master = || match B::E::IS_F32 {
        true => Ok(None),
        false => specs.try_map(|spec| Tensor::zeros(backend, &spec.shape)).map(Some),
    };
    let stepper = Stepper::new(backend, &encoder, &specs, master, config, bounds).unwrap();
    let slots = Slot::all(backend, bounds.block_len, stepper.n_results(bounds.n_queries)).unwrap();
    Held { encoder, stepper, slots }
}

fn check<E: CpuElement>(model: &str, sets: &[&str], chunk_tokens: usize) {
    let model = ModelDir::open(fixture(model)).unwrap();
    let config = config(sets);
    let bounds = StepBounds::new(&MOST, chunk_tokens, model.config.vocab_size);
    let planned = Rehearsal::<E>::new(&config, &model, &bounds, 1).unwrap().memory();
    // Kept until everything has been counted.
    let kept = Mutex::new(None);
    let blocks = taken_in(1, || *kept.lock().unwrap() = Some(held(&Cpu::<E>::new(), &model, &config, &bounds)));
    // Not the lists that say how long a tensor is.
    let ours = blocks.into_iter().filter(|(_, place)| place.contains("backend/cpu/mod.rs"));
    let (tensors, others): (Vec<_>, Vec<_>) = ours.partition(|(_, place)| place.contains("backend/tensor.rs"));
    let bytes = |blocks: Vec<(usize, String)>| blocks.iter().map(|(size, _)| *size as u64).sum::<u64>();
    let what = format!("{} {sets:?} in chunks of {chunk_tokens}", E::NAME);
    assert_eq!(planned.on_device(), bytes(tensors), "{what}: {planned:?}");
    assert_eq!(planned.host, bytes(others), "{what}");
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
        check::<f32>(model, sets, chunk_tokens);
        check::<half::bf16>(model, sets, chunk_tokens);
    }
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
    let pairing = HostPairing { n_queries: 2, places: &numbers, labels: &numbers, rejected: &[0; 4] };
    let work = |chunk_tokens: usize, sets: &[&str]| -> Vec<(Work, u64)> {
        let config = config(sets);
        let most = BatchBounds { n_queries: 2, n_seqs: 4, n_tokens, shortest: 3, longest: 140 };
        let bounds = StepBounds::new(&most, chunk_tokens, model.config.vocab_size);
        let tally = Tally::<f32>::new(1);
        let Held { mut encoder, mut stepper, slots: _slots } = held(&tally, &model, &config, &bounds);
        let mut packer = Packer::new(&model.config, chunk_tokens, Keep::Everything);
        let host = packer.pack_pairs(Sequences { ids: &ids, cu_seqlens: &cu_seqlens }, &pairing).unwrap();
        let mut batch = PackedBatch::new(&tally).unwrap();
        batch.upload(&tally, host).unwrap();
        let mut results = tally.readback(0).unwrap();
        stepper.step(&tally, &mut encoder, &batch, None, 1.0, &mut results).unwrap();
        tally.take_work()
    };
    let flops = |work: &[(Work, u64)], kind: Kind| -> u64 {
        work.iter().filter(|(work, _)| work.kind == kind).map(|(work, n)| work.flops * n).sum()
    };
    let (h, f, layers) = (model.config.hidden_size, model.config.intermediate_size, model.config.num_hidden_layers);
    let squares: usize = lens.iter().map(|len| len * len).sum();
    // Two products of a token with each weight forward, four back; three of the loss: two queries with two passages.
    let linear = 2 * layers * (4 * h * h + 2 * h * f) * n_tokens;
    let attention = layers * 2 * h * squares;
    let loss = 3 * 2 * (2 * 2 * h);
    let once = work(1000, &[]);
    assert_eq!(flops(&once, Kind::Product), (3 * linear + loss) as u64);
    assert_eq!(flops(&once, Kind::Attention), ((2 + 5) * attention) as u64);
    assert_eq!(flops(&once, Kind::Rows), 0);
    // Chunks of 12 and 140 tokens: the first runs forward twice, unless it is kept.
    let cut = work(140, &[]);
    let linear_of_first = linear * 12 / n_tokens;
    assert_eq!(flops(&cut, Kind::Product), (3 * linear + linear_of_first + loss) as u64);
    assert_eq!(flops(&work(140, &["kept_chunks=2"]), Kind::Product), flops(&once, Kind::Product));
    assert_eq!(
        flops(&work(1000, &["symmetric=true"]), Kind::Product),
        flops(&once, Kind::Product),
        "one chunk of rows"
    );
    // A weight of the feed-forward block in AdamW: weight, gradient and two moments are read, all but the gradient written.
    let adamw = Work { kind: Kind::Rows, flops: 0, bytes: (7 * h * f * size_of::<f32>()) as u64 };
    let times = once.iter().find(|(work, _)| *work == adamw).map_or(0, |(_, times)| *times);
    assert_eq!(times as usize, 2 * layers);
}

/// A rehearsal's mean step is that of the batches it is shown.
#[test]
fn a_rehearsal_takes_the_steps_of_the_run() {
    let setting = Setting::new();
    let config = config(&["chunk_tokens=64"]);
    let vocab_size = setting.model.config.vocab_size;
    let batches = Batches::of_tokens(&config, vocab_size, &setting.data).unwrap();
    assert_eq!(batches.total_steps, 6, "60 groups in batches of 20, twice");
    let bounds = batches.step_bounds(64, vocab_size, true);
    let work = Rehearsal::<f32>::new(&config, &setting.model, &bounds, 1).unwrap().work(&batches).unwrap();
    let products = work.iter().filter(|(work, _)| work.kind == Kind::Attention).map(|(_, times)| times).sum::<f64>();
    // Each chunk's two layers run forward and back, and all but the last chunk's forward once more.
    let n_chunks: usize = batches
        .some
        .iter()
        .map(|batch| Sequences { ids: &batch.ids, cu_seqlens: &batch.cu_seqlens }.chunks(64).count())
        .sum();
    let (n_chunks, n_batches) = (n_chunks as f64, batches.some.len() as f64);
    assert!((products - 2.0 * (3.0 * n_chunks - n_batches) / n_batches).abs() < 1e-9, "{products}");
}
