//! Bias and GELU.

use super::math::erfc;

/// The derivative of GELU: the normal distribution's `cdf(x) + x density(x)`.
pub fn gelu_slope(x: f64) -> f64 {
    let density = (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
    0.5 * erfc(-x / std::f64::consts::SQRT_2) + x * density
}

/// `gelu(x + bias)` with `gelu(x) = x/2 (1 + erf(x / sqrt 2))`, written with erfc so that the negative tail is exact.
pub fn bias_gelu(x: &[f64], bias: &[f64]) -> Vec<f64> {
    let gelu = |x: f64| 0.5 * x * erfc(-x / std::f64::consts::SQRT_2);
    x.iter().enumerate().map(|(i, v)| gelu(v + bias[i % bias.len()])).collect()
}
