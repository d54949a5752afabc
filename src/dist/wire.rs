//! What moves bytes between the processes of a run.

use crate::Result;

/// Most bytes of one message, and of all messages of one call: MPI counts in `int`.
pub const MOST_BYTES: usize = i32::MAX as usize;

/// Moves bytes between ranks. All ranks make the same calls in the same order, and each call with lengths that fit
/// together: otherwise they wait for each other for ever, or get an error.
///
/// Buffers of several ranks are end to end, in the order of ranks, and have as many bytes as their `lens` add up to, at most
/// [`MOST_BYTES`].
pub trait Wire: Send {
    /// Sends each rank its part of `send`, and receives a part from each: `received`.
    ///
    /// # Errors
    /// Where a rank or the connection to it is gone, if that is noticed.
    fn all_to_all(
        &mut self,
        send: &[u8],
        send_lens: &[usize],
        received: &mut [u8],
        received_lens: &[usize],
    ) -> Result<()>;

    /// Receives from each rank, this one included, what it has as `mine`.
    ///
    /// # Errors
    /// As [`Wire::all_to_all`].
    fn all_gather(&mut self, mine: &[u8], received: &mut [u8], lens: &[usize]) -> Result<()>;

    /// Writes what rank `root` has in `bytes` to that of all others. As long on all ranks.
    ///
    /// # Errors
    /// As [`Wire::all_to_all`].
    fn broadcast(&mut self, root: usize, bytes: &mut [u8]) -> Result<()>;

    /// Returns when all ranks have called it.
    ///
    /// # Errors
    /// As [`Wire::all_to_all`].
    fn barrier(&mut self) -> Result<()>;

    /// Ends the exchange. All ranks have to do it before they end.
    ///
    /// # Errors
    /// As [`Wire::all_to_all`].
    fn finish(self: Box<Self>) -> Result<()>;

    /// Ends this process and, as far as it can, all others, with an exit status.
    fn abort(&mut self, status: i32) -> !;
}
