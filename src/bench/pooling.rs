//! Mean pooling of the MiniLM step's 64 sequences of 128 tokens.

use super::inputs::{HIDDEN, all_near, host, packed, passes, samples, tensor};
use super::{Benchmark, Case, Op};
use crate::Result;
use crate::backend::{Backend, PackedBatch, PoolBackward, PoolForward, Pooling, Tensor};

const N_SEQS: usize = 64;
const LENGTH: usize = 128;
/// Number of rows checked.
const SAMPLES: usize = 20;

pub fn benchmarks<B: Backend>() -> Vec<Benchmark<B>> {
    let work = passes::<B::E>(N_SEQS * LENGTH * HIDDEN, N_SEQS * HIDDEN);
    [("forward", false), ("backward", true)]
        .map(|(name, backward)| {
            Benchmark::new(Op::Pooling, format!("{name}/mean {N_SEQS}x{LENGTH}x{HIDDEN}"), work, move |b| {
                Ok(Box::new(Mean::new(b, backward)?))
            })
        })
        .into()
}

struct Mean<'a, B: Backend> {
    backend: &'a B,
    backward: bool,
    batch: PackedBatch<B>,
    /// `(T, H)`
    x: Tensor<B, B::E>,
    d_x: Tensor<B, B::E>,
    /// `(S, H)`
    out: Tensor<B, f32>,
    d_out: Tensor<B, f32>,
}

impl<'a, B: Backend> Mean<'a, B> {
    fn new(backend: &'a B, backward: bool) -> Result<Self> {
        Ok(Mean {
            backend,
            backward,
            batch: packed(backend, &[LENGTH; N_SEQS], 1)?,
            x: tensor(backend, &[N_SEQS * LENGTH, HIDDEN], 1.0, 1)?,
            d_x: Tensor::zeros(backend, &[N_SEQS * LENGTH, HIDDEN])?,
            out: Tensor::zeros(backend, &[N_SEQS, HIDDEN])?,
            d_out: tensor(backend, &[N_SEQS, HIDDEN], 1.0, 2)?,
        })
    }
}

impl<B: Backend> Case for Mean<'_, B> {
    fn run(&mut self) -> Result<()> {
        let (batch, pooling) = (self.batch.chunk(0), Pooling::Mean);
        if self.backward {
            self.backend.pool_backward(PoolBackward { batch, pooling, d_out: &self.d_out, d_x: &mut self.d_x })
        } else {
            self.backend.pool_forward(PoolForward { batch, pooling, x: &self.x, out: &mut self.out })
        }
    }

    fn check(&mut self) -> Result<()> {
        self.run()?;
        let b = self.backend;
        let (x, out, d_out, d_x) = (host(b, &self.x)?, host(b, &self.out)?, host(b, &self.d_out)?, host(b, &self.d_x)?);
        let row = |i: usize| i * HIDDEN..(i + 1) * HIDDEN;
        for token in samples(N_SEQS * LENGTH, SAMPLES) {
            let s = token / LENGTH;
            if self.backward {
                let expected = d_out[row(s)].iter().map(|d| d / LENGTH as f64);
                all_near::<B::E>("d_x", &d_x[row(token)], expected)?;
            } else {
                let sum = |j: usize| (0..LENGTH).map(|i| x[(s * LENGTH + i) * HIDDEN + j]).sum::<f64>();
                all_near::<f32>("out", &out[row(s)], (0..HIDDEN).map(|j| sum(j) / LENGTH as f64))?;
            }
        }
        Ok(())
    }
}
