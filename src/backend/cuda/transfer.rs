//! Copies that nobody waits for: out of pinned memory, and back to it. The device reads no other memory of the host's: a
//! copy from pageable memory may wait for the stream, or read its source long after the call, as the driver likes.

use super::api::driver as sys;
use super::driver::{Context, Event, Stream, check};
use super::{Cuda, CudaElement, DeviceBuffer, Tensor};
use crate::Result;
use crate::backend::Value;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, PoisonError};

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

/// Pinned memory that uploads go through, piece after piece and round and round: a part of it is written to again when
/// the copy out of it has happened.
pub(super) struct Staging {
    memory: Pinned<u8>,
    /// Behind the last piece.
    end: usize,
    /// Pieces whose copies may be under way, the oldest first, and when each is done.
    in_flight: VecDeque<(Range<usize>, Event)>,
}

impl Staging {
    /// Much more than all that a step uploads, so that no step waits; for what is larger, pieces that the host fills while
    /// those before them are copied.
    const BYTES: usize = 16 << 20;
    const PIECE: usize = Self::BYTES / 4;
    /// What pieces begin at multiples of.
    const ALIGNMENT: usize = 256;

    pub fn new(context: &Arc<Context>) -> Result<Self> {
        Ok(Staging { memory: Pinned::new(context, Self::BYTES)?, end: 0, in_flight: VecDeque::new() })
    }

    /// Queues the copy of `from` to the address `to` on `stream`, always the same one. `from` has been read when this
    /// returns.
    ///
    /// # Safety
    /// There are as many bytes at `to`, until the copy has happened.
    unsafe fn upload(&mut self, stream: &Stream, from: &[u8], to: u64) -> Result<()> {
        for (i, piece) in from.chunks(Self::PIECE).enumerate() {
            let place = self.room(piece.len())?;
            let staged = &mut self.memory.as_mut()[place.clone()];
            staged.copy_from_slice(piece);
            let to = to + (i * Self::PIECE) as u64;
            stream.context.bind()?;
            // SAFETY: the caller's promise; `room` gives the place to nobody else before the event, and the memory waits for
            // the device when it is dropped.
            let code = unsafe { sys::cuMemcpyHtoDAsync_v2(to, staged.as_ptr().cast(), staged.len(), stream.raw()) };
            check(code, "copying to the device")?;
            let done = Event::new(&stream.context, false)?;
            done.record(stream)?;
            self.in_flight.push_back((place, done));
        }
        Ok(())
    }

    /// The place of the next `len` bytes. Waits for the copies out of it.
    fn room(&mut self, len: usize) -> Result<Range<usize>> {
        let start = self.end.next_multiple_of(Self::ALIGNMENT);
        let start = if start + len <= Self::BYTES { start } else { 0 };
        let place = start..start + len;
        // Copies happen in their order: with one, all before it are done.
        let overlaps = |(piece, _): &(Range<usize>, Event)| piece.start < place.end && place.start < piece.end;
        if let Some(last) = self.in_flight.iter().rposition(overlaps) {
            self.in_flight[last].1.synchronize()?;
            self.in_flight.drain(..=last);
        }
        while let Some((_, done)) = self.in_flight.front()
            && done.has_happened()?
        {
            self.in_flight.pop_front();
        }
        self.end = place.end;
        Ok(place)
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
    /// See [`Backend::upload`](crate::backend::Backend::upload).
    pub(super) fn upload_staged<T: Value>(&self, from: &[T], to: &mut DeviceBuffer<T>) -> Result<()> {
        assert!(from.len() <= to.len(), "upload: {} values into {}", from.len(), to.len());
        let mut staging = self.device.staging.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: within the buffer, whose memory is written to by nothing that is queued before the copy has happened.
        unsafe { staging.upload(&self.device.compute, bytemuck::cast_slice(from), to.address()) }
    }

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
