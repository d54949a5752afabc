//! The contrastive loss.

/// `loss[i] = logsumexp_j(s_ij / t) - s_ip / t` for scores `(R, n)` with the positive p of every row.
///
/// Written as ln(1 + sum over the others), which stays exact where the positive wins by far.
pub fn rows(scores: &[f64], n: usize, positives: &[i32], inv_temperature: f64) -> Vec<f64> {
    let loss = |row: &[f64], positive: usize| {
        let mut others = 0.0;
        for (j, s) in row.iter().enumerate() {
            if j != positive {
                others += ((s - row[positive]) * inv_temperature).exp();
            }
        }
        others.ln_1p()
    };
    scores.chunks(n).zip(positives).map(|(row, &p)| loss(row, p as usize)).collect()
}

/// Loss of a batch: `embeddings` `(S, d)` are the queries, then the passages, of which the first ones are the queries'
/// positives in order. Symmetric: half of it is the positives' loss in finding their queries.
pub fn batch(embeddings: &[f64], d: usize, n_queries: usize, temperature: f64, symmetric: bool) -> f64 {
    let (queries, passages) = embeddings.split_at(n_queries * d);
    let mean_loss = |rows_of: &[f64], columns_of: &[f64]| {
        let mut scores = Vec::new();
        for a in rows_of.chunks(d) {
            for b in columns_of.chunks(d) {
                scores.push(a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>());
            }
        }
        let positives: Vec<i32> = (0..n_queries as i32).collect();
        let losses = rows(&scores, columns_of.len() / d, &positives, 1.0 / temperature);
        losses.iter().sum::<f64>() / n_queries as f64
    };
    let forward = mean_loss(queries, passages);
    if symmetric { (forward + mean_loss(&passages[..n_queries * d], queries)) / 2.0 } else { forward }
}
