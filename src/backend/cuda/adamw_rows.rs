//! AdamW of some rows of a table, and the updates that the other rows have missed.

use super::adamw::weights;
use super::kernels::adamw_rows::ROWS;
use super::launch::launch;
use super::{Cuda, CudaElement};
use crate::Result;
use crate::backend::{AdamWCatchUp, AdamWRows, AdamWStep, Ints};

pub(super) fn step<E: CudaElement>(cuda: &Cuda<E>, args: AdamWRows<Cuda<E>>) -> Result<()> {
    args.check();
    let AdamWRows { weight, master, grad, rows, m, v, touched, current, grad_squares, step, weight_decay } = args;
    let (n, width) = (rows.len(), weight.row_len());
    let [keep, rate, inv_sqrt_c2] = step.scalars(weight_decay);
    let AdamWStep { beta1, beta2, eps, max_grad_norm, update, .. } = step;
    let (w, copy) = weights(weight, master);
    launch!(
        cuda,
        adamw_rows::AdamwRows {
            w,
            copy,
            m,
            v,
            touched,
            current,
            grad,
            rows,
            squares: grad_squares,
            beta1,
            beta2,
            eps,
            keep,
            rate,
            inv_sqrt_c2,
            max_grad_norm,
            update: update as i32,
            n,
            width,
            n_squares: grad_squares.len(),
        },
        n.div_ceil(ROWS),
    )
}

pub(super) fn catch_up<E: CudaElement>(cuda: &Cuda<E>, args: AdamWCatchUp<Cuda<E>>) -> Result<()> {
    args.check();
    let AdamWCatchUp { weight, master, m, v, touched, current, rows, history, update, decays, eps } = args;
    let (n, width) = (rows.map_or(weight.rows(), Ints::len), weight.row_len());
    let (w, copy) = weights(weight, master);
    launch!(
        cuda,
        adamw_rows::AdamwCatchUp {
            w,
            copy,
            current,
            m,
            v,
            touched,
            rows,
            history,
            decays,
            eps,
            update: update as i32,
            n,
            width,
            n_history: history.rows(),
            n_decays: decays.rows(),
        },
        n.div_ceil(ROWS),
    )
}
