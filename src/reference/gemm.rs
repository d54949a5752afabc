//! Matrix multiplication.

/// A row-major matrix and whether to read it turned.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    pub data: &'a [f64],
    /// As stored.
    pub columns: usize,
    pub transposed: bool,
}

impl Matrix<'_> {
    fn at(&self, i: usize, j: usize) -> f64 {
        if self.transposed { self.data[j * self.columns + i] } else { self.data[i * self.columns + j] }
    }
}

/// `out (m, n) = a b + start`, where `a` is `(m, k)` and `b` is `(k, n)`.
pub fn gemm([m, n, k]: [usize; 3], a: Matrix, b: Matrix, start: &[f64]) -> Vec<f64> {
    let mut out = start.to_vec();
    for i in 0..m {
        for j in 0..n {
            for l in 0..k {
                out[i * n + j] += a.at(i, l) * b.at(l, j);
            }
        }
    }
    out
}

/// `x w^T + bias` for `x` `(rows, inputs)` and `w` `(outputs, inputs)`, as a linear layer stores it.
pub fn linear(x: &[f64], w: &[f64], bias: &[f64]) -> Vec<f64> {
    let (n, k) = (bias.len(), w.len() / bias.len());
    let m = x.len() / k;
    let a = Matrix { data: x, columns: k, transposed: false };
    let b = Matrix { data: w, columns: k, transposed: true };
    gemm([m, n, k], a, b, &bias.repeat(m))
}
