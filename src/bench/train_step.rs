//! Whole training steps: forward, in-batch loss, backward, clipping and AdamW, on random token ids.

use super::inputs::{cu_seqlens, token_ids, xquad_lengths, zipf_token_ids};
use super::model::{MINILM_L6, MULTILINGUAL_E5_SMALL, ModelShape, Trainable};
use super::{Benchmark, Case, Op, Work};
use crate::backend::{Backend, HostPairing, PackedBatch};
use crate::loss::{InfoNce, LossConfig};
use crate::model::{Encoder, Gradients, Keep, Packer, Sequences, StepDropout};
use crate::train::optimizer::OptimizerConfig;
use crate::train::{GradCache, Optimizer};
use crate::{Error, Result};

/// As many passages: each query's positive.
const N_QUERIES: usize = 32;
const TEMPERATURE: f32 = 0.05;
const LEARNING_RATE: f32 = 5e-4;
const CHUNK_TOKENS: usize = 8192;
const OPTIMIZER: OptimizerConfig =
    OptimizerConfig { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, max_grad_norm: 1.0 };

/// A model, and the batches it is trained on.
#[derive(Clone)]
struct Shape {
    model: ModelShape,
    /// Tokens of each sequence, queries first.
    lengths: Vec<usize>,
    dropout: f32,
    /// Token ids as often as words are, or all equally often.
    zipf: bool,
}

pub fn benchmarks<B: Backend>() -> Vec<Benchmark<B>> {
    let minilm = Shape { model: MINILM_L6, lengths: vec![128; 2 * N_QUERIES], dropout: 0.0, zipf: false };
    let lengths = xquad_lengths(N_QUERIES, N_QUERIES);
    let e5 = Shape { model: MULTILINGUAL_E5_SMALL, lengths, dropout: 0.1, zipf: true };
    let benchmark = |shape: Shape| {
        let n_tokens: usize = shape.lengths.iter().sum();
        let flops = 3 * shape.model.forward_flops(&shape.lengths);
        let work = Work { flops, tokens: n_tokens as u64, bytes: 0 };
        let name = format!("{} {} texts", shape.model.name, shape.lengths.len());
        Benchmark::new(Op::TrainStep, name, work, move |b| Ok(Box::new(TrainStep::new(b, shape.clone())?)))
    };
    vec![benchmark(minilm), benchmark(e5)]
}

struct TrainStep<'a, B: Backend> {
    backend: &'a B,
    shape: Shape,
    encoder: Encoder<B>,
    optimizer: Optimizer<B>,
    loss: InfoNce<B>,
    grad_cache: GradCache<B>,
    gradients: Gradients<B>,
    packer: Packer,
    batch: PackedBatch<B>,
    results: B::Readback,
    host_results: Vec<f32>,
    ids: Vec<i32>,
    cu_seqlens: Vec<i32>,
    /// Counts batches.
    step: u32,
    last_loss: f64,
}

impl<'a, B: Backend> TrainStep<'a, B> {
    fn new(backend: &'a B, shape: Shape) -> Result<Self> {
        let Trainable { encoder, specs, master } = shape.model.trainable(backend)?;
        let optimizer = Optimizer::new(backend, &specs, &encoder.weights, master, OPTIMIZER)?;
        let loss = InfoNce::new(backend, encoder.embedding_size(), LossConfig::new(TEMPERATURE))?;
        Ok(TrainStep {
            backend,
            results: backend.readback(loss.n_results(N_QUERIES) + optimizer.n_results())?,
            host_results: Vec::new(),
            optimizer,
            loss,
            grad_cache: GradCache::new(backend, &encoder, 1)?,
            packer: Packer::new(&encoder.config, CHUNK_TOKENS, Keep::Everything),
            batch: PackedBatch::new(backend)?,
            gradients: Gradients::new(backend, &encoder.weights)?,
            ids: Vec::new(),
            cu_seqlens: cu_seqlens(&shape.lengths),
            step: 0,
            last_loss: f64::NAN,
            shape,
            encoder,
        })
    }
}

impl<B: Backend> Case for TrainStep<'_, B> {
    /// Another batch: an optimizer may have less to do for tokens that it saw the step before.
    fn reset(&mut self) -> Result<()> {
        self.step += 1;
        let draw = if self.shape.zipf { zipf_token_ids } else { token_ids };
        let n_tokens = self.shape.lengths.iter().sum();
        self.ids = draw(n_tokens, self.shape.model.vocabulary, u64::from(self.step));
        Ok(())
    }

    fn run(&mut self) -> Result<()> {
        let p = self.shape.dropout;
        let dropout = (p > 0.0).then_some(StepDropout { seed: 1, step: self.step, hidden: p, attention: p });
        let sequences = Sequences { ids: &self.ids, cu_seqlens: &self.cu_seqlens };
        let (backend, gradients) = (self.backend, &mut self.gradients);
        let numbers = || 0..self.shape.lengths.len() as i32;
        let pairing = HostPairing {
            n_queries: N_QUERIES,
            places: &numbers().collect::<Vec<_>>(),
            // No passage but its own says the same as a query.
            labels: &numbers().map(|seq| seq % N_QUERIES as i32).collect::<Vec<_>>(),
            rejected: &[0; 2 * N_QUERIES],
        };
        self.batch.upload(backend, self.packer.pack_pairs(sequences, &pairing)?)?;
        let ids = self.batch.unique_ids();
        self.optimizer.begin_step(backend, &mut self.encoder.weights, gradients, ids)?;
        self.grad_cache.forward_backward(
            backend,
            &self.encoder,
            &self.batch,
            dropout,
            &mut self.loss,
            gradients,
            &mut self.results,
        )?;
        self.optimizer.step(backend, &mut self.encoder.weights, gradients, ids, LEARNING_RATE, &mut self.results)?;
        backend.receive(&mut self.results, &mut self.host_results)?;
        let of_loss = &self.host_results[..self.loss.n_results(N_QUERIES)];
        self.last_loss = self.loss.report(N_QUERIES, self.shape.lengths.len(), of_loss).loss;
        Ok(())
    }

    /// The loss of random weights is near that of guessing, and falls on a batch that was just trained on.
    fn check(&mut self) -> Result<()> {
        self.reset()?;
        self.run()?;
        let first = self.last_loss;
        self.run()?;
        let (second, guess) = (self.last_loss, (N_QUERIES as f64).ln());
        if (first - guess).abs() < 0.1 && second < first - 0.02 {
            return Ok(());
        }
        Err(Error::other(format!(
            "wrong result: two steps on one batch have losses {first:.3} and {second:.3}, but the first should be near \
             {guess:.3} and the second below it; please report it with what hbt info prints"
        )))
    }
}
