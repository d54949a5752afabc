//! Operations that an element type needs on a CPU.

use crate::backend::Element;

/// An element type with a matrix multiplication, on all threads of rayon's current pool.
pub trait CpuElement: Element {
    /// `out (m, n) = start + a b`, summed in f32 and rounded once; `a` is `(m, k)`, `b` is `(k, n)`, `out` is contiguous.
    fn gemm(out: &mut [Self], start: Start<Self>, a: Matrix<Self>, b: Matrix<Self>);
    /// [`CpuElement::gemm`] with an f32 result.
    fn gemm_f32(out: &mut [f32], start: Start<f32>, a: Matrix<Self>, b: Matrix<Self>);
}

/// The value that a product is added to.
#[derive(Clone, Copy)]
pub enum Start<'a, T> {
    /// Nothing.
    Zero,
    /// The values that the result holds already.
    Out,
    /// A vector, one value per column, for every row.
    Bias(&'a [T]),
}

/// A read-only matrix with strides over a slice.
#[derive(Clone, Copy)]
pub struct Matrix<'a, T> {
    /// The elements.
    pub data: &'a [T],
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
    /// Elements from one row to the next.
    pub row_stride: usize,
    /// Elements from one column to the next.
    pub column_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// A contiguous row-major matrix, transposed if asked to.
    pub fn new(data: &'a [T], rows: usize, columns: usize, transposed: bool) -> Self {
        assert_eq!(data.len(), rows * columns, "matrix: length");
        if transposed {
            Matrix { data, rows: columns, columns: rows, row_stride: 1, column_stride: columns }
        } else {
            Matrix { data, rows, columns, row_stride: columns, column_stride: 1 }
        }
    }

    /// Whether every element lies within the slice.
    pub fn fits(&self) -> bool {
        self.rows == 0
            || self.columns == 0
            || (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride < self.data.len()
    }
}
