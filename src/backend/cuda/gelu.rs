//! Bias + erf-GELU, in a pass of its own.
//!
//! In the epilogue of a product it would spare a third of the pass's bytes forward, where the pre-activation has to be stored
//! all the same, and half of them backward. cuBLASLt has the tanh form only, so the product would be our own. Counted on a
//! prototype (tiles of 128 x 128 x 32, `mma.sync`, 128 registers, two blocks on a multiprocessor), the epilogue costs 23
//! instructions an element forward and 34 backward beside 24 of the whole product at 768 columns. On an A100 it gains only
//! where the product itself comes to nine tenths of cuBLASLt's speed; on an H100 `mma.sync` reaches 62 % of the tensor
//! cores' peak at most, no more than cuBLASLt is expected to have at such a size.

use super::kernels::gelu::{BiasGeluBackwardInstance, BiasGeluForwardInstance, THREADS};
use super::launch::launch;
use super::partials::{add_partials_blocks, vector};
use super::{Cuda, CudaElement};
use crate::Result;
use crate::backend::{BiasGeluBackward, BiasGeluForward};

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
    let (n_rows, width) = args.check();
    let BiasGeluForward { out, x, bias, .. } = args;
    let instance = match vector::<E>(width) {
        1 => BiasGeluForwardInstance::Scalar,
        _ => BiasGeluForwardInstance::Plain,
    };
    let blocks = n_rows.div_ceil(ROWS) * column_blocks::<E>(width);
    launch!(cuda, gelu::BiasGeluForward { out, x, bias, rows_per_block: ROWS, n_rows, width }, instance, blocks)
}

pub(super) fn backward<E: CudaElement>(cuda: &Cuda<E>, args: BiasGeluBackward<Cuda<E>>) -> Result<()> {
    let (n_rows, width) = args.check();
    let BiasGeluBackward { d, out, x, bias, d_bias, .. } = args;
    let rows_per_block = n_rows.div_ceil(MOST_BLOCKS).max(LEAST_ROWS);
    let n_partials = n_rows.div_ceil(rows_per_block);
    let mut scratch = cuda.scratch(n_partials * width)?;
    let instance = match vector::<E>(width) {
        1 => BiasGeluBackwardInstance::Scalar,
        _ => BiasGeluBackwardInstance::Plain,
    };
    let blocks = n_partials * column_blocks::<E>(width);
    let partials = &mut scratch;
    launch!(
        cuda,
        gelu::BiasGeluBackward { d, out, partials, x, bias, rows_per_block, n_rows, width },
        instance,
        blocks
    )?;
    let partials = &scratch;
    launch!(cuda, gelu::BiasGeluBackwardBias { d_bias, partials, n_partials, width }, add_partials_blocks(width, 1))
}
