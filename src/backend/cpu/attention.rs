//! Self-attention of a packed batch, one (sequence, head) a task, in blocks of query rows: the scores of a block are
//! all that is ever held.

use super::element::Matrix;
use super::gemm::multiply_f32;
use super::math::{dot, exp, max, simd, sum_of};
use super::{Cpu, CpuElement};
use crate::backend::{AttentionBackward, AttentionForward, Dropout, Element};
use rayon::prelude::*;
use std::ops::Range;

/// Query rows whose scores are held at once.
const QUERY_BLOCK: usize = 64;

/// A row-major array of which many tasks write disjoint parts: one sequence's rows, one head's columns.
#[derive(Clone, Copy)]
struct Shared<T> {
    start: *mut T,
    len: usize,
    width: usize,
}

#[allow(unsafe_code)]
// SAFETY: tasks touch disjoint elements (see `Shared::row`), so sending the pointer to other threads is sound.
unsafe impl<T: Send> Send for Shared<T> {}
#[allow(unsafe_code)]
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn new(values: &mut [T], width: usize) -> Self {
        Shared { start: values.as_mut_ptr(), len: values.len(), width }
    }

    /// `columns` of one row.
    ///
    /// # Safety
    /// The array must be alive and no two tasks may ask for the same element.
    #[allow(unsafe_code, clippy::mut_from_ref)]
    unsafe fn row(&self, row: usize, columns: Range<usize>) -> &mut [T] {
        assert!(columns.end <= self.width && (row + 1) * self.width <= self.len, "attention: row out of range");
        // SAFETY: in range by the assertion; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.width + columns.start), columns.len()) }
    }
}

/// One sequence and one head.
#[derive(Clone, Copy)]
struct Task {
    /// First token of the sequence.
    start: usize,
    /// Tokens of the sequence.
    len: usize,
    head: usize,
}

/// Every (sequence, head), longest first so that the last tasks to finish are short.
fn tasks(cu_seqlens: &[i32], n_heads: usize) -> Vec<Task> {
    // What makes tasks disjoint, and so the writes through `Shared` sound.
    assert!(cu_seqlens.is_sorted(), "attention: sequences overlap");
    let mut tasks: Vec<Task> = cu_seqlens
        .windows(2)
        .flat_map(|w| (0..n_heads).map(move |head| Task { start: w[0] as usize, len: (w[1] - w[0]) as usize, head }))
        .collect();
    tasks.sort_by_key(|t| std::cmp::Reverse(t.len));
    tasks
}

/// Shape of the problem, and how a task finds its columns.
#[derive(Clone, Copy)]
struct Geometry<'a> {
    hidden: usize,
    head_size: usize,
    scale: f32,
    dropout: Option<Dropout>,
    global_rows: &'a [i32],
}

impl<'a> Geometry<'a> {
    fn new(hidden: usize, n_heads: usize, dropout: Option<Dropout>, global_rows: &'a [i32]) -> Self {
        let head_size = hidden / n_heads;
        Geometry { hidden, head_size, scale: 1.0 / (head_size as f32).sqrt(), dropout, global_rows }
    }

    /// The head's columns within a part of width `hidden`.
    fn columns(&self, part: usize, head: usize) -> Range<usize> {
        let first = part * self.hidden + head * self.head_size;
        first..first + self.head_size
    }

    /// One head's part (0 query, 1 key, 2 value) of `len` rows of an array `width` wide, in f32, contiguous.
    #[inline(always)]
    fn gather<E: Element>(&self, x: &[E], width: usize, task: Task, part: usize) -> Vec<f32> {
        let columns = self.columns(part, task.head);
        let mut out = Vec::with_capacity(task.len * self.head_size);
        for row in task.start..task.start + task.len {
            out.extend(x[row * width..][columns.clone()].iter().map(|v| v.to_f32()));
        }
        out
    }
}

/// `out = [out +] op(a) op(b)` for one task's small matrices: no threads within a task.
fn product(out: &mut [f32], accumulate: bool, a: Matrix<f32>, b: Matrix<f32>) {
    multiply_f32(out, accumulate, a, b, gemm::Parallelism::None);
}

pub fn forward<E: CpuElement>(args: AttentionForward<Cpu<E>>) {
    let hidden = args.out.row_len();
    let geometry = Geometry::new(hidden, args.n_heads, args.dropout, args.batch.global_rows.as_slice());
    let qkv = args.qkv.as_slice();
    let lse = Shared::new(args.lse.as_mut_slice(), args.n_heads);
    let out = Shared::new(args.out.as_mut_slice(), hidden);
    tasks(args.batch.cu_seqlens.as_slice(), args.n_heads).into_par_iter().for_each(|task| {
        simd(
            #[inline(always)]
            || forward_task(geometry, task, qkv, lse, out),
        );
    });
}

#[inline(always)]
#[allow(unsafe_code)]
fn forward_task<E: Element>(g: Geometry, task: Task, qkv: &[E], lse: Shared<f32>, out: Shared<E>) {
    let (n, d) = (task.len, g.head_size);
    let [q, k, v] = [0, 1, 2].map(|part| g.gather(qkv, 3 * g.hidden, task, part));
    let (mut scores, mut result) = (vec![0.0; QUERY_BLOCK.min(n) * n], vec![0.0; QUERY_BLOCK.min(n) * d]);
    let mut factors = vec![0.0; n];
    for first in (0..n).step_by(QUERY_BLOCK) {
        let rows = QUERY_BLOCK.min(n - first);
        let (scores, result) = (&mut scores[..rows * n], &mut result[..rows * d]);
        let q = Matrix::new(&q[first * d..(first + rows) * d], rows, d, false);
        product(scores, false, q, Matrix::new(&k, n, d, true));
        for (i, row) in scores.chunks_exact_mut(n).enumerate() {
            let token = task.start + first + i;
            let largest = max(row);
            row.iter_mut().for_each(|s| *s = exp((*s - largest) * g.scale));
            let total = sum_of(row, |p| p);
            // SAFETY: this (token, head) belongs to this task alone.
            unsafe { lse.row(token, task.head..task.head + 1)[0] = largest * g.scale + total.ln() };
            let inverse = 1.0 / total;
            row.iter_mut().for_each(|p| *p *= inverse);
            drop_row(g, token, task.head, row, &mut factors);
        }
        product(result, false, Matrix::new(scores, rows, n, false), Matrix::new(&v, n, d, false));
        for (i, row) in result.chunks_exact(d).enumerate() {
            // SAFETY: this token's columns of this head belong to this task alone.
            let out = unsafe { out.row(task.start + first + i, g.columns(0, task.head)) };
            super::math::store(row, out);
        }
    }
}

#[inline(always)]
fn drop_row(g: Geometry, token: usize, head: usize, row: &mut [f32], factors: &mut [f32]) {
    if let Some(dropout) = g.dropout {
        dropout.factors(g.global_rows[token], head as u32, factors);
        row.iter_mut().zip(factors.iter()).for_each(|(p, f)| *p *= f);
    }
}

pub fn backward<E: CpuElement>(args: AttentionBackward<Cpu<E>>) {
    let hidden = args.out.row_len();
    let geometry = Geometry::new(hidden, args.n_heads, args.dropout, args.batch.global_rows.as_slice());
    let inputs = BackwardInputs {
        qkv: args.qkv.as_slice(),
        out: args.out.as_slice(),
        d_out: args.d_out.as_slice(),
        lse: args.lse.as_slice(),
        n_heads: args.n_heads,
    };
    let d_qkv = Shared::new(args.d_qkv.as_mut_slice(), 3 * hidden);
    tasks(args.batch.cu_seqlens.as_slice(), args.n_heads).into_par_iter().for_each(|task| {
        simd(
            #[inline(always)]
            || backward_task(geometry, task, inputs, d_qkv),
        );
    });
}

#[derive(Clone, Copy)]
struct BackwardInputs<'a, E> {
    qkv: &'a [E],
    out: &'a [E],
    d_out: &'a [E],
    lse: &'a [f32],
    n_heads: usize,
}

/// With P the softmax, M the dropout factors and O = (P M) V:
/// dV = (P M)^T dO, dS = P (M (dO V^T) - rowsum(dO O)), dQ = dS K scale, dK = dS^T Q scale.
#[inline(always)]
#[allow(unsafe_code)]
fn backward_task<E: Element>(g: Geometry, task: Task, x: BackwardInputs<E>, d_qkv: Shared<E>) {
    let (n, d) = (task.len, g.head_size);
    let [q, k, v] = [0, 1, 2].map(|part| g.gather(x.qkv, 3 * g.hidden, task, part));
    let [out, d_out] = [x.out, x.d_out].map(|t| g.gather(t, g.hidden, task, 0));
    let [mut d_q, mut d_k, mut d_v] = [(); 3].map(|()| vec![0.0; n * d]);
    let block = QUERY_BLOCK.min(n) * n;
    let (mut p, mut d_p, mut factors) = (vec![0.0; block], vec![0.0; block], vec![1.0; n]);
    for first in (0..n).step_by(QUERY_BLOCK) {
        let rows = QUERY_BLOCK.min(n - first);
        let (p, d_p, at) = (&mut p[..rows * n], &mut d_p[..rows * n], first * d..(first + rows) * d);
        let (q, out, d_out) = (&q[at.clone()], &out[at.clone()], &d_out[at.clone()]);
        product(p, false, Matrix::new(q, rows, d, false), Matrix::new(&k, n, d, true));
        product(d_p, false, Matrix::new(d_out, rows, d, false), Matrix::new(&v, n, d, true));
        for i in 0..rows {
            let (p, d_p) = (&mut p[i * n..(i + 1) * n], &mut d_p[i * n..(i + 1) * n]);
            let token = task.start + first + i;
            let lse = x.lse[token * x.n_heads + task.head];
            let delta = dot(&out[i * d..(i + 1) * d], &d_out[i * d..(i + 1) * d]);
            if let Some(dropout) = g.dropout {
                dropout.factors(g.global_rows[token], task.head as u32, &mut factors);
            }
            for ((p, d_p), &factor) in p.iter_mut().zip(d_p).zip(&factors) {
                let soft = exp(*p * g.scale - lse);
                *d_p = soft * (*d_p * factor - delta) * g.scale;
                *p = soft * factor;
            }
        }
        product(&mut d_v, true, Matrix::new(p, rows, n, true), Matrix::new(d_out, rows, d, false));
        product(&mut d_k, true, Matrix::new(d_p, rows, n, true), Matrix::new(q, rows, d, false));
        product(&mut d_q[at], false, Matrix::new(d_p, rows, n, false), Matrix::new(&k, n, d, false));
    }
    for (part, gradient) in [d_q, d_k, d_v].iter().enumerate() {
        for (i, row) in gradient.chunks_exact(d).enumerate() {
            // SAFETY: this token's columns of this head and part belong to this task alone.
            let target = unsafe { d_qkv.row(task.start + i, g.columns(part, task.head)) };
            super::math::store(row, target);
        }
    }
}
