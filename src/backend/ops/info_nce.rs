//! Argument structs of the contrastive loss on blocks of scores.

use super::check_shapes;
use crate::backend::{Device, Ints, Tensor};
use std::ops::{Range, RangeInclusive};

/// Values that [`InfoNceRows`] tells of a row: its loss, the cosine of its positive, the sum of the other candidates'
/// cosines, their number, and the derivative of its loss by the inverse temperature.
pub const ROW_STATS: usize = 5;

/// How a device wants the loss's matrix of scores cut into blocks of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScoreBlocks {
    /// Most bytes of a block, as long as that makes no fewer rows than `rows` has.
    pub bytes: usize,
    /// Rows of a block: enough for a product at its full speed, and no more than serve it.
    pub rows: RangeInclusive<usize>,
    /// Where the product itself makes exponentials of its scores, so that none is ever written ([`InfoNceExps`]): what the
    /// number of dimensions has to be a multiple of.
    pub fused: Option<usize>,
}

impl ScoreBlocks {
    /// 128 MiB, which is what a processor's blocks of 128 to 1,024 rows are up to 262,144 columns.
    pub fn of_cpu() -> Self {
        ScoreBlocks { bytes: 128 << 20, rows: 128..=1024, fused: None }
    }

    /// 1 GiB, or what is about a twelfth of a GPU that has less than 12 GiB: a power of two, so that it is the same whatever
    /// its driver keeps to itself. With blocks too low, the gradient of all candidates, which each adds to, is most of what
    /// is read and written.
    pub fn of_gpu(memory: u64, fuses: bool) -> Self {
        let twelfth = (memory / 12).clamp(1, 1 << 30);
        ScoreBlocks { bytes: 1 << twelfth.ilog2(), rows: 1024..=usize::MAX, fused: fuses.then_some(8) }
    }

    /// Whether exponentials come straight out of products over `d` dimensions.
    pub fn are_fused(&self, d: usize) -> bool {
        self.fused.is_some_and(|unit| d.is_multiple_of(unit))
    }
}

/// Which pairs of a block of `R` rows and `N` columns of scores count.
///
/// The positive of row `r` is column `first_positive + r`, which always counts. Any other column is left out of the row's
/// candidates if it has the row's label, is rejected for this row, is skipped for all, or has a cosine above the
/// positive's by more than `false_negative_margin`.
pub struct Candidates<'a, B: Device> {
    /// Column of the first row's positive.
    pub first_positive: usize,
    /// `(R,)`
    pub row_labels: Ints<'a, B>,
    /// `(N,)` What says the same has the same label.
    pub column_labels: Ints<'a, B>,
    /// `(2 R,)` for each row the first column that is rejected and the end of those that are, counted from
    /// `first_passage` on.
    pub rejected: Option<Ints<'a, B>>,
    /// See `rejected`.
    pub first_passage: usize,
    /// Columns that are no row's candidates, unless as its positive.
    pub skipped: Range<usize>,
    /// Infinite: no cosine is too large.
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
        assert!(self.skipped.end <= n, "{op}: skipped columns");
    }
}

/// Panics unless `stats` has room for those of `rows` rows from `first` on.
fn check_stats<B: Device>(op: &str, stats: &Tensor<B, f32>, first: usize, rows: usize) {
    assert!(stats.row_len() == ROW_STATS && first + rows <= stats.rows(), "{op}: statistics");
}

/// InfoNCE over `R` rows of scores against their [`Candidates`]. With the positive p of row i and
/// `l_ij = s_ij / t` for j other than p, `l_ip = (s_ip - margin) / t`: `loss_i = logsumexp_j(l_ij) - l_ip`, and
/// `d_scores_ij = (softmax_ij - [j = p]) weight / t`, which is 0 where a column is left out.
pub struct InfoNceRows<'a, B: Device> {
    /// `(R, N)` cosine similarities.
    pub scores: &'a Tensor<B, f32>,
    /// What counts.
    pub candidates: Candidates<'a, B>,
    /// `1 / temperature`
    pub inv_temperature: f32,
    /// Taken from the positives' cosines.
    pub margin: f32,
    /// What a row's loss counts in the total.
    pub weight: f32,
    /// `(3, M)` from [`InfoNceColumns`]: the columns before M are rows of the other direction, whose gradient is added
    /// with the same weight.
    pub columns: Option<&'a Tensor<B, f32>>,
    /// `(anything, ROW_STATS)`, see there; the rows from `first_stats` on are written. The loss is unweighted and this
    /// direction's; the derivative is unweighted and of both directions together, as far as they meet in the row.
    pub stats: &'a mut Tensor<B, f32>,
    /// Where in `stats` the first row's are.
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
    }
}

/// [`InfoNceRows`] without scores in memory: from the vectors that they are products of to exponentials, which only lack a
/// factor a row to be the scores' gradient: `d_scores_ij = scale_i exps_ij`. Whoever multiplies with it scales the rows of
/// the other factor, or those of the product.
pub struct InfoNceExps<'a, B: Device> {
    /// `(R, d)`; row 0's positive is column `candidates.first_positive`.
    pub rows: &'a Tensor<B, B::E>,
    /// `(N, d)` the columns of the scores.
    pub columns: &'a Tensor<B, B::E>,
    /// What counts.
    pub candidates: Candidates<'a, B>,
    /// `1 / temperature`
    pub inv_temperature: f32,
    /// Taken from the positives' cosines.
    pub margin: f32,
    /// Of each row's loss in the total.
    pub weight: f32,
    /// `(anything, ROW_STATS)`, as in [`InfoNceRows`].
    pub stats: &'a mut Tensor<B, f32>,
    /// Where in `stats` the first row's are.
    pub first_stats: usize,
    /// `(R,)`
    pub scale: &'a mut Tensor<B, f32>,
    /// `(R, N)` 0 where a column is left out.
    pub exps: &'a mut Tensor<B, B::E>,
}

impl<B: Device> InfoNceExps<'_, B> {
    /// Panics on mismatched shapes; returns `(R, N, d)`.
    pub fn check(&self) -> (usize, usize, usize) {
        let (rows, n, d) = (self.rows.rows(), self.columns.rows(), self.rows.row_len());
        self.candidates.check("info_nce_exps", rows, n);
        check_shapes("info_nce_exps", &[n, d], [self.columns]);
        check_stats("info_nce_exps", self.stats, self.first_stats, rows);
        check_shapes("info_nce_exps", &[rows], [&*self.scale]);
        check_shapes("info_nce_exps", &[rows, n], [&*self.exps]);
        (rows, n, d)
    }
}

/// The other direction of [`InfoNceRows`] over a matrix that comes in blocks of rows: the softmax of each of its first `M`
/// columns, whose positives are the rows of the same number. A pair that is left out in one direction is so in both.
pub struct InfoNceColumns<'a, B: Device> {
    /// `(R, N)` the next rows of cosine similarities; row 0's positive is column `candidates.first_positive`.
    pub scores: &'a Tensor<B, f32>,
    /// What counts.
    pub candidates: Candidates<'a, B>,
    /// `1 / temperature`
    pub inv_temperature: f32,
    /// Taken from the positives' cosines.
    pub margin: f32,
    /// Whether these are the first rows; what `state` holds is of no account then.
    pub is_first: bool,
    /// `(3, M)`: for each column the largest cosine m so far, `sum of exp((s - m) / t)` over all but the positive, and the
    /// positive's cosine. After the last rows m, what share of the whole sum the others have, and 1 / the whole sum.
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
