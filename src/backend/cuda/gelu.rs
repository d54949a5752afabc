//! Bias + erf-GELU, in a pass of its own.
//!
//! In the epilogue of a product it would spare a third of the pass's bytes forward, where the pre-activation has to be stored
//! all the same, and half of them backward. cuBLASLt has the tanh form only, so the product would be our own. Counted on a
//! prototype (tiles of 128 x 128 x 32, `mma.sync`, 128 registers, two blocks on a multiprocessor), the epilogue costs 23
//! instructions an element forward and 34 backward beside 24 of the whole product at 768 columns. On an A100 it gains only
//! where the product itself comes to nine tenths of cuBLASLt's speed; on an H100 `mma.sync` reaches 62 % of the tensor
//! cores' peak at most, no more than cuBLASLt is expected to have at such a size.

use super::launch::{Grid, args};
use super::partials::{add_partials_grid, vector};
use super::{Cuda, CudaElement};
use crate::Result;
use crate::backend::{BiasGeluBackward, BiasGeluForward};

/// THREADS of kernels/gelu.cu.
const THREADS: usize = 64;
/// Rows of a forward block: the bias is read once for them.
const ROWS: usize = 16;
/// Fewest rows and most blocks of rows in the backward pass: each block leaves a row of partial sums.
const LEAST_ROWS: usize = 32;
const MOST_BLOCKS: usize = 256;

/// Blocks that share a row.
fn column_blocks<E: CudaElement>(width: usize) -> usize {
    width.div_ceil(vector::<E>(width) * THREADS)
}

pub(super) fn forward<E: CudaElement>(cuda: &Cuda<E>, args: BiasGeluForward<Cuda<E>>) -> Result<()> {
    let (rows, width) = args.check();
    let name = if vector::<E>(width) > 1 { "bias_gelu_forward" } else { "bias_gelu_forward_scalar" };
    let grid = Grid::new(rows.div_ceil(ROWS) * column_blocks::<E>(width), THREADS);
    cuda.launch_typed("gelu", name, grid, args![args.out, args.x, args.bias, ROWS, rows, width])
}

pub(super) fn backward<E: CudaElement>(cuda: &Cuda<E>, args: BiasGeluBackward<Cuda<E>>) -> Result<()> {
    let (rows, width) = args.check();
    let block = rows.div_ceil(MOST_BLOCKS).max(LEAST_ROWS);
    let blocks = rows.div_ceil(block);
    let partials = &cuda.scratch(blocks * width)?;
    let name = if vector::<E>(width) > 1 { "bias_gelu_backward" } else { "bias_gelu_backward_scalar" };
    let grid = Grid::new(blocks * column_blocks::<E>(width), THREADS);
    cuda.launch_typed("gelu", name, grid, args![args.d, args.out, partials, args.x, args.bias, block, rows, width])?;
    cuda.launch(
        "gelu",
        "bias_gelu_backward_bias",
        add_partials_grid(width, 1),
        args![args.d_bias, partials, blocks, width],
    )
}
