//! Zeros, casts, and copies of some rows.

use super::launch::{Arg, Grid, args};
use super::tensor_list::{LIST_THREADS, TensorList};
use super::{Cuda, CudaElement, Tensor};
use crate::Result;
use crate::backend::Ints;
use crate::backend::ops::{check_columns, check_shapes};

/// As in kernels/rows.cu.
const THREADS: usize = 256;
const CAST: usize = 4;
const ROWS: usize = 8;

pub(super) fn zero_all<E: CudaElement>(cuda: &Cuda<E>, xs: &mut [&mut Tensor<Cuda<E>, f32>]) -> Result<()> {
    TensorList::of(xs.iter().map(|x| &**x)).try_for_each(|(_, list)| {
        let grid = Grid::new(list.blocks.n_blocks(), LIST_THREADS);
        cuda.launch("rows", "zero_all", grid, args![Arg::of_struct(&list)])
    })
}

pub(super) fn cast<E: CudaElement>(
    cuda: &Cuda<E>,
    x: &Tensor<Cuda<E>, f32>,
    out: &mut Tensor<Cuda<E>, E>,
) -> Result<()> {
    assert_eq!(x.len(), out.len(), "cast: lengths");
    let n = x.len();
    cuda.launch_typed("rows", "cast", Grid::new(n.div_ceil(CAST * THREADS), THREADS), args![out, x, n])
}

pub(super) fn gather<E: CudaElement>(
    cuda: &Cuda<E>,
    x: &Tensor<Cuda<E>, f32>,
    rows: Ints<Cuda<E>>,
    out: &mut Tensor<Cuda<E>, f32>,
) -> Result<()> {
    let (n, width) = (rows.len(), x.row_len());
    check_shapes("gather_rows", &[n, width], [&*out]);
    let args = args![out, x, rows, Arg::pointer(0), n, width];
    cuda.launch("rows", "gather_rows_f32", Grid::new(n.div_ceil(ROWS), THREADS), args)
}

pub(super) fn gather_cast<E: CudaElement>(
    cuda: &Cuda<E>,
    x: &Tensor<Cuda<E>, f32>,
    rows: Ints<Cuda<E>>,
    scale: Option<&Tensor<Cuda<E>, f32>>,
    out: &mut Tensor<Cuda<E>, E>,
) -> Result<()> {
    let (n, width) = (rows.len(), x.row_len());
    check_shapes("gather_cast", &[n, width], [&*out]);
    check_shapes("gather_cast", &[n], scale);
    cuda.launch_typed("rows", "gather_rows", Grid::new(n.div_ceil(ROWS), THREADS), args![out, x, rows, scale, n, width])
}

pub(super) fn scatter<E: CudaElement>(
    cuda: &Cuda<E>,
    x: &Tensor<Cuda<E>, f32>,
    scale: Option<&Tensor<Cuda<E>, f32>>,
    rows: Ints<Cuda<E>>,
    out: &mut Tensor<Cuda<E>, f32>,
) -> Result<()> {
    let (n, width) = (rows.len(), out.row_len());
    check_shapes("scatter_rows", &[n, width], [x]);
    check_shapes("scatter_rows", &[n], scale);
    cuda.launch("rows", "scatter_rows", Grid::new(n.div_ceil(ROWS), THREADS), args![out, x, rows, scale, n, width])
}

pub(super) fn copy_columns<E: CudaElement>(
    cuda: &Cuda<E>,
    x: &Tensor<Cuda<E>, f32>,
    out: &mut Tensor<Cuda<E>, f32>,
) -> Result<()> {
    let (n, (from, to)) = (x.rows(), check_columns("copy_columns", x, out));
    cuda.launch("rows", "copy_columns", Grid::new(n.div_ceil(ROWS), THREADS), args![out, x, n, to, from])
}

pub(super) fn add_columns<E: CudaElement>(
    cuda: &Cuda<E>,
    x: &Tensor<Cuda<E>, f32>,
    out: &mut Tensor<Cuda<E>, f32>,
) -> Result<()> {
    let (n, (to, from)) = (x.rows(), check_columns("add_columns", out, x));
    cuda.launch("rows", "add_columns", Grid::new(n.div_ceil(ROWS), THREADS), args![out, x, n, to, from])
}
