//! What rows of scores learn from a teacher.

use super::check_shapes;
use crate::backend::{Device, Ints, Tensor};

crate::choices::choices! {
    /// How a query's scores of its own candidates (its positive, then its hard negatives) follow a teacher's.
    Distillation {
        /// The Kullback-Leibler divergence of the softmax over the candidates from the teacher's.
        Kl = "kl",
        /// The mean squared difference of the margins by which the positive is above each negative (Hofstätter et al.,
        /// arXiv 2010.02666).
        MarginMse = "margin_mse",
    }
}

/// Number of values that [`DistillRows`] reports for a row: its loss, and the derivative of that by the inverse temperature.
pub const DISTILL_STATS: usize = 2;

/// Which passages are a query's own hard negatives, and a teacher's scores of all.
pub struct TeacherScores<'a, B: Device> {
    /// `(2 R,)` for each query its first hard negative among the passages and the end of its hard negatives.
    pub own: Ints<'a, B>,
    /// `(N,)` score of each passage for the query that it belongs to: the bits of an f32.
    pub scores: Ints<'a, B>,
}

// Derived, these would ask for a `B` that can be copied.
impl<B: Device> Clone for TeacherScores<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Device> Copy for TeacherScores<'_, B> {}

/// Distillation in `R` rows of scores, beside [`InfoNceRows`](super::InfoNceRows), to whose gradient it adds its own.
///
/// Over a row's candidates k, its positive p and its own negatives, whether or not they count for InfoNCE, with
/// `b_k = s_k / t` and the teacher's `a_k = score_k / t'`:
///
/// - KL: `loss = sum_k softmax(a)_k (ln softmax(a)_k - ln softmax(b)_k)`, `d_scores_k = (softmax(b)_k - softmax(a)_k) / t`;
/// - MarginMSE: with `e_k = (b_p - b_k) - (a_p - a_k)` over the K negatives, `loss = sum_k e_k^2 / K`,
///   `d_scores_k = -2 e_k / (K t)` and `d_scores_p = 2 sum_k e_k / (K t)`.
///
/// A row without negatives has loss 0.
pub struct DistillRows<'a, B: Device> {
    /// What is compared.
    pub kind: Distillation,
    /// `own` of the `R` rows, `scores` of all passages.
    pub teacher: TeacherScores<'a, B>,
    /// `1 / t`
    pub inv_temperature: f32,
    /// `1 / t'`
    pub inv_teacher_temperature: f32,
    /// Weight of a row's loss in the total.
    pub weight: f32,
    /// `(any, DISTILL_STATS)`: values as [`DISTILL_STATS`] lists them, unweighted, in the rows in which
    /// [`InfoNceRows::stats`](super::InfoNceRows::stats) has its own.
    pub stats: &'a mut Tensor<B, f32>,
}

impl<B: Device> DistillRows<'_, B> {
    /// Panics on mismatched shapes: `rows` rows of statistics from `first` on, `n_passages` columns that are passages.
    pub(super) fn check(&self, first: usize, rows: usize, n_passages: usize) {
        let TeacherScores { own, scores } = self.teacher;
        assert_eq!([own.len(), scores.len()], [2 * rows, n_passages], "distill_rows: teacher's scores");
        check_shapes("distill_rows", &[self.stats.rows(), DISTILL_STATS], [&*self.stats]);
        assert!(first + rows <= self.stats.rows(), "distill_rows: statistics");
    }
}
