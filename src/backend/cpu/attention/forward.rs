//! `out = dropout(softmax(q k^T scale)) v`

use super::super::instructions::arch;
use super::super::math::{LANES, exp, max, sum_of};
use super::super::scratch;
use super::super::{Cpu, CpuElement};
use super::{Geometry, Operand, QUERY_BLOCK, Shared, Task, carve, transpose, with_tasks};
use crate::backend::{AttentionForward, Element};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

pub fn forward<E: CpuElement>(args: AttentionForward<Cpu<E>>) {
    args.check();
    let (hidden, batch) = (args.out.row_len(), args.batch);
    let geometry = Geometry::new(batch, hidden, args.n_heads, args.dropout);
    let qkv = args.qkv.as_slice();
    let lse = Shared::new(args.lse.as_mut_slice(), args.n_heads);
    let out = Shared::new(args.out.as_mut_slice(), hidden);
    with_tasks(batch.cu_seqlens().as_slice(), args.n_heads, |tasks, _| {
        tasks.par_iter().for_each(|&task| {
            let (n, d) = (geometry.longest(task), geometry.padded());
            let np = n.next_multiple_of(LANES);
            // q, k and v; the transpose of k; a block's scores, factors and result.
            let len = 3 * n * d + d * np + QUERY_BLOCK * (np + d) + np;
            scratch::with(len, |scratch| {
                arch().dispatch(Forward { geometry, task, qkv, lse, out, scratch });
            });
        });
    });
}

/// One task's work.
struct Forward<'a, E> {
    geometry: Geometry<'a>,
    task: Task,
    qkv: &'a [E],
    lse: Shared<f32>,
    out: Shared<E>,
    scratch: &'a mut [f32],
}

impl<E: Element> WithSimd for Forward<'_, E> {
    type Output = ();

    #[inline(always)]
    #[allow(unsafe_code)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (g, head, d) = (self.geometry, self.task.head, self.geometry.padded());
        for tokens in g.sequences(self.task) {
            let n = tokens.len();
            let np = n.next_multiple_of(LANES);
            let rest = &mut &mut *self.scratch;
            let [q, k, v] = [0; 3].map(|_| carve(rest, n * d));
            let (k_t, factors) = (carve(rest, d * np), carve(rest, np));
            for (part, (out, scale)) in [(&mut *q, g.scale), (k, 1.0), (v, 1.0)].into_iter().enumerate() {
                g.gather(self.qkv, 3 * g.hidden, &tokens, g.columns(part, head), scale, out);
            }
            transpose(k, d, g.head_size, k_t);
            for first in (0..n).step_by(QUERY_BLOCK) {
                let rows = QUERY_BLOCK.min(n - first);
                let rest = &mut &mut **rest;
                let (scores, result) = (carve(rest, rows * np), carve(rest, rows * d));
                let q = Operand::rows(&q[first * d..], d);
                q.times(simd, k_t, scores, [rows, np, g.head_size], false);
                let mut inverses = [0.0; QUERY_BLOCK];
                for (i, row) in scores.chunks_exact_mut(np).enumerate() {
                    let token = tokens.start + first + i;
                    let (lse, inverse) = softmax(row, n);
                    inverses[i] = inverse;
                    // SAFETY: this (token, head) belongs to this task alone.
                    unsafe { self.lse.row(token, head..head + 1)[0] = lse };
                    if let Some(dropout) = g.dropout {
                        dropout.factors(g.global_rows[token], head as u32, factors);
                        row.iter_mut().zip(factors.iter()).for_each(|(p, f)| *p *= f);
                    }
                }
                Operand::rows(scores, np).times(simd, v, result, [rows, d, n], false);
                for (i, row) in result.chunks_exact(d).enumerate() {
                    // SAFETY: this token's columns of this head belong to this task alone.
                    let out = unsafe { self.out.row(tokens.start + first + i, g.columns(0, head)) };
                    for (o, v) in out.iter_mut().zip(row) {
                        *o = E::from_f32(v * inverses[i]);
                    }
                }
            }
        }
    }
}

/// Turns `n` scores into their exponentials, up to a factor; what pads the row becomes zero. Returns the log-sum-exp of
/// the scores and the factor that makes the row a softmax.
#[inline(always)]
fn softmax(row: &mut [f32], n: usize) -> (f32, f32) {
    row[n..].fill(f32::NEG_INFINITY);
    let largest = max(row);
    row.iter_mut().for_each(|s| *s = exp(*s - largest));
    let total = sum_of(row, |p| p);
    (largest + total.ln(), 1.0 / total)
}
