//! Embedding tables + LayerNorm + dropout, and the tables' gradients by sorted segments.

use super::layer_norm::{Factors, RowBackward, blocks, statistics};
use super::math::{add_widened, load, simd, store};
use super::rows::{add_sums, block};
use super::scratch;
use super::{Cpu, CpuElement};
use crate::backend::{Element, EmbeddingBackward, EmbeddingForward, SegmentSum};
use rayon::prelude::*;

pub fn forward<E: CpuElement>(args: EmbeddingForward<Cpu<E>>) {
    let (_, n) = args.check();
    let (weight, bias) = (args.weight.as_slice(), args.bias.as_slice());
    let (word, position) = (args.word.as_slice(), args.position.as_slice());
    let token_type = &args.token_type.as_slice()[..n];
    let (dropout, eps) = (args.dropout, args.eps);
    let block = block(args.sum.rows());
    (
        args.sum.as_mut_slice().par_chunks_mut(block * n),
        args.out.as_mut_slice().par_chunks_mut(block * n),
        args.mean.as_mut_slice().par_chunks_mut(block),
        args.rstd.as_mut_slice().par_chunks_mut(block),
        args.batch.ids().as_slice().par_chunks(block),
        args.batch.positions().as_slice().par_chunks(block),
        args.batch.global_rows().as_slice().par_chunks(block),
    )
        .into_par_iter()
        .for_each(|(sum, out, mean, rstd, ids, positions, rows)| {
            simd(
                #[inline(always)]
                || {
                    let mut factors = Factors::new(dropout);
                    for i in 0..ids.len() {
                        let at = i * n..(i + 1) * n;
                        let (sum, out) = (&mut sum[at.clone()], &mut out[at]);
                        let w = &word[ids[i] as usize * n..][..n];
                        let p = &position[positions[i] as usize * n..][..n];
                        add_rows(w, p, token_type, sum);
                        let moments = statistics(sum, eps);
                        (mean[i], rstd[i]) = moments;
                        for (block, at) in blocks(n) {
                            let (weight, bias) = (&weight[at.clone()], &bias[at.clone()]);
                            let factors = factors.of(rows[i], block);
                            normalize_and_drop(&sum[at.clone()], moments, weight, bias, factors, &mut out[at]);
                        }
                    }
                },
            );
        });
}

/// `sum = word + position + token_type`
#[inline(always)]
fn add_rows<E: Element>(word: &[E], position: &[E], token_type: &[E], sum: &mut [E]) {
    for (((s, w), p), t) in sum.iter_mut().zip(word).zip(position).zip(token_type) {
        *s = E::from_f32(w.to_f32() + p.to_f32() + t.to_f32());
    }
}

/// `out = ((x - mean) rstd weight + bias) factors`
#[inline(always)]
fn normalize_and_drop<E: Element>(
    x: &[E],
    (mean, rstd): (f32, f32),
    weight: &[E],
    bias: &[E],
    factors: &[f32],
    out: &mut [E],
) {
    for ((((o, v), w), b), f) in out.iter_mut().zip(x).zip(weight).zip(bias).zip(factors) {
        *o = E::from_f32(((v.to_f32() - mean) * rstd * w.to_f32() + b.to_f32()) * f);
    }
}

pub fn backward<E: CpuElement>(args: EmbeddingBackward<Cpu<E>>) {
    let (rows, n) = args.check();
    let (weight, dropout, block) = (args.weight.as_slice(), args.dropout, block(rows));
    add_sums(rows, [args.d_weight, args.d_bias].map(|t| t.as_mut_slice()), |partials| {
        (
            args.d_sum.as_mut_slice().par_chunks_mut(block * n),
            args.d_out.as_slice().par_chunks(block * n),
            args.sum.as_slice().par_chunks(block * n),
            args.mean.as_slice().par_chunks(block),
            args.rstd.as_slice().par_chunks(block),
            args.batch.global_rows().as_slice().par_chunks(block),
            partials.par_chunks_mut(2 * n),
        )
            .into_par_iter()
            .for_each(|(d_sum, d_out, sum, mean, rstd, rows, partial)| {
                partial.fill(0.0);
                let (d_weight, d_bias) = partial.split_at_mut(n);
                scratch::with(3 * n, |wide| {
                    let (wide_weight, rest) = wide.split_at_mut(n);
                    let (x, d) = rest.split_at_mut(n);
                    simd(
                        #[inline(always)]
                        || {
                            load(weight, wide_weight);
                            let mut factors = Factors::new(dropout);
                            for i in 0..rows.len() {
                                let at = i * n..(i + 1) * n;
                                load(&sum[at.clone()], x);
                                load(&d_out[at.clone()], d);
                                for (block, at) in blocks(n) {
                                    let factors = factors.of(rows[i], block);
                                    d[at].iter_mut().zip(factors).for_each(|(d, f)| *d *= f);
                                }
                                let back = RowBackward::new((mean[i], rstd[i]), d, x, wide_weight, d_weight, d_bias);
                                for ((d, &x), &w) in d.iter_mut().zip(&*x).zip(&*wide_weight) {
                                    *d = back.gradient(*d, x, w);
                                }
                                store(d, &mut d_sum[at]);
                            }
                        },
                    );
                });
            });
    });
}

/// Fewest rows of a table's gradient in one task: most rows have only one or two tokens.
const ROWS: usize = 16;
/// Columns in one task of a row with many tokens.
const STRIP: usize = 64;
/// From this number on, tokens of one row are many: all tokens have the same type, and every text has the special
/// tokens.
const MANY: usize = 256;

pub fn segment_sum<E: CpuElement>(args: SegmentSum<Cpu<E>>) {
    let (_, n) = args.check();
    let x = args.x.as_slice();
    let segments = args.segments;
    let (order, starts, rows) = (segments.order().as_slice(), segments.starts().as_slice(), segments.rows().as_slice());
    assert!(rows.windows(2).all(|w| w[0] < w[1]), "segment_sum: rows ascend");
    assert!(rows.last().is_none_or(|&last| (last as usize) < args.out.rows()), "segment_sum: no such row");
    args.out.as_mut_slice().par_chunks_exact_mut(n).with_min_len(ROWS).enumerate().for_each(|(row, out)| {
        let Ok(s) = rows.binary_search(&(row as i32)) else { return };
        let tokens = &order[starts[s] as usize..starts[s + 1] as usize];
        if tokens.len() < MANY {
            return add_columns(out, tokens, x, n, 0);
        }
        let strips = out.par_chunks_mut(STRIP).enumerate();
        strips.for_each(|(i, out)| add_columns(out, tokens, x, n, i * STRIP));
    });
}

/// Adds the columns from `first` on of the rows `tokens` of `x`, which is `n` wide.
fn add_columns<E: CpuElement>(out: &mut [f32], tokens: &[i32], x: &[E], n: usize, first: usize) {
    simd(
        #[inline(always)]
        || {
            for &token in tokens {
                add_widened(out, &x[token as usize * n + first..][..out.len()]);
            }
        },
    );
}
