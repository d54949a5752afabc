//! AdamW in one pass over a parameter, and the sum of squares for gradient clipping.

use super::math::{load, simd, store, sum_of};
use super::{Cpu, CpuElement};
use crate::backend::AdamW;
use rayon::prelude::*;

/// Elements in one task; fixed, so that a sum does not depend on the number of threads.
const SPAN: usize = 1 << 14;

pub fn sum_of_squares(x: &[f32]) -> f32 {
    let partials: Vec<f64> = x
        .par_chunks(SPAN)
        // Short runs keep f32 accumulation exact to a few ulp; f64 carries the rest.
        .map(|c| {
            simd(
                #[inline(always)]
                || c.chunks(256).map(|r| f64::from(sum_of(r, |v| v * v))).sum(),
            )
        })
        .collect();
    partials.iter().sum::<f64>() as f32
}

/// Everything one element's update needs but the element.
#[derive(Clone, Copy)]
struct Scalars {
    beta1: f32,
    beta2: f32,
    eps: f32,
    /// `1 - lr weight_decay`
    keep: f32,
    /// `lr / (1 - beta1^t)`
    rate: f32,
    /// `1 / sqrt(1 - beta2^t)`
    inv_sqrt_c2: f32,
    grad_scale: f32,
}

impl Scalars {
    #[inline(always)]
    fn update(&self, w: f32, g: f32, m: &mut f32, v: &mut f32) -> f32 {
        let g = g * self.grad_scale;
        *m = self.beta1 * *m + (1.0 - self.beta1) * g;
        *v = self.beta2 * *v + (1.0 - self.beta2) * g * g;
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
    let s = args.step;
    let t = s.update as f64;
    let c1 = 1.0 - f64::from(s.beta1).powf(t);
    let c2 = 1.0 - f64::from(s.beta2).powf(t);
    let scalars = Scalars {
        beta1: s.beta1,
        beta2: s.beta2,
        eps: s.eps,
        keep: 1.0 - s.learning_rate * args.weight_decay,
        rate: (f64::from(s.learning_rate) / c1) as f32,
        inv_sqrt_c2: (1.0 / c2.sqrt()) as f32,
        grad_scale: grad_scale(args.grad_squares.as_slice(), s.max_grad_norm),
    };
    let width = args.weight.row_len().max(1);
    // A task is whole rows, so that a sparse gradient's rows stay together.
    let rows_per_task = (SPAN / width).max(1);
    let span = rows_per_task * width;
    let grad = Gradient { values: args.grad.as_slice(), rows: args.rows.map(|r| r.as_slice()), width };
    let n_tasks = args.weight.len().div_ceil(span);
    let masters: Vec<Option<&mut [f32]>> = match args.master {
        Some(master) => master.as_mut_slice().chunks_mut(span).map(Some).collect(),
        None => (0..n_tasks).map(|_| None).collect(),
    };
    (
        args.weight.as_mut_slice().par_chunks_mut(span),
        masters,
        args.m.as_mut_slice().par_chunks_mut(span),
        args.v.as_mut_slice().par_chunks_mut(span),
    )
        .into_par_iter()
        .enumerate()
        .for_each(|(task, (weight, master, m, v))| {
            simd(
                #[inline(always)]
                || update_rows(&scalars, &grad, task * rows_per_task, weight, master, m, v),
            );
        });
}

/// The gradient of a parameter's rows, dense or by row number.
struct Gradient<'a> {
    values: &'a [f32],
    rows: Option<&'a [i32]>,
    width: usize,
}

impl Gradient<'_> {
    /// Gradients of the rows from `first` on, in order; `None` stands for a row of zeros.
    fn starting_at(&self, first: usize) -> impl Iterator<Item = Option<&[f32]>> {
        let mut next = self.rows.map_or(first, |rows| rows.partition_point(|&r| (r as usize) < first));
        (first..).map(move |row| {
            let present = self.rows.is_none_or(|rows| rows.get(next).is_some_and(|&r| r as usize == row));
            next += usize::from(present);
            present.then(|| &self.values[(next - 1) * self.width..next * self.width])
        })
    }
}

/// Updates consecutive rows, `first` on.
#[inline(always)]
fn update_rows<E: CpuElement>(
    scalars: &Scalars,
    grad: &Gradient,
    first: usize,
    weight: &mut [E],
    mut master: Option<&mut [f32]>,
    m: &mut [f32],
    v: &mut [f32],
) {
    let width = grad.width;
    let zeros = vec![0.0; width];
    let mut w = vec![0.0; width];
    let rows = weight.chunks_mut(width).zip(m.chunks_mut(width)).zip(v.chunks_mut(width));
    for (i, (((weight, m), v), g)) in rows.zip(grad.starting_at(first)).enumerate() {
        let at = i * width..i * width + weight.len();
        match &master {
            Some(master) => w.copy_from_slice(&master[at.clone()]),
            None => load(weight, &mut w),
        }
        for (((w, m), v), &g) in w.iter_mut().zip(m).zip(v).zip(g.unwrap_or(&zeros)) {
            *w = scalars.update(*w, g, m, v);
        }
        if let Some(master) = &mut master {
            master[at].copy_from_slice(&w);
        }
        store(&w, weight);
    }
}
