//! Memory that is counted, and time that does not pass.

use super::{Counted, CountedBlock, Tally};
use crate::Result;
use crate::backend::{Collectives, Device, Element, Measurement, Tensor, Value};
use std::time::Duration;

impl<E: Element> Device for Tally<E> {
    type E = E;
    type Buffer<T: Value> = Counted<T>;
    type HostBlock = CountedBlock;
    type Arrival = ();
    type Readback = Counted<f32>;

    fn name(&self) -> String {
        format!("none ({})", E::NAME)
    }

    fn alloc<T: Value>(&self, len: usize) -> Result<Counted<T>> {
        Ok(Counted::new(&self.ledger, len, false))
    }

    fn upload<T: Value>(&self, _: &[T], _: &mut Counted<T>) -> Result<()> {
        Ok(())
    }

    /// Zeros.
    fn download<T: Value>(&self, _: &Counted<T>, _: usize, to: &mut [T]) -> Result<()> {
        to.fill(T::zeroed());
        Ok(())
    }

    fn host_block(&self, len: usize) -> Result<CountedBlock> {
        Ok(CountedBlock { block: vec![0; len], _counted: Counted::new(&self.ledger, len, true) })
    }

    fn feed(&self, _: &CountedBlock, _: usize, _: &mut Counted<i32>) -> Result<()> {
        Ok(())
    }

    fn await_feed(&self, (): ()) -> Result<()> {
        Ok(())
    }

    fn readback(&self, capacity: usize) -> Result<Counted<f32>> {
        Ok(Counted::new(&self.ledger, capacity, true))
    }

    fn read_later(&self, _: &Tensor<Self, f32>, _: &mut Counted<f32>) -> Result<()> {
        Ok(())
    }

    fn has_arrived(&self, _: &Counted<f32>) -> Result<bool> {
        Ok(true)
    }

    /// Nothing.
    fn receive(&self, _: &mut Counted<f32>, to: &mut Vec<f32>) -> Result<()> {
        to.clear();
        Ok(())
    }

    fn collectives(&self) -> Option<&dyn Collectives<Self>> {
        if self.n_ranks > 1 { Some(self) } else { None }
    }
}

impl<E: Element> Measurement for Tally<E> {
    fn time(&self, run: &mut dyn FnMut() -> Result<()>) -> Result<Duration> {
        run().map(|()| Duration::ZERO)
    }

    fn flush_cache(&self) -> Result<bool> {
        Ok(false)
    }
}
