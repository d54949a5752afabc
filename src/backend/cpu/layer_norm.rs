//! Residual + dropout + LayerNorm in one pass over memory, forward and backward. Values of a row that are needed more
//! than once stay in the first-level cache.

use super::math::{simd, sum_of, sum_of_three};
use super::rows::{add_sums, block};
use super::{Cpu, CpuElement};
use crate::backend::{Dropout, Element, ResidualLayerNormBackward, ResidualLayerNormForward};
use rayon::prelude::*;
use std::ops::Range;

/// Dropout factors of [`Dropout::BLOCK`] columns of a row: all 1 without dropout.
pub struct Factors {
    dropout: Option<Dropout>,
    values: [f32; Dropout::BLOCK],
}

impl Factors {
    #[inline(always)]
    pub fn new(dropout: Option<Dropout>) -> Self {
        Factors { dropout, values: [1.0; Dropout::BLOCK] }
    }

    /// The factors of one of the [`blocks`].
    #[inline(always)]
    pub fn of(&mut self, row: i32, block: usize) -> &[f32] {
        if let Some(dropout) = self.dropout {
            dropout.block_factors(row, 0, block, &mut self.values);
        }
        &self.values
    }
}

/// Numbers and columns of the blocks of a row of `n` columns.
#[inline(always)]
pub fn blocks(n: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
    (0..n).step_by(Dropout::BLOCK).map(move |first| first..n.min(first + Dropout::BLOCK)).enumerate()
}

/// Mean and `1 / sqrt(variance + eps)`.
#[inline(always)]
pub fn statistics<E: Element>(x: &[E], eps: f32) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = sum_of(x, |v| v) / n;
    let variance = sum_of(x, |v| (v - mean) * (v - mean)) / n;
    (mean, 1.0 / (variance + eps).sqrt())
}

/// `out = (x - mean) rstd weight + bias`
#[inline(always)]
fn normalize<E: Element>(x: &[E], (mean, rstd): (f32, f32), weight: &[E], bias: &[E], out: &mut [E]) {
    for (((o, v), w), b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
        *o = E::from_f32((v.to_f32() - mean) * rstd * w.to_f32() + b.to_f32());
    }
}

/// `x = (x + bias) factors + residual`
#[inline(always)]
fn add_branch<E: Element>(x: &mut [E], bias: &[E], factors: &[f32], residual: &[E]) {
    for (((x, b), f), r) in x.iter_mut().zip(bias).zip(factors).zip(residual) {
        *x = E::from_f32((x.to_f32() + b.to_f32()) * f + r.to_f32());
    }
}

pub fn residual_forward<E: CpuElement>(args: ResidualLayerNormForward<Cpu<E>>) {
    let (_, n) = args.check();
    let (weight, bias, branch_bias) = (args.weight.as_slice(), args.bias.as_slice(), args.branch_bias.as_slice());
    let (dropout, eps) = (args.dropout, args.eps);
    let block = block(args.x.rows());
    (
        args.x.as_mut_slice().par_chunks_mut(block * n),
        args.out.as_mut_slice().par_chunks_mut(block * n),
        args.residual.as_slice().par_chunks(block * n),
        args.mean.as_mut_slice().par_chunks_mut(block),
        args.rstd.as_mut_slice().par_chunks_mut(block),
        args.batch.global_rows().as_slice().par_chunks(block),
    )
        .into_par_iter()
        .for_each(|(x, out, residual, mean, rstd, rows)| {
            simd(
                #[inline(always)]
                || {
                    let mut factors = Factors::new(dropout);
                    for i in 0..rows.len() {
                        let row = i * n..(i + 1) * n;
                        let (x, residual) = (&mut x[row.clone()], &residual[row.clone()]);
                        for (block, at) in blocks(n) {
                            let factors = factors.of(rows[i], block);
                            add_branch(&mut x[at.clone()], &branch_bias[at.clone()], factors, &residual[at]);
                        }
                        // Backward reads the stored (rounded) sum, so forward normalizes that too.
                        let moments = statistics(x, eps);
                        (mean[i], rstd[i]) = moments;
                        normalize(x, moments, weight, bias, &mut out[row]);
                    }
                },
            );
        });
}

/// Backward of a LayerNorm through one row.
#[derive(Clone, Copy)]
pub struct RowBackward {
    mean: f32,
    rstd: f32,
    /// Means over the row of the gradient at the normalized values, and of that gradient times those values.
    along: [f32; 2],
}

impl RowBackward {
    /// From `d_out`, the gradient of the result, and `x`, the input of the LayerNorm; adds the gradients of the
    /// parameters.
    #[inline(always)]
    pub fn new<E: Element>(
        (mean, rstd): (f32, f32),
        d_out: &[E],
        x: &[E],
        weight: &[E],
        d_weight: &mut [f32],
        d_bias: &mut [f32],
    ) -> Self {
        for (((g, x), dw), db) in d_out.iter().zip(x).zip(d_weight).zip(d_bias) {
            *dw += g.to_f32() * ((x.to_f32() - mean) * rstd);
            *db += g.to_f32();
        }
        let along = [
            sum_of_three(d_out, x, weight, |g, _, w| g * w),
            sum_of_three(d_out, x, weight, |g, x, w| g * w * ((x - mean) * rstd)),
        ];
        RowBackward { mean, rstd, along: along.map(|sum| sum / x.len() as f32) }
    }

    /// Gradient of one element of `x`.
    #[inline(always)]
    pub fn gradient(&self, d_out: f32, x: f32, weight: f32) -> f32 {
        (d_out * weight - self.along[0] - (x - self.mean) * self.rstd * self.along[1]) * self.rstd
    }

    /// `d_residual = gradient`, `d_x = gradient factors` and `d_branch_bias += d_x`
    #[inline(always)]
    fn residual<E: Element>(
        &self,
        [d_out, x, weight]: [&[E]; 3],
        factors: &[f32],
        d_residual: &mut [E],
        d_x: &mut [E],
        d_branch_bias: &mut [f32],
    ) {
        let inputs = d_out.iter().zip(x).zip(weight).zip(factors);
        for ((((g, x), w), f), ((d_residual, d_x), d_bias)) in
            inputs.zip(d_residual.iter_mut().zip(d_x).zip(d_branch_bias))
        {
            let d = self.gradient(g.to_f32(), x.to_f32(), w.to_f32());
            *d_residual = E::from_f32(d);
            *d_x = E::from_f32(d * f);
            *d_bias += d * f;
        }
    }
}

pub fn residual_backward<E: CpuElement>(args: ResidualLayerNormBackward<Cpu<E>>) {
    let (rows, n) = args.check();
    let (weight, dropout, block) = (args.weight.as_slice(), args.dropout, block(rows));
    let sums = [args.d_branch_bias, args.d_weight, args.d_bias].map(|t| t.as_mut_slice());
    add_sums(rows, sums, |partials| {
        (
            args.d_residual.as_mut_slice().par_chunks_mut(block * n),
            args.d_x.as_mut_slice().par_chunks_mut(block * n),
            args.d_out.as_slice().par_chunks(block * n),
            args.sum.as_slice().par_chunks(block * n),
            args.mean.as_slice().par_chunks(block),
            args.rstd.as_slice().par_chunks(block),
            args.batch.global_rows().as_slice().par_chunks(block),
            partials.par_chunks_mut(3 * n),
        )
            .into_par_iter()
            .for_each(|(d_residual, d_x, d_out, sum, mean, rstd, rows, partial)| {
                simd(
                    #[inline(always)]
                    || {
                        partial.fill(0.0);
                        let (d_branch_bias, rest) = partial.split_at_mut(n);
                        let (d_weight, d_bias) = rest.split_at_mut(n);
                        let mut factors = Factors::new(dropout);
                        for i in 0..rows.len() {
                            let row = i * n..(i + 1) * n;
                            let (d_out, x) = (&d_out[row.clone()], &sum[row.clone()]);
                            let (d_residual, d_x) = (&mut d_residual[row.clone()], &mut d_x[row]);
                            let back = RowBackward::new((mean[i], rstd[i]), d_out, x, weight, d_weight, d_bias);
                            for (block, at) in blocks(n) {
                                let inputs = [&d_out[at.clone()], &x[at.clone()], &weight[at.clone()]];
                                let (d_residual, d_x) = (&mut d_residual[at.clone()], &mut d_x[at.clone()]);
                                let factors = factors.of(rows[i], block);
                                back.residual(inputs, factors, d_residual, d_x, &mut d_branch_bias[at]);
                            }
                        }
                    },
                );
            });
    });
}
