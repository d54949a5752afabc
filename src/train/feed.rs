//! Batches on their way to the device: a thread of its own cuts them into chunks and sorts what wants sorting, and each
//! is copied to the device while the step before it computes.
//!
//! A few [`Slot`]s of memory go round: the thread fills one, the step computes on it, and when the step's results are
//! here, the device has read all of it and the thread may fill it again.

use crate::ahead::Ahead;
use crate::backend::{Backend, HostPairing, PackedBatch, Purpose};
use crate::data::batch::Batch;
use crate::model::{Packer, Sequences};
use crate::{Result, trace};
use std::sync::mpsc::{Receiver, Sender, channel};

/// One whose results are awaited, one that computes, and one that is being filled or copied.
const SLOTS: usize = 3;

/// What a step's batch takes, on both sides, and room for its results.
pub struct Slot<B: Backend> {
    block: B::HostBlock,
    packed: PackedBatch<B>,
    results: B::Readback,
}

impl<B: Backend> Slot<B> {
    /// All slots of a run whose batches take at most `block_len` integers, and whose steps have `n_results` results.
    ///
    /// # Errors
    /// When there is no memory left.
    pub fn all(backend: &B, block_len: usize, n_results: usize) -> Result<Vec<Self>> {
        let slot = |_| {
            let mut packed = PackedBatch::new(backend)?;
            packed.reserve(backend, block_len)?;
            Ok(Slot { block: backend.host_block(block_len)?, packed, results: backend.readback(n_results)? })
        };
        Purpose::Batches.during(|| (0..SLOTS).map(slot).collect())
    }
}

/// A batch that the device has, or will have by the time it comes to it.
pub struct Fed<B: Backend> {
    /// What it was made of.
    pub batch: Batch,
    slot: Slot<B>,
    arrival: Option<B::Arrival>,
}

impl<B: Backend> Fed<B> {
    /// The batch on the device, and where its step's results go. Work that is asked for from now on sees the batch.
    ///
    /// # Errors
    /// When the device fails.
    pub fn begin(&mut self, backend: &B) -> Result<(&PackedBatch<B>, &mut B::Readback)> {
        if let Some(arrival) = self.arrival.take() {
            backend.await_feed(arrival)?;
        }
        Ok((&self.slot.packed, &mut self.slot.results))
    }

    /// The results that were asked for.
    pub fn results(&mut self) -> &mut B::Readback {
        &mut self.slot.results
    }
}

/// The batches of a run, in order.
pub struct Feed<B: Backend> {
    /// Dropped first: without it the thread does not wait for another slot.
    spare: Sender<Slot<B>>,
    filled: Ahead<Result<(Batch, Slot<B>)>>,
    /// On its way while the step before it computes.
    next: Option<Result<Fed<B>>>,
    is_started: bool,
}

impl<B: Backend> Feed<B> {
    /// Starts to lay out `batches`, none of which takes more than `block_len` integers; each step may ask for `n_results`
    /// results.
    ///
    /// # Errors
    /// When the device has no memory left, or the system does not grant a thread.
    pub fn start(
        backend: &B,
        batches: impl Iterator<Item = Result<Batch>> + Send + 'static,
        mut packer: Packer,
        block_len: usize,
        n_results: usize,
    ) -> Result<Self> {
        let (spare, slots) = channel();
        for slot in Slot::all(backend, block_len, n_results)? {
            spare.send(slot).expect("its receiver is here");
        }
        let filled = batches.map_while(move |batch| fill(&mut packer, batch, &slots).transpose());
        Ok(Feed { spare, filled: Ahead::start("hbt-feeder", SLOTS, filled)?, next: None, is_started: false })
    }

    /// The next step's batch. The one after it is sent to the device, too.
    pub fn next(&mut self, backend: &B) -> Option<Result<Fed<B>>> {
        let _range = trace::phase("feed");
        if !self.is_started {
            self.is_started = true;
            self.next = self.send(backend);
        }
        let batch = self.next.take()?;
        if batch.is_ok() {
            self.next = self.send(backend);
        }
        Some(batch)
    }

    fn send(&mut self, backend: &B) -> Option<Result<Fed<B>>> {
        let send = |(batch, mut slot): (Batch, Slot<B>)| {
            let arrival = Some(slot.packed.feed(backend, &slot.block)?);
            Ok(Fed { batch, slot, arrival })
        };
        self.filled.next().map(|filled| filled.and_then(send))
    }

    /// Takes the memory of a step back whose results have been received.
    pub fn give_back(&self, step: Fed<B>) {
        // A thread that has ended wants no memory.
        let _ = self.spare.send(step.slot);
    }
}

/// A batch in the next free slot; nothing when there will be no slot any more.
fn fill<B: Backend>(
    packer: &mut Packer,
    batch: Result<Batch>,
    slots: &Receiver<Slot<B>>,
) -> Result<Option<(Batch, Slot<B>)>> {
    let batch = batch?;
    let range = trace::phase("lay out");
    let sequences = Sequences { ids: &batch.ids, cu_seqlens: &batch.cu_seqlens };
    let Batch { n_queries, places, labels, rejected, .. } = &batch;
    let host = packer.pack_pairs(sequences, &HostPairing { n_queries: *n_queries, places, labels, rejected })?;
    drop(range);
    let Ok(mut slot) = slots.recv() else { return Ok(None) };
    slot.packed.lay_out(host, slot.block.as_mut());
    Ok(Some((batch, slot)))
}
