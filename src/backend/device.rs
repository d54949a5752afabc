//! A device: its memory, and how values come to it and back.

use super::collectives::{Collectives, Share};
use super::{Element, Tensor, Value};
use crate::Result;

/// A device that computes with one element type.
pub trait Device: Sized + Send + Sync + 'static {
    /// Element type of activations and working weights.
    type E: Element;
    /// Memory on the device.
    type Buffer<T: Value>: Send + Sync;
    /// Host memory that the device reads by itself while the host goes on.
    type HostBlock: AsMut<[i32]> + Send;
    /// A copy on its way to the device.
    type Arrival: Send;
    /// Values on their way to the host.
    type Readback: Send;

    /// What the training report calls this device.
    fn name(&self) -> String;

    /// Zeroed memory for `len` elements. On the CPU, what is never written to takes up no memory.
    fn alloc<T: Value>(&self, len: usize) -> Result<Self::Buffer<T>>;
    /// Copies host values to the first `from.len()` elements, behind the work that the device has; `from` may change when this
    /// returns, which waits for nothing as long as a step's uploads take less than a few MiB.
    fn upload<T: Value>(&self, from: &[T], to: &mut Self::Buffer<T>) -> Result<()>;
    /// Copies `to.len()` elements from `start` on to the host.
    fn download<T: Value>(&self, from: &Self::Buffer<T>, start: usize, to: &mut [T]) -> Result<()>;

    /// The values where they lie, if that is where the host can read them: a copy less. All work on them is done by then.
    fn in_place<'a, T: Value>(&self, _of: &'a Self::Buffer<T>) -> Option<&'a [T]> {
        None
    }

    /// Memory for `len` integers that are to be fed.
    fn host_block(&self, len: usize) -> Result<Self::HostBlock>;
    /// Begins to copy the first `len` integers of `from` to `to`, beside the work that the device has, and waits for
    /// nothing. What is in `to` may be read after [`Device::await_feed`]. `from` may not change before values that were
    /// asked for after that have been [received](Device::receive).
    fn feed(&self, from: &Self::HostBlock, len: usize, to: &mut Self::Buffer<i32>) -> Result<Self::Arrival>;
    /// Lets all work that is asked for from now on wait for a copy; the host goes on.
    fn await_feed(&self, arrival: Self::Arrival) -> Result<()>;

    /// Room for `capacity` values.
    fn readback(&self, capacity: usize) -> Result<Self::Readback>;
    /// Asks for the values that `x` has at this point of the work, behind those asked for before; the host goes on.
    ///
    /// # Panics
    /// When `to` has no room for them.
    fn read_later(&self, x: &Tensor<Self, f32>, to: &mut Self::Readback) -> Result<()>;
    /// Whether all values that were asked for are here, so that [`Device::receive`] does not wait.
    fn has_arrived(&self, from: &Self::Readback) -> Result<bool>;
    /// Waits for all values that were asked for, moves them to `to`, which loses what it held, and leaves `from` empty.
    fn receive(&self, from: &mut Self::Readback, to: &mut Vec<f32>) -> Result<()>;

    /// Connects this device with those of the other ranks, of which this one is number `rank` of `size`, where devices of its
    /// kind exchange by themselves. All ranks call it.
    ///
    /// # Errors
    /// If they cannot be connected, and those of `share`.
    fn connect(&self, _rank: usize, _size: usize, _share: Share) -> Result<()> {
        Ok(())
    }

    /// The exchange with the devices that this one is connected with; `None` where ranks exchange through the host.
    fn collectives(&self) -> Option<&dyn Collectives<Self>> {
        None
    }
}
