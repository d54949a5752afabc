//! Which sequences of a batch belong together, for the loss.

use super::{Device, Ints};
use crate::backend::TeacherScores;

/// Queries, passages and their relations, on the host. Sequences are numbered: first the queries, then their positives
/// in the same order, then negatives.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostPairing<'a> {
    /// Number of queries, `B`.
    pub n_queries: usize,
    /// `(S,)` place of each sequence in the order in which the tokens come.
    pub places: &'a [i32],
    /// `(S,)` label (class id) of each sequence: equal for sequences that say the same, as a query and its answers do.
    pub labels: &'a [i32],
    /// `(2 B,)` for each query the first passage that neither it nor its positive may take for a negative, and the end
    /// of those passages.
    pub rejected: &'a [i32],
    /// `(B, W)` bits, [`WORD_BITS`](crate::backend::WORD_BITS) a word, the lowest first, W words for all passages: bit
    /// `p` of row `i` is set if passage `p` is no negative of query `i` although their labels differ. If `p` is a
    /// positive, its query is none either, and the bit is set in both rows. Empty if no bit is set.
    pub left_out: &'a [i32],
    /// `(2 B,)` for each query its first hard negative among the passages and the end of its hard negatives; empty unless a
    /// teacher's scores are used.
    pub own_negatives: &'a [i32],
    /// `(S - B,)` a teacher's score of each passage for the query that it belongs to; empty unless they are used.
    pub teacher_scores: &'a [f32],
}

/// A [`HostPairing`] on a device.
pub struct Pairing<'a, B: Device> {
    /// Number of queries, `B`.
    pub n_queries: usize,
    /// `(S,)`, see [`HostPairing::places`].
    pub places: Ints<'a, B>,
    /// `(S,)`, see [`HostPairing::labels`].
    pub labels: Ints<'a, B>,
    /// `(2 B,)`, see [`HostPairing::rejected`].
    pub rejected: Ints<'a, B>,
    /// `(B, W)`, see [`HostPairing::left_out`]; `None` if no bit is set.
    pub left_out: Option<Ints<'a, B>>,
    /// See [`HostPairing::own_negatives`] and [`HostPairing::teacher_scores`]; `None` unless they are used.
    pub teacher: Option<TeacherScores<'a, B>>,
}

// Derived, these would ask for a `B` that can be copied.
impl<B: Device> Clone for Pairing<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Device> Copy for Pairing<'_, B> {}
