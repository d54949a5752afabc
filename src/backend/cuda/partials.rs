//! What kernels over rows share: the width of their vectors, and the second half of sums over rows.

use super::CudaElement;
use super::launch::Grid;

/// PARTIAL_COLUMNS and PARTIAL_THREADS of kernels/partials.cuh.
const COLUMNS: usize = 32;
const THREADS: usize = 256;

/// The grid of a kernel that adds up partial sums of `n` times `width` columns.
pub(super) fn add_partials_grid(width: usize, n: usize) -> Grid {
    Grid::new(n * width.div_ceil(COLUMNS), THREADS)
}

/// Columns that a thread takes at a time: as many as 16 bytes hold where rows are whole vectors, else one.
pub(super) fn vector<E: CudaElement>(width: usize) -> usize {
    let most = 16 / size_of::<E>();
    if width.is_multiple_of(most) { most } else { 1 }
}
