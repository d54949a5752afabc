//! One training step's forward and backward, in chunks of at most `chunk_tokens` tokens (GradCache, Gao et al.,
//! arXiv 2101.06983): embed every chunk, take the loss over all embeddings, then run each chunk again and
//! back-propagate its share. Dropout is stateless, so the second run sees the first one's masks. A batch that fits
//! one chunk runs once, and the last chunk of a larger one is never run twice.

use crate::Result;
use crate::backend::{Backend, Tensor};
use crate::loss::{InfoNce, LossReport};
use crate::model::{Activations, Encoder, Gradients, Keep, Sequences, StepDropout};
use std::ops::Range;

/// Buffers of a step, kept from step to step.
pub struct GradCache<B: Backend> {
    chunk_tokens: usize,
    /// Sequences of the chunks of the step in hand
    chunks: Vec<Range<usize>>,
    activations: Activations<B>,
    /// `(S, D)` embeddings of the whole batch, and their gradient
    embeddings: Tensor<B, f32>,
    d_embeddings: Tensor<B, f32>,
    /// `(S of the chunk, D)`
    d_chunk: Tensor<B, f32>,
}

impl<B: Backend> GradCache<B> {
    /// Chunks of at most `chunk_tokens` tokens; a longer sequence is a chunk of its own.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn new(backend: &B, encoder: &Encoder<B>, chunk_tokens: usize) -> Result<Self> {
        let shape = [0, encoder.embedding_size()];
        Ok(Self {
            chunk_tokens,
            chunks: Vec::new(),
            activations: Activations::new(backend, encoder)?,
            embeddings: Tensor::zeros(backend, &shape)?,
            d_embeddings: Tensor::zeros(backend, &shape)?,
            d_chunk: Tensor::zeros(backend, &shape)?,
        })
    }

    /// `(S, D)` embeddings of the last step's batch, as they were before the update.
    pub fn embeddings(&self) -> &Tensor<B, f32> {
        &self.embeddings
    }

    /// Loss of the batch, and the gradient of every parameter in `grads`, which [`Gradients::reset`] or
    /// [`Optimizer::begin_step`](super::Optimizer::begin_step) must have made ready for these sequences. The first
    /// `n_queries` of `sequences` are the queries, the others the passages.
    ///
    /// # Errors
    /// When the device has no memory left, or the model has no such token id or position.
    #[allow(clippy::too_many_arguments)]
    pub fn forward_backward(
        &mut self,
        backend: &B,
        encoder: &Encoder<B>,
        sequences: Sequences,
        n_queries: usize,
        dropout: Option<StepDropout>,
        loss: &mut InfoNce<B>,
        grads: &mut Gradients<B>,
    ) -> Result<LossReport> {
        self.chunks.clear();
        self.chunks.extend(sequences.chunks(self.chunk_tokens));
        let chunks = &self.chunks;
        self.embeddings.resize_rows(backend, sequences.n_seqs())?;
        self.d_embeddings.resize_rows(backend, sequences.n_seqs())?;
        let acts = &mut self.activations;
        for (i, chunk) in chunks.iter().enumerate() {
            let keep = if i + 1 == chunks.len() { Keep::Everything } else { Keep::Embeddings };
            encoder.forward(backend, sequences, chunk.clone(), dropout, keep, acts)?;
            backend.paste_rows(acts.embeddings(), &mut self.embeddings, chunk.start)?;
        }
        let report = loss.forward_backward(backend, &self.embeddings, n_queries, &mut self.d_embeddings)?;
        for (i, chunk) in chunks.iter().enumerate().rev() {
            if i + 1 < chunks.len() {
                encoder.forward(backend, sequences, chunk.clone(), dropout, Keep::Everything, acts)?;
            }
            self.d_chunk.resize_rows(backend, chunk.len())?;
            backend.copy_rows(&self.d_embeddings, chunk.start, &mut self.d_chunk)?;
            encoder.backward(backend, &mut self.d_chunk, dropout, acts, grads)?;
        }
        Ok(report)
    }
}
