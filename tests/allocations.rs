//! A training step allocates nothing once its buffers have their size: every block of memory that a step takes and gives
//! back is one that the system clears anew.

use crate::ops::support::{Batch, Random, loss_config, tensor};
use hbt::backend::{Backend, Cpu, HostPairing, PackedBatch, Pooling, Tensor};
use hbt::data::bounds::BatchBounds;
use hbt::loss::InfoNce;
use hbt::model::{Encoder, Gradients, Init, Keep, ModelConfig, Packer, Sequences, StepDropout, specs};
use hbt::train::{GradCache, Optimizer, OptimizerConfig, StepBounds};
use serde_json::json;
use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Blocks above this are the ones that cost: smaller ones come from lists that the allocator keeps.
const LARGE: usize = 2048;
/// Small blocks that a step may take. They are rayon's: a queue's next segment, its list of finished work.
const MOST_SMALL: usize = 8;

/// Function that allocates tensors, as a backtrace names it.
pub const ALLOC: &str = "<hbt::backend::cpu::Cpu<E> as hbt::backend::device::Device>::alloc";

/// The system's allocator, with an eye on the threads that are being watched.
struct Watching;

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// What the threads that share it have taken.
#[derive(Default)]
struct Taken {
    /// Whether anything counts at present.
    is_on: AtomicBool,
    /// Size, and where in hbt.
    blocks: Mutex<Vec<(usize, String)>>,
}

thread_local! {
    static WATCHER: Cell<Option<&'static Taken>> = const { Cell::new(None) };
}

fn note(size: usize) {
    // A thread that ends has no watcher any more.
    let _ = WATCHER.try_with(|watcher| {
        let Some(taken) = watcher.get().filter(|taken| taken.is_on.load(Ordering::Relaxed)) else { return };
        // Memory of the record itself is not counted.
        watcher.set(None);
        let trace = Backtrace::force_capture().to_string();
        // Functions, not places: release builds have no lines of source.
        let is_ours = |line: &&str| line.contains("hbt::") && !line.contains(module_path!());
        let ours: Vec<&str> = trace.lines().map(str::trim).filter(is_ours).collect();
        taken.blocks.lock().unwrap().push((size, ours.join("\n    ")));
        watcher.set(Some(taken));
    });
}

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Memory that `work` takes on a pool of `threads` threads.
pub fn taken_in(threads: usize, work: impl FnOnce() + Send) -> Vec<(usize, String)> {
    let taken: &'static Taken = Box::leak(Box::default());
    let start = move |_| WATCHER.set(Some(taken));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).start_handler(start).build().unwrap();
    taken.is_on.store(true, Ordering::Relaxed);
    pool.install(work);
    taken.is_on.store(false, Ordering::Relaxed);
    std::mem::take(&mut *taken.blocks.lock().unwrap())
}

/// Calls `step` on a pool of `threads` threads until three in a row take no large block, at most `most` times.
fn assert_becomes_quiet(threads: usize, most: usize, mut step: impl FnMut() + Send) {
    let taken: &'static Taken = Box::leak(Box::default());
    let start = move |_| WATCHER.set(Some(taken));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).start_handler(start).build().unwrap();
    let mut quiet = 0;
    for done in 1..=most {
        taken.is_on.store(true, Ordering::Relaxed);
        pool.install(&mut step);
        taken.is_on.store(false, Ordering::Relaxed);
        let blocks = std::mem::take(&mut *taken.blocks.lock().unwrap());
        let (large, small): (Vec<_>, Vec<_>) = blocks.into_iter().partition(|(size, _)| *size > LARGE);
        quiet = if large.is_empty() { quiet + 1 } else { 0 };
        let list = |blocks: &[(usize, String)]| {
            blocks.iter().map(|(size, place)| format!("{size} bytes\n    {place}\n")).collect::<String>()
        };
        if quiet == 3 {
            assert!(small.len() <= MOST_SMALL, "{threads} threads, step {done}, small blocks:\n{}", list(&small));
            return;
        }
        assert!(done < most, "{threads} threads, step {done}:\n{}", list(&large));
    }
}

/// A model in training.
struct Training<'a, B: Backend> {
    backend: &'a B,
    encoder: Encoder<B>,
    optimizer: Optimizer<B>,
    cache: GradCache<B>,
    loss: InfoNce<B>,
    grads: Gradients<B>,
    packer: Packer,
    packed: PackedBatch<B>,
    results: B::Readback,
    values: Vec<f32>,
}

impl<'a, B: Backend> Training<'a, B> {
    /// For batches of at most `n_queries` queries in chunks of at most `chunk_tokens` tokens.
    fn new(backend: &'a B, chunk_tokens: usize, n_queries: usize) -> Self {
        let described = json!({
            "model_type": "bert", "vocab_size": 500, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 256, "max_position_embeddings": 200, "layer_norm_eps": 1e-5,
        });
        let config = ModelConfig::from_json(Path::new("config.json"), &described.to_string()).unwrap();
        let specs = specs(&config, None);
        let mut random = Random::new(7);
        let values = specs
            .try_map(|spec| match spec.init {
                Init::Ones => Ok(vec![1.0; spec.len()]),
                _ => Ok((0..spec.len()).map(|_| 0.1 * random.normal()).collect::<Vec<f64>>()),
            })
            .unwrap();
        let mut all = values.iter();
        let weights = specs.try_map(|spec| Ok(tensor(backend, all.next().unwrap(), &spec.shape))).unwrap();
        let mut all = values.iter();
        let masters = (!<B::E as hbt::backend::Element>::IS_F32)
            .then(|| specs.try_map(|spec| Ok(tensor::<B, f32>(backend, all.next().unwrap(), &spec.shape))).unwrap());
        let encoder = Encoder { config, pooling: Pooling::Mean, weights };
        let optimizer_config =
            OptimizerConfig { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, max_grad_norm: 1.0 };
        let optimizer = Optimizer::new(backend, &specs, &encoder.weights, masters, optimizer_config).unwrap();
        let loss = InfoNce::new(backend, encoder.embedding_size(), loss_config(0.05, true)).unwrap();
        Training {
            cache: GradCache::new(backend, &encoder, 1).unwrap(),
            grads: Gradients::new(backend, &encoder.weights).unwrap(),
            packer: Packer::new(&encoder.config, chunk_tokens, Keep::Everything),
            packed: PackedBatch::new(backend).unwrap(),
            results: backend.readback(loss.n_results(n_queries) + optimizer.n_results()).unwrap(),
            values: Vec::new(),
            backend,
            encoder,
            optimizer,
            loss,
        }
    }

    /// Reserves memory as the trainer does before its first step.
    fn reserve(&mut self, bounds: &StepBounds) {
        let b = self.backend;
        self.cache.reserve(b, &self.encoder, bounds).unwrap();
        self.loss.reserve(b, bounds.n_queries, bounds.n_seqs - bounds.n_queries).unwrap();
        self.grads.reserve(b, bounds.n_ids).unwrap();
        self.packed.reserve(b, bounds.block_len).unwrap();
    }

    fn step(&mut self, batch: &Batch) {
        let (b, n_queries) = (self.backend, batch.n_seqs() / 2);
        let Training { encoder, optimizer, cache, loss, grads, packer, packed, results, .. } = self;
        let sequences = Sequences::new(&batch.ids, &batch.cu_seqlens);
        let dropout = Some(StepDropout { seed: 1, step: 1, hidden: 0.1, attention: 0.1 });
        let numbers: Vec<i32> = (0..batch.n_seqs() as i32).collect();
        let rejected = &vec![0; 2 * n_queries];
        let pairing = HostPairing {
            n_queries,
            places: &numbers,
            labels: &numbers,
            rejected,
            left_out: &[],
            ..HostPairing::default()
        };
        packed.upload(b, packer.pack_pairs(sequences, &pairing).unwrap()).unwrap();
        let ids = packed.unique_ids();
        optimizer.begin_step(b, &mut encoder.weights, grads, ids).unwrap();
        cache.forward_backward(b, encoder, packed, dropout, loss, grads, results).unwrap();
        optimizer.step(b, &mut encoder.weights, grads, ids, 1e-4, results).unwrap();
        b.receive(results, &mut self.values).unwrap();
    }
}

/// Steps of one model on one batch, in one chunk or in several.
fn check<B: Backend>(backend: &B, chunk_tokens: usize) {
    let lens: Vec<usize> = (0..24).map(|i| 5 + 7 * i % 100).collect();
    let batch = Batch::new(&lens, &mut Random::new(8));
    let mut training = Training::new(backend, chunk_tokens, lens.len() / 2);
    // One thread: exact. Several take turns at the work, and each needs its own memory the first time.
    assert_becomes_quiet(1, 5, || training.step(&batch));
    assert_becomes_quiet(3, 40, || training.step(&batch));
}

/// Memory that tensors ask for in steps on batches of which each is larger than those before in another way.
fn tensors_of_growing_batches<B: Backend>(backend: &B, is_reserved: bool) -> Vec<(usize, String)> {
    let lens: [&[usize]; 4] = [&[3, 4, 3, 4], &[30; 8], &[4; 80], &[3, 150, 3, 10, 60, 7]];
    let most = BatchBounds { n_queries: 40, n_seqs: 80, n_tokens: 320, shortest: 3, longest: 150, shares_texts: false };
    let mut training = Training::new(backend, 100, most.n_queries);
    if is_reserved {
        training.reserve(&StepBounds::new(&most, 100, 500));
    }
    let mut random = Random::new(9);
    let mut batches: Vec<Batch> = lens.iter().map(|lens| Batch::new(lens, &mut random)).collect();
    // As many different ids as possible.
    (0..).zip(&mut batches[2].ids).for_each(|(id, at)| *at = id);
    let mut blocks = taken_in(1, || batches.iter().for_each(|batch| training.step(batch)));
    blocks.retain(|(_, place)| place.contains(ALLOC));
    blocks
}

#[test]
fn what_is_sized_before_the_first_step_is_never_too_small() {
    let list = tensors_of_growing_batches(&Cpu::<f32>::new(), true);
    assert!(list.is_empty(), "{list:#?}");
    let list = tensors_of_growing_batches(&Cpu::<half::bf16>::new(), true);
    assert!(list.is_empty(), "{list:#?}");
    assert!(!tensors_of_growing_batches(&Cpu::<f32>::new(), false).is_empty(), "the test sees what grows");
}

#[test]
fn a_step_in_f32_allocates_nothing() {
    check(&Cpu::<f32>::new(), usize::MAX);
    check(&Cpu::<f32>::new(), 300);
}

#[test]
fn a_step_in_bf16_allocates_nothing() {
    check(&Cpu::<half::bf16>::new(), usize::MAX);
    check(&Cpu::<half::bf16>::new(), 300);
}

#[test]
fn a_large_block_is_seen_and_named() {
    let quiet = || assert_becomes_quiet(1, 4, || {});
    quiet();
    let noisy = std::panic::catch_unwind(|| {
        assert_becomes_quiet(2, 4, || drop(Tensor::<Cpu<f32>, f32>::zeros(&Cpu::new(), &[4096])))
    });
    let message = *noisy.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("16384 bytes") && message.contains(ALLOC), "{message}");
}
