//! Softmax cross-entropy of a block of scores, and its gradient.

use super::launch::{Arg, Grid, args};
use super::{Cuda, CudaElement};
use crate::Result;
use crate::backend::{Candidates, InfoNceColumns, InfoNceExps, InfoNceRows, Operations, ROW_STATS, Tensor};

/// Scores that a thread of the smaller blocks holds, as in kernels/info_nce.cu.
const HELD: usize = 16;

/// Rows and columns of a block of info_nce_exps, its threads and its shared memory, as in kernels/info_nce_exps.cu.
const TILE: (usize, usize) = (128, 256);
const TILE_THREADS: usize = 256;
const TILE_BYTES: usize = 3 * (TILE.0 + TILE.1) * 32 * size_of::<half::bf16>();
/// Sums of a row of a tile.
const TILE_SUMS: usize = 4;
/// Rows and threads of a block of info_nce_shift and info_nce_finish.
const ROWS: usize = 8;
const ROWS_THREADS: usize = 256;

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
    let InfoNceRows { scores, candidates, inv_temperature, margin, weight, columns, stats, first_stats, d_scores } =
        args;
    let (rows, n) = (scores.rows(), scores.row_len());
    // Few enough threads that several blocks share a multiprocessor, enough to hold a row. One that is longer than any
    // block holds is read twice.
    let (threads, name) = match (n <= HELD * 256, columns.is_some()) {
        (true, false) => (256, "info_nce_rows_256"),
        (true, true) => (256, "info_nce_both_256"),
        (false, false) => (1024, "info_nce_rows_1024"),
        (false, true) => (1024, "info_nce_both_1024"),
    };
    let m = columns.map_or(0, |columns| columns.row_len());
    let mut all = vec![stats_from(stats, first_stats), d_scores.into(), scores.into(), columns.into()];
    all.extend(masks(&candidates, margin));
    all.extend_from_slice(args![inv_temperature, weight, n, m]);
    cuda.launch_typed("info_nce", name, Grid::new(rows, threads), &all)
}

/// Where the statistics of row `first` are.
fn stats_from<E: CudaElement>(stats: &Tensor<Cuda<E>, f32>, first: usize) -> Arg<'_> {
    Arg::pointer(stats.buffer().address() + (first * ROW_STATS * size_of::<f32>()) as u64)
}

pub(super) fn exps<E: CudaElement>(cuda: &Cuda<E>, args: InfoNceExps<Cuda<E>>) -> Result<()> {
    let (n_rows, n, d) = args.check();
    assert!(cuda.score_blocks().are_fused(d), "info_nce_exps: {d} dimensions in {}", E::NAME);
    let InfoNceExps { rows, columns, candidates, inv_temperature, margin, weight, stats, first_stats, scale, exps } =
        args;
    let tiles = n.div_ceil(TILE.1);
    let sums = cuda.scratch(n_rows * tiles * TILE_SUMS)?;
    let stats = stats_from(stats, first_stats);
    let masks = masks(&candidates, margin);
    let by_rows = Grid::new(n_rows.div_ceil(ROWS), ROWS_THREADS);

    let mut all = vec![stats, rows.into(), columns.into()];
    all.extend(masks);
    all.extend_from_slice(args![inv_temperature, n_rows, n, d]);
    cuda.launch("info_nce_exps", "info_nce_shift", by_rows, &all)?;

    let mut all = vec![(&mut *exps).into(), (&sums).into(), rows.into(), columns.into(), stats];
    all.extend(masks);
    all.extend_from_slice(args![inv_temperature, n_rows, n, d]);
    let by_tiles = Grid::new(n_rows.div_ceil(TILE.0) * tiles, TILE_THREADS).with_shared(TILE_BYTES);
    cuda.launch("info_nce_exps", "info_nce_exps", by_tiles, &all)?;

    let first_positive = candidates.first_positive;
    let mut all = vec![stats];
    all.extend_from_slice(args![scale, exps, &sums, margin, first_positive, inv_temperature, weight, n_rows, n, tiles]);
    cuda.launch("info_nce_exps", "info_nce_finish", by_rows, &all)
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
