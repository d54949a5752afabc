//! What the ranks of a run exchange in a step, and how long that takes.

use super::machine::Machine;
use super::time::Efficiency;
use crate::backend::tally::Exchange;
use crate::train::Deal;

/// The ranks of a run, and what connects them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cluster {
    /// Ranks on each machine, at least one.
    pub devices: usize,
    /// Machines, at least one.
    pub nodes: usize,
    /// Bytes/s from a rank to another on its machine; `None`: as its maker says.
    pub link: Option<f64>,
    /// Bytes/s from a machine to another, for all its ranks.
    pub network: Option<f64>,
}

impl Cluster {
    /// `n` ranks, of which nothing else is known.
    pub fn of(n: usize) -> Self {
        Cluster { devices: n, nodes: 1, link: None, network: None }
    }

    /// Number of ranks.
    pub fn size(&self) -> usize {
        self.devices * self.nodes
    }

    /// How batches are dealt out, to the rank that has the longest texts.
    pub fn deal(&self) -> Deal {
        Deal { rank: 0, size: self.size() }
    }

    /// Bytes/s at which data goes around all ranks of `machine`'s kind: that of the slowest link. `None` if one is not known.
    pub fn bandwidth(&self, machine: &Machine) -> Option<f64> {
        let Efficiency { link, network, .. } = Efficiency::of(machine);
        let within = self.link.or(machine.link).map(|speed| link * speed);
        let between = self.network.map(|speed| network * speed);
        match (self.devices > 1, self.nodes > 1) {
            (true, true) => Some(within?.min(between?)),
            (false, true) => between,
            (_, false) => within,
        }
    }
}

/// Bytes of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traffic {
    /// Size of what is exchanged, once.
    pub bytes: f64,
    /// What each rank receives for it, and sends.
    pub received: f64,
}

/// Bytes that are exchanged in a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Exchanged {
    /// Embeddings of the batch, which are gathered.
    pub embeddings: Traffic,
    /// Gradients of all parameters but the word embeddings, which are added up.
    pub dense: Traffic,
    /// Gradients of the word embeddings that the batch reads, which are added up.
    pub words: Traffic,
}

impl Exchanged {
    /// What `n_ranks` ranks exchange in one step: the embeddings, and the gradients of all parameters in their order, of which
    /// number `words` are the word embeddings.
    pub(super) fn of(exchanges: &[Exchange], words: usize, n_ranks: usize) -> Self {
        let (mut all, mut n_summed) = (Exchanged::default(), 0);
        for exchange in exchanges {
            let traffic = match exchange {
                Exchange::Gathered(_) => &mut all.embeddings,
                Exchange::Summed(_) => {
                    n_summed += 1;
                    if n_summed == words + 1 { &mut all.words } else { &mut all.dense }
                }
            };
            traffic.bytes += exchange.bytes() as f64;
            traffic.received += exchange.received(n_ranks);
        }
        all
    }

    /// Each kind by its name.
    pub fn kinds(&self) -> [(&'static str, Traffic); 3] {
        [("embeddings", self.embeddings), ("dense gradients", self.dense), ("word rows", self.words)]
    }

    /// Bytes that a rank receives, of all kinds.
    pub fn received(&self) -> f64 {
        self.kinds().iter().map(|(_, traffic)| traffic.received).sum()
    }

    /// Adds `weight` times another.
    pub(super) fn add(&mut self, other: Exchanged, weight: f64) {
        let kinds = [&mut self.embeddings, &mut self.dense, &mut self.words];
        for (sum, (_, traffic)) in kinds.into_iter().zip(other.kinds()) {
            sum.bytes += weight * traffic.bytes;
            sum.received += weight * traffic.received;
        }
    }
}
