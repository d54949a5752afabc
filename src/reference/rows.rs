//! Sums over rows.

/// `out[rows[s]] = start[rows[s]] + sum of x[order[i]]` over the segment `s`; vectors of size `h`.
pub fn segment_sum(x: &[f64], h: usize, order: &[i32], starts: &[i32], rows: &[i32], start: &[f64]) -> Vec<f64> {
    let mut out = start.to_vec();
    for (s, &row) in rows.iter().enumerate() {
        for &token in &order[starts[s] as usize..starts[s + 1] as usize] {
            for j in 0..h {
                out[row as usize * h + j] += x[token as usize * h + j];
            }
        }
    }
    out
}
