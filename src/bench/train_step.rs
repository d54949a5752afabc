//! Whole training steps: forward, in-batch loss, backward, clipping and AdamW, on random token ids.

use super::inputs::{cu_seqlens, token_ids, xquad_lengths, zipf_token_ids};
use super::model::{MINILM_L6, MULTILINGUAL_E5_SMALL, ModelShape, TINY, Trainable, XLM_R_BASE, XLM_R_LARGE};
use super::{Benchmark, Case, Op, Work};
use crate::backend::{Backend, HostPairing, PackedBatch};
use crate::loss::{InfoNce, LossConfig};
use crate::model::{Encoder, Gradients, Keep, Packer, Sequences, StepDropout};
use crate::train::optimizer::OptimizerConfig;
use crate::train::{GradCache, Optimizer};
use crate::{Error, Result};

/// Half of the texts are queries, the other half each query's positive.
const N_TEXTS: usize = 64;
/// Texts of a GPU's batch: four chunks, all of them kept.
const MANY_TEXTS: usize = 256;
const TINY_TEXTS: usize = 8;
const TEXT_TOKENS: usize = 128;
const DROPOUT: f32 = 0.1;
const TEMPERATURE: f32 = 0.05;
const CHUNK_TOKENS: usize = 8192;
const OPTIMIZER: OptimizerConfig =
    OptimizerConfig { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, max_grad_norm: 1.0 };

/// A model, and the batches that it is trained on.
#[derive(Clone)]
struct Shape {
    model: ModelShape,
    /// Tokens of each sequence, queries first.
    lengths: Vec<usize>,
    dropout: f32,
    /// Distribution of token ids: Zipf's, else uniform.
    zipf: bool,
}

impl Shape {
    /// Texts of 128 tokens.
    fn equal(model: ModelShape, n_texts: usize, dropout: f32) -> Self {
        Shape { model, lengths: vec![TEXT_TOKENS; n_texts], dropout, zipf: false }
    }

    fn n_tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    fn n_queries(&self) -> usize {
        self.lengths.len() / 2
    }

    fn benchmark<B: Backend>(self, suffix: &str) -> Benchmark<B> {
        let flops = 3 * self.model.forward_flops(&self.lengths);
        let work = Work { flops, tokens: self.n_tokens() as u64, bytes: 0 };
        let name = format!("{} {} texts{suffix}", self.model.name, self.lengths.len());
        Benchmark::new(Op::TrainStep, name, work, move |b| Ok(Box::new(TrainStep::new(b, self.clone())?)))
    }
}

/// Two that take seconds on a processor, and those that are [`Benchmark::only_when_named`]: more of the models that
/// GPUs train, with and without dropout, and a tiny one.
pub fn benchmarks<B: Backend>() -> Vec<Benchmark<B>> {
    let e5 = Shape {
        model: MULTILINGUAL_E5_SMALL,
        lengths: xquad_lengths(N_TEXTS / 2, N_TEXTS / 2),
        dropout: DROPOUT,
        zipf: true,
    };
    let mut all = vec![Shape::equal(MINILM_L6, N_TEXTS, 0.0).benchmark(""), e5.benchmark("")];
    let large = [MINILM_L6, XLM_R_BASE, XLM_R_LARGE];
    let sizes = large.into_iter().flat_map(|model| [(model, N_TEXTS), (model, MANY_TEXTS)]).chain([(TINY, TINY_TEXTS)]);
    for (model, n_texts) in sizes {
        for (dropout, suffix) in [(0.0, ""), (DROPOUT, " dropout")] {
            let benchmark = Shape::equal(model, n_texts, dropout).benchmark(suffix).only_when_named();
            if all.iter().all(|usual| usual.shape != benchmark.shape) {
                all.push(benchmark);
            }
        }
    }
    all
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
    /// Number of batches so far.
    step: u32,
}

impl<'a, B: Backend> TrainStep<'a, B> {
    fn new(backend: &'a B, shape: Shape) -> Result<Self> {
        let Trainable { encoder, specs, master } = shape.model.trainable(backend)?;
        let optimizer = Optimizer::new(backend, &specs, &encoder.weights, master, OPTIMIZER)?;
        let loss = InfoNce::new(backend, encoder.embedding_size(), LossConfig::new(TEMPERATURE))?;
        Ok(TrainStep {
            backend,
            results: backend.readback(loss.n_results(shape.n_queries()) + optimizer.n_results())?,
            host_results: Vec::new(),
            optimizer,
            loss,
            grad_cache: GradCache::new(backend, &encoder, shape.n_tokens().div_ceil(CHUNK_TOKENS))?,
            packer: Packer::new(&encoder.config, CHUNK_TOKENS, Keep::Everything),
            batch: PackedBatch::new(backend)?,
            gradients: Gradients::new(backend, &encoder.weights)?,
            ids: Vec::new(),
            cu_seqlens: cu_seqlens(&shape.lengths),
            step: 0,
            shape,
            encoder,
        })
    }

    fn last_loss(&self) -> f64 {
        let (n_queries, n_texts) = (self.shape.n_queries(), self.shape.lengths.len());
        self.loss.report(n_queries, n_texts, &self.host_results[..self.loss.n_results(n_queries)]).loss
    }
}

impl<B: Backend> Case for TrainStep<'_, B> {
    /// Makes another batch: an optimizer may have less to do for tokens of the step before.
    fn reset(&mut self) -> Result<()> {
        self.step += 1;
        let draw = if self.shape.zipf { zipf_token_ids } else { token_ids };
        self.ids = draw(self.shape.n_tokens(), self.shape.model.vocabulary, u64::from(self.step));
        Ok(())
    }

    fn run(&mut self) -> Result<()> {
        let p = self.shape.dropout;
        let dropout = (p > 0.0).then_some(StepDropout { seed: 1, step: self.step, hidden: p, attention: p });
        let sequences = Sequences::new(&self.ids, &self.cu_seqlens);
        let (backend, gradients) = (self.backend, &mut self.gradients);
        let (n_queries, n_texts) = (self.shape.n_queries(), self.shape.lengths.len());
        let numbers = || 0..n_texts as i32;
        let pairing = HostPairing {
            n_queries,
            places: &numbers().collect::<Vec<_>>(),
            // Only a query's own passage says the same as the query.
            labels: &numbers().map(|seq| seq % n_queries as i32).collect::<Vec<_>>(),
            rejected: &vec![0; n_texts],
            left_out: &[],
            ..HostPairing::default()
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
        let learning_rate = self.shape.model.learning_rate;
        self.optimizer.step(backend, &mut self.encoder.weights, gradients, ids, learning_rate, &mut self.results)?;
        backend.receive(&mut self.results, &mut self.host_results)
    }

    /// The loss of random weights is near that of guessing, and lower on a batch that was just trained on.
    fn check(&mut self) -> Result<()> {
        self.reset()?;
        self.run()?;
        let first = self.last_loss();
        self.run()?;
        let (second, guess) = (self.last_loss(), (self.shape.n_queries() as f64).ln());
        if (first - guess).abs() < 0.1 && second < first - 0.02 {
            return Ok(());
        }
        Err(Error::other(format!(
            "wrong result: two steps on one batch have losses {first:.3} and {second:.3}, but the first should be near \
             {guess:.3} and the second below it; please report it with what hbt info prints"
        )))
    }
}
