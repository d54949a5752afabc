//! The buffers of a layer.

use crate::Result;
use crate::backend::{Backend, Tensor};
use crate::model::ModelConfig;

/// What a layer's forward keeps for its backward. `T` tokens, hidden size `H`, feed-forward size `F`.
pub struct LayerSaved<B: Backend> {
    /// `(T, 3 H)`
    pub(super) qkv: Tensor<B, B::E>,
    /// `(T, heads)`
    pub(super) lse: Tensor<B, f32>,
    /// `(T, H)` result of the attention
    pub(super) context: Tensor<B, B::E>,
    /// `(T, H)` sum before the attention's LayerNorm, and its statistics
    pub(super) attention_sum: Tensor<B, B::E>,
    pub(super) attention_mean: Tensor<B, f32>,
    pub(super) attention_rstd: Tensor<B, f32>,
    /// `(T, H)` input of the feed-forward block
    pub(super) attention_out: Tensor<B, B::E>,
    /// `(T, F)` before bias and GELU
    pub(super) intermediate: Tensor<B, B::E>,
    /// `(T, H)` sum before the last LayerNorm, and its statistics
    pub(super) sum: Tensor<B, B::E>,
    pub(super) mean: Tensor<B, f32>,
    pub(super) rstd: Tensor<B, f32>,
    /// `(T, H)` result of the layer
    pub out: Tensor<B, B::E>,
}

impl<B: Backend> LayerSaved<B> {
    /// Empty.
    pub fn new(backend: &B, config: &ModelConfig) -> Result<Self> {
        let (h, f) = (config.hidden_size, config.intermediate_size);
        let activations = |width: usize| Tensor::zeros(backend, &[0, width]);
        let statistics = || Tensor::zeros(backend, &[0]);
        Ok(Self {
            qkv: activations(3 * h)?,
            lse: Tensor::zeros(backend, &[0, config.num_attention_heads])?,
            context: activations(h)?,
            attention_sum: activations(h)?,
            attention_mean: statistics()?,
            attention_rstd: statistics()?,
            attention_out: activations(h)?,
            intermediate: activations(f)?,
            sum: activations(h)?,
            mean: statistics()?,
            rstd: statistics()?,
            out: activations(h)?,
        })
    }

    /// Room for `n_tokens`.
    pub fn resize(&mut self, backend: &B, n_tokens: usize) -> Result<()> {
        let activations = [
            &mut self.qkv,
            &mut self.context,
            &mut self.attention_sum,
            &mut self.attention_out,
            &mut self.intermediate,
            &mut self.sum,
            &mut self.out,
        ];
        for t in activations {
            t.resize_rows(backend, n_tokens)?;
        }
        let statistics =
            [&mut self.lse, &mut self.attention_mean, &mut self.attention_rstd, &mut self.mean, &mut self.rstd];
        for t in statistics {
            t.resize_rows(backend, n_tokens)?;
        }
        Ok(())
    }
}

/// Buffers that one layer after another uses.
pub struct LayerScratch<B: Backend> {
    /// `(T, F)` gelu(intermediate + bias)
    pub(super) gelu: Tensor<B, B::E>,
    /// `(T, F)`
    pub(super) d_intermediate: Tensor<B, B::E>,
    /// `(T, 3 H)`
    pub(super) d_qkv: Tensor<B, B::E>,
    /// `(T, H)` gradient of a branch
    pub(super) d_branch: Tensor<B, B::E>,
    /// `(T, H)` gradient at the feed-forward block's input
    pub(super) d_middle: Tensor<B, B::E>,
}

impl<B: Backend> LayerScratch<B> {
    /// Empty.
    pub fn new(backend: &B, config: &ModelConfig) -> Result<Self> {
        let (h, f) = (config.hidden_size, config.intermediate_size);
        let activations = |width: usize| Tensor::zeros(backend, &[0, width]);
        Ok(Self {
            gelu: activations(f)?,
            d_intermediate: activations(f)?,
            d_qkv: activations(3 * h)?,
            d_branch: activations(h)?,
            d_middle: activations(h)?,
        })
    }

    /// Room for `n_tokens`, with or without what only backward needs.
    pub fn resize(&mut self, backend: &B, n_tokens: usize, backward: bool) -> Result<()> {
        self.gelu.resize_rows(backend, n_tokens)?;
        if backward {
            for t in [&mut self.d_intermediate, &mut self.d_qkv, &mut self.d_branch, &mut self.d_middle] {
                t.resize_rows(backend, n_tokens)?;
            }
        }
        Ok(())
    }
}
