//! From token vectors to unit vectors.

use crate::backend::Pooling;

/// First token's vector, or the mean of all, for every sequence of `x` `(T, h)`.
pub fn pool(x: &[f64], cu_seqlens: &[i32], h: usize, pooling: Pooling) -> Vec<f64> {
    let mut out = Vec::new();
    for bounds in cu_seqlens.windows(2) {
        let (start, end) = (bounds[0] as usize, bounds[1] as usize);
        for j in 0..h {
            out.push(match pooling {
                Pooling::Cls => x[start * h + j],
                Pooling::Mean => (start..end).map(|t| x[t * h + j]).sum::<f64>() / (end - start) as f64,
            });
        }
    }
    out
}

/// `tanh(x + bias)`
pub fn bias_tanh(x: &[f64], bias: &[f64]) -> Vec<f64> {
    x.iter().enumerate().map(|(i, v)| (v + bias[i % bias.len()]).tanh()).collect()
}

/// `x / max(|x|, 1e-12)` for every row of size `h`.
pub fn l2_normalize(x: &[f64], h: usize) -> Vec<f64> {
    let norm = |row: &[f64]| row.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-12);
    x.chunks(h).flat_map(|row| row.iter().map(move |v| v / norm(row))).collect()
}
