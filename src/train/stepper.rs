//! One update of the weights, and all the memory that it works in: made before the first step, for the largest there is.

use super::loss_config::loss_config;
use super::{GradCache, Optimizer, OptimizerConfig, StepBounds};
use crate::Result;
use crate::backend::{Backend, PackedBatch, Purpose, Tensor};
use crate::config::Config;
use crate::loss::InfoNce;
use crate::model::{Encoder, EncoderParams, Gradients, ModelConfig, ParamSpec, StepDropout};

/// What carries out steps.
pub struct Stepper<B: Backend> {
    /// Moments and masters.
    pub optimizer: Optimizer<B>,
    /// The loss over a batch.
    pub loss: InfoNce<B>,
    grad_cache: GradCache<B>,
    grads: Gradients<B>,
}

impl<B: Backend> Stepper<B> {
    /// For steps within `bounds`. `master` gives the weights in f32, where `encoder` has them rounded.
    ///
    /// # Errors
    /// Those of `master`, a configuration that does not fit the model, and no memory left.
    pub fn new(
        backend: &B,
        encoder: &Encoder<B>,
        specs: &EncoderParams<ParamSpec>,
        master: impl FnOnce() -> Result<Option<EncoderParams<Tensor<B, f32>>>>,
        config: &Config,
        bounds: &StepBounds,
    ) -> Result<Self> {
        let optimizer = Purpose::Optimizer
            .during(|| Optimizer::new(backend, specs, &encoder.weights, master()?, optimizer_config(config)))?;
        let grads = Purpose::Gradients.during(|| {
            let mut grads = Gradients::new(backend, &encoder.weights)?;
            grads.reserve(backend, bounds.n_ids).map(|()| grads)
        })?;
        let mut grad_cache = GradCache::new(backend, encoder, config.n_kept_chunks())?;
        grad_cache.reserve(backend, encoder, bounds)?;
        let loss_config = loss_config(config, encoder.embedding_size())?;
        let mut loss = InfoNce::new(backend, encoder.embedding_size(), loss_config)?;
        Purpose::Loss.during(|| loss.reserve(backend, bounds.n_queries, bounds.n_seqs - bounds.n_queries))?;
        Ok(Stepper { optimizer, loss, grad_cache, grads })
    }

    /// Most results of a step on `n_queries` queries.
    pub fn n_results(&self, n_queries: usize) -> usize {
        self.loss.n_results(n_queries) + self.optimizer.n_results()
    }

    /// Asks for one update, and for its results: the loss's, then the optimizer's.
    ///
    /// # Errors
    /// When the device has no memory left.
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

/// Dropout of a step counted from 0: the model's own probabilities, or the configured one for all of them.
pub fn dropout(config: &Config, model: &ModelConfig, step: u64) -> Option<StepDropout> {
    let of = |own: f32| config.dropout.map_or(own, |p| p as f32);
    let (hidden, attention) = (of(model.hidden_dropout_prob), of(model.attention_probs_dropout_prob));
    let dropout = StepDropout { seed: config.seed, step: step as u32, hidden, attention };
    (hidden > 0.0 || attention > 0.0).then_some(dropout)
}

fn optimizer_config(config: &Config) -> OptimizerConfig {
    OptimizerConfig {
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: config.weight_decay as f32,
        max_grad_norm: config.max_grad_norm.unwrap_or(0.0) as f32,
    }
}
