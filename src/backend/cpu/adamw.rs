//! AdamW in one pass over every parameter, and the sums of squares for gradient clipping.

use super::math::{load, simd, store, sum_of};
use super::split::{RowsMut, for_rows};
use super::{Cpu, CpuElement};
use crate::backend::{AdamW, AdamWParameter, AdamWStep};
use rayon::join;

/// Elements in one task; fixed, so that a sum does not depend on the number of threads.
const SPAN: usize = 1 << 14;
/// Elements updated and rounded at a time, few enough to be still in the nearest cache.
const BLOCK: usize = 1024;

/// `sum x^2`, by recursive halving into spans.
pub fn sum_of_squares(x: &[f32]) -> f64 {
    if x.len() <= SPAN {
        // Short runs keep f32 accumulation exact to a few ulp; f64 carries the rest.
        return simd(
            #[inline(always)]
            || x.chunks(256).map(|r| f64::from(sum_of(r, |v| v * v))).sum(),
        );
    }
    let (left, right) = x.split_at(x.len().div_ceil(SPAN) / 2 * SPAN);
    let (left, right) = join(|| sum_of_squares(left), || sum_of_squares(right));
    left + right
}

/// All inputs of one element's update except the element.
#[derive(Clone, Copy)]
pub struct Scalars {
    /// Factors by which the first and the second moment decay.
    pub moment_decays: [f32; 2],
    beta1: f32,
    beta2: f32,
    eps: f32,
    keep: f32,
    rate: f32,
    inv_sqrt_c2: f32,
    grad_scale: f32,
}

impl Scalars {
    pub fn new(step: &AdamWStep, weight_decay: f32, grad_squares: &[f32]) -> Self {
        let [keep, rate, inv_sqrt_c2] = step.scalars(weight_decay);
        let AdamWStep { beta1, beta2, eps, .. } = *step;
        let grad_scale = grad_scale(grad_squares, step.max_grad_norm);
        Scalars { moment_decays: [beta1, beta2], beta1, beta2, eps, keep, rate, inv_sqrt_c2, grad_scale }
    }

    /// Updates consecutive elements.
    #[inline(always)]
    pub fn update<E: CpuElement>(
        &self,
        weight: &mut [E],
        master: Option<&mut [f32]>,
        grad: &[f32],
        m: &mut [f32],
        v: &mut [f32],
    ) {
        let blocks = weight.chunks_mut(BLOCK).zip(grad.chunks(BLOCK)).zip(m.chunks_mut(BLOCK)).zip(v.chunks_mut(BLOCK));
        match master {
            Some(master) => {
                for ((((weight, grad), m), v), w) in blocks.zip(master.chunks_mut(BLOCK)) {
                    self.update_block(w, grad, m, v);
                    store(w, weight);
                }
            }
            None => {
                let mut buffer = [0.0; BLOCK];
                for (((weight, grad), m), v) in blocks {
                    let w = &mut buffer[..weight.len()];
                    load(weight, w);
                    self.update_block(w, grad, m, v);
                    store(w, weight);
                }
            }
        }
    }

    #[inline(always)]
    fn update_block(&self, w: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32]) {
        for (((w, m), v), &g) in w.iter_mut().zip(m).zip(v).zip(grad) {
            *w = self.update_one(*w, g, m, v);
        }
    }

    #[inline(always)]
    fn update_one(&self, w: f32, g: f32, m: &mut f32, v: &mut f32) -> f32 {
        let g = g * self.grad_scale;
        *m = self.moment_decays[0] * *m + (1.0 - self.beta1) * g;
        *v = self.moment_decays[1] * *v + (1.0 - self.beta2) * g * g;
        w * self.keep - self.rate * *m / ((*v).sqrt() * self.inv_sqrt_c2 + self.eps)
    }
}

/// `min(1, max_norm / (norm + 1e-6))`, PyTorch's `clip_grad_norm_`.
fn grad_scale(squares: &[f32], max_grad_norm: f32) -> f32 {
    if max_grad_norm == 0.0 {
        return 1.0;
    }
    let norm = squares.iter().map(|&v| f64::from(v)).sum::<f64>().sqrt() as f32;
    (max_grad_norm / (norm + 1e-6)).min(1.0)
}

pub fn step<E: CpuElement>(args: AdamW<Cpu<E>>) {
    args.check();
    let AdamW { parameters, grad_squares, step } = args;
    let grad_squares = grad_squares.as_slice();
    for parameter in parameters {
        update(&Scalars::new(&step, parameter.weight_decay, grad_squares), parameter);
    }
}

fn update<E: CpuElement>(scalars: &Scalars, parameter: AdamWParameter<Cpu<E>>) {
    let AdamWParameter { weight, master, grad, m, v, .. } = parameter;
    let n_spans = weight.len().div_ceil(SPAN);
    let grad = grad.as_slice();
    // The spans are this operation's rows.
    let moments = (RowsMut::new(m.as_mut_slice(), SPAN), RowsMut::new(v.as_mut_slice(), SPAN));
    let master = master.map(|master| RowsMut::new(master.as_mut_slice(), SPAN));
    let state = (RowsMut::new(weight.as_mut_slice(), SPAN), (master, moments));
    for_rows(
        n_spans,
        1,
        |span| span,
        state,
        |task| {
            let (weight, (master, (m, v))) = task.state;
            let grad = &grad[task.first_row * SPAN..][..weight.values.len()];
            simd(
                #[inline(always)]
                || scalars.update(weight.values, master.map(|master| master.values), grad, m.values, v.values),
            );
        },
    );
}
