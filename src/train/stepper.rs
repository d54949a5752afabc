//! One update of the weights, and all the memory for it: allocated before the first step, for the largest possible one.

use super::ranks::Ranks;
use super::{GradCache, Optimizer, StepBounds, TrainSettings};
use crate::Result;
use crate::backend::{Backend, PackedBatch, Purpose, Tensor};
use crate::loss::InfoNce;
use crate::model::{Encoder, EncoderParams, Gradients, ParamSpec, StepDropout};

/// State and buffers of training steps.
pub struct Stepper<B: Backend> {
    /// Moments and masters.
    pub optimizer: Optimizer<B>,
    /// The loss over a batch.
    pub loss: InfoNce<B>,
    grad_cache: GradCache<B>,
    grads: Gradients<B>,
}

impl<B: Backend> Stepper<B> {
    /// A stepper for steps within `bounds`, on batches that `ranks` share. `master` gives the weights in f32, where `encoder` has
    /// them rounded.
    ///
    /// # Errors
    /// Those of `master`, and no memory left.
    pub fn new(
        backend: &B,
        encoder: &Encoder<B>,
        specs: &EncoderParams<ParamSpec>,
        master: impl FnOnce() -> Result<Option<EncoderParams<Tensor<B, f32>>>>,
        settings: &TrainSettings,
        bounds: &StepBounds,
        ranks: Ranks,
    ) -> Result<Self> {
        let optimizer = Purpose::Optimizer
            .during(|| Optimizer::new(backend, specs, &encoder.weights, master()?, settings.optimizer))?;
        let grads = Purpose::Gradients.during(|| {
            let mut grads = Gradients::new(backend, &encoder.weights)?;
            grads.reserve(backend, bounds.n_ids).map(|()| grads)
        })?;
        let mut grad_cache = GradCache::new(backend, encoder, settings.kept_chunks)?.among(ranks);
        grad_cache.reserve(backend, encoder, bounds)?;
        let mut loss = InfoNce::new(backend, encoder.embedding_size(), settings.loss.clone())?;
        Purpose::Loss.during(|| loss.reserve(backend, bounds.n_queries, bounds.n_seqs - bounds.n_queries))?;
        Ok(Stepper { optimizer, loss, grad_cache, grads })
    }

    /// Most results of a step on `n_queries` queries.
    pub fn n_results(&self, n_queries: usize) -> usize {
        self.loss.n_results(n_queries) + self.optimizer.n_results()
    }

    /// Launches one update and starts to read its results: the loss's, then the optimizer's.
    ///
    /// # Errors
    /// If the device has no memory left.
    pub fn step(
        &mut self,
        backend: &B,
        encoder: &mut Encoder<B>,
        batch: &PackedBatch<B>,
        dropout: Option<StepDropout>,
        learning_rate: f32,
        results: &mut B::Readback,
    ) -> Result<()> {
        let Stepper { optimizer, loss, grad_cache, grads } = self;
        let ids = batch.unique_ids();
        optimizer.begin_step(backend, &mut encoder.weights, grads, ids)?;
        grad_cache.forward_backward(backend, encoder, batch, dropout, loss, grads, results)?;
        optimizer.step(backend, &mut encoder.weights, grads, ids, learning_rate, results)
    }
}
