//! From token vectors to one unit vector a sequence, and back.

use super::launch::{Grid, args};
use super::partials::{add_partials_grid, vector};
use super::{Cuda, CudaElement, Tensor};
use crate::Result;
use crate::backend::ops::check_shapes;
use crate::backend::{Packed, PoolBackward, PoolForward, Pooling};

/// As in kernels/pooling.cu.
const THREADS: usize = 256;
const ROWS: usize = 8;
const ACROSS: usize = 8;
const WARP: usize = 32;
const SLICES: usize = THREADS / ACROSS;

/// Fewest rows whose sum is one partial sum, and most partial sums.
const LEAST_ROWS: usize = 64;
const MOST_PARTIALS: usize = 64;

/// Blocks of threads that have one place each.
fn grid(places: usize) -> Grid {
    Grid::new(places.div_ceil(THREADS), THREADS)
}

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
    if are_few(batch, cls) {
        let grid = grid(n_seqs * width / vector::<E>(width));
        let args = args![out, x, batch.cu_seqlens(), cls, n_seqs, width];
        return cuda.launch_typed("pooling", "pool_few_forward", grid, args);
    }
    let grid = Grid::new(n_seqs * strips::<E>(width, ACROSS), THREADS);
    cuda.launch_typed("pooling", "pool_strip_forward", grid, args![out, x, batch.cu_seqlens(), width])
}

pub(super) fn backward<E: CudaElement>(cuda: &Cuda<E>, args: PoolBackward<Cuda<E>>) -> Result<()> {
    args.check();
    let PoolBackward { batch, d_out, d_x, .. } = args;
    let (n_seqs, width, cls) = (batch.n_seqs(), d_x.row_len(), args.pooling == Pooling::Cls);
    if are_few(batch, false) {
        let grid = grid(n_seqs * width / vector::<E>(width));
        let args = args![d_x, d_out, batch.cu_seqlens(), cls, n_seqs, width];
        return cuda.launch_typed("pooling", "pool_few_backward", grid, args);
    }
    let grid = Grid::new(n_seqs * strips::<E>(width, WARP), THREADS);
    cuda.launch_typed("pooling", "pool_strip_backward", grid, args![d_x, d_out, batch.cu_seqlens(), cls, width])
}

pub(super) fn bias_tanh_forward<E: CudaElement>(
    cuda: &Cuda<E>,
    x: &mut Tensor<Cuda<E>, f32>,
    bias: &Tensor<Cuda<E>, E>,
) -> Result<()> {
    let (rows, width) = (x.rows(), x.row_len());
    check_shapes("bias_tanh_forward", &[width], [bias]);
    let grid = grid(rows * width / vector::<f32>(width));
    cuda.launch_typed("pooling", "bias_tanh_forward", grid, args![x, bias, rows, width])
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
    let partials = &cuda.scratch(n_partials * width)?;
    let blocks = Grid::new(n_partials * strips::<f32>(width, ACROSS), THREADS);
    cuda.launch("pooling", "bias_tanh_backward", blocks, args![d, partials, y, rows_per_block, rows, width])?;
    let args = args![d_bias, partials, n_partials, width];
    cuda.launch("pooling", "bias_tanh_backward_bias", add_partials_grid(width, 1), args)
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
    let grid = Grid::new(rows.div_ceil(ROWS), THREADS);
    cuda.launch("pooling", "l2_normalize_forward", grid, args![out, inv_norm, x, rows, width])
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
    let grid = Grid::new(rows.div_ceil(ROWS), THREADS);
    cuda.launch("pooling", "l2_normalize_backward", grid, args![d, y, inv_norm, rows, width])
}
