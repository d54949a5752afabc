//! What kernels over rows share: the width of their vectors, and the second half of sums over rows.

use super::CudaElement;
use super::kernels::partials_cuh::PARTIAL_COLUMNS;

/// Blocks of a kernel that adds up partial sums of `n` times `width` columns.
pub(super) fn add_partials_blocks(width: usize, n: usize) -> usize {
    n * width.div_ceil(PARTIAL_COLUMNS)
}

/// Columns that a thread takes at a time: as many as 16 bytes hold where rows are whole vectors, else one.
pub(super) fn vector<E: CudaElement>(width: usize) -> usize {
    let most = 16 / size_of::<E>();
    if width.is_multiple_of(most) { most } else { 1 }
}
