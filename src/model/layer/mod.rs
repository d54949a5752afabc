//! One transformer layer, forward and backward, as its [`LayerConfig`] describes it.

mod buffers;

use super::{Activation, Biases, LayerConfig, LayerParams, LayerPositions, Norm, NormPlacement, Window};
use crate::backend::{
    AttentionBackward, AttentionForward, Backend, BiasGeluBackward, BiasGeluForward, Dropout, Gemm, Packed,
    ResidualLayerNormBackward, ResidualLayerNormForward, Tensor,
};
use crate::{Result, trace};
pub use buffers::{LayerSaved, LayerScratch};

/// Dropout of one training step, before it is known which place of the network it is for.
#[derive(Clone, Copy, Debug)]
pub struct StepDropout {
    /// The run's seed.
    pub seed: u64,
    /// The optimizer step.
    pub step: u32,
    /// Probability for embeddings and both branches.
    pub hidden: f32,
    /// Probability for the attention's softmax.
    pub attention: f32,
}

impl StepDropout {
    /// Dropout with probability `p` at `site`; `None` when nothing is ever dropped.
    pub fn at(&self, site: u32, p: f32) -> Option<Dropout> {
        (p > 0.0).then_some(Dropout { p, seed: self.seed, step: self.step, site })
    }
}

/// Dropouts of one layer.
#[derive(Clone, Copy, Debug, Default)]
struct LayerDropout {
    attention: Option<Dropout>,
    attention_output: Option<Dropout>,
    output: Option<Dropout>,
}

impl LayerDropout {
    fn new(step: Option<StepDropout>, layer: usize) -> Self {
        let Some(step) = step else { return Self::default() };
        let site = layer as u32 * 4;
        Self {
            attention: step.at(site, step.attention),
            attention_output: step.at(site + 1, step.hidden),
            output: step.at(site + 2, step.hidden),
        }
    }
}

/// A layer's weights and constants.
pub struct Layer<'a, B: Backend> {
    /// First layer is 0.
    pub index: usize,
    /// Heads of the attention.
    pub n_heads: usize,
    /// What it computes.
    pub config: LayerConfig,
    /// Working weights.
    pub weights: &'a LayerParams<Tensor<B, B::E>>,
    /// `None` when not training.
    pub dropout: Option<StepDropout>,
}

/// `out = x w^T [+ bias]`
fn linear<B: Backend>(
    backend: &B,
    x: &Tensor<B, B::E>,
    weight: &Tensor<B, B::E>,
    bias: Option<&Tensor<B, B::E>>,
    out: &mut Tensor<B, B::E>,
) -> Result<()> {
    backend.gemm(Gemm { a: x, trans_a: false, b: weight, trans_b: true, bias, out, accumulate: false })
}

/// `d_x = [d_x +] d_out w` and `d_weight += d_out^T x`
fn linear_backward<B: Backend>(
    backend: &B,
    d_out: &Tensor<B, B::E>,
    x: &Tensor<B, B::E>,
    weight: &Tensor<B, B::E>,
    (d_x, accumulate): (&mut Tensor<B, B::E>, bool),
    d_weight: &mut Tensor<B, f32>,
) -> Result<()> {
    backend.gemm_f32(Gemm {
        a: d_out,
        trans_a: true,
        b: x,
        trans_b: false,
        bias: None,
        out: d_weight,
        accumulate: true,
    })?;
    backend.gemm(Gemm { a: d_out, trans_a: false, b: weight, trans_b: false, bias: None, out: d_x, accumulate })
}

impl<B: Backend> Layer<'_, B> {
    /// Fills `saved`, whose `out` is the layer's result, from the input `x` `(T, H)`.
    pub fn forward(
        &self,
        backend: &B,
        batch: Packed<B>,
        x: &Tensor<B, B::E>,
        saved: &mut LayerSaved<B>,
        scratch: &mut LayerScratch<B>,
    ) -> Result<()> {
        let _range = trace::layer(self.index);
        let LayerConfig { norm_placement, biases: Biases::Everywhere, .. } = self.config;
        match norm_placement {
            NormPlacement::AfterResidual => {
                self.attention(backend, batch, x, saved)?;
                self.feed_forward(backend, batch, saved, scratch)
            }
        }
    }

    /// From the layer's input `x` to `saved.attention_out`.
    fn attention(&self, backend: &B, batch: Packed<B>, x: &Tensor<B, B::E>, saved: &mut LayerSaved<B>) -> Result<()> {
        let (w, dropout) = (self.weights, LayerDropout::new(self.dropout, self.index));
        linear(backend, x, &w.qkv_weight, Some(&w.qkv_bias), &mut saved.qkv)?;
        match (self.config.positions, self.config.window) {
            (LayerPositions::Embedded, Window::Whole) => backend.attention_forward(AttentionForward {
                batch,
                n_heads: self.n_heads,
                qkv: &saved.qkv,
                dropout: dropout.attention,
                lse: &mut saved.lse,
                out: &mut saved.context,
            })?,
        }
        let Norm::LayerNorm { eps } = self.config.norm;
        linear(backend, &saved.context, &w.attention_output_weight, None, &mut saved.attention_sum)?;
        backend.residual_layer_norm_forward(ResidualLayerNormForward {
            batch,
            x: &mut saved.attention_sum,
            branch_bias: &w.attention_output_bias,
            residual: x,
            weight: &w.attention_norm_weight,
            bias: &w.attention_norm_bias,
            eps,
            dropout: dropout.attention_output,
            mean: &mut saved.attention_mean,
            rstd: &mut saved.attention_rstd,
            out: &mut saved.attention_out,
        })
    }

    /// From `saved.attention_out` to `saved.out`.
    fn feed_forward(
        &self,
        backend: &B,
        batch: Packed<B>,
        saved: &mut LayerSaved<B>,
        scratch: &mut LayerScratch<B>,
    ) -> Result<()> {
        let (w, dropout) = (self.weights, LayerDropout::new(self.dropout, self.index));
        linear(backend, &saved.attention_out, &w.intermediate_weight, None, &mut saved.intermediate)?;
        match self.config.activation {
            Activation::Gelu => backend.bias_gelu_forward(BiasGeluForward {
                x: &saved.intermediate,
                bias: &w.intermediate_bias,
                out: &mut scratch.gelu,
            })?,
        }
        let Norm::LayerNorm { eps } = self.config.norm;
        linear(backend, &scratch.gelu, &w.output_weight, None, &mut saved.sum)?;
        backend.residual_layer_norm_forward(ResidualLayerNormForward {
            batch,
            x: &mut saved.sum,
            branch_bias: &w.output_bias,
            residual: &saved.attention_out,
            weight: &w.output_norm_weight,
            bias: &w.output_norm_bias,
            eps,
            dropout: dropout.output,
            mean: &mut saved.mean,
            rstd: &mut saved.rstd,
            out: &mut saved.out,
        })
    }

    /// From `d`, the gradient of the layer's result, to the gradient of its input, in place; `x` is that input.
    /// Adds the parameters' gradients to `grads`.
    #[allow(clippy::too_many_arguments)]
    pub fn backward(
        &self,
        backend: &B,
        batch: Packed<B>,
        x: &Tensor<B, B::E>,
        saved: &LayerSaved<B>,
        scratch: &mut LayerScratch<B>,
        grads: &mut LayerParams<Tensor<B, f32>>,
        d: &mut Tensor<B, B::E>,
    ) -> Result<()> {
        let _range = trace::layer(self.index);
        let LayerConfig { norm_placement, norm: Norm::LayerNorm { .. }, biases: Biases::Everywhere, .. } = self.config;
        match norm_placement {
            NormPlacement::AfterResidual => {
                self.feed_forward_backward(backend, batch, saved, scratch, grads, d)?;
                self.attention_backward(backend, batch, x, saved, scratch, grads, d)
            }
        }
    }

    /// From `d`, the gradient of the layer's result, to `scratch.d_middle`, the gradient of the block's input.
    fn feed_forward_backward(
        &self,
        backend: &B,
        batch: Packed<B>,
        saved: &LayerSaved<B>,
        scratch: &mut LayerScratch<B>,
        grads: &mut LayerParams<Tensor<B, f32>>,
        d: &Tensor<B, B::E>,
    ) -> Result<()> {
        let (w, dropout) = (self.weights, LayerDropout::new(self.dropout, self.index));
        backend.residual_layer_norm_backward(ResidualLayerNormBackward {
            batch,
            d_out: d,
            sum: &saved.sum,
            mean: &saved.mean,
            rstd: &saved.rstd,
            weight: &w.output_norm_weight,
            dropout: dropout.output,
            d_residual: &mut scratch.d_middle,
            d_x: &mut scratch.d_branch,
            d_branch_bias: &mut grads.output_bias,
            d_weight: &mut grads.output_norm_weight,
            d_bias: &mut grads.output_norm_bias,
        })?;
        backend.gemm(Gemm {
            a: &scratch.d_branch,
            trans_a: false,
            b: &w.output_weight,
            trans_b: false,
            bias: None,
            out: &mut scratch.d_intermediate,
            accumulate: false,
        })?;
        match self.config.activation {
            Activation::Gelu => backend.bias_gelu_backward(BiasGeluBackward {
                x: &saved.intermediate,
                bias: &w.intermediate_bias,
                d: &mut scratch.d_intermediate,
                out: &mut scratch.gelu,
                d_bias: &mut grads.intermediate_bias,
            })?,
        }
        backend.gemm_f32(Gemm {
            a: &scratch.d_branch,
            trans_a: true,
            b: &scratch.gelu,
            trans_b: false,
            bias: None,
            out: &mut grads.output_weight,
            accumulate: true,
        })?;
        linear_backward(
            backend,
            &scratch.d_intermediate,
            &saved.attention_out,
            &w.intermediate_weight,
            (&mut scratch.d_middle, true),
            &mut grads.intermediate_weight,
        )
    }

    /// From `scratch.d_middle` to `d`, the gradient of the layer's input `x`.
    #[allow(clippy::too_many_arguments)]
    fn attention_backward(
        &self,
        backend: &B,
        batch: Packed<B>,
        x: &Tensor<B, B::E>,
        saved: &LayerSaved<B>,
        scratch: &mut LayerScratch<B>,
        grads: &mut LayerParams<Tensor<B, f32>>,
        d: &mut Tensor<B, B::E>,
    ) -> Result<()> {
        let (w, dropout) = (self.weights, LayerDropout::new(self.dropout, self.index));
        backend.residual_layer_norm_backward(ResidualLayerNormBackward {
            batch,
            d_out: &scratch.d_middle,
            sum: &saved.attention_sum,
            mean: &saved.attention_mean,
            rstd: &saved.attention_rstd,
            weight: &w.attention_norm_weight,
            dropout: dropout.attention_output,
            d_residual: d,
            d_x: &mut scratch.d_branch,
            d_branch_bias: &mut grads.attention_output_bias,
            d_weight: &mut grads.attention_norm_weight,
            d_bias: &mut grads.attention_norm_bias,
        })?;
        // The gradient of the block's input is done with: its buffer takes the gradient of the attention's result.
        let d_context = &mut scratch.d_middle;
        linear_backward(
            backend,
            &scratch.d_branch,
            &saved.context,
            &w.attention_output_weight,
            (&mut *d_context, false),
            &mut grads.attention_output_weight,
        )?;
        match (self.config.positions, self.config.window) {
            (LayerPositions::Embedded, Window::Whole) => backend.attention_backward(AttentionBackward {
                batch,
                n_heads: self.n_heads,
                qkv: &saved.qkv,
                out: &saved.context,
                lse: &saved.lse,
                dropout: dropout.attention,
                d_out: d_context,
                d_qkv: &mut scratch.d_qkv,
                d_bias: &mut grads.qkv_bias,
            })?,
        }
        linear_backward(backend, &scratch.d_qkv, x, &w.qkv_weight, (d, true), &mut grads.qkv_weight)
    }
}
