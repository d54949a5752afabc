//! Self-attention of a packed batch.

/// Result and log-sum-exp of [`attention`].
pub struct Attention {
    /// `(T, H)`
    pub out: Vec<f64>,
    /// `(T, heads)`
    pub lse: Vec<f64>,
}

/// `mask softmax(q k^T / sqrt(head size)) v` for every sequence and head of `qkv` `(T, 3 H)`.
///
/// `mask[token * n_heads + head]` holds a factor for every key of the token's sequence.
pub fn attention(qkv: &[f64], cu_seqlens: &[i32], n_heads: usize, hidden: usize, mask: &[Vec<f64>]) -> Attention {
    let d = hidden / n_heads;
    let n_tokens = qkv.len() / (3 * hidden);
    let mut result = Attention { out: vec![0.0; n_tokens * hidden], lse: vec![0.0; n_tokens * n_heads] };
    for bounds in cu_seqlens.windows(2) {
        let (start, end) = (bounds[0] as usize, bounds[1] as usize);
        for query in start..end {
            for head in 0..n_heads {
                let part = |token: usize, part: usize| &qkv[(3 * token + part) * hidden + head * d..][..d];
                let q = part(query, 0);
                let scores: Vec<f64> = (start..end)
                    .map(|key| q.iter().zip(part(key, 1)).map(|(a, b)| a * b).sum::<f64>() / (d as f64).sqrt())
                    .collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let lse = largest + scores.iter().map(|s| (s - largest).exp()).sum::<f64>().ln();
                result.lse[query * n_heads + head] = lse;
                let out = &mut result.out[query * hidden + head * d..][..d];
                for (i, score) in scores.iter().enumerate() {
                    let p = (score - lse).exp() * mask[query * n_heads + head][i];
                    for (o, v) in out.iter_mut().zip(part(start + i, 2)) {
                        *o += p * v;
                    }
                }
            }
        }
    }
    result
}
