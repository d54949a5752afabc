//! What ranks would exchange, counted.

use super::{Exchange, Tally, bytes};
use crate::Result;
use crate::backend::{Collectives, Element, Tensor};

impl<E: Element> Collectives<Self> for Tally<E> {
    fn all_gather(&self, own: &Tensor<Self, f32>, lens: &[usize], all: &mut Tensor<Self, f32>) -> Result<()> {
        assert!(lens.len() == self.n_ranks && lens[0] == own.len(), "tally: {lens:?} elements of the ranks");
        assert_eq!(lens.iter().sum::<usize>(), all.len(), "tally: elements of all ranks");
        self.ledger.note_exchange(Exchange::Gathered(bytes(all) as u64));
        Ok(())
    }

    fn all_reduce(&self, tensors: &mut [&mut Tensor<Self, f32>]) -> Result<()> {
        tensors.iter().for_each(|tensor| self.ledger.note_exchange(Exchange::Summed(bytes(tensor) as u64)));
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        Ok(())
    }
}
