//! What the ranks of a run exchange: embeddings, gradients, and what they decide together.
//!
//! Each rank embeds its [share](super::share) of the batch and gathers everybody's embeddings. The loss over all of them is
//! computed by every rank, as one process would: at 65,536 queries that is 26 TFLOP, about a fiftieth of the step on each of 16
//! GPUs, and it saves sending the embeddings' gradients. Then each propagates the gradient of its own embeddings, and all sum
//! their gradients of the parameters. From there on every rank does the same: equal inputs, equal bits.

use super::share::Deal;
use crate::Result;
use crate::backend::{Backend, Collectives, Tensor};
use crate::dist::Peers;
use crate::error::listed;
use crate::{Error, trace};
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// Values of small tensors that are summed together.
const GROUP: usize = 4 << 20;

/// The ranks of a run.
#[derive(Clone)]
pub struct Ranks {
    peers: Arc<Peers>,
}

impl Default for Ranks {
    /// One rank.
    fn default() -> Self {
        Ranks { peers: Arc::new(Peers::alone()) }
    }
}

impl Ranks {
    /// Those of `peers`.
    pub fn new(peers: Arc<Peers>) -> Self {
        Ranks { peers }
    }

    /// The first of `size` ranks of which the others are not there: for a device that only counts what they would exchange.
    pub fn imagined(size: usize) -> Self {
        Ranks { peers: Arc::new(Peers::imagined(size)) }
    }

    /// How batches are dealt out.
    pub fn deal(&self) -> Deal {
        Deal { rank: self.peers.rank(), size: self.peers.size() }
    }

    /// Whether there is only one rank, which has nothing to exchange.
    pub fn is_alone(&self) -> bool {
        self.peers.size() == 1
    }

    /// Whether this is the rank that writes, the first.
    pub fn leads(&self) -> bool {
        self.peers.rank() == 0
    }

    /// Says that this rank begins a step, the first being 1, to those who watch how far it is.
    pub(super) fn begin_step(&self, step: u64) {
        self.peers.progress().begin_step(step);
    }

    /// The processes themselves.
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// Connects the devices of all ranks, where they exchange by themselves: GPUs do, and processors exchange as the processes
    /// do. All ranks call it when nothing else takes long.
    ///
    /// # Errors
    /// If they cannot be connected.
    pub fn connect<B: Backend>(&self, backend: &B) -> Result<()> {
        if self.is_alone() {
            return Ok(());
        }
        let share = &mut |bytes: &mut Vec<u8>| self.peers.broadcast_bytes(0, bytes);
        backend.connect(self.peers.rank(), self.peers.size(), share)
    }

    /// Ends what [`Ranks::connect`] has begun, when all ranks do.
    ///
    /// # Errors
    /// If the exchange has failed.
    pub fn disconnect<B: Backend>(&self, backend: &B) -> Result<()> {
        backend.collectives().map_or(Ok(()), Collectives::finish)
    }

    /// Gathers the rows `own` of each rank, of which rank `r` has `counts[r]`, into `all`, which has as many, in the order of
    /// ranks.
    ///
    /// # Errors
    /// If the exchange has failed.
    pub fn gather<B: Backend>(
        &self,
        backend: &B,
        own: &Tensor<B, f32>,
        counts: &[usize],
        all: &mut Tensor<B, f32>,
    ) -> Result<()> {
        let _range = trace::phase("gather");
        let lens: Vec<usize> = counts.iter().map(|count| count * own.row_len()).collect();
        if let Some(devices) = backend.collectives() {
            self.peers.progress().advance();
            return devices.all_gather(own, &lens, all);
        }
        let held;
        let own = match backend.in_place(own.buffer()) {
            Some(values) => &values[..own.len()],
            None => {
                held = own.to_vec(backend)?;
                &held
            }
        };
        let mut values = vec![0.0; lens.iter().sum()];
        self.peers.all_gather(own, &lens, &mut values)?;
        all.assign(backend, &values)
    }

    /// Adds up each tensor over all ranks.
    ///
    /// # Errors
    /// If the exchange has failed.
    pub fn sum<B: Backend>(&self, backend: &B, mut tensors: Vec<&mut Tensor<B, f32>>) -> Result<()> {
        let _range = trace::phase("sum gradients");
        if let Some(devices) = backend.collectives() {
            self.peers.progress().advance();
            return devices.all_reduce(&mut tensors);
        }
        let mut values: Vec<f32> = Vec::new();
        let mut group: Vec<&mut Tensor<B, f32>> = Vec::new();
        let add_up = |group: &mut Vec<&mut Tensor<B, f32>>, values: &mut Vec<f32>| -> Result<()> {
            self.peers.all_reduce(&mut [&mut values[..]])?;
            let mut rest = &values[..];
            for tensor in group.drain(..) {
                let sums = rest.split_off(..tensor.len()).unwrap_or_default();
                tensor.upload(backend, sums)?;
            }
            values.clear();
            Ok(())
        };
        for tensor in tensors {
            match backend.in_place(tensor.buffer()) {
                Some(of_tensor) => values.extend_from_slice(&of_tensor[..tensor.len()]),
                None => values.extend(tensor.to_vec(backend)?),
            }
            group.push(tensor);
            if values.len() >= GROUP {
                add_up(&mut group, &mut values)?;
            }
        }
        add_up(&mut group, &mut values)
    }

    /// Whether any rank says yes: all get the same answer.
    pub(super) fn any(&self, own: bool) -> Result<bool> {
        if self.is_alone() {
            return Ok(own);
        }
        Ok(self.peers.all_gather_bytes(&[u8::from(own)])?.iter().any(|of_rank| of_rank[..] != [0]))
    }

    /// The bytes that the first rank has; the others' own are not looked at.
    pub(super) fn bytes_of_first<const N: usize>(&self, own: [u8; N]) -> Result<[u8; N]> {
        let mut bytes = own.to_vec();
        self.peers.broadcast_bytes(0, &mut bytes)?;
        bytes[..].try_into().map_err(|_| Error::other("the first rank says something else than this one asks for"))
    }

    /// The text that the first rank has; the others' own are not looked at.
    ///
    /// # Errors
    /// If the exchange has failed.
    pub fn of_first(&self, own: Option<String>) -> Result<Option<String>> {
        if self.is_alone() {
            return Ok(own);
        }
        let mut bytes = own.map_or(Vec::new(), |text| format!("1{text}").into_bytes());
        self.peers.broadcast_bytes(0, &mut bytes)?;
        Ok(String::from_utf8(bytes).ok().and_then(|text| text.strip_prefix('1').map(str::to_owned)))
    }

    /// Fails unless all ranks have the same text of `what`, such as the configuration.
    ///
    /// # Errors
    /// The first rank that has another one, and the lines in which it differs.
    pub fn require_same(&self, what: &str, own: &str) -> Result<()> {
        if self.is_alone() {
            return Ok(());
        }
        let of_ranks = self.peers.all_gather_bytes(own.as_bytes())?;
        let Some(rank) = (1..of_ranks.len()).find(|&rank| of_ranks[rank] != of_ranks[0]) else { return Ok(()) };
        let [first, other] = [0, rank].map(|rank| String::from_utf8_lossy(&of_ranks[rank]));
        let without = |text: &str, other: &str| {
            let differs = |line: &&str| !other.lines().any(|of_other| of_other == *line);
            listed(&text.lines().filter(differs).map(str::to_owned).collect::<Vec<_>>())
        };
        Err(Error::other(format!(
            "rank {rank} has another {what} than rank 0: {:?} where rank 0 has {:?}; start all with the same",
            without(&other, &first),
            without(&first, &other)
        )))
    }

    /// Fails unless all ranks have the same weights, bit for bit.
    ///
    /// # Errors
    /// The first rank that has others than the first.
    pub(super) fn compare_weights<'a, B: Backend>(
        &self,
        backend: &B,
        weights: impl Iterator<Item = &'a Tensor<B, B::E>>,
    ) -> Result<()> {
        if self.is_alone() {
            return Ok(());
        }
        let mut hash = Xxh3::new();
        for weight in weights {
            hash.update(bytemuck::cast_slice(&weight.to_vec(backend)?));
        }
        let of_ranks = self.peers.all_gather_bytes(&hash.digest().to_le_bytes())?;
        match of_ranks.iter().position(|of_rank| *of_rank != of_ranks[0]) {
            None => Ok(()),
            Some(rank) => Err(Error::other(format!(
                "rank {rank} has other weights than rank 0: its machine computes otherwise or is out of order; nothing was saved"
            ))),
        }
    }
}
