//! Softmax cross-entropy of a block of scores, and its gradient.

use super::launch::{Arg, Grid, args};
use super::{Cuda, CudaElement};
use crate::Result;
use crate::backend::{Candidates, InfoNceColumns, InfoNceRows};

/// Scores that a thread of the smaller blocks holds, as in kernels/info_nce.cu.
const HELD: usize = 16;

/// Columns and threads of a block of info_nce_columns.
const COLUMNS: usize = 32;
const COLUMN_THREADS: usize = 256;

/// `MASKS` of kernels/info_nce.cu.
fn masks<E: CudaElement>(c: &Candidates<Cuda<E>>, margin: f32) -> [Arg<'static>; 9] {
    [
        c.row_labels.into(),
        c.column_labels.into(),
        c.rejected.into(),
        c.false_negative_margin.into(),
        margin.into(),
        c.first_positive.into(),
        c.first_passage.into(),
        c.skipped.start.into(),
        c.skipped.end.into(),
    ]
}

pub(super) fn rows<E: CudaElement>(cuda: &Cuda<E>, args: InfoNceRows<Cuda<E>>) -> Result<()> {
    args.check();
    let InfoNceRows { scores, candidates, inv_temperature, margin, weight, columns, stats, d_scores } = args;
    let (rows, n) = (scores.rows(), scores.row_len());
    // Few enough threads that several blocks share a multiprocessor, enough to hold a row. One that is longer than any
    // block holds is read twice.
    let (threads, name) = match (n.div_ceil(HELD), columns.is_some()) {
        (0..=256, false) => (256, "info_nce_rows_256"),
        (0..=256, true) => (256, "info_nce_both_256"),
        (257..=512, false) => (512, "info_nce_rows_512"),
        (257..=512, true) => (512, "info_nce_both_512"),
        (_, false) => (1024, "info_nce_rows_1024"),
        (_, true) => (1024, "info_nce_both_1024"),
    };
    let m = columns.map_or(0, |columns| columns.row_len());
    let mut all = args![stats, d_scores, scores, columns].to_vec();
    all.extend(masks(&candidates, margin));
    all.extend_from_slice(args![inv_temperature, weight, n, m]);
    cuda.launch_typed("info_nce", name, Grid::new(rows, threads), &all)
}

pub(super) fn columns<E: CudaElement>(cuda: &Cuda<E>, args: InfoNceColumns<Cuda<E>>) -> Result<()> {
    args.check();
    let InfoNceColumns { scores, candidates, inv_temperature, margin, is_first, is_last, state, loss } = args;
    let (rows, n, m) = (scores.rows(), scores.row_len(), state.row_len());
    let mut all = args![state, loss, scores].to_vec();
    all.extend(masks(&candidates, margin));
    all.extend_from_slice(args![inv_temperature, rows, n, m, is_first, is_last]);
    cuda.launch("info_nce", "info_nce_columns", Grid::new(m.div_ceil(COLUMNS), COLUMN_THREADS), &all)
}
