//! What a device says of its own time and memory.

use super::Device;
use crate::Result;
use std::time::Duration;

/// Memory of a device, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// What buffers hold now.
    pub held: u64,
    /// The most that they held at a time.
    pub peak: u64,
    /// What was taken from the driver for them, and is not given back before the end.
    pub reserved: u64,
    /// What all processes have of the device: buffers, contexts, and the code of kernels.
    pub in_use: u64,
}

/// Measurements of the work that a device is given.
pub trait Measurement: Device {
    /// How long the device takes over `run`: from when all earlier work is done until all that `run` asked for is.
    ///
    /// # Errors
    /// Those of `run`.
    fn time(&self, run: &mut dyn FnMut() -> Result<()>) -> Result<Duration>;
    /// Fills the device's caches with other data, so that what runs next reads its inputs from memory. False where that
    /// is not done: on a processor, whose caches hold what a step has just written in training, too.
    fn flush_cache(&self) -> Result<bool>;
    /// Starts or stops the profiler that watches the device, if one does, after all work that was given to the device
    /// before. False where a device has no such thing.
    ///
    /// # Errors
    /// When that work has failed.
    fn profiler(&self, _on: bool) -> Result<bool> {
        Ok(false)
    }

    /// What this process's buffers take of the device, where the device counts that. The peak is the one since the last call.
    ///
    /// # Errors
    /// When the device does not answer.
    fn memory_use(&self) -> Result<Option<MemoryUse>> {
        Ok(None)
    }
}
