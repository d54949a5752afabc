//! The loss of one block of rows of a batch of 8,192.

use super::inputs::{host, near, passes, samples, tensor};
use super::{Benchmark, Case, Op};
use crate::Result;
use crate::backend::{Backend, InfoNceRows, Ints, Tensor};

const ROWS: usize = 1024;
const CANDIDATES: usize = 8192;
const INV_TEMPERATURE: f32 = 20.0;
/// Rows that are computed again.
const SAMPLES: usize = 10;

pub fn benchmarks<B: Backend>() -> Vec<Benchmark<B>> {
    let work = passes::<B::E>(ROWS * CANDIDATES, ROWS * CANDIDATES + 4 * ROWS);
    vec![Benchmark::new(Op::InfoNceRows, format!("{ROWS}x{CANDIDATES}"), work, |b| Ok(Box::new(Rows::new(b)?)))]
}

struct Rows<'a, B: Backend> {
    backend: &'a B,
    /// `(R, N)`
    scores: Tensor<B, f32>,
    d_scores: Tensor<B, B::E>,
    /// `(R,)`: row `i` has its positive in column `3 i`.
    positives: Tensor<B, i32>,
    loss: Tensor<B, f32>,
    /// `(R, 2)`
    cosines: Tensor<B, f32>,
}

impl<'a, B: Backend> Rows<'a, B> {
    fn new(backend: &'a B) -> Result<Self> {
        let positives: Vec<i32> = (0..ROWS as i32).map(|i| 3 * i).collect();
        Ok(Rows {
            backend,
            scores: tensor(backend, &[ROWS, CANDIDATES], 1.0, 1)?,
            d_scores: Tensor::zeros(backend, &[ROWS, CANDIDATES])?,
            positives: Tensor::from_slice(backend, &positives, &[ROWS])?,
            loss: Tensor::zeros(backend, &[ROWS])?,
            cosines: Tensor::zeros(backend, &[ROWS, 2])?,
        })
    }
}

impl<B: Backend> Case for Rows<'_, B> {
    fn run(&mut self) -> Result<()> {
        self.backend.info_nce_rows(InfoNceRows {
            scores: &self.scores,
            positives: Ints::all(&self.positives),
            inv_temperature: INV_TEMPERATURE,
            weight: 1.0,
            loss: &mut self.loss,
            cosines: &mut self.cosines,
            d_scores: &mut self.d_scores,
        })
    }

    fn check(&mut self) -> Result<()> {
        self.run()?;
        let b = self.backend;
        let (scores, d_scores, loss) = (host(b, &self.scores)?, host(b, &self.d_scores)?, host(b, &self.loss)?);
        let inv_temperature = f64::from(INV_TEMPERATURE);
        for row in samples(ROWS, SAMPLES) {
            let (at, positive) = (row * CANDIDATES..(row + 1) * CANDIDATES, 3 * row);
            let exps: Vec<f64> = scores[at.clone()].iter().map(|s| (s * inv_temperature).exp()).collect();
            let total: f64 = exps.iter().sum();
            near::<f32>("loss", loss[row], (total / exps[positive]).ln(), 1.0)?;
            let others = |j: usize| if j == positive { exps[j] - total } else { exps[j] };
            for (j, &d) in d_scores[at].iter().enumerate() {
                near::<B::E>("d_scores", d, others(j) / total * inv_temperature, 1e-3)?;
            }
        }
        Ok(())
    }
}
