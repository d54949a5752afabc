//! bf16 products on a processor without AVX512-BF16: the operands are widened, which is exact, and multiplied in f32.

use super::super::element::{Matrix, Start};
use super::super::math::{load, simd};
use super::f32::multiply_f32;
use crate::backend::Element;
use half::bf16;
use rayon::prelude::*;
use std::cell::Cell;

/// Elements in one task of an elementwise pass.
const SPAN: usize = 1 << 14;

thread_local! {
    /// The widened operands and the sums, kept from call to call by the thread that called.
    static BUFFERS: Cell<[Vec<f32>; 3]> = const { Cell::new([const { Vec::new() }; 3]) };
}

/// `out = start + a b`, summed in f32 and rounded once. Panics on sizes that do not fit.
pub fn multiply<C: Element>(out: &mut [C], start: Start<C>, a: Matrix<bf16>, b: Matrix<bf16>) {
    super::check(out, start, &a, &b);
    if out.is_empty() {
        return;
    }
    let mut buffers = BUFFERS.take();
    let [wide_a, wide_b, sums] = &mut buffers;
    let (a, b) = (widened(a, wide_a), widened(b, wide_b));
    sums.resize(out.len(), 0.0);
    multiply_f32(sums, false, a, b);
    let n = b.columns;
    let rows = SPAN.div_ceil(n) * n;
    out.par_chunks_mut(rows).zip(sums.par_chunks(rows)).for_each(|(out, sums)| {
        simd(
            #[inline(always)]
            || {
                for (out, sums) in out.chunks_exact_mut(n).zip(sums.chunks_exact(n)) {
                    finish(out, start, sums);
                }
            },
        )
    });
    BUFFERS.set(buffers);
}

/// One row: adds what the product starts from, and rounds.
#[inline(always)]
fn finish<C: Element>(out: &mut [C], start: Start<C>, sums: &[f32]) {
    match start {
        Start::Zero => out.iter_mut().zip(sums).for_each(|(o, &s)| *o = C::from_f32(s)),
        Start::Out => out.iter_mut().zip(sums).for_each(|(o, &s)| *o = C::from_f32(s + o.to_f32())),
        Start::Bias(bias) => {
            for ((o, &s), b) in out.iter_mut().zip(sums).zip(bias) {
                *o = C::from_f32(s + b.to_f32());
            }
        }
    }
}

fn widened<'a>(x: Matrix<bf16>, wide: &'a mut Vec<f32>) -> Matrix<'a, f32> {
    wide.resize(x.data.len(), 0.0);
    wide.par_chunks_mut(SPAN).zip(x.data.par_chunks(SPAN)).for_each(|(out, x)| {
        simd(
            #[inline(always)]
            || load(x, out),
        )
    });
    Matrix { data: wide, rows: x.rows, columns: x.columns, row_stride: x.row_stride, column_stride: x.column_stride }
}
