//! bf16 products on a processor without AVX512-BF16: the operands are widened, which is exact, and multiplied in f32.

use super::super::element::{Matrix, Start};
use super::super::math::{load, simd};
use crate::backend::Element;
use half::bf16;
use rayon::prelude::*;
use std::cell::Cell;

/// Elements in one task of an elementwise pass.
const SPAN: usize = 1 << 14;

thread_local! {
    /// The widened operands, kept from call to call by the calling thread.
    static BUFFERS: Cell<[Vec<f32>; 2]> = const { Cell::new([const { Vec::new() }; 2]) };
}

/// `out = start + a b`, summed in f32 and rounded once. Panics on sizes that do not fit.
pub fn multiply<C: Element>(out: &mut [C], start: Start<C>, a: Matrix<bf16>, b: Matrix<bf16>) {
    let mut buffers = BUFFERS.take();
    let [wide_a, wide_b] = &mut buffers;
    super::f32::multiply(out, start, widened(a, wide_a), widened(b, wide_b));
    BUFFERS.set(buffers);
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
