//! Bias, dropout, residual and LayerNorm over the MiniLM step's 8,192 tokens.

use super::inputs::{HIDDEN, all_near, host, near, packed, passes, samples, tensor, values};
use super::{Benchmark, Case, Op};
use crate::Result;
use crate::backend::{
    Backend, Dropout, Element, PackedBatch, ResidualLayerNormBackward, ResidualLayerNormForward, Tensor,
};
use crate::reference::layer_norm::{layer_norm, layer_norm_gradient};

const N_SEQS: usize = 64;
const LENGTH: usize = 128;
const DROPOUT: Dropout = Dropout { p: 0.1, seed: 1, step: 1, site: 1 };
const EPS: f32 = 1e-12;
/// Number of rows, and of columns of sums over rows, checked.
const SAMPLES: usize = 40;

pub fn benchmarks<B: Backend>(parts: usize) -> Vec<Benchmark<B>> {
    let n_seqs = N_SEQS / parts;
    let n_tokens = n_seqs * LENGTH;
    let mut benchmarks = Vec::new();
    for (suffix, dropout) in [("", None), (" dropout", Some(DROPOUT))] {
        // Branch and residual in, sum and result out.
        let work = passes::<B::E>(4 * n_tokens * HIDDEN + 3 * HIDDEN, 2 * n_tokens);
        let shape = format!("forward/{n_tokens}x{HIDDEN}{suffix}");
        benchmarks.push(Benchmark::new(Op::ResidualLayerNorm, shape, work, move |b| {
            Ok(Box::new(Forward(LayerNorm::new(b, n_seqs, dropout)?)))
        }));
        // Gradient and sum in, two gradients out; three vectors of gradients are added to.
        let work = passes::<B::E>(4 * n_tokens * HIDDEN + HIDDEN, 2 * n_tokens + 6 * HIDDEN);
        let shape = format!("backward/{n_tokens}x{HIDDEN}{suffix}");
        benchmarks.push(Benchmark::new(Op::ResidualLayerNorm, shape, work, move |b| {
            Ok(Box::new(Backward::new(LayerNorm::new(b, n_seqs, dropout)?)?))
        }));
    }
    benchmarks
}

struct LayerNorm<'a, B: Backend> {
    backend: &'a B,
    dropout: Option<Dropout>,
    batch: PackedBatch<B>,
    /// Value of `x` before a run.
    branch: Vec<B::E>,
    /// `(T, H)` branch, then sum.
    x: Tensor<B, B::E>,
    residual: Tensor<B, B::E>,
    /// `(H,)`
    branch_bias: Tensor<B, B::E>,
    weight: Tensor<B, B::E>,
    bias: Tensor<B, B::E>,
    /// `(T,)`
    mean: Tensor<B, f32>,
    rstd: Tensor<B, f32>,
    /// `(T, H)`
    out: Tensor<B, B::E>,
}

impl<'a, B: Backend> LayerNorm<'a, B> {
    fn new(backend: &'a B, n_seqs: usize, dropout: Option<Dropout>) -> Result<Self> {
        let n_tokens = n_seqs * LENGTH;
        let shape = [n_tokens, HIDDEN];
        Ok(LayerNorm {
            backend,
            dropout,
            batch: packed(backend, &vec![LENGTH; n_seqs], 1)?,
            branch: values(n_tokens * HIDDEN, 1.0, 1),
            x: Tensor::zeros(backend, &shape)?,
            residual: tensor(backend, &shape, 2.0, 2)?,
            branch_bias: tensor(backend, &[HIDDEN], 0.5, 3)?,
            weight: tensor(backend, &[HIDDEN], 1.5, 4)?,
            bias: tensor(backend, &[HIDDEN], 0.5, 5)?,
            mean: Tensor::zeros(backend, &[n_tokens])?,
            rstd: Tensor::zeros(backend, &[n_tokens])?,
            out: Tensor::zeros(backend, &shape)?,
        })
    }

    fn forward(&mut self) -> Result<()> {
        self.backend.residual_layer_norm_forward(ResidualLayerNormForward {
            batch: self.batch.chunk(0),
            x: &mut self.x,
            branch_bias: &self.branch_bias,
            residual: &self.residual,
            weight: &self.weight,
            bias: &self.bias,
            eps: EPS,
            dropout: self.dropout,
            mean: &mut self.mean,
            rstd: &mut self.rstd,
            out: &mut self.out,
        })
    }

    /// The dropout factors of one row.
    fn factors(&self, row: usize) -> Vec<f64> {
        let mut factors = vec![1.0; HIDDEN];
        if let Some(dropout) = self.dropout {
            dropout.factors(row as i32, 0, &mut factors);
        }
        factors.into_iter().map(f64::from).collect()
    }
}

struct Forward<'a, B: Backend>(LayerNorm<'a, B>);

impl<B: Backend> Case for Forward<'_, B> {
    fn reset(&mut self) -> Result<()> {
        self.0.x.upload(self.0.backend, &self.0.branch)
    }

    fn run(&mut self) -> Result<()> {
        self.0.forward()
    }

    fn check(&mut self) -> Result<()> {
        self.reset()?;
        let b = self.0.backend;
        let branch = host(b, &self.0.x)?;
        self.run()?;
        let c = &self.0;
        let (residual, branch_bias) = (host(b, &c.residual)?, host(b, &c.branch_bias)?);
        let (weight, bias) = (host(b, &c.weight)?, host(b, &c.bias)?);
        let (sum, out, mean, rstd) = (host(b, &c.x)?, host(b, &c.out)?, host(b, &c.mean)?, host(b, &c.rstd)?);
        for row in samples(sum.len() / HIDDEN, SAMPLES) {
            let at = row * HIDDEN..(row + 1) * HIDDEN;
            let branch = branch[at.clone()].iter().zip(&branch_bias).map(|(x, b)| x + b);
            let kept = branch.zip(c.factors(row)).map(|(x, f)| x * f);
            all_near::<B::E>("sum", &sum[at.clone()], kept.zip(&residual[at.clone()]).map(|(x, r)| x + r))?;
            // From the stored sum, so that its rounding is not blamed on LayerNorm.
            let expected = layer_norm(sum[at.clone()].to_vec(), &weight, &bias, f64::from(EPS));
            near::<f32>("mean", mean[row], expected.mean[0], 1.0)?;
            near::<f32>("rstd", rstd[row], expected.rstd[0], 1.0)?;
            all_near::<B::E>("out", &out[at], expected.out)?;
        }
        Ok(())
    }
}

struct Backward<'a, B: Backend> {
    forward: LayerNorm<'a, B>,
    /// `(T, H)`
    d_out: Tensor<B, B::E>,
    d_residual: Tensor<B, B::E>,
    d_x: Tensor<B, B::E>,
    /// `(H,)`: branch bias, weight, bias.
    d_vectors: [Tensor<B, f32>; 3],
}

impl<'a, B: Backend> Backward<'a, B> {
    fn new(mut forward: LayerNorm<'a, B>) -> Result<Self> {
        let (b, shape) = (forward.backend, [forward.branch.len() / HIDDEN, HIDDEN]);
        forward.x.upload(b, &forward.branch)?;
        forward.forward()?;
        let vector = || Tensor::zeros(b, &[HIDDEN]);
        Ok(Backward {
            forward,
            d_out: tensor(b, &shape, 1.0, 6)?,
            d_residual: Tensor::zeros(b, &shape)?,
            d_x: Tensor::zeros(b, &shape)?,
            d_vectors: [vector()?, vector()?, vector()?],
        })
    }
}

impl<B: Backend> Case for Backward<'_, B> {
    fn run(&mut self) -> Result<()> {
        let c = &self.forward;
        let [d_branch_bias, d_weight, d_bias] = &mut self.d_vectors;
        c.backend.residual_layer_norm_backward(ResidualLayerNormBackward {
            batch: c.batch.chunk(0),
            d_out: &self.d_out,
            sum: &c.x,
            mean: &c.mean,
            rstd: &c.rstd,
            weight: &c.weight,
            dropout: c.dropout,
            d_residual: &mut self.d_residual,
            d_x: &mut self.d_x,
            d_branch_bias,
            d_weight,
            d_bias,
        })
    }

    fn check(&mut self) -> Result<()> {
        let b = self.forward.backend;
        b.zero_all(&mut self.d_vectors.iter_mut().collect::<Vec<_>>())?;
        self.run()?;
        let c = &self.forward;
        let (sum, d_out, weight) = (host(b, &c.x)?, host(b, &self.d_out)?, host(b, &c.weight)?);
        let (d_residual, d_x) = (host(b, &self.d_residual)?, host(b, &self.d_x)?);
        for row in samples(sum.len() / HIDDEN, SAMPLES) {
            let at = row * HIDDEN..(row + 1) * HIDDEN;
            let expected = layer_norm_gradient(&d_out[at.clone()], &sum[at.clone()], &weight, f64::from(EPS));
            let dropped = expected.iter().zip(c.factors(row)).map(|(d, f)| d * f);
            all_near::<B::E>("d_x", &d_x[at.clone()], dropped)?;
            all_near::<B::E>("d_residual", &d_residual[at], expected)?;
        }
        let [d_branch_bias, d_weight, d_bias] = &self.d_vectors;
        column_sums::<B::E>("d_branch_bias", &host(b, d_branch_bias)?, d_x.len() / HIDDEN, |row, j| {
            d_x[row * HIDDEN + j]
        })?;
        check_norm_gradients(&host(b, d_weight)?, &host(b, d_bias)?, &d_out, &sum)
    }
}

/// Fails unless sampled columns of a LayerNorm's `d_weight` and `d_bias` are the expected sums; `d` is the gradient of
/// its result.
pub fn check_norm_gradients(d_weight: &[f64], d_bias: &[f64], d: &[f64], x: &[f64]) -> Result<()> {
    let (ones, zeros) = (vec![1.0; HIDDEN], vec![0.0; HIDDEN]);
    let unit = layer_norm(x.to_vec(), &ones, &zeros, f64::from(EPS)).out;
    let at = |row: usize, j: usize| row * HIDDEN + j;
    let n_rows = d.len() / HIDDEN;
    column_sums::<f32>("d_weight", d_weight, n_rows, |row, j| d[at(row, j)] * unit[at(row, j)])?;
    column_sums::<f32>("d_bias", d_bias, n_rows, |row, j| d[at(row, j)])
}

/// Fails unless sampled elements of `got` are the sums of `term(row, column)` over `n_rows` rows. The terms have type `T`;
/// if that is rounded, the sum may be that of the rounded or of the exact terms.
fn column_sums<T: Element>(what: &str, got: &[f64], n_rows: usize, term: impl Fn(usize, usize) -> f64) -> Result<()> {
    for j in samples(HIDDEN, SAMPLES) {
        let terms = (0..n_rows).map(|row| term(row, j));
        let (sum, squares) = terms.fold((0.0, 0.0), |(sum, squares), t| (sum + t, squares + t * t));
        near::<T>(what, got[j], sum, f64::sqrt(squares))?;
    }
    Ok(())
}
