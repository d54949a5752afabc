//! Embeddings of one chunk after the other, read back while the next one runs.

use crate::Result;
use crate::backend::{Backend, Tensor};
use std::collections::VecDeque;

/// Chunks whose embeddings may be on their way: one that the device computes while the host deals with the one before.
pub const CHUNKS_ON_THEIR_WAY: usize = 2;

/// Embeddings on their way to the host, in order, each with a note of what they are.
pub struct Reading<B: Backend, T> {
    free: Vec<B::Readback>,
    asked_for: VecDeque<(B::Readback, T)>,
    values: Vec<f32>,
}

impl<B: Backend, T> Reading<B, T> {
    /// For chunks of at most `capacity` values.
    ///
    /// # Errors
    /// When there is no memory left.
    pub fn new(backend: &B, capacity: usize) -> Result<Self> {
        let free = (0..CHUNKS_ON_THEIR_WAY).map(|_| backend.readback(capacity)).collect::<Result<_>>()?;
        Ok(Reading { free, asked_for: VecDeque::new(), values: Vec::new() })
    }

    /// Asks for the embeddings that the work so far gives. Afterwards [`Reading::next`] has to be called until it gives
    /// nothing.
    ///
    /// # Panics
    /// When that was not done.
    pub fn ask(&mut self, backend: &B, embeddings: &Tensor<B, f32>, note: T) -> Result<()> {
        let mut readback = self.free.pop().expect("`next` was called until it gave nothing");
        backend.read_later(embeddings, &mut readback)?;
        self.asked_for.push_back((readback, note));
        Ok(())
    }

    /// The oldest embeddings that are here; waits for them if there is no room for the next, and always `at_the_end`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn next(&mut self, backend: &B, at_the_end: bool) -> Result<Option<(T, &[f32])>> {
        let must = at_the_end || self.free.is_empty();
        match self.asked_for.front() {
            Some((readback, _)) if must || backend.has_arrived(readback)? => {}
            _ => return Ok(None),
        }
        let (mut readback, note) = self.asked_for.pop_front().expect("just seen");
        backend.receive(&mut readback, &mut self.values)?;
        self.free.push(readback);
        Ok(Some((note, &self.values)))
    }
}
