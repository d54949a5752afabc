//! Self-attention.

use super::Dropout;
use crate::backend::{Device, Packed, Tensor};

/// Self-attention within each sequence of a packed batch.
pub struct AttentionForward<'a, B: Device> {
    /// The batch.
    pub batch: Packed<'a, B>,
    /// Heads; `H` is a multiple of it.
    pub n_heads: usize,
    /// `(T, 3 H)`: query, key and value of every token.
    pub qkv: &'a Tensor<B, B::E>,
    /// Dropout of the softmax.
    pub dropout: Option<Dropout>,
    /// `(T, n_heads)` log-sum-exp of the scaled scores, kept for backward.
    pub lse: &'a mut Tensor<B, f32>,
    /// `(T, H)`
    pub out: &'a mut Tensor<B, B::E>,
}

impl<B: Device> AttentionForward<'_, B> {
    /// Panics on mismatched shapes; returns the size of a head.
    pub fn check(&self) -> usize {
        check_attention(self.n_heads, self.qkv, &*self.out, &*self.lse, self.batch.n_tokens())
    }
}

/// Panics on mismatched shapes of the tensors that both passes have; returns the size of a head.
fn check_attention<B: Device>(
    n_heads: usize,
    qkv: &Tensor<B, B::E>,
    out: &Tensor<B, B::E>,
    lse: &Tensor<B, f32>,
    n_tokens: usize,
) -> usize {
    let hidden = out.row_len();
    assert!(n_heads > 0 && hidden.is_multiple_of(n_heads), "attention: {n_heads} heads of a hidden size of {hidden}");
    assert_eq!((qkv.rows(), qkv.row_len()), (n_tokens, 3 * hidden), "attention: shape of qkv");
    assert_eq!(out.rows(), n_tokens, "attention: rows of the result");
    assert_eq!((lse.rows(), lse.row_len()), (n_tokens, n_heads), "attention: shape of the log-sum-exp");
    hidden / n_heads
}

/// Gradient of [`AttentionForward`].
pub struct AttentionBackward<'a, B: Device> {
    /// The batch.
    pub batch: Packed<'a, B>,
    /// Number of heads, as in forward.
    pub n_heads: usize,
    /// `(T, 3 H)` from forward.
    pub qkv: &'a Tensor<B, B::E>,
    /// `(T, H)` result of forward.
    pub out: &'a Tensor<B, B::E>,
    /// `(T, n_heads)` from forward.
    pub lse: &'a Tensor<B, f32>,
    /// The dropout of forward.
    pub dropout: Option<Dropout>,
    /// `(T, H)`
    pub d_out: &'a Tensor<B, B::E>,
    /// `(T, 3 H)`
    pub d_qkv: &'a mut Tensor<B, B::E>,
    /// `(3 H,)` gradient of the bias that made `qkv`, accumulates.
    pub d_bias: &'a mut Tensor<B, f32>,
}

impl<B: Device> AttentionBackward<'_, B> {
    /// Panics on mismatched shapes; returns the size of a head.
    pub fn check(&self) -> usize {
        let head_size = check_attention(self.n_heads, self.qkv, self.out, self.lse, self.batch.n_tokens());
        assert_eq!(self.d_out.shape(), self.out.shape(), "attention: shape of the result's gradient");
        assert_eq!(self.d_qkv.shape(), self.qkv.shape(), "attention: shape of the gradient");
        assert_eq!(self.d_bias.len(), self.qkv.row_len(), "attention: length of the bias gradient");
        head_size
    }
}
