//! The loss of one block of rows of a batch of 8,192.

use super::inputs::{host, near, passes, samples, tensor};
use super::{Benchmark, Case, Op};
use crate::Result;
use crate::backend::{Backend, Candidates, InfoNceRows, Ints, ROW_STATS, Tensor};
use crate::reference::info_nce::Block;

const ROWS: usize = 1024;
const CANDIDATES: usize = 8192;
/// Column of row 0's positive: that of a chunk in the middle of a batch.
const FIRST_POSITIVE: usize = 3 * ROWS;
const INV_TEMPERATURE: f32 = 20.0;
/// Number of rows checked.
const SAMPLES: usize = 10;

pub fn benchmarks<B: Backend>() -> Vec<Benchmark<B>> {
    let work = passes::<B::E>(ROWS * CANDIDATES, ROWS * CANDIDATES + ROW_STATS * ROWS);
    vec![Benchmark::new(Op::InfoNceRows, format!("{ROWS}x{CANDIDATES}"), work, |b| Ok(Box::new(RowsCase::new(b)?)))]
}

struct RowsCase<'a, B: Backend> {
    backend: &'a B,
    /// `(R, N)`
    scores: Tensor<B, f32>,
    d_scores: Tensor<B, B::E>,
    /// `(N,)`, all different.
    labels: Tensor<B, i32>,
    /// `(R, ROW_STATS)`
    stats: Tensor<B, f32>,
}

impl<'a, B: Backend> RowsCase<'a, B> {
    fn new(backend: &'a B) -> Result<Self> {
        let labels: Vec<i32> = (0..CANDIDATES as i32).collect();
        Ok(RowsCase {
            backend,
            scores: tensor(backend, &[ROWS, CANDIDATES], 1.0, 1)?,
            d_scores: Tensor::zeros(backend, &[ROWS, CANDIDATES])?,
            labels: Tensor::from_slice(backend, &labels, &[CANDIDATES])?,
            stats: Tensor::zeros(backend, &[ROWS, ROW_STATS])?,
        })
    }
}

impl<B: Backend> Case for RowsCase<'_, B> {
    fn run(&mut self) -> Result<()> {
        self.backend.info_nce_rows(InfoNceRows {
            scores: &self.scores,
            candidates: Candidates {
                first_positive: FIRST_POSITIVE,
                row_labels: Ints::new(&self.labels, FIRST_POSITIVE..FIRST_POSITIVE + ROWS),
                column_labels: Ints::all(&self.labels),
                rejected: None,
                left_out: None,
                first_passage: 0,
                skipped: 0..0,
                false_negative_margin: f32::INFINITY,
            },
            inv_temperature: INV_TEMPERATURE,
            margin: 0.0,
            weight: 1.0,
            columns: None,
            distill: None,
            stats: &mut self.stats,
            first_stats: 0,
            d_scores: &mut self.d_scores,
        })
    }

    fn check(&mut self) -> Result<()> {
        self.run()?;
        let b = self.backend;
        let (scores, d_scores, stats) = (host(b, &self.scores)?, host(b, &self.d_scores)?, host(b, &self.stats)?);
        for row in samples(ROWS, SAMPLES) {
            let at = row * CANDIDATES..(row + 1) * CANDIDATES;
            let of_row = Block {
                n: CANDIDATES,
                first_positive: FIRST_POSITIVE + row,
                left_out: vec![false; CANDIDATES],
                margin: 0.0,
                inv_temperature: f64::from(INV_TEMPERATURE),
            };
            near::<f32>("loss", stats[row * ROW_STATS], of_row.rows(&scores[at.clone()])[0], 1.0)?;
            for (&d, expected) in d_scores[at.clone()].iter().zip(of_row.rows_gradient(&scores[at])) {
                near::<B::E>("d_scores", d, expected, 1e-3)?;
            }
        }
        Ok(())
    }
}
