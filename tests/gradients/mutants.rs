//! Faults that trainers on several ranks have had, made on purpose: each has to show in the results of a step.

use super::{TestBatch, Tiny};
use crate::dist::threads;
use hbt::Result;
use hbt::backend::{Backend, Element, Pooling};
use hbt::dist::wire::Wire;
use hbt::dist::{Peers, Place};
use hbt::train::{Ranks, Share};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// Gradients are added up once for each rank too often.
    SumTimesSize,
    /// Gradients are averaged.
    MeanForSum,
    /// Embeddings come in another order than that of ranks.
    GatheredInAnotherOrder,
    /// Embeddings are looked for where a rank has its own ones.
    OwnRowsForGlobal,
    /// Each rank numbers the answers for itself.
    LabelsByRank,
    /// Dropout is drawn by the row among a rank's own tokens.
    DropoutByOwnRow,
}

/// A wire with a fault in what it carries.
struct Faulty {
    wire: Box<dyn Wire>,
    fault: Fault,
    n_gathers: usize,
}

impl Wire for Faulty {
    /// What is to be added up comes here.
    fn all_to_all(&mut self, send: &[u8], to: &[usize], received: &mut [u8], from: &[usize]) -> Result<()> {
        self.wire.all_to_all(send, to, received, from)?;
        let size = from.len() as f32;
        let factor = match self.fault {
            Fault::SumTimesSize => size,
            Fault::MeanForSum => 1.0 / size,
            _ => return Ok(()),
        };
        for number in received.as_chunks_mut::<4>().0 {
            *number = (f32::from_le_bytes(*number) * factor).to_le_bytes();
        }
        Ok(())
    }

    /// Embeddings are what is gathered first.
    fn all_gather(&mut self, mine: &[u8], received: &mut [u8], lens: &[usize]) -> Result<()> {
        self.wire.all_gather(mine, received, lens)?;
        self.n_gathers += 1;
        if self.fault == Fault::GatheredInAnotherOrder && self.n_gathers == 1 {
            received.rotate_left(lens[0]);
        }
        Ok(())
    }

    fn broadcast(&mut self, root: usize, bytes: &mut [u8]) -> Result<()> {
        self.wire.broadcast(root, bytes)
    }

    fn barrier(&mut self) -> Result<()> {
        self.wire.barrier()
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.wire.finish()
    }

    fn abort(&mut self, status: i32) -> ! {
        self.wire.abort(status)
    }
}

impl Fault {
    /// What a rank takes for its share of a batch, and for the labels of all.
    fn spoil(self, deal_rank: usize, share: &mut Share, labels: &mut [i32]) {
        match self {
            Fault::OwnRowsForGlobal => {
                let n = share.first_rows.len().max(1) as i32;
                share.places.iter_mut().for_each(|row| *row %= n);
            }
            Fault::LabelsByRank => labels.rotate_left(deal_rank),
            Fault::DropoutByOwnRow => {
                let n = share.first_rows.len();
                share.first_rows.copy_from_slice(&share.cu_seqlens[..n]);
            }
            _ => {}
        }
    }
}

/// Every fault is found on two and on three ranks, by the comparison that holds without one.
pub fn faults_of_ranks_are_found<B: Backend>(backend: &B) {
    let tiny = Tiny::new::<B>("xlm-roberta", Pooling::Mean, true, 2).with_dropout();
    let batch = TestBatch::planted();
    let alone = tiny.step(backend, &batch, 16, 1);
    for fault in [
        Fault::None,
        Fault::SumTimesSize,
        Fault::MeanForSum,
        Fault::GatheredInAnotherOrder,
        Fault::OwnRowsForGlobal,
        Fault::LabelsByRank,
        Fault::DropoutByOwnRow,
    ] {
        for size in [2, 3] {
            let over = |place: Place, wire: Box<dyn Wire>| {
                Peers::over(place, Box::new(Faulty { wire, fault, n_gathers: 0 }), Arc::default())
            };
            let of_ranks = threads::world_over(size, over, |peers| {
                let rank = peers.rank();
                let ranks = Ranks::new(Arc::new(peers));
                let spoil = |share: &mut Share, labels: &mut [i32]| fault.spoil(rank, share, labels);
                tiny.spoiled_step_among(backend, &batch, 9, &ranks, &spoil)
            });
            let agrees = of_ranks.iter().all(|step| *step == of_ranks[0]);
            let compare = || tiny.assert_same_step::<B::E>(&format!("{fault:?}"), &of_ranks[0], &alone);
            let is_right = agrees && catch_unwind(AssertUnwindSafe(compare)).is_ok();
            assert_eq!(is_right, fault == Fault::None, "{fault:?}, {size} ranks, {}", B::E::NAME);
        }
    }
}
