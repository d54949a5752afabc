//! Residual + dropout + LayerNorm, and what the embedding's LayerNorm shares with it.

use super::kernels::layer_norm::{ResidualLayerNormBackwardInstance, ResidualLayerNormForwardInstance, STEP, WARPS};
use super::launch::launch;
use super::partials::add_partials_blocks;
use super::{Cuda, CudaElement};
use crate::Result;
use crate::backend::{ResidualLayerNormBackward, ResidualLayerNormForward};

/// Steps of STEP columns, one Philox call of each lane, that fit into a warp's registers at most.
const MOST_STEPS: usize = 4;
/// Rows of a forward block: the parameters are read once for them.
pub(super) const FORWARD_ROWS: usize = 16;
/// Fewest rows of a backward block: each block leaves rows of partial sums.
const LEAST_ROWS: usize = 8;
/// Most blocks of a backward pass, for rows of up to three steps and for others: as many as an A100's 108 multiprocessors
/// hold at a time, which is three and two each (kernels/RESOURCES.md). One more would have most of them wait for it, and the
/// partial sums, 24 bytes a column of a block, are a tenth of what is read and written of 8,192 rows in bf16.
const MOST_BLOCKS: [usize; 2] = [3 * 108, 2 * 108];

/// Which of a kernel's instances takes rows of this width: that for 0 more steps than one, and so on, or that for any.
pub(super) fn instance(width: usize) -> usize {
    if width.is_multiple_of(2) { (width.div_ceil(STEP) - 1).min(MOST_STEPS) } else { MOST_STEPS }
}

/// The instance, of an enum of kernels.rs, for rows of this width.
macro_rules! of_width {
    ($Instance:ty, $width:expr) => {
        [<$Instance>::N256, <$Instance>::N512, <$Instance>::N768, <$Instance>::N1024, <$Instance>::Any]
            [$crate::backend::cuda::layer_norm::instance($width)]
    };
}
pub(super) use of_width;

/// Blocks for [`FORWARD_ROWS`] rows each.
pub(super) fn forward_blocks(rows: usize) -> usize {
    rows.div_ceil(FORWARD_ROWS)
}

/// How a backward pass cuts its rows: a function of the shape alone, as it decides how sums over rows are grouped.
pub(super) struct Cut {
    pub blocks: usize,
    pub rows_per_block: usize,
    /// Rows of partial sums that the kernel leaves.
    pub partials: usize,
}

impl Cut {
    pub fn new(rows: usize, width: usize) -> Self {
        let instance = instance(width);
        let most = MOST_BLOCKS[usize::from(instance >= MOST_STEPS - 1)];
        let rows_per_block = rows.div_ceil(most).max(LEAST_ROWS);
        let blocks = rows.div_ceil(rows_per_block);
        Cut { blocks, rows_per_block, partials: if instance == MOST_STEPS { blocks * WARPS } else { blocks } }
    }
}

pub(super) fn residual_forward<E: CudaElement>(cuda: &Cuda<E>, args: ResidualLayerNormForward<Cuda<E>>) -> Result<()> {
    let (n_rows, width) = args.check();
    launch!(
        cuda,
        layer_norm::ResidualLayerNormForward {
            x: args.x,
            out: args.out,
            mean: args.mean,
            rstd: args.rstd,
            residual: args.residual,
            branch_bias: args.branch_bias,
            weight: args.weight,
            bias: args.bias,
            global_rows: args.batch.global_rows(),
            eps: args.eps,
            dropout: args.dropout,
            rows_per_block: FORWARD_ROWS,
            n_rows,
            width,
        },
        of_width!(ResidualLayerNormForwardInstance, width),
        forward_blocks(n_rows),
    )
}

pub(super) fn residual_backward<E: CudaElement>(
    cuda: &Cuda<E>,
    args: ResidualLayerNormBackward<Cuda<E>>,
) -> Result<()> {
    let (n_rows, width) = args.check();
    let cut = Cut::new(n_rows, width);
    let mut partials = cuda.scratch(cut.partials * 3 * width)?;
    launch!(
        cuda,
        layer_norm::ResidualLayerNormBackward {
            d_residual: args.d_residual,
            d_x: args.d_x,
            partials: &mut partials,
            d_out: args.d_out,
            sum: args.sum,
            mean: args.mean,
            rstd: args.rstd,
            weight: args.weight,
            global_rows: args.batch.global_rows(),
            dropout: args.dropout,
            rows_per_block: cut.rows_per_block,
            n_rows,
            width,
        },
        of_width!(ResidualLayerNormBackwardInstance, width),
        cut.blocks,
    )?;
    launch!(
        cuda,
        layer_norm::ResidualLayerNormBackwardSums {
            d_branch_bias: args.d_branch_bias,
            d_weight: args.d_weight,
            d_bias: args.d_bias,
            partials: &partials,
            n_partials: cut.partials,
            width,
        },
        add_partials_blocks(width, 3),
    )
}
