//! LayerNorm, and the residual in front of it.

/// What LayerNorm gives and keeps.
pub struct LayerNorm {
    /// What was normalized.
    pub sum: Vec<f64>,
    pub mean: Vec<f64>,
    pub rstd: Vec<f64>,
    pub out: Vec<f64>,
}

/// `out = (x - mean) / sqrt(variance + eps) weight + bias` for every row of `x`.
pub fn layer_norm(x: Vec<f64>, weight: &[f64], bias: &[f64], eps: f64) -> LayerNorm {
    let h = weight.len();
    let (mut means, mut rstds, mut out) = (Vec::new(), Vec::new(), Vec::new());
    for row in x.chunks(h) {
        let mean = row.iter().sum::<f64>() / h as f64;
        let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / h as f64;
        let rstd = 1.0 / (variance + eps).sqrt();
        for j in 0..h {
            out.push((row[j] - mean) * rstd * weight[j] + bias[j]);
        }
        means.push(mean);
        rstds.push(rstd);
    }
    LayerNorm { sum: x, mean: means, rstd: rstds, out }
}

/// The gradient of one row of [`layer_norm`] at `x`, given that of its result.
pub fn layer_norm_gradient(d_out: &[f64], x: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
    let n = x.len() as f64;
    let LayerNorm { rstd, out: unit, .. } = layer_norm(x.to_vec(), &vec![1.0; x.len()], &vec![0.0; x.len()], eps);
    let d: Vec<f64> = d_out.iter().zip(weight).map(|(d, w)| d * w).collect();
    let along_one = d.iter().sum::<f64>() / n;
    let along_unit = d.iter().zip(&unit).map(|(d, u)| d * u).sum::<f64>() / n;
    d.iter().zip(&unit).map(|(d, u)| rstd[0] * (d - along_one - u * along_unit)).collect()
}

/// What goes into a residual LayerNorm; `(T, H)` and `(H,)` arrays.
#[derive(Clone)]
pub struct Residual {
    pub x: Vec<f64>,
    pub branch_bias: Vec<f64>,
    pub residual: Vec<f64>,
    pub weight: Vec<f64>,
    pub bias: Vec<f64>,
    pub eps: f64,
    /// Dropout factors of the branch, `(T, H)`.
    pub mask: Vec<f64>,
}

/// `LayerNorm(residual + mask (x + branch_bias))`
pub fn residual_layer_norm(args: &Residual) -> LayerNorm {
    let h = args.weight.len();
    let sum =
        (0..args.x.len()).map(|i| args.residual[i] + args.mask[i] * (args.x[i] + args.branch_bias[i % h])).collect();
    layer_norm(sum, &args.weight, &args.bias, args.eps)
}
