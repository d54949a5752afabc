//! The whole loss over a batch's embeddings, forward and backward: as many passages as queries.

use super::inputs::{near, samples, tensor};
use super::{Benchmark, Case, Op, Work};
use crate::Result;
use crate::backend::{Backend, Ints, Pairing, Tensor};
use crate::loss::{InfoNce, LossConfig};

/// Embedding size of the small encoders; below, that of the base ones.
const SMALL: usize = 384;
const BASE: usize = 768;
const TEMPERATURE: f32 = 0.02;
/// Number of queries whose gradient is checked.
const SAMPLES: usize = 3;

/// Batches of thousands of queries. Run only when named: as large as anybody trains with, which takes minutes on a
/// processor, and a tiny one.
pub fn benchmarks<B: Backend>() -> Vec<Benchmark<B>> {
    let usual = [4096, 16_384].into_iter().flat_map(|n| [benchmark(n, SMALL, false), benchmark(n, SMALL, true)]);
    let large = [(65_536, SMALL, false), (16_384, BASE, false), (16_384, BASE, true), (65_536, BASE, false)];
    let others = large.into_iter().chain([(64, 32, false), (64, 32, true)]);
    usual.chain(others.map(|(n, d, symmetric)| benchmark(n, d, symmetric).only_when_named())).collect()
}

fn benchmark<B: Backend>(n: usize, d: usize, symmetric: bool) -> Benchmark<B> {
    let products = if symmetric { 4 } else { 3 };
    let work = Work { flops: (products * 2 * n * n * d) as u64, tokens: 0, bytes: 0 };
    let shape = format!("{}/{n}x{n}x{d}", if symmetric { "symmetric" } else { "one way" });
    Benchmark::new(Op::InfoNce, shape, work, move |b| Ok(Box::new(Loss::new(b, n, d, symmetric)?)))
}

struct Loss<'a, B: Backend> {
    backend: &'a B,
    loss: InfoNce<B>,
    n: usize,
    d: usize,
    /// `(2 n, d)` queries, then passages: unit vectors
    embeddings: Tensor<B, f32>,
    d_embeddings: Tensor<B, f32>,
    /// `(2 n,)` 0, 1, 2, ...
    places: Tensor<B, i32>,
    /// `(2 n,)` label of each sequence: a query and its positive have the same
    labels: Tensor<B, i32>,
    /// `(2 n,)` nothing is rejected
    rejected: Tensor<B, i32>,
    results: B::Readback,
    host_results: Vec<f32>,
}

impl<'a, B: Backend> Loss<'a, B> {
    fn new(backend: &'a B, n: usize, d: usize, symmetric: bool) -> Result<Self> {
        let config = LossConfig { symmetric, ..LossConfig::new(TEMPERATURE) };
        let loss = InfoNce::new(backend, d, config)?;
        let raw: Tensor<B, f32> = tensor(backend, &[2 * n, d], 1.0, 1)?;
        let (mut embeddings, mut inv_norm) = (Tensor::zeros(backend, &[2 * n, d])?, Tensor::zeros(backend, &[2 * n])?);
        backend.l2_normalize_forward(&raw, &mut embeddings, &mut inv_norm)?;
        let ints = |numbers: Vec<i32>| Tensor::from_slice(backend, &numbers, &[numbers.len()]);
        Ok(Loss {
            backend,
            n,
            d,
            embeddings,
            // The raw vectors are no longer needed.
            d_embeddings: raw,
            places: ints((0..2 * n as i32).collect())?,
            labels: ints((0..2 * n as i32).map(|seq| seq % n as i32).collect())?,
            rejected: ints(vec![0; 2 * n])?,
            results: backend.readback(loss.n_results(n))?,
            host_results: Vec::new(),
            loss,
        })
    }
}

impl<B: Backend> Case for Loss<'_, B> {
    fn run(&mut self) -> Result<()> {
        let [places, labels, rejected] = [&self.places, &self.labels, &self.rejected].map(Ints::all);
        let pairing = Pairing { n_queries: self.n, places, labels, rejected, left_out: None, teacher: None };
        let Loss { backend, loss, embeddings, d_embeddings, results, .. } = self;
        loss.forward_backward(*backend, embeddings, pairing, d_embeddings, results)?;
        backend.receive(results, &mut self.host_results)
    }

    /// One direction: the gradient of a query is `(sum_j softmax_j p_j - p_i) / (t n)`. Both directions: the mean
    /// cosine is checked.
    fn check(&mut self) -> Result<()> {
        self.run()?;
        // As f32, and only the sampled part of the gradient: the copies shall not take more memory than the loss
        // itself.
        let x = self.embeddings.to_vec(self.backend)?;
        let d = self.d;
        let (queries, passages) = x.split_at(self.n * d);
        let cosine = |i: usize, j: usize| -> f64 {
            queries[i * d..][..d].iter().zip(&passages[j * d..][..d]).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
        };
        let positive = (0..self.n).map(|i| cosine(i, i)).sum::<f64>() / self.n as f64;
        let report = self.loss.report(self.n, 2 * self.n, &self.host_results);
        near::<B::E>("positive cosine", report.positive_cosine, positive, 0.1)?;
        if self.loss.config.symmetric {
            return Ok(());
        }
        for i in samples(self.n, SAMPLES) {
            let inv_t = 1.0 / f64::from(TEMPERATURE);
            let exps: Vec<f64> = (0..self.n).map(|j| (cosine(i, j) * inv_t).exp()).collect();
            let (total, scale) = (exps.iter().sum::<f64>(), inv_t / self.n as f64);
            let d_query = self.d_embeddings.part_to_vec(self.backend, i * d..(i + 1) * d)?;
            for (k, &got) in d_query.iter().enumerate() {
                let passage = |j: usize| f64::from(passages[j * d + k]);
                let mean: f64 = exps.iter().enumerate().map(|(j, e)| e / total * passage(j)).sum();
                near::<B::E>("d_query", f64::from(got), (mean - passage(i)) * scale, scale)?;
            }
        }
        Ok(())
    }
}
