//! Embedding tables + LayerNorm + dropout, and the tables' gradients by sorted segments.

use super::kernels::embedding::{
    EmbeddingBackwardInstance, EmbeddingForwardInstance, PIECE, SEGMENT_THREADS, SegmentSumInstance,
    SegmentSumPiecesInstance,
};
use super::launch::{Grid, launch};
use super::layer_norm::{Cut, FORWARD_ROWS, forward_blocks, of_width};
use super::partials::{add_partials_blocks, vector};
use super::{Cuda, CudaElement};
use crate::Result;
use crate::backend::{EmbeddingBackward, EmbeddingForward, SegmentSum};

pub(super) fn forward<E: CudaElement>(cuda: &Cuda<E>, args: EmbeddingForward<Cuda<E>>) -> Result<()> {
    let (n_rows, width) = args.check();
    launch!(
        cuda,
        embedding::EmbeddingForward {
            sum: args.sum,
            out: args.out,
            mean: args.mean,
            rstd: args.rstd,
            ids: args.batch.ids(),
            positions: args.batch.positions(),
            global_rows: args.batch.global_rows(),
            word: args.word,
            position: args.position,
            token_type: args.token_type,
            weight: args.weight,
            bias: args.bias,
            eps: args.eps,
            dropout: args.dropout,
            rows_per_block: FORWARD_ROWS,
            n_rows,
            width,
        },
        of_width!(EmbeddingForwardInstance, width),
        forward_blocks(n_rows),
    )
}

pub(super) fn backward<E: CudaElement>(cuda: &Cuda<E>, args: EmbeddingBackward<Cuda<E>>) -> Result<()> {
    let (n_rows, width) = args.check();
    let cut = Cut::new(n_rows, width);
    let mut scratch = cuda.scratch(cut.partials * 2 * width)?;
    launch!(
        cuda,
        embedding::EmbeddingBackward {
            d_sum: args.d_sum,
            partials: &mut scratch,
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
        of_width!(EmbeddingBackwardInstance, width),
        cut.blocks,
    )?;
    let (d_weight, d_bias, partials, n_partials) = (args.d_weight, args.d_bias, &scratch, cut.partials);
    launch!(
        cuda,
        embedding::EmbeddingBackwardSums { d_weight, d_bias, partials, n_partials, width },
        add_partials_blocks(width, 2),
    )
}

pub(super) fn segment_sum<E: CudaElement>(cuda: &Cuda<E>, args: SegmentSum<Cuda<E>>) -> Result<()> {
    let (n_tokens, width) = args.check();
    let (order, starts, rows) = (args.segments.order(), args.segments.starts(), args.segments.rows());
    let n_segments = rows.len();
    let vector = vector::<E>(width);
    let threads = width.div_ceil(vector).next_multiple_of(32).min(SEGMENT_THREADS);
    let (whole, pieces) = if vector == 1 {
        (SegmentSumInstance::Scalar, SegmentSumPiecesInstance::Scalar)
    } else {
        (SegmentSumInstance::Plain, SegmentSumPiecesInstance::Plain)
    };
    let SegmentSum { x, out, .. } = args;
    let grid = Grid::new(n_segments, threads);
    launch!(cuda, embedding::SegmentSum { out: &mut *out, x, order, starts, rows, width }, whole, grid)?;
    if n_tokens <= PIECE {
        return Ok(());
    }
    let windows = n_tokens.div_ceil(PIECE);
    // Two sums and one number a window.
    let mut scratch = cuda.scratch(windows * (2 * width + 1))?;
    let (partials, grid) = (&mut scratch, Grid::new(windows, threads));
    launch!(
        cuda,
        embedding::SegmentSumPieces { partials, x, order, starts, n_segments, n_tokens, width },
        pieces,
        grid
    )?;
    let partials = &scratch;
    launch!(
        cuda,
        embedding::SegmentSumLong { out, partials, starts, rows, n_tokens, width },
        add_partials_blocks(width, windows),
    )
}
