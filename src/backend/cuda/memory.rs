//! Device memory: an arena that takes slabs from the driver and hands out pieces of them, and buffers that give their
//! piece back when they are dropped.
//!
//! Pieces go back at once, though queued work may still use them: whatever is queued later on the compute stream runs
//! later, and copies on another stream wait for an event of the compute stream first.

use super::api::driver as sys;
use super::driver::{Context, Stream, check};
use crate::Result;
use crate::backend::{MemoryUse, Purpose, Value};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// cuBLASLt wants 256 bytes for its fastest kernels, and no vector access needs more.
const ALIGNMENT: usize = 256;
/// What is taken from the driver at a time, if not more is needed.
const SLAB: usize = 64 << 20;

/// Memory of one device.
pub(super) struct Arena {
    context: Arc<Context>,
    /// Takes every piece from the driver, so that compute-sanitizer and the stand-in see where each one ends.
    separate: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What the driver gave: address and bytes.
    slabs: Vec<(u64, usize)>,
    /// Free pieces by address.
    free: BTreeMap<u64, usize>,
    /// Bytes of all pieces that are taken, and the most of them since somebody asked.
    held: u64,
    peak: u64,
}

impl State {
    /// The first piece that is large enough.
    fn take(&mut self, bytes: usize) -> Option<u64> {
        let (&address, &len) = self.free.iter().find(|&(_, &len)| len >= bytes)?;
        self.free.remove(&address);
        if len > bytes {
            self.free.insert(address + bytes as u64, len - bytes);
        }
        Some(address)
    }

    /// Joins a piece with its free neighbours, as far as they belong to one slab.
    fn give(&mut self, mut address: u64, mut bytes: usize) {
        let &(slab, _) =
            self.slabs.iter().find(|&&(start, len)| (start..start + len as u64).contains(&address)).unwrap();
        if let Some((&before, &len)) = self.free.range(slab..address).next_back()
            && before + len as u64 == address
        {
            self.free.remove(&before);
            (address, bytes) = (before, bytes + len);
        }
        let end = address + bytes as u64;
        let slab_end = self.slabs.iter().find(|&&(start, _)| start == slab).map(|&(start, len)| start + len as u64);
        if slab_end.is_some_and(|slab_end| end < slab_end)
            && let Some(len) = self.free.remove(&end)
        {
            bytes += len;
        }
        self.free.insert(address, bytes);
    }
}

impl Arena {
    /// Holds nothing yet.
    pub fn new(context: &Arc<Context>, separate: bool) -> Arc<Self> {
        Arc::new(Self { context: context.clone(), separate, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is taken. The peak is counted anew from here on.
    pub fn memory_use(&self) -> Result<MemoryUse> {
        let (free, total) = self.context.memory()?;
        let mut state = self.lock();
        let (held, slabs) = (state.held, state.slabs.iter().map(|&(_, len)| len as u64).sum());
        let peak = std::mem::replace(&mut state.peak, held);
        let reserved = if self.separate { held } else { slabs };
        Ok(MemoryUse { held, peak, reserved, in_use: (total - free) as u64 })
    }

    /// `bytes`, or a little more: the address.
    fn take(&self, bytes: usize) -> Result<u64> {
        // Where nothing but the buffer's own bytes may be touched, it has no others.
        let address = if self.separate { self.ask(bytes)? } else { self.piece(bytes.next_multiple_of(ALIGNMENT))? };
        let mut state = self.lock();
        state.held += bytes.next_multiple_of(ALIGNMENT) as u64;
        state.peak = state.peak.max(state.held);
        Ok(address)
    }

    /// A piece of a slab.
    fn piece(&self, bytes: usize) -> Result<u64> {
        if let Some(address) = self.lock().take(bytes) {
            return Ok(address);
        }
        // A slab for this piece alone when the usual size is not to be had.
        let (address, len) = match self.ask(bytes.max(SLAB)) {
            Ok(address) => (address, bytes.max(SLAB)),
            Err(_) => (self.ask(bytes)?, bytes),
        };
        let mut state = self.lock();
        state.slabs.push((address, len));
        if len > bytes {
            state.free.insert(address + bytes as u64, len - bytes);
        }
        Ok(address)
    }

    fn give(&self, address: u64, bytes: usize) {
        let bytes = bytes.next_multiple_of(ALIGNMENT);
        self.lock().held -= bytes as u64;
        if !self.separate {
            return self.lock().give(address, bytes);
        }
        // SAFETY: `ask` gave it, and it is given back once.
        let _ = self.context.bind().map(|()| unsafe { sys::cuMemFree_v2(address) });
    }

    fn ask(&self, bytes: usize) -> Result<u64> {
        self.context.bind()?;
        let mut address = 0;
        // SAFETY: writes one address.
        match unsafe { sys::cuMemAlloc_v2(&mut address, bytes) } {
            sys::OUT_OF_MEMORY => {
                let (free, total) = self.context.memory().unwrap_or_default();
                let state = format!(" ({} of {} MiB of the device are free)", free >> 20, total >> 20);
                Err(Purpose::refused(bytes, &state))
            }
            code => check(code, "allocating memory").map(|()| address),
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        for &(address, _) in &self.lock().slabs {
            // SAFETY: `ask` gave it; every buffer keeps its arena, so none is left.
            let _ = self.context.bind().map(|()| unsafe { sys::cuMemFree_v2(address) });
        }
    }
}

/// Memory for `len` elements on the device.
pub struct DeviceBuffer<T> {
    arena: Arc<Arena>,
    address: u64,
    len: usize,
    marker: PhantomData<T>,
}

impl<T: Value> DeviceBuffer<T> {
    /// Undefined content.
    pub(super) fn new(arena: &Arc<Arena>, len: usize) -> Result<Self> {
        // An address of its own also for nothing.
        let address = arena.take(size_of::<T>() * len.max(1))?;
        Ok(Self { arena: arena.clone(), address, len, marker: PhantomData })
    }

    /// Where it is, for a kernel.
    pub(super) fn address(&self) -> u64 {
        self.address
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Queues `x = 0` for the first `len` elements.
    pub(super) fn zero(&mut self, stream: &Stream, len: usize) -> Result<()> {
        assert!(len <= self.len, "zero: {len} of {} elements", self.len);
        if len == 0 {
            return Ok(());
        }
        stream.context.bind()?;
        // SAFETY: within the buffer.
        let code = unsafe { sys::cuMemsetD8Async(self.address, 0, len * size_of::<T>(), stream.raw()) };
        check(code, "clearing memory")
    }

    /// Copies elements from `start` on to the host, when all work queued before is done.
    pub(super) fn download(&self, stream: &Stream, start: usize, to: &mut [T]) -> Result<()> {
        assert!(start + to.len() <= self.len, "download: {} elements from {start} of {}", to.len(), self.len);
        if to.is_empty() {
            return Ok(());
        }
        stream.context.bind()?;
        stream.await_others()?;
        let from = self.address + (start * size_of::<T>()) as u64;
        // SAFETY: within both, and `to` is waited for.
        let code = unsafe { sys::cuMemcpyDtoHAsync_v2(to.as_mut_ptr().cast(), from, size_of_val(to), stream.raw()) };
        check(code, "copying from the device")?;
        stream.synchronize()
    }

    /// Queues `self[to..to + n] = from[start..start + n]`.
    pub(super) fn copy(&mut self, stream: &Stream, to: usize, from: &Self, start: usize, n: usize) -> Result<()> {
        assert!(to + n <= self.len && start + n <= from.len, "copy: beyond the end");
        if n == 0 {
            return Ok(());
        }
        stream.context.bind()?;
        let size = size_of::<T>();
        let (to, from) = (self.address + (to * size) as u64, from.address + (start * size) as u64);
        // SAFETY: within both, which are two buffers.
        check(unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, n * size, stream.raw()) }, "copying on the device")
    }
}

impl<T> Drop for DeviceBuffer<T> {
    fn drop(&mut self) {
        self.arena.give(self.address, size_of::<T>() * self.len.max(1));
    }
}
