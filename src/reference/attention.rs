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

/// Gradient of [`attention`].
pub struct AttentionGradient {
    /// `(T, 3 H)`
    pub d_qkv: Vec<f64>,
    /// `(T, H)` sums of the squares of what [`Attention::out`] is the sum of: weight and value.
    pub out_squares: Vec<f64>,
    /// `(T, 3 H)` the same of `d_qkv`, whose weights are the softmax or its gradient.
    pub squares: Vec<f64>,
}

/// The gradient of `<d_out, out> + <d_lse, lse>`, written out.
pub fn attention_gradient(
    qkv: &[f64],
    cu_seqlens: &[i32],
    n_heads: usize,
    mask: &[Vec<f64>],
    d_out: &[f64],
    d_lse: &[f64],
) -> AttentionGradient {
    let n_tokens = mask.len() / n_heads;
    let hidden = d_out.len() / n_tokens;
    let d = hidden / n_heads;
    let scale = 1.0 / (d as f64).sqrt();
    let lse = attention(qkv, cu_seqlens, n_heads, hidden, mask).lse;
    let mut result = AttentionGradient {
        d_qkv: vec![0.0; qkv.len()],
        out_squares: vec![0.0; d_out.len()],
        squares: vec![0.0; qkv.len()],
    };
    for bounds in cu_seqlens.windows(2) {
        for query in bounds[0] as usize..bounds[1] as usize {
            for head in 0..n_heads {
                let at = |token: usize, part: usize| (3 * token + part) * hidden + head * d;
                let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                let row = query * n_heads + head;
                let d_o = &d_out[query * hidden + head * d..][..d];
                let keys = bounds[0] as usize..bounds[1] as usize;
                // Softmax and the gradient of its dropped values.
                let pairs: Vec<(f64, f64)> = keys
                    .clone()
                    .zip(&mask[row])
                    .map(|(key, m)| {
                        let score = dot(&qkv[at(query, 0)..][..d], &qkv[at(key, 1)..][..d]) * scale;
                        ((score - lse[row]).exp(), m * dot(d_o, &qkv[at(key, 2)..][..d]))
                    })
                    .collect();
                let mean = pairs.iter().map(|(p, d_p)| p * d_p).sum::<f64>();
                for ((key, (p, d_p)), m) in keys.zip(pairs).zip(&mask[row]) {
                    let d_s = p * (d_p - mean + d_lse[row]) * scale;
                    for (i, d_o) in d_o.iter().enumerate() {
                        let (q, k, v) = (at(query, 0) + i, at(key, 1) + i, at(key, 2) + i);
                        for (target, term) in [(q, d_s * qkv[k]), (k, d_s * qkv[q]), (v, p * m * d_o)] {
                            result.d_qkv[target] += term;
                            result.squares[target] += term * term;
                        }
                        result.out_squares[query * hidden + head * d + i] += (p * m * qkv[v]).powi(2);
                    }
                }
            }
        }
    }
    result
}
