//! Normalization of 32,768 vectors: as many as a benchmark of retrieval has, more than a step has.

use super::inputs::{HIDDEN, all_near, host, passes, samples, tensor, values};
use super::{Benchmark, Case, Op};
use crate::Result;
use crate::backend::{Backend, Tensor};

const N_SEQS: usize = 32_768;
/// Number of rows checked.
const SAMPLES: usize = 40;

pub fn benchmarks<B: Backend>() -> Vec<Benchmark<B>> {
    let n = N_SEQS * HIDDEN;
    let (forward, backward) = (passes::<f32>(2 * n + N_SEQS, 0), passes::<f32>(3 * n + N_SEQS, 0));
    [("forward", false, forward), ("backward", true, backward)]
        .map(|(name, backward, work)| {
            Benchmark::new(Op::L2Normalize, format!("{name}/{N_SEQS}x{HIDDEN}"), work, move |b| {
                Ok(Box::new(Normalize::new(b, backward)?))
            })
        })
        .into()
}

struct Normalize<'a, B: Backend> {
    backend: &'a B,
    backward: bool,
    /// `(S, D)`
    x: Tensor<B, f32>,
    y: Tensor<B, f32>,
    /// `(S,)`
    inv_norm: Tensor<B, f32>,
    /// Value of `d` before a run.
    d_out: Vec<f32>,
    /// `(S, D)` gradient of the result, then of `x`.
    d: Tensor<B, f32>,
}

impl<'a, B: Backend> Normalize<'a, B> {
    fn new(backend: &'a B, backward: bool) -> Result<Self> {
        let shape = [N_SEQS, HIDDEN];
        Ok(Normalize {
            backend,
            backward,
            x: tensor(backend, &shape, 1.0, 1)?,
            y: Tensor::zeros(backend, &shape)?,
            inv_norm: Tensor::zeros(backend, &[N_SEQS])?,
            d_out: values(N_SEQS * HIDDEN, 1.0, 2),
            d: Tensor::zeros(backend, &shape)?,
        })
    }

    fn forward(&mut self) -> Result<()> {
        self.backend.l2_normalize_forward(&self.x, &mut self.y, &mut self.inv_norm)
    }
}

impl<B: Backend> Case for Normalize<'_, B> {
    fn reset(&mut self) -> Result<()> {
        self.d.upload(self.backend, &self.d_out)
    }

    fn run(&mut self) -> Result<()> {
        if self.backward {
            self.backend.l2_normalize_backward(&self.y, &self.inv_norm, &mut self.d)
        } else {
            self.forward()
        }
    }

    fn check(&mut self) -> Result<()> {
        self.reset()?;
        self.forward()?;
        if self.backward {
            self.run()?;
        }
        let b = self.backend;
        let (x, y, d) = (host(b, &self.x)?, host(b, &self.y)?, host(b, &self.d)?);
        for row in samples(N_SEQS, SAMPLES) {
            let at = row * HIDDEN..(row + 1) * HIDDEN;
            let x = &x[at.clone()];
            let norm = x.iter().map(|v| v * v).sum::<f64>().sqrt();
            let unit: Vec<f64> = x.iter().map(|v| v / norm).collect();
            if self.backward {
                let d_out: Vec<f64> = self.d_out[at.clone()].iter().map(|&v| f64::from(v)).collect();
                let along: f64 = d_out.iter().zip(&unit).map(|(d, u)| d * u).sum();
                all_near::<f32>("d_x", &d[at], d_out.iter().zip(&unit).map(|(d, u)| (d - along * u) / norm))?;
            } else {
                all_near::<f32>("y", &y[at], unit)?;
            }
        }
        Ok(())
    }
}
