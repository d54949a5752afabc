//! Softmax cross-entropy of a block of scores, and its gradient.

use super::launch::{Grid, args};
use super::{Cuda, CudaElement};
use crate::Result;
use crate::backend::InfoNceRows;

/// Scores that a thread holds, as in kernels/info_nce.cu.
const HELD: usize = 16;

pub(super) fn rows<E: CudaElement>(cuda: &Cuda<E>, args: InfoNceRows<Cuda<E>>) -> Result<()> {
    args.check();
    let InfoNceRows { scores, positives, inv_temperature, weight, loss, cosines, d_scores } = args;
    let (rows, n) = (scores.rows(), scores.row_len());
    // Few enough threads that several blocks share a multiprocessor, enough to hold a row. One that is longer than any
    // block holds is read twice.
    let (threads, name) = match n.div_ceil(HELD) {
        0..=256 => (256, "info_nce_rows_256"),
        257..=512 => (512, "info_nce_rows_512"),
        _ => (1024, "info_nce_rows_1024"),
    };
    let args = args![loss, cosines, d_scores, scores, positives, inv_temperature, weight, n];
    cuda.launch_typed("info_nce", name, Grid::new(rows, threads), args)
}
