//! Distribution of the rows of several arrays to tasks, without a list of tasks.

use rayon::join;
use std::ops::Range;

/// Something that can be cut in two at a row.
pub trait Split: Sized + Send {
    /// Rows before `at`, and the others.
    fn split(self, at: usize) -> (Self, Self);
}

/// Rows of `width` elements each; the last may be shorter.
pub struct RowsMut<'a, T> {
    pub values: &'a mut [T],
    pub width: usize,
}

impl<'a, T> RowsMut<'a, T> {
    pub fn new(values: &'a mut [T], width: usize) -> Self {
        RowsMut { values, width }
    }

    #[inline(always)]
    pub fn row(&mut self, row: usize) -> &mut [T] {
        &mut self.values[row * self.width..][..self.width]
    }
}

impl<T: Send> Split for RowsMut<'_, T> {
    fn split(self, at: usize) -> (Self, Self) {
        let (left, right) = self.values.split_at_mut((at * self.width).min(self.values.len()));
        (RowsMut::new(left, self.width), RowsMut::new(right, self.width))
    }
}

impl<S: Split> Split for Option<S> {
    fn split(self, at: usize) -> (Self, Self) {
        self.map(|s| s.split(at)).unzip()
    }
}

impl<A: Split, B: Split> Split for (A, B) {
    fn split(self, at: usize) -> (Self, Self) {
        let ((a, right_a), (b, right_b)) = (self.0.split(at), self.1.split(at));
        ((a, b), (right_a, right_b))
    }
}

/// A task: a range of all items, the rows that they concern, and the first row of the task's part of the state.
pub struct Task<S> {
    pub items: Range<usize>,
    pub first_row: usize,
    pub state: S,
}

/// Runs `f` on tasks of at most `most` of the items `0..n`. Item `i` concerns the row `row(i)` of `state`; `row`
/// ascends. The cut depends on `n` and `most` alone.
pub fn for_rows<S: Split>(
    n: usize,
    most: usize,
    row: impl Fn(usize) -> usize + Sync,
    state: S,
    f: impl Fn(Task<S>) + Sync,
) {
    run(Task { items: 0..n, first_row: 0, state }, most, &row, &f);
}

fn run<S: Split>(task: Task<S>, most: usize, row: &(impl Fn(usize) -> usize + Sync), f: &(impl Fn(Task<S>) + Sync)) {
    let Task { items, first_row, state } = task;
    if items.len() <= most {
        return f(Task { items, first_row, state });
    }
    let middle = items.start.midpoint(items.end);
    let cut = row(middle);
    let (left, right) = state.split(cut - first_row);
    join(
        || run(Task { items: items.start..middle, first_row, state: left }, most, row, f),
        || run(Task { items: middle..items.end, first_row: cut, state: right }, most, row, f),
    );
}
