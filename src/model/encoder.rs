//! The whole encoder: tokens in, unit embeddings out, and the way back.

use super::head::HeadState;
use super::layer::{Layer, LayerSaved, LayerScratch, StepDropout};
use super::{EncoderParams, LayerParams, ModelConfig, Norm};
use crate::backend::{Backend, Dropout, EmbeddingBackward, EmbeddingForward, Packed, Pooling, SegmentSum, Tensor};
use crate::{Result, trace};

/// A model on a device.
pub struct Encoder<B: Backend> {
    /// Sizes and constants.
    pub config: ModelConfig,
    /// How a sequence's token vectors become one.
    pub pooling: Pooling,
    /// Working weights.
    pub weights: EncoderParams<Tensor<B, B::E>>,
}

impl<B: Backend> Encoder<B> {
    /// `D`, the length of an embedding.
    pub fn embedding_size(&self) -> usize {
        self.weights.dense.as_ref().map_or(self.config.hidden_size, |dense| dense.bias.len())
    }
}

/// The gradients of a step.
pub struct Gradients<B: Backend> {
    /// Gradient of every parameter; the word table's has a row for each of the batch's
    /// [`unique_ids`](crate::backend::PackedBatch::unique_ids) and no other.
    pub params: EncoderParams<Tensor<B, f32>>,
}

impl<B: Backend> Gradients<B> {
    /// All zero, for the parameters of `weights`.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn new(backend: &B, weights: &EncoderParams<Tensor<B, B::E>>) -> Result<Self> {
        let word = &weights.embeddings.word;
        let word_shape = [0, word.row_len()];
        let params = weights.try_map(|w| {
            // The word table's gradient grows with the batch.
            Tensor::zeros(backend, if std::ptr::eq(w, word) { &word_shape } else { w.shape() })
        })?;
        Ok(Self { params })
    }

    /// Room for the gradients of a batch with `n_ids` different token ids.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn reserve(&mut self, backend: &B, n_ids: usize) -> Result<()> {
        self.params.embeddings.word.resize_rows(backend, n_ids)
    }

    /// Zeroes every gradient before a step whose batch has `n_ids` different token ids.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn reset(&mut self, backend: &B, n_ids: usize) -> Result<()> {
        self.reserve(backend, n_ids)?;
        backend.zero_all(&mut self.params.list_mut())
    }
}

/// Whether a forward keeps what backward needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Backward follows.
    Everything,
    /// Embeddings are all that is wanted: two layers' buffers serve all layers in turn.
    Embeddings,
}

/// Activations of the chunk in hand. Buffers grow to the largest chunk and stay.
pub struct Activations<B: Backend> {
    /// What forward left for backward. May be changed for another's to have several chunks between the two.
    pub saved: Saved<B>,
    scratch: LayerScratch<B>,
    /// `(T, H)` the gradient that travels from layer to layer
    d: Tensor<B, B::E>,
}

/// What a forward leaves: embeddings, and all that a backward needs besides weights.
pub struct Saved<B: Backend> {
    embedding_sum: Tensor<B, B::E>,
    embedding_mean: Tensor<B, f32>,
    embedding_rstd: Tensor<B, f32>,
    embedding_out: Tensor<B, B::E>,
    layers: Vec<LayerSaved<B>>,
    head: HeadState<B>,
}

impl<B: Backend> Saved<B> {
    /// Empty.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn new(backend: &B, encoder: &Encoder<B>) -> Result<Self> {
        let h = encoder.config.hidden_size;
        Ok(Self {
            embedding_sum: Tensor::zeros(backend, &[0, h])?,
            embedding_mean: Tensor::zeros(backend, &[0])?,
            embedding_rstd: Tensor::zeros(backend, &[0])?,
            embedding_out: Tensor::zeros(backend, &[0, h])?,
            layers: Vec::new(),
            head: HeadState::new(backend, h, encoder.embedding_size(), encoder.weights.dense.is_some())?,
        })
    }

    /// Room for a chunk of `n_tokens` tokens and `n_seqs` sequences.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn resize(
        &mut self,
        backend: &B,
        config: &ModelConfig,
        keep: Keep,
        n_tokens: usize,
        n_seqs: usize,
    ) -> Result<()> {
        let n_layers = config.layers.len();
        let slots = if keep == Keep::Everything { n_layers } else { n_layers.min(2) };
        while self.layers.len() < slots {
            self.layers.push(LayerSaved::new(backend, config)?);
        }
        for layer in &mut self.layers[..slots] {
            layer.resize(backend, n_tokens)?;
        }
        self.embedding_sum.resize_rows(backend, n_tokens)?;
        self.embedding_mean.resize_rows(backend, n_tokens)?;
        self.embedding_rstd.resize_rows(backend, n_tokens)?;
        self.embedding_out.resize_rows(backend, n_tokens)?;
        self.head.resize(backend, n_seqs)
    }
}

impl<B: Backend> Activations<B> {
    /// Empty.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn new(backend: &B, encoder: &Encoder<B>) -> Result<Self> {
        Ok(Self {
            saved: Saved::new(backend, encoder)?,
            scratch: LayerScratch::new(backend, &encoder.config)?,
            d: Tensor::zeros(backend, &[0, encoder.config.hidden_size])?,
        })
    }

    /// `(S, D)` unit embeddings of the last forward.
    pub fn embeddings(&self) -> &Tensor<B, f32> {
        &self.saved.head.embeddings
    }

    /// Room for a chunk of `n_tokens` tokens and `n_seqs` sequences.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn resize(
        &mut self,
        backend: &B,
        config: &ModelConfig,
        keep: Keep,
        n_tokens: usize,
        n_seqs: usize,
    ) -> Result<()> {
        self.saved.resize(backend, config, keep, n_tokens, n_seqs)?;
        self.scratch.resize(backend, n_tokens, keep == Keep::Everything)?;
        if keep == Keep::Everything {
            self.d.resize_rows(backend, n_tokens)?;
        }
        Ok(())
    }
}

impl<B: Backend> Encoder<B> {
    /// Embeds the sequences of `batch`; the result is [`Activations::embeddings`], one row a sequence.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn forward(
        &self,
        backend: &B,
        batch: Packed<B>,
        dropout: Option<StepDropout>,
        keep: Keep,
        acts: &mut Activations<B>,
    ) -> Result<()> {
        let _range = trace::phase_on("forward", batch.n_tokens());
        acts.resize(backend, &self.config, keep, batch.n_tokens(), batch.n_seqs())?;
        let (w, saved) = (&self.weights, &mut acts.saved);
        let Norm::LayerNorm { eps } = self.config.embedding_norm;
        backend.embedding_forward(EmbeddingForward {
            batch,
            word: &w.embeddings.word,
            position: &w.embeddings.position,
            token_type: &w.embeddings.token_type,
            weight: &w.embeddings.norm_weight,
            bias: &w.embeddings.norm_bias,
            eps,
            dropout: embedding_dropout(dropout),
            sum: &mut saved.embedding_sum,
            mean: &mut saved.embedding_mean,
            rstd: &mut saved.embedding_rstd,
            out: &mut saved.embedding_out,
        })?;
        let slots = if keep == Keep::Everything { w.layers.len() } else { w.layers.len().min(2) };
        for (index, weights) in w.layers.iter().enumerate() {
            let layer = self.layer(index, weights, dropout);
            let (x, to) = if index == 0 {
                (&saved.embedding_out, &mut saved.layers[0])
            } else {
                let [from, to] = saved
                    .layers
                    .get_disjoint_mut([(index - 1) % slots, index % slots])
                    .expect("two layers' buffers are two");
                (&from.out, to)
            };
            layer.forward(backend, batch, x, to, &mut acts.scratch)?;
        }
        let last = &saved.layers[(w.layers.len() - 1) % slots].out;
        saved.head.forward(backend, batch, self.pooling, w.dense.as_ref(), last)
    }

    /// Adds to `grads` the gradient of the loss, given `d_embeddings` `(S, D)`, its gradient at the embeddings of the
    /// last forward, which must have kept everything and had the same `batch` and `dropout`. `d_embeddings` is
    /// overwritten.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn backward(
        &self,
        backend: &B,
        batch: Packed<B>,
        d_embeddings: &mut Tensor<B, f32>,
        dropout: Option<StepDropout>,
        acts: &mut Activations<B>,
        grads: &mut Gradients<B>,
    ) -> Result<()> {
        let _range = trace::phase_on("backward", batch.n_tokens());
        let (w, g, saved) = (&self.weights, &mut grads.params, &mut acts.saved);
        saved.head.backward(
            backend,
            batch,
            self.pooling,
            w.dense.as_ref(),
            g.dense.as_mut(),
            d_embeddings,
            &mut acts.d,
        )?;
        for (index, weights) in w.layers.iter().enumerate().rev() {
            let layer = self.layer(index, weights, dropout);
            let x = if index == 0 { &saved.embedding_out } else { &saved.layers[index - 1].out };
            let of_layer = &saved.layers[index];
            layer.backward(backend, batch, x, of_layer, &mut acts.scratch, &mut g.layers[index], &mut acts.d)?;
        }
        self.embedding_backward(backend, batch, dropout, acts, g)
    }

    fn layer<'a>(
        &self,
        index: usize,
        weights: &'a LayerParams<Tensor<B, B::E>>,
        dropout: Option<StepDropout>,
    ) -> Layer<'a, B> {
        let ModelConfig { layers, num_attention_heads, .. } = &self.config;
        Layer { index, n_heads: *num_attention_heads, config: layers[index], weights, dropout }
    }

    fn embedding_backward(
        &self,
        backend: &B,
        batch: Packed<B>,
        dropout: Option<StepDropout>,
        acts: &mut Activations<B>,
        g: &mut EncoderParams<Tensor<B, f32>>,
    ) -> Result<()> {
        // Its forward result is not needed any more: the buffer takes the gradient of the sum.
        let saved = &mut acts.saved;
        let d_sum = &mut saved.embedding_out;
        backend.embedding_backward(EmbeddingBackward {
            batch,
            d_out: &acts.d,
            sum: &saved.embedding_sum,
            mean: &saved.embedding_mean,
            rstd: &saved.embedding_rstd,
            weight: &self.weights.embeddings.norm_weight,
            dropout: embedding_dropout(dropout),
            d_sum,
            d_weight: &mut g.embeddings.norm_weight,
            d_bias: &mut g.embeddings.norm_bias,
        })?;
        backend.segment_sum(SegmentSum { x: d_sum, segments: batch.word_segments(), out: &mut g.embeddings.word })?;
        backend.segment_sum(SegmentSum {
            x: d_sum,
            segments: batch.position_segments(),
            out: &mut g.embeddings.position,
        })?;
        // Every token has type 0.
        backend.segment_sum(SegmentSum { x: d_sum, segments: batch.type_segments(), out: &mut g.embeddings.token_type })
    }
}

fn embedding_dropout(step: Option<StepDropout>) -> Option<Dropout> {
    step.and_then(|step| step.at(Dropout::EMBEDDING_SITE, step.hidden))
}
