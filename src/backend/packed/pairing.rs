//! Which sequences of a batch belong together: what the loss needs to know of it.

use super::{Device, Ints};

/// Queries, passages, and what they are to one another, on the host. Sequences are numbered: the queries, then their
/// positives in the same order, then negatives.
#[derive(Clone, Copy, Debug)]
pub struct HostPairing<'a> {
    /// `B`
    pub n_queries: usize,
    /// `(S,)` where among the batch's sequences, as their tokens come, each one is.
    pub places: &'a [i32],
    /// `(S,)` Sequences that say the same have the same label, as a query and its answers have.
    pub labels: &'a [i32],
    /// `(2 B,)` for each query the first passage that it must not take for a negative, and the end of those. Its positive
    /// must not either.
    pub rejected: &'a [i32],
}

/// A [`HostPairing`] on a device.
pub struct Pairing<'a, B: Device> {
    /// `B`
    pub n_queries: usize,
    /// `(S,)`, see [`HostPairing::places`].
    pub places: Ints<'a, B>,
    /// `(S,)`, see [`HostPairing::labels`].
    pub labels: Ints<'a, B>,
    /// `(2 B,)`, see [`HostPairing::rejected`].
    pub rejected: Ints<'a, B>,
}

// Derived, these would ask for a `B` that can be copied.
impl<B: Device> Clone for Pairing<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Device> Copy for Pairing<'_, B> {}
