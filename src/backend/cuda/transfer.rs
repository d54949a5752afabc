//! Copies that nobody waits for: out of pinned memory on a stream of their own, and back to it.

use super::api::driver as sys;
use super::driver::{Context, Event, check};
use super::{Cuda, CudaElement, DeviceBuffer, Tensor};
use crate::Result;
use crate::backend::Value;
use std::sync::Arc;

/// Host memory that the device can read and write by itself.
pub struct Pinned<T> {
    context: Arc<Context>,
    values: *mut T,
    len: usize,
}

// SAFETY: it owns its memory, as a Vec does.
unsafe impl<T: Send> Send for Pinned<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Pinned<T> {}

impl<T: Value> Pinned<T> {
    /// `len` zeros.
    pub(super) fn new(context: &Arc<Context>, len: usize) -> Result<Self> {
        context.bind()?;
        let mut memory = std::ptr::null_mut();
        // An address of its own also for nothing.
        let bytes = size_of::<T>() * len.max(1);
        // SAFETY: writes one address, of memory that is given back when this value is dropped.
        check(unsafe { sys::cuMemHostAlloc(&mut memory, bytes, 0) }, &format!("pinning {bytes} bytes of host memory"))?;
        // SAFETY: `bytes` bytes, aligned to a page.
        unsafe { memory.cast::<u8>().write_bytes(0, bytes) };
        Ok(Pinned { context: context.clone(), values: memory.cast(), len })
    }
}

impl<T: Value> AsRef<[T]> for Pinned<T> {
    fn as_ref(&self) -> &[T] {
        // SAFETY: `len` values, written when the memory was made; every bit pattern is one.
        unsafe { std::slice::from_raw_parts(self.values, self.len) }
    }
}

impl<T: Value> AsMut<[T]> for Pinned<T> {
    fn as_mut(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.values, self.len) }
    }
}

impl<T> Drop for Pinned<T> {
    fn drop(&mut self) {
        // A copy may be under way.
        // SAFETY: `cuMemHostAlloc` gave it.
        let _ = self.context.bind().map(|()| unsafe {
            let _ = sys::cuCtxSynchronize();
            sys::cuMemFreeHost(self.values.cast())
        });
    }
}

/// A copy on its way to the device.
pub struct Arrival(pub(super) Event);

/// Values on their way to the host.
pub struct Readback {
    memory: Pinned<f32>,
    /// How many were asked for.
    len: usize,
    /// The last of them is here.
    arrival: Event,
}

impl Readback {
    pub(super) fn new(context: &Arc<Context>, capacity: usize) -> Result<Self> {
        Ok(Readback { memory: Pinned::new(context, capacity)?, len: 0, arrival: Event::new(context, false)? })
    }

    pub(super) fn has_arrived(&self) -> Result<bool> {
        if self.len == 0 { Ok(true) } else { self.arrival.has_happened() }
    }

    pub(super) fn receive(&mut self, to: &mut Vec<f32>) -> Result<()> {
        to.clear();
        if self.len > 0 {
            self.arrival.synchronize()?;
        }
        to.extend_from_slice(&self.memory.as_ref()[..self.len]);
        self.len = 0;
        Ok(())
    }
}

impl<E: CudaElement> Cuda<E> {
    /// See [`Backend::feed`](crate::backend::Backend::feed).
    pub(super) fn feed_block(&self, from: &Pinned<i32>, len: usize, to: &mut DeviceBuffer<i32>) -> Result<Arrival> {
        assert!(len <= from.len && len <= to.len(), "feed: {len} integers of {} to {}", from.len, to.len());
        let (compute, copies) = (&self.device.compute, &self.device.copies);
        // Work that was asked for before may still use the memory.
        let before = Event::new(&self.device.context, false)?;
        before.record(compute)?;
        copies.wait(&before)?;
        let bytes = size_of::<i32>() * len;
        // SAFETY: within both. Whoever feeds keeps `from` as it is until the device is through with it, and `from` waits
        // for the device when it is dropped.
        let code =
            unsafe { sys::cuMemcpyHtoDAsync_v2(to.address(), from.values.cast_const().cast(), bytes, copies.raw()) };
        check(code, "feeding a batch")?;
        let arrival = Event::new(&self.device.context, false)?;
        arrival.record(copies)?;
        Ok(Arrival(arrival))
    }

    /// See [`Backend::read_later`](crate::backend::Backend::read_later).
    pub(super) fn copy_back(&self, x: &Tensor<Self, f32>, to: &mut Readback) -> Result<()> {
        let n = x.len();
        assert!(to.len + n <= to.memory.len, "read_later: {n} values more than there is room for");
        if n == 0 {
            return Ok(());
        }
        let compute = &self.device.compute;
        compute.context.bind()?;
        // SAFETY: within both. `memory` is looked at only when the event has happened, and waits for the device when it is
        // dropped.
        let code = unsafe {
            let place = to.memory.values.add(to.len);
            sys::cuMemcpyDtoHAsync_v2(place.cast(), x.buffer().address(), size_of::<f32>() * n, compute.raw())
        };
        check(code, "reading results")?;
        to.len += n;
        to.arrival.record(compute)
    }
}
