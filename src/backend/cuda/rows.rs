//! Zeros, casts, and copies of some rows.

use super::kernels::rows::{CAST, ROWS, THREADS};
use super::launch::launch;
use super::pointers::In;
use super::tensor_list::TensorList;
use super::{Cuda, CudaElement, Tensor};
use crate::Result;
use crate::backend::Ints;
use crate::backend::ops::{check_columns, check_shapes};

pub(super) fn zero_all<E: CudaElement>(cuda: &Cuda<E>, xs: &mut [&mut Tensor<Cuda<E>, f32>]) -> Result<()> {
    TensorList::of(xs.iter().map(|x| &**x))
        .try_for_each(|(_, list)| launch!(cuda, rows::ZeroAll { list: &list }, list.blocks.n_blocks()))
}

pub(super) fn cast<E: CudaElement>(
    cuda: &Cuda<E>,
    x: &Tensor<Cuda<E>, f32>,
    out: &mut Tensor<Cuda<E>, E>,
) -> Result<()> {
    assert_eq!(x.len(), out.len(), "cast: lengths");
    let n = x.len();
    launch!(cuda, rows::Cast { out, x, n }, n.div_ceil(CAST * THREADS))
}

pub(super) fn gather<E: CudaElement>(
    cuda: &Cuda<E>,
    x: &Tensor<Cuda<E>, f32>,
    rows: Ints<Cuda<E>>,
    out: &mut Tensor<Cuda<E>, f32>,
) -> Result<()> {
    let (n, width) = (rows.len(), x.row_len());
    check_shapes("gather_rows", &[n, width], [&*out]);
    let scale = None::<In<f32>>;
    launch!(cuda, rows::GatherRows { out, x, rows, scale, n, width }, n.div_ceil(ROWS))
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
    launch!(cuda, rows::GatherRows { out, x, rows, scale, n, width }, n.div_ceil(ROWS))
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
    launch!(cuda, rows::ScatterRows { out, x, rows, scale, n, width }, n.div_ceil(ROWS))
}

pub(super) fn copy_columns<E: CudaElement>(
    cuda: &Cuda<E>,
    x: &Tensor<Cuda<E>, f32>,
    out: &mut Tensor<Cuda<E>, f32>,
) -> Result<()> {
    let (n, (from, to)) = (x.rows(), check_columns("copy_columns", x, out));
    launch!(cuda, rows::CopyColumns { out, x, n, to, from }, n.div_ceil(ROWS))
}

pub(super) fn add_columns<E: CudaElement>(
    cuda: &Cuda<E>,
    x: &Tensor<Cuda<E>, f32>,
    out: &mut Tensor<Cuda<E>, f32>,
) -> Result<()> {
    let (n, (to, from)) = (x.rows(), check_columns("add_columns", out, x));
    launch!(cuda, rows::AddColumns { out, x, n, to, from }, n.div_ceil(ROWS))
}
