//! AdamW of some rows of a table, and the updates that the other rows have missed.

use super::adamw::weights;
use super::launch::{Grid, args};
use super::{Cuda, CudaElement};
use crate::Result;
use crate::backend::{AdamWCatchUp, AdamWRows, AdamWStep, Ints};

/// As in kernels/adamw_rows.cu.
const THREADS: usize = 256;
const ROWS: usize = 8;

pub(super) fn step<E: CudaElement>(cuda: &Cuda<E>, args: AdamWRows<Cuda<E>>) -> Result<()> {
    args.check();
    let AdamWRows { weight, master, grad, rows, m, v, touched, current, grad_squares, step, weight_decay } = args;
    let (n, width, n_squares) = (rows.len(), weight.row_len(), grad_squares.len());
    let [keep, rate, inv_sqrt_c2] = step.scalars(weight_decay);
    let AdamWStep { beta1, beta2, eps, max_grad_norm, .. } = step;
    let update = step.update as i32;
    let [w, copy] = weights(weight, master.as_deref());
    let args = args![
        w,
        copy,
        m,
        v,
        touched,
        current,
        grad,
        rows,
        grad_squares,
        beta1,
        beta2,
        eps,
        keep,
        rate,
        inv_sqrt_c2,
        max_grad_norm,
        update,
        n,
        width,
        n_squares
    ];
    cuda.launch("adamw_rows", "adamw_rows", Grid::new(n.div_ceil(ROWS), THREADS), args)
}

pub(super) fn catch_up<E: CudaElement>(cuda: &Cuda<E>, args: AdamWCatchUp<Cuda<E>>) -> Result<()> {
    args.check();
    let AdamWCatchUp { weight, master, m, v, touched, current, rows, history, update, decays, eps } = args;
    let (n, width) = (rows.map_or(weight.rows(), Ints::len), weight.row_len());
    let (update, n_history, n_decays) = (update as i32, history.rows(), decays.rows());
    let [w, copy] = weights(weight, master.as_deref());
    let args =
        args![w, copy, current, m, v, touched, rows, history, decays, eps, update, n, width, n_history, n_decays];
    cuda.launch("adamw_rows", "adamw_catch_up", Grid::new(n.div_ceil(ROWS), THREADS), args)
}
