//! Residual + dropout + LayerNorm, and what the embedding's LayerNorm shares with it.

use super::launch::{Grid, args};
use super::partials::add_partials_grid;
use super::{Cuda, CudaElement};
use crate::Result;
use crate::backend::{ResidualLayerNormBackward, ResidualLayerNormForward};

/// Warps of a block, and its threads, in kernels/layer_norm.cuh.
const WARPS: usize = 4;
const THREADS: usize = 32 * WARPS;
/// Columns that a warp's lanes hold with one Philox call each; up to four such steps fit into registers.
const STEP: usize = 256;
const MOST_STEPS: usize = 4;
/// Rows of a forward block: the parameters are read once for them.
pub(super) const FORWARD_ROWS: usize = 16;
/// Fewest rows of a backward block: each block leaves rows of partial sums.
const LEAST_ROWS: usize = 8;
/// Most blocks of a backward pass, for rows of up to three steps and for others: as many as an A100's 108 multiprocessors
/// hold at a time, which is three and two each (kernels/RESOURCES.md). One more would have most of them wait for it, and the
/// partial sums, 24 bytes a column of a block, are a tenth of what is read and written of 8,192 rows in bf16.
const MOST_BLOCKS: [usize; 2] = [3 * 108, 2 * 108];

/// A kernel's names: for rows of up to 1, 2, 3 and 4 steps, and for all others.
pub(super) type Names = [&'static str; MOST_STEPS + 1];

/// Which of a kernel's names takes rows of this width.
fn variant(width: usize) -> usize {
    if width.is_multiple_of(2) { (width.div_ceil(STEP) - 1).min(MOST_STEPS) } else { MOST_STEPS }
}

pub(super) fn name(names: &Names, width: usize) -> &'static str {
    names[variant(width)]
}

/// One block for [`FORWARD_ROWS`] rows.
pub(super) fn forward_grid(rows: usize) -> Grid {
    Grid::new(rows.div_ceil(FORWARD_ROWS), THREADS)
}

/// How a backward pass cuts its rows: a function of the shape alone, as it decides how sums over rows are grouped.
pub(super) struct Cut {
    pub grid: Grid,
    /// Rows of a block.
    pub block: usize,
    /// Rows of partial sums that the kernel leaves.
    pub partials: usize,
}

impl Cut {
    pub fn new(rows: usize, width: usize) -> Self {
        let most = MOST_BLOCKS[usize::from(variant(width) >= MOST_STEPS - 1)];
        let block = rows.div_ceil(most).max(LEAST_ROWS);
        let blocks = rows.div_ceil(block);
        let partials = if variant(width) == MOST_STEPS { blocks * WARPS } else { blocks };
        Cut { grid: Grid::new(blocks, THREADS), block, partials }
    }
}

const FORWARD: Names = [
    "residual_layer_norm_forward_256",
    "residual_layer_norm_forward_512",
    "residual_layer_norm_forward_768",
    "residual_layer_norm_forward_1024",
    "residual_layer_norm_forward_any",
];
const BACKWARD: Names = [
    "residual_layer_norm_backward_256",
    "residual_layer_norm_backward_512",
    "residual_layer_norm_backward_768",
    "residual_layer_norm_backward_1024",
    "residual_layer_norm_backward_any",
];

pub(super) fn residual_forward<E: CudaElement>(cuda: &Cuda<E>, args: ResidualLayerNormForward<Cuda<E>>) -> Result<()> {
    let (rows, width) = args.check();
    let args = args![
        args.x,
        args.out,
        args.mean,
        args.rstd,
        args.residual,
        args.branch_bias,
        args.weight,
        args.bias,
        args.batch.global_rows(),
        args.eps,
        args.dropout,
        FORWARD_ROWS,
        rows,
        width,
    ];
    cuda.launch_typed("layer_norm", name(&FORWARD, width), forward_grid(rows), args)
}

pub(super) fn residual_backward<E: CudaElement>(
    cuda: &Cuda<E>,
    args: ResidualLayerNormBackward<Cuda<E>>,
) -> Result<()> {
    let (rows, width) = args.check();
    let cut = Cut::new(rows, width);
    let partials = &cuda.scratch(cut.partials * 3 * width)?;
    let inputs = args![
        args.d_residual,
        args.d_x,
        partials,
        args.d_out,
        args.sum,
        args.mean,
        args.rstd,
        args.weight,
        args.batch.global_rows(),
        args.dropout,
        cut.block,
        rows,
        width,
    ];
    cuda.launch_typed("layer_norm", name(&BACKWARD, width), cut.grid, inputs)?;
    let sums = args![args.d_branch_bias, args.d_weight, args.d_bias, partials, cut.partials, width];
    cuda.launch("layer_norm", "residual_layer_norm_backward_sums", add_partials_grid(width, 3), sums)
}
