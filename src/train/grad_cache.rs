//! One training step's forward and backward, in chunks of at most `chunk_tokens` tokens (GradCache, Gao et al.,
//! arXiv 2101.06983): embed every chunk, take the loss over all embeddings, then run each chunk again and
//! back-propagate its share. Dropout is stateless, so the second run sees the first one's masks. A batch that fits
//! one chunk runs once, and the last chunk of a larger one is never run twice.

use super::StepBounds;
use crate::Result;
use crate::backend::{Backend, PackedBatch, Purpose, Tensor};
use crate::loss::InfoNce;
use crate::model::{Activations, Encoder, Gradients, Keep, StepDropout};

/// Buffers of a step, kept from step to step.
pub struct GradCache<B: Backend> {
    activations: Activations<B>,
    /// `(S, D)` embeddings of the whole batch, and their gradient
    embeddings: Tensor<B, f32>,
    d_embeddings: Tensor<B, f32>,
    /// `(S of the chunk, D)`
    d_chunk: Tensor<B, f32>,
}

impl<B: Backend> GradCache<B> {
    /// Empty.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn new(backend: &B, encoder: &Encoder<B>) -> Result<Self> {
        let shape = [0, encoder.embedding_size()];
        Ok(Self {
            activations: Activations::new(backend, encoder)?,
            embeddings: Tensor::zeros(backend, &shape)?,
            d_embeddings: Tensor::zeros(backend, &shape)?,
            d_chunk: Tensor::zeros(backend, &shape)?,
        })
    }

    /// Room for steps within `bounds`.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn reserve(&mut self, backend: &B, encoder: &Encoder<B>, bounds: &StepBounds) -> Result<()> {
        let StepBounds { chunk_tokens, chunk_seqs, n_seqs, .. } = *bounds;
        let config = &encoder.config;
        let acts = &mut self.activations;
        Purpose::Activations.during(|| acts.resize(backend, config, Keep::Everything, chunk_tokens, chunk_seqs))?;
        Purpose::Loss.during(|| {
            self.embeddings.resize_rows(backend, n_seqs)?;
            self.d_embeddings.resize_rows(backend, n_seqs)?;
            self.d_chunk.resize_rows(backend, chunk_seqs)
        })
    }

    /// `(S, D)` embeddings of the last step's batch, as they were before the update.
    pub fn embeddings(&self) -> &Tensor<B, f32> {
        &self.embeddings
    }

    /// The gradient of every parameter in `grads`, which [`Gradients::reset`] or
    /// [`Optimizer::begin_step`](super::Optimizer::begin_step) must have made ready for this batch. The first
    /// `n_queries` of its sequences are the queries, the others the passages. Asks for the loss's
    /// [results](InfoNce::report).
    ///
    /// # Errors
    /// When the device has no memory left.
    #[allow(clippy::too_many_arguments)]
    pub fn forward_backward(
        &mut self,
        backend: &B,
        encoder: &Encoder<B>,
        batch: &PackedBatch<B>,
        n_queries: usize,
        dropout: Option<StepDropout>,
        loss: &mut InfoNce<B>,
        grads: &mut Gradients<B>,
        results: &mut B::Readback,
    ) -> Result<()> {
        self.embeddings.resize_rows(backend, batch.n_seqs())?;
        self.d_embeddings.resize_rows(backend, batch.n_seqs())?;
        let (acts, last) = (&mut self.activations, batch.n_chunks() - 1);
        for i in 0..=last {
            let (chunk, keep) = (batch.chunk(i), if i == last { Keep::Everything } else { Keep::Embeddings });
            encoder.forward(backend, chunk, dropout, keep, acts)?;
            backend.paste_rows(acts.embeddings(), &mut self.embeddings, chunk.first_seq)?;
        }
        loss.forward_backward(backend, &self.embeddings, n_queries, &mut self.d_embeddings, results)?;
        for i in (0..=last).rev() {
            let chunk = batch.chunk(i);
            if i < last {
                encoder.forward(backend, chunk, dropout, Keep::Everything, acts)?;
            }
            self.d_chunk.resize_rows(backend, chunk.n_seqs())?;
            backend.copy_rows(&self.d_embeddings, chunk.first_seq, &mut self.d_chunk)?;
            encoder.backward(backend, chunk, &mut self.d_chunk, dropout, acts, grads)?;
        }
        Ok(())
    }
}
