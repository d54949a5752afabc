//! Residual + dropout + LayerNorm in one pass over memory, forward and backward.

use super::math::{add_assign, load, simd, store, sum_of};
use super::rows::{BLOCK, add_partials, n_blocks};
use super::{Cpu, CpuElement};
use crate::backend::{Dropout, Element, ResidualLayerNormBackward, ResidualLayerNormForward};
use rayon::prelude::*;

/// `out = (x - mean) rstd weight + bias`; returns (mean, rstd). `x` and the parameters are widened.
#[inline(always)]
pub fn normalize_row(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = sum_of(x, |v| v) / n;
    let variance = sum_of(x, |v| (v - mean) * (v - mean)) / n;
    let rstd = 1.0 / (variance + eps).sqrt();
    for (((o, &v), &w), &b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
        *o = (v - mean) * rstd * w + b;
    }
    (mean, rstd)
}

/// Gradient of [`normalize_row`]: `d` holds dL/d_out and becomes dL/dx; the parameters' gradients are added.
#[inline(always)]
pub fn normalize_row_backward(
    d: &mut [f32],
    x: &[f32],
    (mean, rstd): (f32, f32),
    weight: &[f32],
    d_weight: &mut [f32],
    d_bias: &mut [f32],
    scratch: &mut [f32],
) {
    let n = x.len() as f32;
    for ((((h, &v), &g), dw), db) in scratch.iter_mut().zip(x).zip(d.iter()).zip(d_weight).zip(d_bias) {
        *h = (v - mean) * rstd;
        *dw += g * *h;
        *db += g;
    }
    for (g, &w) in d.iter_mut().zip(weight) {
        *g *= w;
    }
    let c1 = sum_of(d, |v| v) / n;
    let c2 = super::math::dot(d, scratch) / n;
    for (g, &h) in d.iter_mut().zip(scratch.iter()) {
        *g = (*g - c1 - h * c2) * rstd;
    }
}

/// The whole vector in f32.
pub fn widened<E: Element>(x: &[E]) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    load(x, &mut out);
    out
}

/// Multiplies a row by its dropout factors, if there is dropout.
#[inline(always)]
pub fn drop_row(dropout: Option<Dropout>, row: i32, x: &mut [f32], factors: &mut [f32]) {
    if let Some(dropout) = dropout {
        dropout.factors(row, 0, factors);
        for (v, &f) in x.iter_mut().zip(factors.iter()) {
            *v *= f;
        }
    }
}

pub fn residual_forward<E: CpuElement>(args: ResidualLayerNormForward<Cpu<E>>) {
    let n = args.weight.len();
    assert_eq!(args.x.len(), args.residual.len(), "residual_layer_norm_forward: shapes");
    let (weight, bias) = (widened(args.weight.as_slice()), widened(args.bias.as_slice()));
    let branch_bias = widened(args.branch_bias.as_slice());
    let (dropout, eps) = (args.dropout, args.eps);
    (
        args.x.as_mut_slice().par_chunks_mut(BLOCK * n),
        args.out.as_mut_slice().par_chunks_mut(BLOCK * n),
        args.residual.as_slice().par_chunks(BLOCK * n),
        args.mean.as_mut_slice().par_chunks_mut(BLOCK),
        args.rstd.as_mut_slice().par_chunks_mut(BLOCK),
        args.batch.global_rows.as_slice().par_chunks(BLOCK),
    )
        .into_par_iter()
        .for_each(|(x, out, residual, mean, rstd, rows)| {
            simd(
                #[inline(always)]
                || {
                    let (mut row, mut normed) = (vec![0.0; n], vec![0.0; n]);
                    for i in 0..rows.len() {
                        let at = i * n..(i + 1) * n;
                        load(&x[at.clone()], &mut row);
                        add_assign(&mut row, &branch_bias);
                        drop_row(dropout, rows[i], &mut row, &mut normed);
                        for (v, r) in row.iter_mut().zip(&residual[at.clone()]) {
                            *v += r.to_f32();
                        }
                        store(&row, &mut x[at.clone()]);
                        // Backward sees the sum as it was stored, so forward normalizes that too.
                        load(&x[at.clone()], &mut row);
                        (mean[i], rstd[i]) = normalize_row(&row, &weight, &bias, eps, &mut normed);
                        store(&normed, &mut out[at]);
                    }
                },
            );
        });
}

pub fn residual_backward<E: CpuElement>(args: ResidualLayerNormBackward<Cpu<E>>) {
    let n = args.weight.len();
    let weight = widened(args.weight.as_slice());
    let dropout = args.dropout;
    // Per block: gradients of the branch bias, the weight and the bias.
    let mut partials = vec![0.0; n_blocks(args.sum.rows()) * 3 * n];
    (
        args.d_residual.as_mut_slice().par_chunks_mut(BLOCK * n),
        args.d_x.as_mut_slice().par_chunks_mut(BLOCK * n),
        args.d_out.as_slice().par_chunks(BLOCK * n),
        args.sum.as_slice().par_chunks(BLOCK * n),
        args.mean.as_slice().par_chunks(BLOCK),
        args.rstd.as_slice().par_chunks(BLOCK),
        args.batch.global_rows.as_slice().par_chunks(BLOCK),
        partials.par_chunks_mut(3 * n),
    )
        .into_par_iter()
        .for_each(|(d_residual, d_x, d_out, sum, mean, rstd, rows, partial)| {
            simd(
                #[inline(always)]
                || {
                    let (mut d, mut x, mut scratch) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
                    let (d_branch_bias, rest) = partial.split_at_mut(n);
                    let (d_weight, d_bias) = rest.split_at_mut(n);
                    for i in 0..rows.len() {
                        let at = i * n..(i + 1) * n;
                        load(&d_out[at.clone()], &mut d);
                        load(&sum[at.clone()], &mut x);
                        normalize_row_backward(&mut d, &x, (mean[i], rstd[i]), &weight, d_weight, d_bias, &mut scratch);
                        store(&d, &mut d_residual[at.clone()]);
                        drop_row(dropout, rows[i], &mut d, &mut scratch);
                        store(&d, &mut d_x[at]);
                        add_assign(d_branch_bias, &d);
                    }
                },
            );
        });
    for (i, out) in [args.d_branch_bias, args.d_weight, args.d_bias].into_iter().enumerate() {
        let out = out.as_mut_slice();
        partials.chunks_exact(3 * n).for_each(|p| add_assign(out, &p[i * n..(i + 1) * n]));
    }
}

/// Splits `(blocks, 2, n)` partial sums into two results; the embedding's LayerNorm has no branch bias.
pub fn add_weight_and_bias(partials: &[f32], d_weight: &mut [f32], d_bias: &mut [f32]) {
    let n = d_weight.len();
    let mut both = vec![0.0; 2 * n];
    add_partials(partials, &mut both);
    add_assign(d_weight, &both[..n]);
    add_assign(d_bias, &both[n..]);
}
