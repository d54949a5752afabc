//! Self-attention of a packed batch. A task takes one head of one or a few sequences, in blocks of query rows. Only the
//! scores of one block are held, so that a task stays within the first two caches.

mod backward;
mod forward;

pub use backward::backward;
pub use forward::forward;

use super::gemm::SmallProduct;
use super::math::LANES;
use super::{Cpu, CpuElement};
use crate::backend::{Dropout, Element, Packed};
use pulp::Simd;
use std::cell::Cell;
use std::ops::Range;

/// Query rows whose scores are held at once.
const QUERY_BLOCK: usize = 32;
/// A task takes sequences until it has this many tokens, so that short sequences are worth a task.
const TASK_TOKENS: usize = 64;

thread_local! {
    /// Memory for the list of tasks, kept by the thread that makes it.
    static TASKS: Cell<Vec<Task>> = const { Cell::new(Vec::new()) };
}

/// A row-major array that many tasks write to, each a disjoint part: some rows, the columns of one head.
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
    #[inline(always)]
    #[allow(unsafe_code, clippy::mut_from_ref)]
    unsafe fn row(&self, row: usize, columns: Range<usize>) -> &mut [T] {
        assert!(columns.end <= self.width && (row + 1) * self.width <= self.len, "attention: row out of range");
        // SAFETY: in range by the assertion; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.width + columns.start), columns.len()) }
    }
}

/// One head of neighbouring sequences.
#[derive(Clone, Copy)]
struct Task {
    /// Number of the group, of those that the batch is cut into.
    group: usize,
    /// First sequence, and one past the last.
    sequences: (usize, usize),
    head: usize,
    /// Estimate of the task's time, in any unit.
    cost: usize,
}

/// Calls `f` with all tasks and the number of groups. The longest tasks come first, so that the last ones to finish are
/// short.
fn with_tasks(cu_seqlens: &[i32], n_heads: usize, f: impl FnOnce(&[Task], usize)) {
    // Sorted starts make tasks disjoint, and so the writes through `Shared` sound.
    assert!(cu_seqlens.is_sorted(), "attention: sequences overlap");
    let mut tasks = TASKS.take();
    tasks.clear();
    let n_seqs = cu_seqlens.len() - 1;
    let (mut first, mut group, mut cost) = (0, 0, 0);
    for s in 0..n_seqs {
        let len = (cu_seqlens[s + 1] - cu_seqlens[s]) as usize;
        cost += len * (len + LANES);
        if s + 1 == n_seqs || (cu_seqlens[s + 1] - cu_seqlens[first]) as usize >= TASK_TOKENS {
            tasks.extend((0..n_heads).map(|head| Task { group, sequences: (first, s + 1), head, cost }));
            (first, group, cost) = (s + 1, group + 1, 0);
        }
    }
    tasks.sort_unstable_by_key(|t| (std::cmp::Reverse(t.cost), t.group, t.head));
    f(&tasks, group);
    TASKS.set(tasks);
}

/// Shape of the problem, and how a task finds its rows and columns.
#[derive(Clone, Copy)]
struct Geometry<'a> {
    hidden: usize,
    head_size: usize,
    scale: f32,
    dropout: Option<Dropout>,
    global_rows: &'a [i32],
    cu_seqlens: &'a [i32],
}

impl<'a> Geometry<'a> {
    fn new<E: CpuElement>(batch: Packed<'a, Cpu<E>>, hidden: usize, n_heads: usize, dropout: Option<Dropout>) -> Self {
        let head_size = hidden / n_heads;
        Geometry {
            hidden,
            head_size,
            scale: 1.0 / (head_size as f32).sqrt(),
            dropout,
            global_rows: batch.global_rows().as_slice(),
            cu_seqlens: batch.cu_seqlens().as_slice(),
        }
    }

    /// Padded length of a row of a head.
    fn padded(&self) -> usize {
        self.head_size.next_multiple_of(LANES)
    }

    /// The tokens of a task's sequences, one sequence after another.
    #[inline(always)]
    fn sequences(&self, task: Task) -> impl Iterator<Item = Range<usize>> + use<'a> {
        let (first, last) = task.sequences;
        self.cu_seqlens[first..=last].windows(2).map(|w| w[0] as usize..w[1] as usize)
    }

    /// The longest of a task's sequences.
    #[inline(always)]
    fn longest(&self, task: Task) -> usize {
        self.sequences(task).map(|tokens| tokens.len()).max().unwrap_or(0)
    }

    /// The head's columns within a part of width `hidden`.
    #[inline(always)]
    fn columns(&self, part: usize, head: usize) -> Range<usize> {
        let first = part * self.hidden + head * self.head_size;
        first..first + self.head_size
    }

    /// `out (tokens, padded)` = `columns` of an array `width` wide, in f32, times `scale`; the padding is zero.
    #[inline(always)]
    fn gather<E: Element>(
        &self,
        x: &[E],
        width: usize,
        tokens: &Range<usize>,
        columns: Range<usize>,
        scale: f32,
        out: &mut [f32],
    ) {
        let rows = x[tokens.start * width..tokens.end * width].chunks_exact(width);
        for (out, row) in out.chunks_exact_mut(self.padded()).zip(rows) {
            let (out, padding) = out.split_at_mut(self.head_size);
            for (o, v) in out.iter_mut().zip(&row[columns.clone()]) {
                *o = v.to_f32() * scale;
            }
            padding.fill(0.0);
            prefetch(&row[columns.end..]);
        }
    }
}

/// Fetches the next head's part of a row into the second-level cache. The next task usually reads it, and the stride
/// from row to row is longer than hardware prefetchers look ahead.
#[inline(always)]
#[allow(unsafe_code)]
fn prefetch<E>(rest: &[E]) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..2 {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch may name any address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(rest.as_ptr().cast::<i8>().wrapping_add(64 * line)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = rest;
}

/// `out (columns, padded rows)` = the transpose of `x`, whose rows are `width` long; the padding is zero.
#[inline(always)]
fn transpose(x: &[f32], width: usize, columns: usize, out: &mut [f32]) {
    let rows = x.len() / width;
    let padded = rows.next_multiple_of(LANES);
    for (column, out) in out.chunks_exact_mut(padded).take(columns).enumerate() {
        let (blocks, _) = out.as_chunks_mut::<LANES>();
        for (block, out) in blocks.iter_mut().enumerate() {
            let rows = &x[block * LANES * width..x.len().min((block + 1) * LANES * width)];
            if rows.len() == LANES * width {
                *out = std::array::from_fn(|i| rows[i * width + column]);
            } else {
                *out = std::array::from_fn(|i| rows.get(i * width + column).copied().unwrap_or(0.0));
            }
        }
    }
}

/// Splits the next `len` elements off `rest`.
#[inline(always)]
fn carve<'a>(rest: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    let (head, tail) = std::mem::take(rest).split_at_mut(len);
    *rest = tail;
    head
}

/// A small row-major matrix, or the transpose of one.
#[derive(Clone, Copy)]
struct Operand<'a> {
    values: &'a [f32],
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Operand<'a> {
    #[inline(always)]
    fn rows(values: &'a [f32], width: usize) -> Self {
        Operand { values, row_stride: width, column_stride: 1 }
    }

    #[inline(always)]
    fn transposed(values: &'a [f32], width: usize) -> Self {
        Operand { values, row_stride: 1, column_stride: width }
    }

    /// `out (m, n) = [out +] self b`, with `k` columns of `self`.
    #[inline(always)]
    fn times<S: Simd>(self, simd: S, b: &[f32], out: &mut [f32], sizes: [usize; 3], accumulate: bool) {
        let Operand { values: a, row_stride, column_stride } = self;
        simd.vectorize(SmallProduct { a, row_stride, column_stride, b, out, sizes, accumulate });
    }
}
