//! The optimizer's update of a whole parameter: MiniLM's word table, every row of which has a gradient.

use super::inputs::{HIDDEN, SMALL_VOCABULARY, host, near, passes, samples, tensor, within};
use super::{Benchmark, Case, Op};
use crate::Result;
use crate::backend::{AdamW, AdamWStep, Backend, Element, Tensor};

/// Elements that are computed again.
const SAMPLES: usize = 1000;
const DECAY: f32 = 0.1;
const STEP: AdamWStep =
    AdamWStep { learning_rate: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, update: 1, max_grad_norm: 0.0 };

pub fn benchmarks<B: Backend>() -> Vec<Benchmark<B>> {
    let n = SMALL_VOCABULARY * HIDDEN;
    // Parameter, gradient and two moments in; parameter and moments out. A rounded weight is written beside its master.
    let work = if B::E::IS_F32 { passes::<B::E>(0, 7 * n) } else { passes::<B::E>(n, 7 * n) };
    let dense = format!("{SMALL_VOCABULARY}x{HIDDEN}");
    vec![Benchmark::new(Op::AdamW, dense, work, |b| Ok(Box::new(Dense::new(b)?)))]
}

struct Dense<'a, B: Backend> {
    backend: &'a B,
    weight: Tensor<B, B::E>,
    master: Option<Tensor<B, f32>>,
    grad: Tensor<B, f32>,
    m: Tensor<B, f32>,
    v: Tensor<B, f32>,
    grad_squares: Tensor<B, f32>,
}

impl<'a, B: Backend> Dense<'a, B> {
    fn new(backend: &'a B) -> Result<Self> {
        let shape = [SMALL_VOCABULARY, HIDDEN];
        let master = (!B::E::IS_F32).then(|| tensor(backend, &shape, 0.05, 1)).transpose()?;
        Ok(Dense {
            backend,
            weight: tensor(backend, &shape, 0.05, 1)?,
            master,
            grad: tensor(backend, &shape, 0.5, 2)?,
            m: Tensor::zeros(backend, &shape)?,
            v: Tensor::zeros(backend, &shape)?,
            grad_squares: Tensor::zeros(backend, &[1])?,
        })
    }
}

impl<B: Backend> Case for Dense<'_, B> {
    fn run(&mut self) -> Result<()> {
        self.backend.adamw(AdamW {
            weight: &mut self.weight,
            master: self.master.as_mut(),
            grad: &self.grad,
            rows: None,
            m: &mut self.m,
            v: &mut self.v,
            grad_squares: &self.grad_squares,
            step: STEP,
            weight_decay: DECAY,
        })
    }

    /// The first update, from moments of zero: `m / c1 = g` and `v / c2 = g^2`.
    fn check(&mut self) -> Result<()> {
        let b = self.backend;
        let (before, grad) = (host(b, &self.weight)?, host(b, &self.grad)?);
        self.run()?;
        let (weight, m, v) = (host(b, &self.weight)?, host(b, &self.m)?, host(b, &self.v)?);
        let master = self.master.as_ref().map(|master| host(b, master)).transpose()?;
        let [rate, beta1, beta2, eps] = [STEP.learning_rate, STEP.beta1, STEP.beta2, STEP.eps].map(f64::from);
        for i in samples(before.len(), SAMPLES) {
            let (w, g) = (before[i], grad[i]);
            let expected = w - rate * f64::from(DECAY) * w - rate * g / (g.abs() + eps);
            near::<B::E>("weight", weight[i], expected, 1e-3)?;
            if let Some(master) = &master {
                near::<f32>("master", master[i], expected, 1e-3)?;
            }
            near::<f32>("m", m[i], (1.0 - beta1) * g, 1e-9)?;
            // 1 - beta2 has lost some of its digits in f32.
            within("v", v[i], (1.0 - beta2) * g * g, 1e-4 * (1.0 - beta2) * g * g)?;
        }
        Ok(())
    }
}
