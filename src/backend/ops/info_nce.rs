//! Argument structs of the contrastive loss on blocks of scores.

use super::{DistillRows, check_shapes};
use crate::backend::{Device, Ints, Tensor};
use std::ops::{Range, RangeInclusive};

/// Number of values that [`InfoNceRows`] reports for a row: its loss, the cosine of its positive, the sum of the other
/// candidates' cosines, their number, and the derivative of its loss by the inverse temperature.
pub const ROW_STATS: usize = 5;

/// Bits in a word of [`Candidates::left_out`].
pub const WORD_BITS: usize = i32::BITS as usize;

/// How to cut the loss's matrix of scores into blocks of rows on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScoreBlocks {
    /// Most bytes of a block, unless that gives fewer rows than the least of `rows`.
    pub bytes: usize,
    /// Rows of a block: at least enough for a product at its full speed, at most as many as are of use.
    pub rows: RangeInclusive<usize>,
    /// `Some` where the product itself computes the exponentials of its scores, so that no score is ever written
    /// ([`InfoNceExps`]): the number of dimensions has to be a multiple of this.
    pub fused: Option<usize>,
}

impl ScoreBlocks {
    /// 128 MiB: blocks of 128 to 1,024 rows, for up to 262,144 columns.
    pub fn of_cpu() -> Self {
        ScoreBlocks { bytes: 128 << 20, rows: 128..=1024, fused: None }
    }

    /// 1 GiB, or about a twelfth of the memory of a GPU that has less than 12 GiB: a power of two, so that it does not
    /// depend on how much memory the driver takes for itself. With few rows in a block, most bytes read and written
    /// would be those of the candidates' gradient, to which each block adds.
    pub fn of_gpu(memory: u64, fuses: bool) -> Self {
        let twelfth = (memory / 12).clamp(1, 1 << 30);
        ScoreBlocks { bytes: 1 << twelfth.ilog2(), rows: 1024..=usize::MAX, fused: fuses.then_some(8) }
    }

    /// Whether the product over `d` dimensions computes the exponentials itself.
    pub fn are_fused(&self, d: usize) -> bool {
        self.fused.is_some_and(|unit| d.is_multiple_of(unit))
    }
}

/// The pairs that count in a block of `R` rows and `N` columns of scores.
///
/// The positive of row `r` is column `first_positive + r`, which always counts. Any other column is left out of the
/// row's candidates if it has the row's label, is listed or rejected for this row, is skipped for all, or has a cosine
/// above the positive's by more than `false_negative_margin`.
pub struct Candidates<'a, B: Device> {
    /// Column of the first row's positive.
    pub first_positive: usize,
    /// `(R,)` label (class id) of each row.
    pub row_labels: Ints<'a, B>,
    /// `(N,)` label of each column: equal for texts that say the same.
    pub column_labels: Ints<'a, B>,
    /// `(2 R,)` for each row the first column that is rejected and the end of its rejected columns, counted from
    /// `first_passage`.
    pub rejected: Option<Ints<'a, B>>,
    /// `(R, W)` further columns that are left out of a row, as bits, 32 a word, the lowest first: bit `p` is that of
    /// column `first_passage + p`, and of column `p` where that is before `first_passage`. `None`: there are none.
    pub left_out: Option<Ints<'a, B>>,
    /// Column from which `rejected` and `left_out` count.
    pub first_passage: usize,
    /// Columns that are nobody's candidates, except as a row's positive.
    pub skipped: Range<usize>,
    /// Largest cosine above the positive's; infinity means no limit.
    pub false_negative_margin: f32,
}

// Derived, it would ask for a `B` that can be cloned.
impl<B: Device> Clone for Candidates<'_, B> {
    fn clone(&self) -> Self {
        Candidates { skipped: self.skipped.clone(), ..*self }
    }
}

impl<B: Device> Candidates<'_, B> {
    fn check(&self, op: &str, rows: usize, n: usize) {
        assert!(self.first_positive + rows <= n, "{op}: every row has a positive");
        assert_eq!([self.row_labels.len(), self.column_labels.len()], [rows, n], "{op}: labels");
        assert!(self.rejected.is_none_or(|rejected| rejected.len() == 2 * rows), "{op}: two ends a row");
        let bits = (n - self.first_passage).max(self.first_passage);
        assert!(self.left_out.is_none_or(|of| of.len() >= rows * bits.div_ceil(WORD_BITS)), "{op}: a bit a column");
        assert!(self.skipped.end <= n, "{op}: skipped columns");
    }

    /// Words of a row of [`Candidates::left_out`]; 0 if there are none.
    pub fn words_a_row(&self) -> usize {
        self.left_out.map_or(0, |left_out| left_out.len() / self.row_labels.len())
    }
}

/// Panics unless `stats` has room for `rows` rows from `first` on.
fn check_stats<B: Device>(op: &str, stats: &Tensor<B, f32>, first: usize, rows: usize) {
    assert!(stats.row_len() == ROW_STATS && first + rows <= stats.rows(), "{op}: statistics");
}

/// InfoNCE over `R` rows of scores against their [`Candidates`]. With the positive p of row i and
/// `l_ij = s_ij / t` for j other than p, `l_ip = (s_ip - margin) / t`: `loss_i = logsumexp_j(l_ij) - l_ip`, and
/// `d_scores_ij = (softmax_ij - [j = p]) weight / t`, which is 0 where a column is left out.
pub struct InfoNceRows<'a, B: Device> {
    /// `(R, N)` cosine similarities.
    pub scores: &'a Tensor<B, f32>,
    /// The pairs that count.
    pub candidates: Candidates<'a, B>,
    /// `1 / temperature`
    pub inv_temperature: f32,
    /// Subtracted from the positives' cosines.
    pub margin: f32,
    /// Weight of a row's loss in the total.
    pub weight: f32,
    /// `(3, M)` from [`InfoNceColumns`]: the columns before M are also rows of the other direction, whose gradient is
    /// added with the same weight.
    pub columns: Option<&'a Tensor<B, f32>>,
    /// What the rows learn from a teacher, too: its gradient is added to `d_scores`, and its statistics are its own.
    pub distill: Option<DistillRows<'a, B>>,
    /// `(any, ROW_STATS)`: values as [`ROW_STATS`] lists them; the rows from `first_stats` on are written. The loss is
    /// unweighted and that of this direction. The derivative is unweighted and that of both directions, as far as they
    /// meet in the row.
    pub stats: &'a mut Tensor<B, f32>,
    /// Row of `stats` for the first row.
    pub first_stats: usize,
    /// `(R, N)`
    pub d_scores: &'a mut Tensor<B, B::E>,
}

impl<B: Device> InfoNceRows<'_, B> {
    /// Panics on mismatched shapes.
    pub fn check(&self) {
        let (rows, n) = (self.scores.rows(), self.scores.row_len());
        self.candidates.check("info_nce_rows", rows, n);
        check_stats("info_nce_rows", self.stats, self.first_stats, rows);
        check_shapes("info_nce_rows", &[rows, n], [&*self.d_scores]);
        if let Some(columns) = self.columns {
            assert!(columns.row_len() <= n, "info_nce_rows: more columns than there are");
            check_shapes("info_nce_rows", &[3, columns.row_len()], [columns]);
        }
        if let Some(distill) = &self.distill {
            distill.check(self.first_stats, rows, n - self.candidates.first_passage);
        }
    }
}

/// [`InfoNceRows`] without scores in memory: computes, from the vectors whose products the scores are, exponentials
/// that differ from the scores' gradient only by a factor per row: `d_scores_ij = scale_i exps_ij`. The product with
/// them has to scale the rows of the other factor, or its own.
pub struct InfoNceExps<'a, B: Device> {
    /// `(R, d)` vectors of the rows; row 0's positive is column `candidates.first_positive`.
    pub rows: &'a Tensor<B, B::E>,
    /// `(N, d)` vectors of the columns.
    pub columns: &'a Tensor<B, B::E>,
    /// The pairs that count.
    pub candidates: Candidates<'a, B>,
    /// `1 / temperature`
    pub inv_temperature: f32,
    /// Subtracted from the positives' cosines.
    pub margin: f32,
    /// Weight of each row's loss in the total.
    pub weight: f32,
    /// `(any, ROW_STATS)`, as in [`InfoNceRows`].
    pub stats: &'a mut Tensor<B, f32>,
    /// Row of `stats` for the first row.
    pub first_stats: usize,
    /// `(R,)` factor of each row's exponentials.
    pub scale: &'a mut Tensor<B, f32>,
    /// `(R, N)` exponentials; 0 where a column is left out.
    pub exps: &'a mut Tensor<B, B::E>,
}

impl<B: Device> InfoNceExps<'_, B> {
    /// Panics on mismatched shapes; returns `(R, N, d)`.
    pub fn check(&self) -> (usize, usize, usize) {
        let (rows, n, d) = (self.rows.rows(), self.columns.rows(), self.rows.row_len());
        self.candidates.check("info_nce_exps", rows, n);
        let first_passage = self.candidates.first_passage;
        assert!(self.candidates.left_out.is_none() || first_passage == 0, "info_nce_exps: bits count from column 0");
        check_shapes("info_nce_exps", &[n, d], [self.columns]);
        check_stats("info_nce_exps", self.stats, self.first_stats, rows);
        check_shapes("info_nce_exps", &[rows], [&*self.scale]);
        check_shapes("info_nce_exps", &[rows, n], [&*self.exps]);
        (rows, n, d)
    }
}

/// The other direction of [`InfoNceRows`], over a matrix that comes in blocks of rows: the softmax of each of its first
/// `M` columns, whose positives are the rows of the same number. A pair that is left out in one direction is left out
/// in both.
pub struct InfoNceColumns<'a, B: Device> {
    /// `(R, N)` the next rows of cosine similarities; row 0's positive is column `candidates.first_positive`.
    pub scores: &'a Tensor<B, f32>,
    /// The pairs that count.
    pub candidates: Candidates<'a, B>,
    /// `1 / temperature`
    pub inv_temperature: f32,
    /// Subtracted from the positives' cosines.
    pub margin: f32,
    /// Whether these are the first rows; the contents of `state` are then ignored.
    pub is_first: bool,
    /// `(3, M)`: for each column the largest cosine m so far, `sum of exp((s - m) / t)` over all but the positive, and
    /// the positive's cosine. After the last rows: m, the others' share of the whole sum, and 1 / the whole sum.
    pub state: &'a mut Tensor<B, f32>,
    /// Whether these are the last rows.
    pub is_last: bool,
    /// `(M,)` the columns' losses after the last rows; not written before.
    pub loss: &'a mut Tensor<B, f32>,
}

impl<B: Device> InfoNceColumns<'_, B> {
    /// Panics on mismatched shapes.
    pub fn check(&self) {
        let (rows, n, m) = (self.scores.rows(), self.scores.row_len(), self.state.row_len());
        self.candidates.check("info_nce_columns", rows, n);
        assert!(self.candidates.first_positive + rows <= m && m <= n, "info_nce_columns: {m} of {n} columns");
        check_shapes("info_nce_columns", &[3, m], [&*self.state]);
        check_shapes("info_nce_columns", &[m], [&*self.loss]);
    }
}
