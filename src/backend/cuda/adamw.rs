//! AdamW in one pass over a parameter, and the sum of squares for gradient clipping.

use super::launch::{Arg, Grid, args};
use super::{Cuda, CudaElement, Tensor};
use crate::Result;
use crate::backend::{AdamW, AdamWStep};

/// As in kernels/adamw.cu: threads of an update and elements each of them has, threads and elements of a sum.
const THREADS: usize = 512;
const UPDATED: usize = 4;
const SQUARES_THREADS: usize = 256;
const SPAN: usize = 64 * 256;

/// The weights in f32 and their rounded copy, null where they are f32 themselves.
pub(super) fn weights<E: CudaElement>(
    weight: &mut Tensor<Cuda<E>, E>,
    master: Option<&mut Tensor<Cuda<E>, f32>>,
) -> [Arg; 2] {
    match master {
        Some(master) => [Arg::from(master), Arg::from(weight)],
        None => [Arg::from(weight), Arg::pointer(0)],
    }
}

pub(super) fn step<E: CudaElement>(cuda: &Cuda<E>, args: AdamW<Cuda<E>>) -> Result<()> {
    args.check();
    let AdamW { weight, master, grad, m, v, grad_squares, step, weight_decay } = args;
    let (n, n_squares) = (weight.len(), grad_squares.len());
    let [keep, rate, inv_sqrt_c2] = step.scalars(weight_decay);
    let AdamWStep { beta1, beta2, eps, max_grad_norm, .. } = step;
    let [w, copy] = weights(weight, master);
    let args = args![
        w,
        copy,
        m,
        v,
        grad,
        grad_squares,
        beta1,
        beta2,
        eps,
        keep,
        rate,
        inv_sqrt_c2,
        max_grad_norm,
        n,
        n_squares
    ];
    cuda.launch("adamw", "adamw", Grid::new(n.div_ceil(UPDATED * THREADS), THREADS), args)
}

pub(super) fn sum_of_squares<E: CudaElement>(
    cuda: &Cuda<E>,
    x: &Tensor<Cuda<E>, f32>,
    out: &mut Tensor<Cuda<E>, f32>,
    slot: usize,
) -> Result<()> {
    assert!(slot < out.len(), "sum_of_squares: slot {slot} of {}", out.len());
    let n = x.len();
    // At least one, as the sum of nothing is to be written too.
    let blocks = n.div_ceil(SPAN).max(1);
    // The partial sums are f64.
    let partials = &cuda.scratch(2 * blocks)?;
    let args = args![partials, &*out, x, slot, n];
    cuda.launch("adamw", "sum_of_squares", Grid::new(blocks, SQUARES_THREADS), args)?;
    if blocks == 1 {
        return Ok(());
    }
    cuda.launch("adamw", "add_squares", Grid::new(1, SQUARES_THREADS), args![out, partials, slot, blocks])
}
