//! Plain passes over memory, and sums over rows that do not depend on the number of threads.

use super::math::{add_assign, add_widened, simd, store};
use super::scratch;
use crate::backend::Element;
use rayon::prelude::*;

/// Fewest rows in one task.
const BLOCK: usize = 64;
/// Most blocks with partial sums: enough to balance over many threads.
const MOST_BLOCKS: usize = 64;
/// Columns of a sum that one task adds up over all blocks.
const STRIP: usize = 512;
/// Elements in one task of an elementwise pass.
const SPAN: usize = 1 << 15;

pub fn zero(x: &mut [f32]) {
    x.par_chunks_mut(SPAN).for_each(|c| c.fill(0.0));
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

/// `out[i] = [scale[i]] x[rows[i]]` for rows of `width` elements, rounded.
pub fn gather<E: Element>(x: &[f32], rows: &[i32], scale: Option<&[f32]>, width: usize, out: &mut [E]) {
    out.par_chunks_mut(BLOCK * width).zip(rows.par_chunks(BLOCK)).enumerate().for_each(|(block, (out, rows))| {
        simd(
            #[inline(always)]
            || {
                for (i, (out, &row)) in out.chunks_exact_mut(width).zip(rows).enumerate() {
                    let x = &x[row as usize * width..][..width];
                    match scale {
                        None => store(x, out),
                        Some(scale) => {
                            let scale = scale[block * BLOCK + i];
                            out.iter_mut().zip(x).for_each(|(out, x)| *out = E::from_f32(scale * x));
                        }
                    }
                }
            },
        );
    });
}

/// `out[rows[i]] = [scale[i]] x[i]` for rows of `width` elements; no row number occurs twice.
pub fn scatter(x: &[f32], scale: Option<&[f32]>, rows: &[i32], width: usize, out: &mut [f32]) {
    for (i, (x, &row)) in x.chunks_exact(width).zip(rows).enumerate() {
        let out = &mut out[row as usize * width..][..width];
        match scale {
            None => out.copy_from_slice(x),
            Some(scale) => out.iter_mut().zip(x).for_each(|(out, x)| *out = scale[i] * x),
        }
    }
}

/// Rows in one task of an operation on `rows` rows. A function of the shape alone, so that sums over rows are grouped
/// alike whatever the number of threads.
pub fn block(rows: usize) -> usize {
    rows.div_ceil(MOST_BLOCKS).max(BLOCK)
}

/// Sums over `rows` rows in two levels. `f` writes one row of partial sums for each [`block`], as long as all of `out`
/// together; the blocks are then added to `out` in their order.
pub fn add_sums<const N: usize>(rows: usize, out: [&mut [f32]; N], f: impl FnOnce(&mut [f32])) {
    let width: usize = out.iter().map(|o| o.len()).sum();
    scratch::with(rows.div_ceil(block(rows)) * width, |partials| {
        f(partials);
        let mut first = 0;
        for out in out {
            add_partials(partials, width, first, out);
            first += out.len();
        }
    });
}

/// `out += sum of the rows of partials`, in order; each row is `width` long and read from column `first` on.
pub fn add_partials(partials: &[f32], width: usize, first: usize, out: &mut [f32]) {
    out.par_chunks_mut(STRIP).enumerate().for_each(|(i, out)| {
        let columns = first + i * STRIP..first + i * STRIP + out.len();
        simd(
            #[inline(always)]
            || partials.chunks_exact(width).for_each(|p| add_assign(out, &p[columns.clone()])),
        );
    });
}

/// `out[j] += sum_i x[i, j]`
pub fn column_sum<E: Element>(x: &[E], out: &mut [f32]) {
    let n = out.len();
    let rows = x.len() / n;
    add_sums(rows, [out], |partials| {
        partials.par_chunks_mut(n).zip(x.par_chunks(block(rows) * n)).for_each(|(p, rows)| {
            simd(
                #[inline(always)]
                || {
                    p.fill(0.0);
                    rows.chunks_exact(n).for_each(|row| add_widened(p, row));
                },
            );
        });
    });
}
