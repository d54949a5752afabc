//! What a [`Tally`](super::Tally) has been asked for.

use crate::backend::Purpose;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What limits the speed of an operation, besides memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkKind {
    /// A product of matrices.
    Product,
    /// Attention's many small ones.
    Attention,
    /// Nothing: memory alone.
    Rows,
}

/// What an operation does at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Work {
    /// What limits it.
    pub kind: WorkKind,
    /// Multiplications and additions in products of matrices.
    pub flops: u64,
    /// Everything that is read, once, and everything that is written, once.
    pub bytes: u64,
}

/// A tensor that all ranks exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// Each rank has a part of these bytes, and gets all of them.
    Gathered(u64),
    /// Each rank has so many bytes, and gets their sum over all ranks.
    Summed(u64),
}

impl Exchange {
    /// Size of the tensor, of all ranks where each has a part.
    pub fn bytes(self) -> u64 {
        let (Exchange::Gathered(bytes) | Exchange::Summed(bytes)) = self;
        bytes
    }

    /// Bytes that each of `n_ranks` ranks receives, and sends: what a ring takes, which is the least. A sum comes in two rounds
    /// of as many: each rank adds up its part, and then all gather the sums.
    pub fn received(self, n_ranks: usize) -> f64 {
        let rounds = if matches!(self, Exchange::Summed(_)) { 2.0 } else { 1.0 };
        rounds * self.bytes() as f64 * (n_ranks as f64 - 1.0) / n_ranks as f64
    }
}

/// Memory in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// On the device.
    pub device: BTreeMap<Purpose, u64>,
    /// On the host, for batches and results on their way.
    pub host: u64,
}

impl Memory {
    /// On the device, for one purpose.
    pub fn of(&self, purpose: Purpose) -> u64 {
        self.device.get(&purpose).copied().unwrap_or(0)
    }

    /// On the device, for whatever purpose.
    pub fn on_device(&self) -> u64 {
        self.device.values().sum()
    }
}

#[derive(Debug, Default)]
struct State {
    memory: Memory,
    work: HashMap<Work, u64>,
    exchanged: Vec<Exchange>,
}

/// See [`Tally`](super::Tally).
#[derive(Debug)]
pub struct Ledger {
    granularity: usize,
    state: Mutex<State>,
}

impl Ledger {
    pub fn new(granularity: usize) -> Self {
        Ledger { granularity, state: Mutex::default() }
    }

    /// An empty one that counts alike.
    pub fn anew(&self) -> Self {
        Ledger::new(self.granularity)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn memory(&self) -> Memory {
        self.lock().memory.clone()
    }

    /// Notes that `bytes` are wanted; returns what they take.
    pub fn take(&self, purpose: Purpose, bytes: usize, on_host: bool) -> u64 {
        let taken = bytes.next_multiple_of(self.granularity) as u64;
        let memory = &mut self.lock().memory;
        *if on_host { &mut memory.host } else { memory.device.entry(purpose).or_default() } += taken;
        taken
    }

    pub fn give_back(&self, purpose: Purpose, taken: u64, on_host: bool) {
        let memory = &mut self.lock().memory;
        *if on_host { &mut memory.host } else { memory.device.entry(purpose).or_default() } -= taken;
    }

    pub fn note(&self, work: Work) {
        *self.lock().work.entry(work).or_default() += 1;
    }

    pub fn note_exchange(&self, exchange: Exchange) {
        self.lock().exchanged.push(exchange);
    }

    /// All that was exchanged since the last call, in its order.
    pub fn take_exchanged(&self) -> Vec<Exchange> {
        std::mem::take(&mut self.lock().exchanged)
    }

    /// All work since the last call, and how often each piece was done, in a fixed order.
    pub fn take_work(&self) -> Vec<(Work, u64)> {
        let mut work: Vec<_> = std::mem::take(&mut self.lock().work).into_iter().collect();
        work.sort_unstable();
        work
    }
}
