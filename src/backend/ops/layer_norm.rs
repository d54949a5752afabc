//! The end of a branch: bias, dropout, residual and LayerNorm in one operation.

use super::Dropout;
use crate::backend::{Device, Packed, Tensor};

/// `x = residual + dropout(x + branch_bias)` in place, `out = LayerNorm(x) weight + bias`.
pub struct ResidualLayerNormForward<'a, B: Device> {
    /// The batch.
    pub batch: Packed<'a, B>,
    /// `(T, H)` in: the branch before its bias; out: the sum, kept for backward.
    pub x: &'a mut Tensor<B, B::E>,
    /// `(H,)`
    pub branch_bias: &'a Tensor<B, B::E>,
    /// `(T, H)`
    pub residual: &'a Tensor<B, B::E>,
    /// `(H,)` LayerNorm weight.
    pub weight: &'a Tensor<B, B::E>,
    /// `(H,)` LayerNorm bias.
    pub bias: &'a Tensor<B, B::E>,
    /// Added to the variance.
    pub eps: f32,
    /// Dropout of the branch.
    pub dropout: Option<Dropout>,
    /// `(T,)` kept for backward.
    pub mean: &'a mut Tensor<B, f32>,
    /// `(T,)` kept for backward.
    pub rstd: &'a mut Tensor<B, f32>,
    /// `(T, H)`
    pub out: &'a mut Tensor<B, B::E>,
}

impl<B: Device> ResidualLayerNormForward<'_, B> {
    /// Panics on mismatched shapes; returns `(T, H)`.
    pub fn check(&self) -> (usize, usize) {
        let (n, h) = (self.batch.n_tokens(), self.weight.len());
        for x in [&*self.x, self.residual, &*self.out] {
            assert_eq!(x.shape(), [n, h], "residual_layer_norm_forward: shapes");
        }
        assert_eq!(
            [self.branch_bias.len(), self.bias.len()],
            [h, h],
            "residual_layer_norm_forward: lengths of the biases"
        );
        assert_eq!([self.mean.len(), self.rstd.len()], [n, n], "residual_layer_norm_forward: lengths of mean and rstd");
        (n, h)
    }
}

/// Gradients of [`ResidualLayerNormForward`].
pub struct ResidualLayerNormBackward<'a, B: Device> {
    /// The batch.
    pub batch: Packed<'a, B>,
    /// `(T, H)`
    pub d_out: &'a Tensor<B, B::E>,
    /// `(T, H)` the sum from forward.
    pub sum: &'a Tensor<B, B::E>,
    /// `(T,)` from forward.
    pub mean: &'a Tensor<B, f32>,
    /// `(T,)` from forward.
    pub rstd: &'a Tensor<B, f32>,
    /// `(H,)` LayerNorm weight.
    pub weight: &'a Tensor<B, B::E>,
    /// The dropout of forward.
    pub dropout: Option<Dropout>,
    /// `(T, H)`
    pub d_residual: &'a mut Tensor<B, B::E>,
    /// `(T, H)` gradient of the branch.
    pub d_x: &'a mut Tensor<B, B::E>,
    /// `(H,)`, accumulates.
    pub d_branch_bias: &'a mut Tensor<B, f32>,
    /// `(H,)`, accumulates.
    pub d_weight: &'a mut Tensor<B, f32>,
    /// `(H,)`, accumulates.
    pub d_bias: &'a mut Tensor<B, f32>,
}

impl<B: Device> ResidualLayerNormBackward<'_, B> {
    /// Panics on mismatched shapes; returns `(T, H)`.
    pub fn check(&self) -> (usize, usize) {
        let (n, h) = (self.batch.n_tokens(), self.weight.len());
        for x in [self.d_out, self.sum, &*self.d_residual, &*self.d_x] {
            assert_eq!(x.shape(), [n, h], "residual_layer_norm_backward: shapes");
        }
        assert_eq!(
            [self.mean.len(), self.rstd.len()],
            [n, n],
            "residual_layer_norm_backward: lengths of mean and rstd"
        );
        for d in [&*self.d_branch_bias, &*self.d_weight, &*self.d_bias] {
            assert_eq!(d.len(), h, "residual_layer_norm_backward: parameters' gradients");
        }
        (n, h)
    }
}
