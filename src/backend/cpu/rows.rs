//! Plain passes over memory, and sums over rows that do not depend on the number of threads.

use super::math::{add_assign, load, simd, store};
use crate::backend::{Element, Value};
use rayon::prelude::*;

/// Rows in one task. Fixed, so that sums over rows are grouped alike whatever the number of threads.
pub const BLOCK: usize = 64;
/// Elements in one task of an elementwise pass.
const SPAN: usize = 1 << 15;

pub fn zero<T: Value>(x: &mut [T]) {
    x.par_chunks_mut(SPAN).for_each(|c| c.fill(T::zeroed()));
}

pub fn copy(x: &[f32], out: &mut [f32]) {
    out.par_chunks_mut(SPAN).zip(x.par_chunks(SPAN)).for_each(|(o, x)| o.copy_from_slice(x));
}

pub fn cast<E: Element>(x: &[f32], out: &mut [E]) {
    out.par_chunks_mut(SPAN).zip(x.par_chunks(SPAN)).for_each(|(o, x)| {
        simd(
            #[inline(always)]
            || store(x, o),
        )
    });
}

/// How many [`BLOCK`]s cover `rows`.
pub fn n_blocks(rows: usize) -> usize {
    rows.div_ceil(BLOCK)
}

/// `out += sum of the blocks' partial sums`, in block order.
pub fn add_partials(partials: &[f32], out: &mut [f32]) {
    simd(
        #[inline(always)]
        || partials.chunks_exact(out.len()).for_each(|p| add_assign(out, p)),
    );
}

/// `out[j] += sum_i x[i, j]`
pub fn column_sum<E: Element>(x: &[E], out: &mut [f32]) {
    let n = out.len();
    let mut partials = vec![0.0; n_blocks(x.len() / n) * n];
    partials.par_chunks_mut(n).zip(x.par_chunks(BLOCK * n)).for_each(|(p, rows)| {
        simd(
            #[inline(always)]
            || {
                let mut row = vec![0.0; n];
                for r in rows.chunks_exact(n) {
                    load(r, &mut row);
                    add_assign(p, &row);
                }
            },
        );
    });
    add_partials(&partials, out);
}
