//! Pooling of token vectors to one unit vector a sequence, and its gradient.

use super::math::{add_widened, dot, simd, sum_of, tanh};
use super::rows::block;
use super::{Cpu, CpuElement, Tensor};
use crate::backend::{PoolBackward, PoolForward, Pooling};
use rayon::prelude::*;

/// Smaller norms count as this, as in PyTorch's `normalize`.
const SMALLEST_NORM: f32 = 1e-12;

pub fn forward<E: CpuElement>(args: PoolForward<Cpu<E>>) {
    args.check();
    let n = args.x.row_len();
    let (x, cu) = (args.x.as_slice(), args.batch.cu_seqlens().as_slice());
    args.out.as_mut_slice().par_chunks_exact_mut(n).enumerate().for_each(|(s, out)| {
        let (start, end) = (cu[s] as usize, cu[s + 1] as usize);
        let last = if args.pooling == Pooling::Cls { start + 1 } else { end };
        simd(
            #[inline(always)]
            || {
                out.fill(0.0);
                x[start * n..last * n].chunks_exact(n).for_each(|row| add_widened(out, row));
                let share = 1.0 / (last - start) as f32;
                out.iter_mut().for_each(|o| *o *= share);
            },
        );
    });
}

pub fn backward<E: CpuElement>(args: PoolBackward<Cpu<E>>) {
    args.check();
    let n = args.d_out.row_len();
    let (d_out, cu) = (args.d_out.as_slice(), args.batch.cu_seqlens().as_slice());
    let block = block(args.d_x.rows());
    args.d_x.as_mut_slice().par_chunks_mut(block * n).enumerate().for_each(|(i, d_x)| {
        let first = i * block;
        // The sequence of the block's first token; the others follow.
        let mut s = cu.partition_point(|&start| start as usize <= first) - 1;
        simd(
            #[inline(always)]
            || {
                for (token, row) in (first..).zip(d_x.chunks_exact_mut(n)) {
                    while cu[s + 1] as usize <= token {
                        s += 1;
                    }
                    let share = match args.pooling {
                        Pooling::Mean => 1.0 / (cu[s + 1] - cu[s]) as f32,
                        Pooling::Cls => f32::from(u8::from(token == cu[s] as usize)),
                    };
                    for (o, &g) in row.iter_mut().zip(&d_out[s * n..][..n]) {
                        *o = E::from_f32(g * share);
                    }
                }
            },
        );
    });
}

pub fn bias_tanh_forward<E: CpuElement>(x: &mut Tensor<Cpu<E>, f32>, bias: &Tensor<Cpu<E>, E>) {
    let bias = bias.as_slice();
    x.as_mut_slice().par_chunks_exact_mut(bias.len()).for_each(|row| {
        simd(
            #[inline(always)]
            || row.iter_mut().zip(bias).for_each(|(v, b)| *v = tanh(*v + b.to_f32())),
        );
    });
}

pub fn bias_tanh_backward<E: CpuElement>(
    y: &Tensor<Cpu<E>, f32>,
    d: &mut Tensor<Cpu<E>, f32>,
    d_bias: &mut Tensor<Cpu<E>, f32>,
) {
    d.as_mut_slice().par_iter_mut().zip(y.as_slice()).for_each(|(d, &y)| *d *= 1.0 - y * y);
    super::rows::column_sum(d.as_slice(), d_bias.as_mut_slice());
}

pub fn l2_normalize_forward<E: CpuElement>(
    x: &Tensor<Cpu<E>, f32>,
    out: &mut Tensor<Cpu<E>, f32>,
    inv_norm: &mut Tensor<Cpu<E>, f32>,
) {
    let n = x.row_len();
    (
        out.as_mut_slice().par_chunks_exact_mut(n),
        x.as_slice().par_chunks_exact(n),
        inv_norm.as_mut_slice().par_iter_mut(),
    )
        .into_par_iter()
        .for_each(|(out, x, inv)| {
            simd(
                #[inline(always)]
                || {
                    *inv = 1.0 / sum_of(x, |v| v * v).sqrt().max(SMALLEST_NORM);
                    out.iter_mut().zip(x).for_each(|(o, &v)| *o = v * *inv);
                },
            );
        });
}

pub fn l2_normalize_backward<E: CpuElement>(
    y: &Tensor<Cpu<E>, f32>,
    inv_norm: &Tensor<Cpu<E>, f32>,
    d: &mut Tensor<Cpu<E>, f32>,
) {
    let n = y.row_len();
    (d.as_mut_slice().par_chunks_exact_mut(n), y.as_slice().par_chunks_exact(n), inv_norm.as_slice().par_iter())
        .into_par_iter()
        .for_each(|(d, y, &inv)| {
            simd(
                #[inline(always)]
                || {
                    let along = dot(d, y);
                    d.iter_mut().zip(y).for_each(|(g, &v)| *g = (*g - along * v) * inv);
                },
            );
        });
}
