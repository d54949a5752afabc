//! Embedding tables + LayerNorm + dropout, and the tables' gradients by sorted segments.

use super::launch::{Grid, args};
use super::layer_norm::{Cut, FORWARD_ROWS, Names, forward_grid, name};
use super::partials::{add_partials_grid, vector};
use super::{Cuda, CudaElement};
use crate::Result;
use crate::backend::{EmbeddingBackward, EmbeddingForward, SegmentSum};

/// PIECE of kernels/segments.cuh: tokens that one block adds up.
const PIECE: usize = 64;
/// SEGMENT_THREADS there: most threads of such a block.
const SEGMENT_THREADS: usize = 256;

const FORWARD: Names = [
    "embedding_forward_256",
    "embedding_forward_512",
    "embedding_forward_768",
    "embedding_forward_1024",
    "embedding_forward_any",
];
const BACKWARD: Names = [
    "embedding_backward_256",
    "embedding_backward_512",
    "embedding_backward_768",
    "embedding_backward_1024",
    "embedding_backward_any",
];

pub(super) fn forward<E: CudaElement>(cuda: &Cuda<E>, args: EmbeddingForward<Cuda<E>>) -> Result<()> {
    let (rows, width) = args.check();
    let args = args![
        args.sum,
        args.out,
        args.mean,
        args.rstd,
        args.batch.ids(),
        args.batch.positions(),
        args.batch.global_rows(),
        args.word,
        args.position,
        args.token_type,
        args.weight,
        args.bias,
        args.eps,
        args.dropout,
        FORWARD_ROWS,
        rows,
        width,
    ];
    cuda.launch_typed("embedding", name(&FORWARD, width), forward_grid(rows), args)
}

pub(super) fn backward<E: CudaElement>(cuda: &Cuda<E>, args: EmbeddingBackward<Cuda<E>>) -> Result<()> {
    let (rows, width) = args.check();
    let cut = Cut::new(rows, width);
    let partials = &cuda.scratch(cut.partials * 2 * width)?;
    let inputs = args![
        args.d_sum,
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
    cuda.launch_typed("embedding", name(&BACKWARD, width), cut.grid, inputs)?;
    let sums = args![args.d_weight, args.d_bias, partials, cut.partials, width];
    cuda.launch("embedding", "embedding_backward_sums", add_partials_grid(width, 2), sums)
}

pub(super) fn segment_sum<E: CudaElement>(cuda: &Cuda<E>, args: SegmentSum<Cuda<E>>) -> Result<()> {
    let (n_tokens, width) = args.check();
    let (order, starts, rows) = (args.segments.order(), args.segments.starts(), args.segments.rows());
    let n_segments = rows.len();
    let vector = vector::<E>(width);
    let threads = width.div_ceil(vector).next_multiple_of(32).min(SEGMENT_THREADS);
    let [whole, pieces] = if vector == 1 {
        ["segment_sum_scalar", "segment_sum_pieces_scalar"]
    } else {
        ["segment_sum", "segment_sum_pieces"]
    };
    let out = args.out;
    let grid = Grid::new(n_segments, threads);
    cuda.launch_typed("embedding", whole, grid, args![&mut *out, args.x, order, starts, rows, width])?;
    if n_tokens <= PIECE {
        return Ok(());
    }
    let windows = n_tokens.div_ceil(PIECE);
    // Two sums and one number a window.
    let partials = &cuda.scratch(windows * (2 * width + 1))?;
    let inputs = args![partials, args.x, order, starts, n_segments, n_tokens, width];
    cuda.launch_typed("embedding", pieces, Grid::new(windows, threads), inputs)?;
    let grid = add_partials_grid(width, windows);
    cuda.launch("embedding", "segment_sum_long", grid, args![out, partials, starts, rows, n_tokens, width])
}
