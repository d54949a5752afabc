//! From token vectors to unit embeddings: pooling, an optional dense layer with tanh, L2 normalisation.

use super::DenseParams;
use crate::Result;
use crate::backend::{Backend, Gemm, Packed, PoolBackward, PoolForward, Pooling, Tensor};

/// Buffers of the head. `S` sequences, hidden size `H`, embedding size `D`.
pub struct HeadState<B: Backend> {
    /// `(S, H)`
    pooled: Tensor<B, f32>,
    /// The dense layer's, where there is one.
    dense: Option<DenseState<B>>,
    /// `(S,)`
    inv_norm: Tensor<B, f32>,
    /// `(S, D)` unit vectors: the model's result.
    pub embeddings: Tensor<B, f32>,
}

struct DenseState<B: Backend> {
    /// `(S, H)` pooled vectors in the working type
    x: Tensor<B, B::E>,
    /// `(S, D)` tanh(x w^T + b)
    y: Tensor<B, f32>,
    /// `(S, D)` gradient before the tanh, in the working type
    d: Tensor<B, B::E>,
    /// `(S, D)` gradient before the tanh
    d_y: Tensor<B, f32>,
}

impl<B: Backend> HeadState<B> {
    /// Empty.
    pub fn new(backend: &B, hidden_size: usize, embedding_size: usize, dense: bool) -> Result<Self> {
        let dense = if dense {
            Some(DenseState {
                x: Tensor::zeros(backend, &[0, hidden_size])?,
                y: Tensor::zeros(backend, &[0, embedding_size])?,
                d: Tensor::zeros(backend, &[0, embedding_size])?,
                d_y: Tensor::zeros(backend, &[0, embedding_size])?,
            })
        } else {
            None
        };
        Ok(Self {
            pooled: Tensor::zeros(backend, &[0, hidden_size])?,
            dense,
            inv_norm: Tensor::zeros(backend, &[0])?,
            embeddings: Tensor::zeros(backend, &[0, embedding_size])?,
        })
    }

    /// Room for `n_seqs`.
    pub fn resize(&mut self, backend: &B, n_seqs: usize) -> Result<()> {
        self.pooled.resize_rows(backend, n_seqs)?;
        self.inv_norm.resize_rows(backend, n_seqs)?;
        self.embeddings.resize_rows(backend, n_seqs)?;
        if let Some(dense) = &mut self.dense {
            dense.x.resize_rows(backend, n_seqs)?;
            dense.y.resize_rows(backend, n_seqs)?;
            dense.d.resize_rows(backend, n_seqs)?;
            dense.d_y.resize_rows(backend, n_seqs)?;
        }
        Ok(())
    }

    /// Fills `embeddings` from the last layer's result `x` `(T, H)`.
    pub fn forward(
        &mut self,
        backend: &B,
        batch: Packed<B>,
        pooling: Pooling,
        weights: Option<&DenseParams<Tensor<B, B::E>>>,
        x: &Tensor<B, B::E>,
    ) -> Result<()> {
        backend.pool_forward(PoolForward { batch, pooling, x, out: &mut self.pooled })?;
        let (Some(dense), Some(weights)) = (&mut self.dense, weights) else {
            return backend.l2_normalize_forward(&self.pooled, &mut self.embeddings, &mut self.inv_norm);
        };
        backend.cast(&self.pooled, &mut dense.x)?;
        backend.gemm_f32(Gemm {
            a: &dense.x,
            trans_a: false,
            b: &weights.weight,
            trans_b: true,
            bias: None,
            out: &mut dense.y,
            accumulate: false,
        })?;
        backend.bias_tanh_forward(&mut dense.y, &weights.bias)?;
        backend.l2_normalize_forward(&dense.y, &mut self.embeddings, &mut self.inv_norm)
    }

    /// From `d` `(S, D)`, the gradient of the embeddings (changed on the way), to `d_x` `(T, H)`.
    #[allow(clippy::too_many_arguments)]
    pub fn backward(
        &mut self,
        backend: &B,
        batch: Packed<B>,
        pooling: Pooling,
        weights: Option<&DenseParams<Tensor<B, B::E>>>,
        grads: Option<&mut DenseParams<Tensor<B, f32>>>,
        d: &mut Tensor<B, f32>,
        d_x: &mut Tensor<B, B::E>,
    ) -> Result<()> {
        backend.l2_normalize_backward(&self.embeddings, &self.inv_norm, d)?;
        let (Some(dense), Some(weights), Some(grads)) = (&mut self.dense, weights, grads) else {
            return backend.pool_backward(PoolBackward { batch, pooling, d_out: d, d_x });
        };
        backend.copy_rows(d, 0, &mut dense.d_y)?;
        backend.bias_tanh_backward(&dense.y, &mut dense.d_y, &mut grads.bias)?;
        backend.cast(&dense.d_y, &mut dense.d)?;
        backend.gemm_f32(Gemm {
            a: &dense.d,
            trans_a: true,
            b: &dense.x,
            trans_b: false,
            bias: None,
            out: &mut grads.weight,
            accumulate: true,
        })?;
        // The pooled vectors are not needed any more: their buffer takes their gradient.
        backend.gemm_f32(Gemm {
            a: &dense.d,
            trans_a: false,
            b: &weights.weight,
            trans_b: false,
            bias: None,
            out: &mut self.pooled,
            accumulate: false,
        })?;
        backend.pool_backward(PoolBackward { batch, pooling, d_out: &self.pooled, d_x })
    }
}
