//! Embedding tables + LayerNorm + dropout, and the tables' gradients by sorted segments.

use super::layer_norm::{add_weight_and_bias, drop_row, normalize_row, normalize_row_backward, widened};
use super::math::{load, simd, store};
use super::rows::{BLOCK, n_blocks};
use super::{Cpu, CpuElement};
use crate::backend::{EmbeddingBackward, EmbeddingForward, SegmentSum};
use rayon::prelude::*;

pub fn forward<E: CpuElement>(args: EmbeddingForward<Cpu<E>>) {
    let n = args.weight.len();
    let (weight, bias) = (widened(args.weight.as_slice()), widened(args.bias.as_slice()));
    let (word, position) = (args.word.as_slice(), args.position.as_slice());
    let token_type = widened(&args.token_type.as_slice()[..n]);
    let (dropout, eps) = (args.dropout, args.eps);
    (
        args.sum.as_mut_slice().par_chunks_mut(BLOCK * n),
        args.out.as_mut_slice().par_chunks_mut(BLOCK * n),
        args.mean.as_mut_slice().par_chunks_mut(BLOCK),
        args.rstd.as_mut_slice().par_chunks_mut(BLOCK),
        args.batch.ids.as_slice().par_chunks(BLOCK),
        args.batch.positions.as_slice().par_chunks(BLOCK),
        args.batch.global_rows.as_slice().par_chunks(BLOCK),
    )
        .into_par_iter()
        .for_each(|(sum, out, mean, rstd, ids, positions, rows)| {
            simd(
                #[inline(always)]
                || {
                    let (mut row, mut normed, mut factors) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
                    for i in 0..ids.len() {
                        let at = i * n..(i + 1) * n;
                        let w = &word[ids[i] as usize * n..][..n];
                        let p = &position[positions[i] as usize * n..][..n];
                        for (((v, w), p), t) in row.iter_mut().zip(w).zip(p).zip(&token_type) {
                            *v = w.to_f32() + p.to_f32() + t;
                        }
                        store(&row, &mut sum[at.clone()]);
                        load(&sum[at.clone()], &mut row);
                        (mean[i], rstd[i]) = normalize_row(&row, &weight, &bias, eps, &mut normed);
                        drop_row(dropout, rows[i], &mut normed, &mut factors);
                        store(&normed, &mut out[at]);
                    }
                },
            );
        });
}

pub fn backward<E: CpuElement>(args: EmbeddingBackward<Cpu<E>>) {
    let n = args.weight.len();
    let weight = widened(args.weight.as_slice());
    let dropout = args.dropout;
    let mut partials = vec![0.0; n_blocks(args.sum.rows()) * 2 * n];
    (
        args.d_sum.as_mut_slice().par_chunks_mut(BLOCK * n),
        args.d_out.as_slice().par_chunks(BLOCK * n),
        args.sum.as_slice().par_chunks(BLOCK * n),
        args.mean.as_slice().par_chunks(BLOCK),
        args.rstd.as_slice().par_chunks(BLOCK),
        args.batch.global_rows.as_slice().par_chunks(BLOCK),
        partials.par_chunks_mut(2 * n),
    )
        .into_par_iter()
        .for_each(|(d_sum, d_out, sum, mean, rstd, rows, partial)| {
            simd(
                #[inline(always)]
                || {
                    let (mut d, mut x, mut scratch) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
                    let (d_weight, d_bias) = partial.split_at_mut(n);
                    for i in 0..rows.len() {
                        let at = i * n..(i + 1) * n;
                        load(&d_out[at.clone()], &mut d);
                        load(&sum[at.clone()], &mut x);
                        drop_row(dropout, rows[i], &mut d, &mut scratch);
                        normalize_row_backward(&mut d, &x, (mean[i], rstd[i]), &weight, d_weight, d_bias, &mut scratch);
                        store(&d, &mut d_sum[at]);
                    }
                },
            );
        });
    add_weight_and_bias(&partials, args.d_weight.as_mut_slice(), args.d_bias.as_mut_slice());
}

pub fn segment_sum<E: CpuElement>(args: SegmentSum<Cpu<E>>) {
    let n = args.x.row_len();
    let x = args.x.as_slice();
    let segments = args.segments;
    let (order, starts, rows) = (segments.order.as_slice(), segments.starts.as_slice(), segments.rows.as_slice());
    let out = args.out.as_mut_slice();
    // A row occurs in one segment only, so the rows of `out` can be handed out to tasks.
    let mut targets: Vec<Option<&mut [f32]>> = out.chunks_exact_mut(n).map(Some).collect();
    let tasks: Vec<(usize, &mut [f32])> = rows
        .iter()
        .enumerate()
        .map(|(s, &row)| (s, targets[row as usize].take().expect("segment_sum: a row occurs twice")))
        .collect();
    tasks.into_par_iter().for_each(|(s, target)| {
        simd(
            #[inline(always)]
            || {
                for &i in &order[starts[s] as usize..starts[s + 1] as usize] {
                    for (o, v) in target.iter_mut().zip(&x[i as usize * n..][..n]) {
                        *o += v.to_f32();
                    }
                }
            },
        );
    });
}
