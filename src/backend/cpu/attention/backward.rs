//! With P the softmax, M the dropout factors and O = (P M) V:
//! dV = (P M)^T dO, dS = P (M (dO V^T) - rowsum(dO O)), dQ = dS K scale, dK = dS^T Q scale.

use super::super::instructions::arch;
use super::super::math::{LANES, dot, exp};
use super::super::rows::add_partials;
use super::super::scratch;
use super::super::{Cpu, CpuElement};
use super::{Geometry, Operand, QUERY_BLOCK, Shared, Task, carve, transpose, with_tasks};
use crate::backend::{AttentionBackward, Element};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

pub fn backward<E: CpuElement>(args: AttentionBackward<Cpu<E>>) {
    args.check();
    let (hidden, batch) = (args.out.row_len(), args.batch);
    let geometry = Geometry::new(batch, hidden, args.n_heads, args.dropout);
    let inputs = Inputs {
        qkv: args.qkv.as_slice(),
        out: args.out.as_slice(),
        d_out: args.d_out.as_slice(),
        lse: args.lse.as_slice(),
        n_heads: args.n_heads,
    };
    let d_qkv = Shared::new(args.d_qkv.as_mut_slice(), 3 * hidden);
    with_tasks(batch.cu_seqlens().as_slice(), args.n_heads, |tasks, n_groups| {
        // Partial sums of the bias gradient, one per group.
        scratch::with(n_groups * 3 * hidden, |partials| {
            partials.fill(0.0);
            let d_bias = Shared::new(partials, 3 * hidden);
            tasks.par_iter().for_each(|&task| {
                let (n, d) = (geometry.longest(task), geometry.padded());
                let np = n.next_multiple_of(LANES);
                // Inputs and gradients of the sequence; two transposes; a block's two matrices of scores, and factors.
                let len = 7 * n * d + 2 * d * np + 2 * QUERY_BLOCK * np + np;
                scratch::with(len, |scratch| {
                    arch().dispatch(Backward { geometry, task, inputs, d_qkv, d_bias, scratch });
                });
            });
            add_partials(partials, 3 * hidden, 0, args.d_bias.as_mut_slice());
        });
    });
}

#[derive(Clone, Copy)]
struct Inputs<'a, E> {
    qkv: &'a [E],
    out: &'a [E],
    d_out: &'a [E],
    lse: &'a [f32],
    n_heads: usize,
}

/// One task's work.
struct Backward<'a, E> {
    geometry: Geometry<'a>,
    task: Task,
    inputs: Inputs<'a, E>,
    d_qkv: Shared<E>,
    d_bias: Shared<f32>,
    scratch: &'a mut [f32],
}

/// One head of one sequence: `(n, padded)`, or the transpose of that, with `q` scaled.
struct Head<'a> {
    q: &'a mut [f32],
    k: &'a mut [f32],
    k_t: &'a mut [f32],
    v_t: &'a mut [f32],
    out: &'a mut [f32],
    d_out: &'a mut [f32],
    d_q: &'a mut [f32],
    d_k: &'a mut [f32],
    d_v: &'a mut [f32],
}

impl<E: Element> WithSimd for Backward<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let scratch = std::mem::take(&mut self.scratch);
        for tokens in self.geometry.sequences(self.task) {
            let rest = &mut &mut *scratch;
            let mut head = self.load(&tokens, rest);
            for first in (0..tokens.len()).step_by(QUERY_BLOCK) {
                let rows = first..tokens.len().min(first + QUERY_BLOCK);
                self.block(simd, &tokens, rows, &mut head, rest);
            }
            self.store(&tokens, &head);
        }
    }
}

impl<E: Element> Backward<'_, E> {
    #[inline(always)]
    fn load<'a>(&self, tokens: &Range<usize>, rest: &mut &'a mut [f32]) -> Head<'a> {
        let (g, x, head) = (self.geometry, self.inputs, self.task.head);
        let (n, d) = (tokens.len(), g.padded());
        let np = n.next_multiple_of(LANES);
        let [q, k, out, d_out, d_q, d_k, d_v] = [0; 7].map(|_| carve(rest, n * d));
        let [k_t, v_t] = [0; 2].map(|_| carve(rest, d * np));
        g.gather(x.qkv, 3 * g.hidden, tokens, g.columns(0, head), g.scale, q);
        g.gather(x.qkv, 3 * g.hidden, tokens, g.columns(1, head), 1.0, k);
        // The values are needed only as a transpose; until then they are kept in the memory of their gradient.
        g.gather(x.qkv, 3 * g.hidden, tokens, g.columns(2, head), 1.0, d_v);
        g.gather(x.out, g.hidden, tokens, g.columns(0, head), 1.0, out);
        g.gather(x.d_out, g.hidden, tokens, g.columns(0, head), 1.0, d_out);
        transpose(k, d, g.head_size, k_t);
        transpose(d_v, d, g.head_size, v_t);
        Head { q, k, k_t, v_t, out, d_out, d_q, d_k, d_v }
    }

    /// Gradients that the query rows `rows` give: their own, and their share of the keys' and values'.
    #[inline(always)]
    fn block<S: Simd>(&self, simd: S, tokens: &Range<usize>, rows: Range<usize>, h: &mut Head, scratch: &mut [f32]) {
        let (g, x, head) = (self.geometry, self.inputs, self.task.head);
        let (n, d, m) = (tokens.len(), g.padded(), rows.len());
        let np = n.next_multiple_of(LANES);
        let at = rows.start * d..rows.end * d;
        let (q, d_out, out) = (&h.q[at.clone()], &h.d_out[at.clone()], &h.out[at.clone()]);
        let rest = &mut &mut *scratch;
        let (p, d_p, factors) = (carve(rest, m * np), carve(rest, m * np), carve(rest, np));
        Operand::rows(q, d).times(simd, h.k_t, p, [m, np, g.head_size], false);
        Operand::rows(d_out, d).times(simd, h.v_t, d_p, [m, np, g.head_size], false);
        for (i, (p, d_p)) in p.chunks_exact_mut(np).zip(d_p.chunks_exact_mut(np)).enumerate() {
            let token = tokens.start + rows.start + i;
            let lse = x.lse[token * x.n_heads + head];
            let delta = dot(&out[i * d..(i + 1) * d], &d_out[i * d..(i + 1) * d]);
            p[n..].fill(f32::NEG_INFINITY);
            if let Some(dropout) = g.dropout {
                dropout.factors(g.global_rows[token], head as u32, factors);
                for ((p, d_p), &factor) in p.iter_mut().zip(d_p).zip(factors.iter()) {
                    let soft = exp(*p - lse);
                    *d_p = soft * (*d_p * factor - delta);
                    *p = soft * factor;
                }
            } else {
                for (p, d_p) in p.iter_mut().zip(d_p) {
                    *p = exp(*p - lse);
                    *d_p = *p * (*d_p - delta);
                }
            }
        }
        let is_later = rows.start > 0;
        Operand::transposed(p, np).times(simd, d_out, h.d_v, [n, d, m], is_later);
        Operand::transposed(d_p, np).times(simd, q, h.d_k, [n, d, m], is_later);
        Operand::rows(d_p, np).times(simd, h.k, &mut h.d_q[at], [m, d, n], false);
    }

    #[inline(always)]
    #[allow(unsafe_code)]
    fn store(&self, tokens: &Range<usize>, h: &Head) {
        let (g, Task { group, head, .. }) = (self.geometry, self.task);
        for (part, (gradient, scale)) in [(&*h.d_q, g.scale), (h.d_k, 1.0), (h.d_v, 1.0)].into_iter().enumerate() {
            let columns = g.columns(part, head);
            // SAFETY: this group's sums for this head and part belong to this task alone.
            let d_bias = unsafe { self.d_bias.row(group, columns.clone()) };
            for (token, row) in tokens.clone().zip(gradient.chunks_exact(g.padded())) {
                // SAFETY: this token's columns of this head and part belong to this task alone.
                let target = unsafe { self.d_qkv.row(token, columns.clone()) };
                for ((target, sum), v) in target.iter_mut().zip(d_bias.iter_mut()).zip(row) {
                    *sum += v * scale;
                    *target = E::from_f32(v * scale);
                }
            }
        }
    }
}
