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

    /// All work since the last call, and how often each piece was done, in a fixed order.
    pub fn take_work(&self) -> Vec<(Work, u64)> {
        let mut work: Vec<_> = std::mem::take(&mut self.lock().work).into_iter().collect();
        work.sort_unstable();
        work
    }
}
