//! What the devices of several ranks exchange by themselves, without the host.

use super::{Device, Tensor};
use crate::Result;

/// Gives all ranks the bytes of the first: what it has in the vector, the others have when this returns.
pub type Share<'a> = &'a mut dyn FnMut(&mut Vec<u8>) -> Result<()>;

/// Exchange among the devices of several ranks, one each, in the order of the other work that the device is given. The host
/// waits for none of it. All ranks make the same calls in the same order; the same ranks on the same devices get the same
/// bytes each time, and all of them the same sums.
pub trait Collectives<D: Device> {
    /// Gathers what each rank has in `own`, `lens[rank]` elements of it, into `all`, end to end in the order of ranks.
    ///
    /// # Errors
    /// If the exchange has failed: a rank or the connection to it is gone.
    ///
    /// # Panics
    /// If the tensors have other lengths.
    fn all_gather(&self, own: &Tensor<D, f32>, lens: &[usize], all: &mut Tensor<D, f32>) -> Result<()>;

    /// Adds up each tensor over all ranks. All ranks have as many of the same lengths.
    ///
    /// # Errors
    /// If the exchange has failed.
    fn all_reduce(&self, tensors: &mut [&mut Tensor<D, f32>]) -> Result<()>;

    /// Ends the exchange, when all ranks do.
    ///
    /// # Errors
    /// If the exchange has failed.
    fn finish(&self) -> Result<()>;
}
