//! Batches on their way to the device: a thread of its own cuts them into chunks and sorts their index lists, and each
//! is copied to the device while the step before it computes.
//!
//! A few [`Slot`]s of memory circulate: the thread fills one, the step computes on it, and when the step's results have
//! arrived, the device has read all of it and the thread may fill it again.

use super::share::{Deal, Share};
use crate::ahead::Ahead;
use crate::backend::{Backend, HostPairing, PackedBatch, PackedHost, Purpose};
use crate::data::batch::Batch;
use crate::model::{Packer, Sequences};
use crate::{Result, trace};
use std::sync::mpsc::{Receiver, Sender, channel};

/// One slot whose results are awaited, one that computes, and one that is being filled or copied.
const SLOTS: usize = 3;

/// Memory for a step's batch, on host and device, and for its results.
pub struct Slot<B: Backend> {
    block: B::HostBlock,
    packed: PackedBatch<B>,
    results: B::Readback,
}

impl<B: Backend> Slot<B> {
    /// All slots of a run whose batches take at most `block_len` integers, and whose steps have `n_results` results.
    ///
    /// # Errors
    /// If there is no memory left.
    pub fn all(backend: &B, block_len: usize, n_results: usize) -> Result<Vec<Self>> {
        let slot = |_| {
            let mut packed = PackedBatch::new(backend)?;
            packed.reserve(backend, block_len)?;
            Ok(Slot { block: backend.host_block(block_len)?, packed, results: backend.readback(n_results)? })
        };
        Purpose::Batches.during(|| (0..SLOTS).map(slot).collect())
    }
}

/// A batch on the device, or on its way there before the device needs it.
pub struct Fed<B: Backend> {
    /// The same batch on the host.
    pub batch: Batch,
    slot: Slot<B>,
    arrival: Option<B::Arrival>,
}

impl<B: Backend> Fed<B> {
    /// The batch on the device, and the place for its step's results. Operations launched from now on see the batch.
    ///
    /// # Errors
    /// If the device fails.
    pub fn begin(&mut self, backend: &B) -> Result<(&PackedBatch<B>, &mut B::Readback)> {
        if let Some(arrival) = self.arrival.take() {
            backend.await_feed(arrival)?;
        }
        Ok((&self.slot.packed, &mut self.slot.results))
    }

    /// The results that the step started to read.
    pub fn results(&mut self) -> &mut B::Readback {
        &mut self.slot.results
    }
}

/// The batches of a run, in order.
pub struct Feed<B: Backend> {
    /// Dropped first: then the thread does not wait for another slot.
    spare: Sender<Slot<B>>,
    filled: Ahead<Result<(Batch, Slot<B>)>>,
    /// The next batch, which is copied while the step before it computes.
    next: Option<Result<Fed<B>>>,
    is_started: bool,
}

impl<B: Backend> Feed<B> {
    /// Starts to lay out what one rank embeds of `batches`, each of at most `block_len` integers; each step may have `n_results`
    /// results.
    ///
    /// # Errors
    /// If the device has no memory left, or the system refuses a thread.
    pub fn start(
        backend: &B,
        batches: impl Iterator<Item = Result<Batch>> + Send + 'static,
        packer: Packer,
        deal: Deal,
        block_len: usize,
        n_results: usize,
    ) -> Result<Self> {
        let (spare, slots) = channel();
        for slot in Slot::all(backend, block_len, n_results)? {
            spare.send(slot).expect("its receiver is here");
        }
        let mut packing = Packing::new(packer, deal);
        let filled = batches.map_while(move |batch| fill(&mut packing, batch, &slots).transpose());
        Ok(Feed { spare, filled: Ahead::start("hbt-feeder", SLOTS, filled)?, next: None, is_started: false })
    }

    /// The next step's batch. Starts the copy of the one after it, too.
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

    /// Takes back the memory of a step whose results have arrived.
    pub fn give_back(&self, step: Fed<B>) {
        // Fails if the thread has ended and needs no memory.
        let _ = self.spare.send(step.slot);
    }
}

/// Which sequences of a batch belong together.
fn pairing_of(batch: &Batch) -> HostPairing<'_> {
    let Batch { n_queries, places, labels, rejected, left_out, own_negatives, teacher_scores, .. } = batch;
    HostPairing { n_queries: *n_queries, places, labels, rejected, left_out, own_negatives, teacher_scores }
}

/// Cuts batches, or what one rank has of them, into chunks.
pub struct Packing {
    packer: Packer,
    deal: Deal,
    share: Share,
}

impl Packing {
    /// For a rank to which batches are dealt out so.
    pub fn new(packer: Packer, deal: Deal) -> Self {
        Packing { packer, deal, share: Share::default() }
    }

    /// A batch as the device takes it.
    ///
    /// # Errors
    /// Those of the packer.
    pub fn pack(&mut self, batch: &Batch) -> Result<&PackedHost> {
        let Packing { packer, deal, share } = self;
        if *deal == Deal::ALONE {
            return packer.pack_pairs(Sequences::new(&batch.ids, &batch.cu_seqlens), &pairing_of(batch));
        }
        share.take(*deal, batch);
        let Share { ids, cu_seqlens, first_rows, places } = &*share;
        let pairing = HostPairing { places, ..pairing_of(batch) };
        packer.pack_share(&batch.ids, Sequences { ids, cu_seqlens, first_rows }, &pairing)
    }
}

/// A batch in the next free slot; `None` if there will be no more slots.
fn fill<B: Backend>(
    packing: &mut Packing,
    batch: Result<Batch>,
    slots: &Receiver<Slot<B>>,
) -> Result<Option<(Batch, Slot<B>)>> {
    let batch = batch?;
    let range = trace::phase("lay out");
    let host = packing.pack(&batch)?;
    drop(range);
    let Ok(mut slot) = slots.recv() else { return Ok(None) };
    slot.packed.lay_out(host, slot.block.as_mut());
    Ok(Some((batch, slot)))
}
