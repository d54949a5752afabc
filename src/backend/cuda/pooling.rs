//! From token vectors to one unit vector a sequence, and back.

use super::kernels::pooling::{ACROSS, ROWS, SLICES, THREADS};
use super::kernels::reduce_cuh::WARP;
use super::launch::launch;
use super::partials::{add_partials_blocks, vector};
use super::{Cuda, CudaElement, Tensor};
use crate::Result;
use crate::backend::ops::check_shapes;
use crate::backend::{Packed, PoolBackward, PoolForward, Pooling};

/// Fewest rows whose sum is one partial sum, and most partial sums.
const LEAST_ROWS: usize = 64;
const MOST_PARTIALS: usize = 64;

/// Strips of columns for blocks that are so many threads wide.
fn strips<E: CudaElement>(width: usize, across: usize) -> usize {
    width.div_ceil(across * vector::<E>(width))
}

/// Whether a thread goes through all tokens of a sequence that count, or the slices of a block share them.
fn are_few<B: crate::backend::Backend>(batch: Packed<B>, cls: bool) -> bool {
    cls || batch.max_seqlen <= SLICES
}

pub(super) fn forward<E: CudaElement>(cuda: &Cuda<E>, args: PoolForward<Cuda<E>>) -> Result<()> {
    args.check();
    let PoolForward { batch, x, out, .. } = args;
    let (n_seqs, width, cls) = (batch.n_seqs(), x.row_len(), args.pooling == Pooling::Cls);
    let cu_seqlens = batch.cu_seqlens();
    if are_few(batch, cls) {
        let blocks = (n_seqs * width / vector::<E>(width)).div_ceil(THREADS);
        return launch!(cuda, pooling::PoolFewForward { out, x, cu_seqlens, cls, n_seqs, width }, blocks);
    }
    let blocks = n_seqs * strips::<E>(width, ACROSS);
    launch!(cuda, pooling::PoolStripForward { out, x, cu_seqlens, width }, blocks)
}

pub(super) fn backward<E: CudaElement>(cuda: &Cuda<E>, args: PoolBackward<Cuda<E>>) -> Result<()> {
    args.check();
    let PoolBackward { batch, d_out, d_x, .. } = args;
    let (n_seqs, width, cls) = (batch.n_seqs(), d_x.row_len(), args.pooling == Pooling::Cls);
    let cu_seqlens = batch.cu_seqlens();
    if are_few(batch, false) {
        let blocks = (n_seqs * width / vector::<E>(width)).div_ceil(THREADS);
        return launch!(cuda, pooling::PoolFewBackward { d_x, d_out, cu_seqlens, cls, n_seqs, width }, blocks);
    }
    let blocks = n_seqs * strips::<E>(width, WARP);
    launch!(cuda, pooling::PoolStripBackward { d_x, d_out, cu_seqlens, cls, width }, blocks)
}

pub(super) fn bias_tanh_forward<E: CudaElement>(
    cuda: &Cuda<E>,
    x: &mut Tensor<Cuda<E>, f32>,
    bias: &Tensor<Cuda<E>, E>,
) -> Result<()> {
    let (rows, width) = (x.rows(), x.row_len());
    check_shapes("bias_tanh_forward", &[width], [bias]);
    let blocks = (rows * width / vector::<f32>(width)).div_ceil(THREADS);
    launch!(cuda, pooling::BiasTanhForward { x, bias, rows, width }, blocks)
}

pub(super) fn bias_tanh_backward<E: CudaElement>(
    cuda: &Cuda<E>,
    y: &Tensor<Cuda<E>, f32>,
    d: &mut Tensor<Cuda<E>, f32>,
    d_bias: &mut Tensor<Cuda<E>, f32>,
) -> Result<()> {
    let (rows, width) = (y.rows(), y.row_len());
    check_shapes("bias_tanh_backward", &[rows, width], [&*d]);
    check_shapes("bias_tanh_backward", &[width], [&*d_bias]);
    let rows_per_block = rows.div_ceil(MOST_PARTIALS).max(LEAST_ROWS);
    let n_partials = rows.div_ceil(rows_per_block);
    let mut scratch = cuda.scratch(n_partials * width)?;
    let blocks = n_partials * strips::<f32>(width, ACROSS);
    let partials = &mut scratch;
    launch!(cuda, pooling::BiasTanhBackward { d, partials, y, rows_per_block, rows, width }, blocks)?;
    let (partials, n) = (&scratch, n_partials);
    launch!(cuda, pooling::BiasTanhBackwardBias { d_bias, partials, n, width }, add_partials_blocks(width, 1))
}

pub(super) fn l2_normalize_forward<E: CudaElement>(
    cuda: &Cuda<E>,
    x: &Tensor<Cuda<E>, f32>,
    out: &mut Tensor<Cuda<E>, f32>,
    inv_norm: &mut Tensor<Cuda<E>, f32>,
) -> Result<()> {
    let (rows, width) = (x.rows(), x.row_len());
    check_shapes("l2_normalize_forward", &[rows, width], [&*out]);
    check_shapes("l2_normalize_forward", &[rows], [&*inv_norm]);
    launch!(cuda, pooling::L2NormalizeForward { out, inv_norm, x, rows, width }, rows.div_ceil(ROWS))
}

pub(super) fn l2_normalize_backward<E: CudaElement>(
    cuda: &Cuda<E>,
    y: &Tensor<Cuda<E>, f32>,
    inv_norm: &Tensor<Cuda<E>, f32>,
    d: &mut Tensor<Cuda<E>, f32>,
) -> Result<()> {
    let (rows, width) = (y.rows(), y.row_len());
    check_shapes("l2_normalize_backward", &[rows, width], [&*d]);
    check_shapes("l2_normalize_backward", &[rows], [inv_norm]);
    launch!(cuda, pooling::L2NormalizeBackward { d, y, inv_norm, rows, width }, rows.div_ceil(ROWS))
}
