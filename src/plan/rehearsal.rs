//! A run on a device that only counts: the code of a real run makes its buffers and takes steps.

use super::Batches;
use super::exchange::Exchanged;
use crate::Result;
use crate::backend::tally::{Memory, Work};
use crate::backend::{
    Backend, Device, Element, Ints, PackedBatch, Pairing, Pooling, Purpose, Tally, TeacherScores, Tensor,
};
use crate::data::batch::Batch;
use crate::model::{Activations, Encoder, Gradients, Keep, Packer, Reading, specs};
use crate::model_dir::ModelDir;
use crate::retriever::encode::WINDOW;
use crate::train::{Packing, Ranks, Slot, StepBounds, Stepper, TrainSettings};
use std::collections::BTreeMap;

/// All memory of a run on a device before its first step.
pub struct Held<B: Backend> {
    /// The model.
    pub encoder: Encoder<B>,
    /// The optimizer, and the buffers of steps.
    pub stepper: Stepper<B>,
    /// Slots for batches on their way to the device.
    pub slots: Vec<Slot<B>>,
}

impl<B: Backend> Held<B> {
    /// The memory for steps within `bounds` of one of `ranks`.
    ///
    /// # Errors
    /// If the device has no memory left.
    pub fn new(
        backend: &B,
        settings: &TrainSettings,
        model: &ModelDir,
        bounds: &StepBounds,
        ranks: Ranks,
    ) -> Result<Self> {
        let specs = specs(&model.config, model.dense.as_ref());
        let weights = Purpose::Weights.during(|| specs.try_map(|spec| Tensor::zeros(backend, &spec.shape)))?;
        // The kind of pooling does not change any size.
        let pooling = model.pooling.unwrap_or(Pooling::Mean);
        let encoder = Encoder { config: model.config.clone(), pooling, weights };
        let master = || match B::E::IS_F32 {
            true => Ok(None),
            false => specs.try_map(|spec| Tensor::zeros(backend, &spec.shape)).map(Some),
        };
        let stepper = Stepper::new(backend, &encoder, &specs, master, settings, bounds, ranks)?;
        let slots = Slot::all(backend, bounds.block_len, stepper.n_results(bounds.n_queries))?;
        Ok(Held { encoder, stepper, slots })
    }
}

/// A run on the counting device.
pub struct Rehearsal<'a, E: Element> {
    tally: Tally<E>,
    settings: &'a TrainSettings,
    ranks: Ranks,
    /// Index of the word embeddings among the parameters.
    words: usize,
    held: Held<Tally<E>>,
}

/// The mean over the steps of a run.
#[derive(Clone, Debug, Default)]
pub struct MeanStep {
    /// Pieces of work, and how often each is done.
    pub work: Vec<(Work, f64)>,
    /// What a rank exchanges with others.
    pub exchanged: Exchanged,
}

/// Size of a step, as far as its loss and its update depend on it.
#[derive(Clone, Copy)]
struct StepSize {
    n_queries: usize,
    n_seqs: usize,
    n_ids: usize,
}

impl<'a, E: Element> Rehearsal<'a, E> {
    /// Makes all buffers of a run whose steps are within `bounds`, on the device that `tally` stands for: of several ranks'
    /// the first, which has the longest texts.
    ///
    /// # Errors
    /// Those of a backend; this one has memory for everything.
    pub fn new(tally: Tally<E>, settings: &'a TrainSettings, model: &ModelDir, bounds: &StepBounds) -> Result<Self> {
        let ranks = Ranks::imagined(tally.n_ranks());
        let held = Held::new(&tally, settings, model, bounds, ranks.clone())?;
        let words = specs(&model.config, model.dense.as_ref()).sparse();
        Ok(Rehearsal { tally, settings, ranks, words, held })
    }

    /// Memory in use, by purpose.
    pub fn memory(&self) -> Memory {
        self.tally.memory()
    }

    /// Additional memory of an evaluation: activations, the pool of passages, a block of scores, and, if the device has
    /// no memory of its own, embeddings on their way to the host.
    ///
    /// # Errors
    /// Those of a backend; this one has memory for everything.
    pub fn evaluation(&self, n_passages: usize, chunk_tokens: usize, is_gpu: bool) -> Result<u64> {
        let (tally, encoder) = (self.tally.anew(), &self.held.encoder);
        let mut activations = Activations::new(&tally, encoder)?;
        let n_seqs = chunk_tokens.min(WINDOW);
        activations.resize(&tally, &encoder.config, Keep::Embeddings, chunk_tokens, n_seqs)?;
        let reading = Reading::<_, ()>::new(&tally, n_seqs * encoder.embedding_size())?;
        let memory = tally.memory();
        let encoding = memory.on_device() + if is_gpu { 0 } else { memory.host };
        drop(reading);
        drop(activations);
        let shape = [n_passages, encoder.embedding_size()];
        let pool = crate::eval::search::Pool::new(&tally, Tensor::zeros(&tally, &shape)?)?;
        let searching = tally.memory().on_device();
        drop(pool);
        Ok(encoding.max(searching))
    }

    /// The mean step.
    ///
    /// # Errors
    /// If token ids are not in the model's vocabulary.
    pub fn mean_step(&mut self, batches: &Batches) -> Result<MeanStep> {
        let packer = Packer::new(&self.held.encoder.config, self.settings.chunk_tokens, Keep::Everything);
        let mut packing = Packing::new(packer, self.ranks.deal());
        // From the second step on, word embeddings catch up with missed updates.
        self.step(&mut packing, &batches.some[0].0)?;
        self.tally.take_work();
        let (mut mean, mut exchanged) = (BTreeMap::new(), Exchanged::default());
        let mut add = |work: Vec<(Work, u64)>, weight: f64| {
            work.into_iter().for_each(|(work, times)| *mean.entry(work).or_insert(0.0) += weight * times as f64);
        };
        // The weights are such that tokens come to their mean; what is exchanged once a step is exchanged once.
        let all: f64 = batches.some.iter().map(|(_, weight)| weight).sum();
        for (batch, weight) in &batches.some {
            let (scale, (part, of_part)) = (batches.scale, self.step(&mut packing, batch)?);
            add(self.tally.take_work(), weight * scale);
            if scale == 1.0 {
                exchanged.add(of_part, weight / all);
            }
            if scale != 1.0 {
                // The encoder's work grows with the batch, the loss's with its square, and the update is done once.
                let scaled = |n: usize| (n as f64 * scale).round() as usize;
                let [n_queries, n_seqs] = [part.n_queries, part.n_seqs].map(scaled);
                let whole = StepSize { n_queries, n_seqs, n_ids: batches.n_ids(part.n_ids) };
                add(self.loss_and_update(part)?, -weight * scale);
                add(self.loss_and_update(whole)?, *weight);
                exchanged.add(self.exchange(whole.n_seqs, whole.n_ids)?, weight / all);
            }
        }
        // Adding and subtracting leaves rounding errors.
        let work = mean.into_iter().filter(|(_, times)| *times > 1e-9).collect();
        Ok(MeanStep { work, exchanged })
    }

    fn step(&mut self, packing: &mut Packing, batch: &Batch) -> Result<(StepSize, Exchanged)> {
        let mut packed = PackedBatch::new(&self.tally)?;
        packed.upload(&self.tally, packing.pack(batch)?)?;
        let mut results = self.tally.readback(0)?;
        let Held { encoder, stepper, .. } = &mut self.held;
        let dropout = self.settings.step_dropout(batch.step);
        stepper.step(&self.tally, encoder, &packed, dropout, 1.0, &mut results)?;
        let size = StepSize { n_queries: batch.n_queries, n_seqs: batch.n_seqs(), n_ids: packed.unique_ids().len() };
        Ok((size, self.take_exchanged()))
    }

    /// What a rank exchanges in a step on `n_seqs` texts with `n_ids` different token ids.
    ///
    /// # Errors
    /// Those of a backend; this one has memory for everything.
    pub fn exchange(&mut self, n_seqs: usize, n_ids: usize) -> Result<Exchanged> {
        let (tally, encoder, ranks) = (&self.tally, &self.held.encoder, &self.ranks);
        if ranks.is_alone() {
            return Ok(Exchanged::default());
        }
        let (counts, dim) = (ranks.deal().counts(n_seqs), encoder.embedding_size());
        let own = Tensor::zeros(tally, &[counts[ranks.deal().rank], dim])?;
        ranks.gather(tally, &own, &counts, &mut Tensor::zeros(tally, &[n_seqs, dim])?)?;
        let mut grads = Gradients::new(tally, &encoder.weights)?;
        grads.reset(tally, n_ids)?;
        ranks.sum(tally, grads.params.list_mut())?;
        // That of the reset, which every step does.
        tally.take_work();
        Ok(self.take_exchanged())
    }

    /// What was exchanged since the last call.
    fn take_exchanged(&self) -> Exchanged {
        Exchanged::of(&self.tally.take_exchanged(), self.words, self.tally.n_ranks())
    }

    /// The work of a step without that of the encoder.
    fn loss_and_update(&mut self, size: StepSize) -> Result<Vec<(Work, u64)>> {
        let StepSize { n_queries, n_seqs, n_ids } = size;
        let (tally, Held { encoder, stepper, .. }) = (&self.tally, &mut self.held);
        let numbers = Tensor::zeros(tally, &[n_seqs.max(2 * n_queries).max(n_ids)])?;
        let some = |n: usize| Ints::new(&numbers, 0..n);
        let embeddings = Tensor::zeros(tally, &[n_seqs, encoder.embedding_size()])?;
        let mut d_embeddings = Tensor::zeros(tally, embeddings.shape())?;
        let (mut results, mut grads) = (tally.readback(0)?, Gradients::new(tally, &encoder.weights)?);
        tally.take_work();
        stepper.optimizer.begin_step(tally, &mut encoder.weights, &mut grads, some(n_ids))?;
        let [places, labels, rejected] = [n_seqs, n_seqs, 2 * n_queries].map(some);
        let teacher = TeacherScores { own: some(2 * n_queries), scores: some(n_seqs - n_queries) };
        let teacher = self.settings.loss.distillation.map(|_| teacher);
        let pairing = Pairing { n_queries, places, labels, rejected, left_out: None, teacher };
        stepper.loss.forward_backward(tally, &embeddings, pairing, &mut d_embeddings, &mut results)?;
        stepper.optimizer.step(tally, &mut encoder.weights, &grads, some(n_ids), 1.0, &mut results)?;
        Ok(tally.take_work())
    }
}
