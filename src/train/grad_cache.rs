//! Forward and backward of one training step, in chunks of at most `chunk_tokens` tokens (GradCache, Gao et al., arXiv
//! 2101.06983): embed every chunk, take the loss over all embeddings, then run each chunk again and back-propagate its
//! share. Dropout is stateless, so the second run has the masks of the first. The last chunks, as many as are kept, are
//! not run again: if all of a batch's chunks are kept, each runs once.

use super::StepBounds;
use super::ranks::Ranks;
use crate::Result;
use crate::backend::{Backend, PackedBatch, Purpose, Tensor};
use crate::loss::InfoNce;
use crate::model::{Activations, Encoder, Gradients, Keep, Saved, StepDropout};
use std::mem::swap;

/// Buffers of a step, kept from step to step.
pub struct GradCache<B: Backend> {
    activations: Activations<B>,
    /// Number of chunks to keep, at least one, if a batch has as many
    kept_chunks: usize,
    /// Activations of kept chunks besides the last: as many as a batch has needed so far
    kept: Vec<Saved<B>>,
    /// `(S, D)` embeddings of the whole batch in the order of its tokens or, with several ranks, rank after rank, and their
    /// gradient
    embeddings: Tensor<B, f32>,
    d_embeddings: Tensor<B, f32>,
    /// The ranks that share a batch, and the embeddings that this one has of it if there are others
    ranks: Ranks,
    own: Tensor<B, f32>,
    /// `(S of the chunk, D)`
    d_chunk: Tensor<B, f32>,
}

impl<B: Backend> GradCache<B> {
    /// Empty buffers for steps of which `kept_chunks` chunks, at least one and at most all, keep their activations.
    ///
    /// # Errors
    /// If the device has no memory left.
    pub fn new(backend: &B, encoder: &Encoder<B>, kept_chunks: usize) -> Result<Self> {
        let shape = [0, encoder.embedding_size()];
        Ok(Self {
            activations: Activations::new(backend, encoder)?,
            kept_chunks: kept_chunks.max(1),
            kept: Vec::new(),
            embeddings: Tensor::zeros(backend, &shape)?,
            d_embeddings: Tensor::zeros(backend, &shape)?,
            ranks: Ranks::default(),
            own: Tensor::zeros(backend, &shape)?,
            d_chunk: Tensor::zeros(backend, &shape)?,
        })
    }

    /// The same for a rank among others: batches hold its share.
    pub fn among(self, ranks: Ranks) -> Self {
        GradCache { ranks, ..self }
    }

    /// Reserves memory for steps within `bounds`.
    ///
    /// # Errors
    /// If the device has no memory left.
    pub fn reserve(&mut self, backend: &B, encoder: &Encoder<B>, bounds: &StepBounds) -> Result<()> {
        let StepBounds { chunk_tokens, chunk_seqs, n_seqs, n_own_seqs, n_chunks, .. } = *bounds;
        let config = &encoder.config;
        Purpose::Activations.during(|| {
            self.activations.resize(backend, config, Keep::Everything, chunk_tokens, chunk_seqs)?;
            self.keep_of(backend, encoder, n_chunks)?;
            let mut kept = self.kept.iter_mut();
            kept.try_for_each(|saved| saved.resize(backend, config, Keep::Everything, chunk_tokens, chunk_seqs))
        })?;
        Purpose::Cache.during(|| {
            self.embeddings.resize_rows(backend, n_seqs)?;
            self.d_embeddings.resize_rows(backend, n_seqs)?;
            if !self.ranks.is_alone() {
                self.own.resize_rows(backend, n_own_seqs)?;
            }
            self.d_chunk.resize_rows(backend, chunk_seqs)
        })
    }

    /// Number of the first of `n_chunks` chunks that is kept; makes still empty buffers for it and those after it.
    fn keep_of(&mut self, backend: &B, encoder: &Encoder<B>, n_chunks: usize) -> Result<usize> {
        let first_kept = n_chunks.saturating_sub(self.kept_chunks);
        while self.kept.len() + 1 < n_chunks - first_kept {
            self.kept.push(Saved::new(backend, encoder)?);
        }
        Ok(first_kept)
    }

    /// `(S, D)` embeddings of the last step's batch in the order of its tokens, those of several ranks end to end, from the
    /// weights before the update.
    pub fn embeddings(&self) -> &Tensor<B, f32> {
        &self.embeddings
    }

    /// Computes the gradient of every parameter into `grads`, which [`Gradients::reset`] or
    /// [`Optimizer::begin_step`](super::Optimizer::begin_step) must have prepared for this batch. Starts to read the
    /// loss's [results](InfoNce::report).
    ///
    /// # Errors
    /// If the device has no memory left.
    #[allow(clippy::too_many_arguments)]
    pub fn forward_backward(
        &mut self,
        backend: &B,
        encoder: &Encoder<B>,
        batch: &PackedBatch<B>,
        dropout: Option<StepDropout>,
        loss: &mut InfoNce<B>,
        grads: &mut Gradients<B>,
        results: &mut B::Readback,
    ) -> Result<()> {
        self.embed(backend, encoder, batch, dropout)?;
        if !self.ranks.is_alone() {
            let n_seqs = batch.pairing().places.len();
            self.embeddings.resize_rows(backend, n_seqs)?;
            self.ranks.gather(backend, &self.own, &self.ranks.deal().counts(n_seqs), &mut self.embeddings)?;
        }
        self.loss(backend, batch, loss, results)?;
        self.propagate(backend, encoder, batch, dropout, grads)?;
        // Each rank has the gradient of its own embeddings' share.
        if self.ranks.is_alone() { Ok(()) } else { self.ranks.sum(backend, grads.params.list_mut()) }
    }

    /// Embeds every chunk, and keeps the activations of the last ones.
    fn embed(
        &mut self,
        backend: &B,
        encoder: &Encoder<B>,
        batch: &PackedBatch<B>,
        dropout: Option<StepDropout>,
    ) -> Result<()> {
        let n_chunks = batch.n_chunks();
        let first_kept = self.keep_of(backend, encoder, n_chunks)?;
        let embeddings = if self.ranks.is_alone() { &mut self.embeddings } else { &mut self.own };
        embeddings.resize_rows(backend, batch.n_seqs())?;
        let acts = &mut self.activations;
        for i in 0..n_chunks {
            let (chunk, keep) = (batch.chunk(i), if i < first_kept { Keep::Embeddings } else { Keep::Everything });
            encoder.forward(backend, chunk, dropout, keep, acts)?;
            backend.paste_rows(acts.embeddings(), embeddings, chunk.first_seq)?;
            if i >= first_kept && i + 1 < n_chunks {
                swap(&mut acts.saved, &mut self.kept[i - first_kept]);
            }
        }
        Ok(())
    }

    /// Computes the loss over the embeddings of the whole batch, and its gradient at each of them.
    fn loss(
        &mut self,
        backend: &B,
        batch: &PackedBatch<B>,
        loss: &mut InfoNce<B>,
        results: &mut B::Readback,
    ) -> Result<()> {
        self.d_embeddings.resize_rows(backend, self.embeddings.rows())?;
        loss.forward_backward(backend, &self.embeddings, batch.pairing(), &mut self.d_embeddings, results)
    }

    /// Propagates the gradient of the embeddings through every chunk; those that were not kept are run again first.
    fn propagate(
        &mut self,
        backend: &B,
        encoder: &Encoder<B>,
        batch: &PackedBatch<B>,
        dropout: Option<StepDropout>,
        grads: &mut Gradients<B>,
    ) -> Result<()> {
        let n_chunks = batch.n_chunks();
        let first_kept = n_chunks.saturating_sub(self.kept_chunks);
        let first_row = self.ranks.deal().first_row(self.embeddings.rows());
        let acts = &mut self.activations;
        for i in (0..n_chunks).rev() {
            let chunk = batch.chunk(i);
            if i < first_kept {
                encoder.forward(backend, chunk, dropout, Keep::Everything, acts)?;
            } else if i + 1 < n_chunks {
                swap(&mut acts.saved, &mut self.kept[i - first_kept]);
                // Buffers of backward itself are reused from the chunk before.
                acts.resize(backend, &encoder.config, Keep::Everything, chunk.n_tokens(), chunk.n_seqs())?;
            }
            self.d_chunk.resize_rows(backend, chunk.n_seqs())?;
            backend.copy_rows(&self.d_embeddings, first_row + chunk.first_seq, &mut self.d_chunk)?;
            encoder.backward(backend, chunk, &mut self.d_chunk, dropout, acts, grads)?;
        }
        Ok(())
    }
}
