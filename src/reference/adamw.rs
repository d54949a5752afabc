//! The optimizer.

use crate::backend::AdamWStep;

/// One parameter and its moments.
#[derive(Clone)]
pub struct Parameter {
    pub weight: Vec<f64>,
    pub m: Vec<f64>,
    pub v: Vec<f64>,
}

/// `sum x^2`
pub fn sum_of_squares(x: &[f64]) -> f64 {
    x.iter().map(|v| v * v).sum()
}

/// Algorithm 2 of Loshchilov and Hutter, arXiv 1711.05101, with the schedule in the learning rate, the decay times the
/// learning rate, and gradients scaled as PyTorch's `clip_grad_norm_` does, given the norm of all of them.
pub fn adamw(p: &mut Parameter, grad: &[f64], norm: f64, s: AdamWStep, weight_decay: f64) {
    let [rate, beta1, beta2, eps, most] = [s.learning_rate, s.beta1, s.beta2, s.eps, s.max_grad_norm].map(f64::from);
    let clip = if most > 0.0 && norm > most { most / (norm + 1e-6) } else { 1.0 };
    for (i, g) in grad.iter().enumerate() {
        let g = g * clip;
        p.m[i] = beta1 * p.m[i] + (1.0 - beta1) * g;
        p.v[i] = beta2 * p.v[i] + (1.0 - beta2) * g * g;
        let m_hat = p.m[i] / (1.0 - beta1.powi(s.update as i32));
        let v_hat = p.v[i] / (1.0 - beta2.powi(s.update as i32));
        p.weight[i] -= rate * weight_decay * p.weight[i];
        p.weight[i] -= rate * m_hat / (v_hat.sqrt() + eps);
    }
}
