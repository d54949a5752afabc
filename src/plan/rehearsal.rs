//! A run on a device that only counts: its buffers are made, and steps taken, by the code that will do so in earnest.

use super::Batches;
use crate::Result;
use crate::backend::tally::{Memory, Work};
use crate::backend::{Backend, Element, HostPairing, PackedBatch, Pooling, Purpose, Tally, Tensor};
use crate::config::Config;
use crate::data::batch::Batch;
use crate::eval::encode::truncate_dim;
use crate::model::{Activations, Encoder, Keep, ModelDir, Packer, Sequences, specs};
use crate::train::{Slot, StepBounds, Stepper, dropout};

/// What a run holds, on paper.
pub struct Rehearsal<'a, E: Element> {
    tally: Tally<E>,
    config: &'a Config,
    encoder: Encoder<Tally<E>>,
    stepper: Stepper<Tally<E>>,
    _slots: Vec<Slot<Tally<E>>>,
}

impl<'a, E: Element> Rehearsal<'a, E> {
    /// Makes all buffers of a run whose steps are within `bounds`, on a device that gives out multiples of `granularity`
    /// bytes.
    ///
    /// # Errors
    /// A configuration that does not fit the model.
    pub fn new(config: &'a Config, model: &ModelDir, bounds: &StepBounds, granularity: usize) -> Result<Self> {
        let tally = Tally::<E>::new(granularity);
        let specs = specs(&model.config, model.dense.as_ref());
        let weights = Purpose::Weights.during(|| specs.try_map(|spec| Tensor::zeros(&tally, &spec.shape)))?;
        // What is pooled, or how, changes no size.
        let pooling = config.pooling.or(model.pooling).unwrap_or(Pooling::Mean);
        let encoder = Encoder { config: model.config.clone(), pooling, weights };
        truncate_dim(config, encoder.embedding_size())?;
        let master = || match E::IS_F32 {
            true => Ok(None),
            false => specs.try_map(|spec| Tensor::zeros(&tally, &spec.shape)).map(Some),
        };
        let stepper = Stepper::new(&tally, &encoder, &specs, master, config, bounds)?;
        let slots = Slot::all(&tally, bounds.block_len, stepper.n_results(bounds.n_queries))?;
        Ok(Rehearsal { tally, config, encoder, stepper, _slots: slots })
    }

    /// What is held, by purpose.
    pub fn memory(&self) -> Memory {
        self.tally.memory()
    }

    /// What an evaluation holds besides: activations, the pool of passages, a block of scores.
    ///
    /// # Errors
    /// None.
    pub fn evaluation(&self, n_passages: usize, chunk_tokens: usize, granularity: usize) -> Result<u64> {
        let tally = Tally::<E>::new(granularity);
        let mut activations = Activations::new(&tally, &self.encoder)?;
        let n_seqs = chunk_tokens.min(crate::eval::encode::WINDOW);
        activations.resize(&tally, &self.encoder.config, Keep::Embeddings, chunk_tokens, n_seqs)?;
        let encoding = tally.memory().on_device();
        drop(activations);
        let shape = [n_passages, self.encoder.embedding_size()];
        let pool = crate::eval::search::Pool::new(&tally, Tensor::zeros(&tally, &shape)?)?;
        let searching = tally.memory().on_device();
        drop(pool);
        Ok(encoding.max(searching))
    }

    /// Mean work of a step, and how often each piece of it is done: that of the batches which are at hand.
    ///
    /// # Errors
    /// Token ids that the model does not have.
    pub fn work(&mut self, batches: &Batches) -> Result<Vec<(Work, f64)>> {
        let chunk_tokens = self.config.chunk_tokens.or(Config::CHUNK_TOKENS);
        let mut packer = Packer::new(&self.encoder.config, chunk_tokens, Keep::Everything);
        // From the second step on, word embeddings catch up.
        self.step(&mut packer, &batches.some[0])?;
        self.tally.take_work();
        for batch in &batches.some {
            self.step(&mut packer, batch)?;
        }
        let n = batches.some.len() as f64;
        Ok(self.tally.take_work().into_iter().map(|(work, times)| (work, times as f64 / n)).collect())
    }

    fn step(&mut self, packer: &mut Packer, batch: &Batch) -> Result<()> {
        let sequences = Sequences { ids: &batch.ids, cu_seqlens: &batch.cu_seqlens };
        let Batch { n_queries, places, labels, rejected, .. } = batch;
        let pairing = HostPairing { n_queries: *n_queries, places, labels, rejected };
        let mut packed = PackedBatch::new(&self.tally)?;
        packed.upload(&self.tally, packer.pack_pairs(sequences, &pairing)?)?;
        let mut results = self.tally.readback(0)?;
        let dropout = dropout(self.config, &self.encoder.config, batch.step);
        self.stepper.step(&self.tally, &mut self.encoder, &packed, dropout, 1.0, &mut results)
    }
}
