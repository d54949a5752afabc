//! f32 products: crate `gemm`, which packs and blocks for this processor's caches.

use super::super::element::{Matrix, Start};
use rayon::prelude::*;

/// `out = start + a b` on all threads.
pub fn multiply(out: &mut [f32], start: Start<f32>, a: Matrix<f32>, b: Matrix<f32>) {
    super::check(out, start, &a, &b);
    if let Start::Bias(bias) = start {
        let n = bias.len().max(1);
        out.par_chunks_mut(64 * n).for_each(|rows| {
            rows.chunks_mut(n).for_each(|row| row.copy_from_slice(bias));
        });
    }
    multiply_f32(out, !matches!(start, Start::Zero), a, b);
}

/// `out (a.rows, b.columns) = [out +] a b` on all threads.
#[allow(unsafe_code)]
pub fn multiply_f32(out: &mut [f32], accumulate: bool, a: Matrix<f32>, b: Matrix<f32>) {
    assert_eq!(a.columns, b.rows, "gemm: inner sizes");
    assert_eq!(out.len(), a.rows * b.columns, "gemm: size of the result");
    assert!(a.fits() && b.fits(), "gemm: an operand reaches past its slice");
    let (m, n, k) = (a.rows, b.columns, a.columns);
    if m == 0 || n == 0 {
        return;
    }
    // SAFETY: gemm reads `a` at i * row_stride + j * column_stride for i < m and j < k, and `b` likewise for (k, n):
    // `fits` checked both. It reads and writes `out` at i * n + j for i < m and j < n, which `len` covers; `out` is
    // exclusive, so it overlaps neither operand.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            accumulate,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(0),
        );
    }
}
