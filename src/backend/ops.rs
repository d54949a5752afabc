//! The operations and their argument structs. Inputs are `&`, outputs `&mut`. `check` panics on shapes that only a bug in hbt
//! can make wrong.

mod adamw;
mod attention;
mod distillation;
mod info_nce;
mod layer_norm;
mod operations;

pub use adamw::{AdamW, AdamWCatchUp, AdamWParameter, AdamWRows, AdamWStep, momentum_decays};
pub use attention::{AttentionBackward, AttentionForward};
pub use distillation::{DISTILL_STATS, DistillRows, Distillation, TeacherScores};
pub use info_nce::{Candidates, InfoNceColumns, InfoNceExps, InfoNceRows, ROW_STATS, ScoreBlocks, WORD_BITS};
pub use layer_norm::{ResidualLayerNormBackward, ResidualLayerNormForward};
pub use operations::Operations;

use super::{Device, Packed, Segments, Tensor, Value};
use std::any::TypeId;

/// Panics unless all tensors have this shape.
pub(super) fn check_shapes<'a, B: Device, T: Value>(
    op: &str,
    shape: &[usize],
    tensors: impl IntoIterator<Item = &'a Tensor<B, T>>,
) {
    for tensor in tensors {
        assert_eq!(tensor.shape(), shape, "{op}: shapes");
    }
}

/// Panics unless `wide` has the rows of `narrow` and no fewer columns; returns the numbers of columns.
pub(super) fn check_columns<B: Device>(op: &str, wide: &Tensor<B, f32>, narrow: &Tensor<B, f32>) -> (usize, usize) {
    assert_eq!(wide.rows(), narrow.rows(), "{op}: rows");
    assert!(narrow.row_len() <= wide.row_len(), "{op}: columns");
    (wide.row_len(), narrow.row_len())
}

/// Dropout of one place in the network. Stateless: a mask bit is a function of these fields and of the element's
/// global row and column, so any chunking of a batch and both devices see the same mask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Probability that an element is set to zero, in [0, 1).
    pub p: f32,
    /// The run's seed.
    pub seed: u64,
    /// The optimizer step.
    pub step: u32,
    /// Which dropout of the network: layer * 4 + (0 attention, 1 attention output, 2 feed-forward output), or
    /// [`Dropout::EMBEDDING_SITE`].
    pub site: u32,
}

impl Dropout {
    /// Site of the dropout that follows the embedding's LayerNorm.
    pub const EMBEDDING_SITE: u32 = u32::MAX;
}

crate::choices::choices! {
    /// How the token vectors of a sequence become one vector.
    Pooling {
        /// The first token's vector.
        Cls = "cls",
        /// The mean over all tokens' vectors.
        Mean = "mean",
    }
}

/// `out (m, n) = op(a) op(b) [+ bias] [+ out]`, where `op` transposes if asked to.
pub struct Gemm<'a, B: Device, C: Value> {
    /// `(m, k)`, or `(k, m)` when `trans_a`.
    pub a: &'a Tensor<B, B::E>,
    /// Use the transpose of `a`.
    pub trans_a: bool,
    /// `(k, n)`, or `(n, k)` when `trans_b`.
    pub b: &'a Tensor<B, B::E>,
    /// Use the transpose of `b`.
    pub trans_b: bool,
    /// `(n,)`, added to every row. Only where `out` has the working type.
    pub bias: Option<&'a Tensor<B, B::E>>,
    /// `(m, n)`
    pub out: &'a mut Tensor<B, C>,
    /// Add to what `out` holds instead of overwriting it.
    pub accumulate: bool,
}

impl<B: Device, C: Value> Gemm<'_, B, C> {
    /// Panics on mismatched shapes; returns `(m, n, k)`.
    pub fn check(&self) -> (usize, usize, usize) {
        let (ar, ac) = (self.a.rows(), self.a.row_len());
        let (br, bc) = (self.b.rows(), self.b.row_len());
        let (m, k) = if self.trans_a { (ac, ar) } else { (ar, ac) };
        let (k2, n) = if self.trans_b { (bc, br) } else { (br, bc) };
        assert_eq!(k, k2, "gemm: inner sizes of {:?} and {:?}", self.a.shape(), self.b.shape());
        assert_eq!((self.out.rows(), self.out.row_len()), (m, n), "gemm: shape of the result");
        if let Some(bias) = self.bias {
            assert_eq!(bias.len(), n, "gemm: length of the bias");
            // cuBLASLt takes a bias of the result's type only.
            assert_eq!(TypeId::of::<C>(), TypeId::of::<B::E>(), "gemm: a bias of another type than the result");
            assert!(!self.accumulate, "gemm: bias and accumulate exclude each other");
        }
        (m, n, k)
    }
}

/// `sum = word[id] + position[pos] + token_type[0]`, `out = dropout(LayerNorm(sum) weight + bias)`.
pub struct EmbeddingForward<'a, B: Device> {
    /// The batch.
    pub batch: Packed<'a, B>,
    /// `(vocab, H)`
    pub word: &'a Tensor<B, B::E>,
    /// `(max positions, H)`
    pub position: &'a Tensor<B, B::E>,
    /// `(types, H)`; row 0 is used.
    pub token_type: &'a Tensor<B, B::E>,
    /// `(H,)` LayerNorm weight.
    pub weight: &'a Tensor<B, B::E>,
    /// `(H,)` LayerNorm bias.
    pub bias: &'a Tensor<B, B::E>,
    /// Added to the variance.
    pub eps: f32,
    /// Dropout of the result.
    pub dropout: Option<Dropout>,
    /// `(T, H)` kept for backward.
    pub sum: &'a mut Tensor<B, B::E>,
    /// `(T,)` kept for backward.
    pub mean: &'a mut Tensor<B, f32>,
    /// `(T,)` kept for backward.
    pub rstd: &'a mut Tensor<B, f32>,
    /// `(T, H)`
    pub out: &'a mut Tensor<B, B::E>,
}

impl<B: Device> EmbeddingForward<'_, B> {
    /// Panics on mismatched shapes; returns `(T, H)`. The caller must see to it that ids and positions are rows of
    /// their tables: they lie on the device.
    pub fn check(&self) -> (usize, usize) {
        let (n, h) = (self.batch.n_tokens(), self.weight.len());
        for table in [self.word, self.position, self.token_type] {
            assert!(
                table.row_len() == h && table.rows() > 0,
                "embedding_forward: a table of shape {:?}",
                table.shape()
            );
        }
        assert_eq!(self.bias.len(), h, "embedding_forward: length of the bias");
        assert_eq!(self.sum.shape(), [n, h], "embedding_forward: shape of the sum");
        assert_eq!(self.out.shape(), [n, h], "embedding_forward: shape of the result");
        assert_eq!([self.mean.len(), self.rstd.len()], [n, n], "embedding_forward: lengths of mean and rstd");
        (n, h)
    }
}

/// Gradients of [`EmbeddingForward`] up to the sum; [`SegmentSum`] carries them on to the tables.
pub struct EmbeddingBackward<'a, B: Device> {
    /// The batch.
    pub batch: Packed<'a, B>,
    /// `(T, H)`
    pub d_out: &'a Tensor<B, B::E>,
    /// `(T, H)` from forward.
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
    pub d_sum: &'a mut Tensor<B, B::E>,
    /// `(H,)`, accumulates.
    pub d_weight: &'a mut Tensor<B, f32>,
    /// `(H,)`, accumulates.
    pub d_bias: &'a mut Tensor<B, f32>,
}

impl<B: Device> EmbeddingBackward<'_, B> {
    /// Panics on mismatched shapes; returns `(T, H)`.
    pub fn check(&self) -> (usize, usize) {
        let (n, h) = (self.batch.n_tokens(), self.weight.len());
        for x in [self.d_out, self.sum, &*self.d_sum] {
            assert_eq!(x.shape(), [n, h], "embedding_backward: shapes");
        }
        assert_eq!([self.mean.len(), self.rstd.len()], [n, n], "embedding_backward: lengths of mean and rstd");
        assert_eq!([self.d_weight.len(), self.d_bias.len()], [h, h], "embedding_backward: parameters' gradients");
        (n, h)
    }
}

/// `out[rows[s]] += sum over the segment s of x[order[i]]`.
pub struct SegmentSum<'a, B: Device> {
    /// `(T, H)`
    pub x: &'a Tensor<B, B::E>,
    /// The tokens that are added to each row.
    pub segments: Segments<'a, B>,
    /// `(n rows, H)`, accumulates.
    pub out: &'a mut Tensor<B, f32>,
}

impl<B: Device> SegmentSum<'_, B> {
    /// Panics on mismatched shapes; returns `(T, H)`. The contents of the segments lie on the device and are not
    /// checked.
    pub fn check(&self) -> (usize, usize) {
        let (n, h) = (self.x.rows(), self.x.row_len());
        assert_eq!(self.segments.order().len(), n, "segment_sum: every row of x is in a segment");
        assert_eq!(self.segments.starts().len(), self.segments.rows().len() + 1, "segment_sum: starts of the segments");
        assert_eq!(self.out.row_len(), h, "segment_sum: width of the result");
        assert!(self.segments.rows().len() <= self.out.rows(), "segment_sum: more segments than rows");
        (n, h)
    }
}

/// `out = gelu(x + bias)`.
pub struct BiasGeluForward<'a, B: Device> {
    /// `(T, F)` before the bias; kept for backward.
    pub x: &'a Tensor<B, B::E>,
    /// `(F,)`
    pub bias: &'a Tensor<B, B::E>,
    /// `(T, F)`
    pub out: &'a mut Tensor<B, B::E>,
}

impl<B: Device> BiasGeluForward<'_, B> {
    /// Panics on mismatched shapes; returns `(T, F)`.
    pub fn check(&self) -> (usize, usize) {
        let shape = [self.x.rows(), self.bias.len()];
        assert_eq!(self.x.shape(), shape, "bias_gelu_forward: length of the bias");
        assert_eq!(self.out.shape(), shape, "bias_gelu_forward: shape of the result");
        shape.into()
    }
}

/// Gradient of [`BiasGeluForward`].
pub struct BiasGeluBackward<'a, B: Device> {
    /// `(T, F)` from forward.
    pub x: &'a Tensor<B, B::E>,
    /// `(F,)`
    pub bias: &'a Tensor<B, B::E>,
    /// `(T, F)` in: gradient of the result; out: gradient of `x`.
    pub d: &'a mut Tensor<B, B::E>,
    /// `(T, F)` gelu(x + bias), computed again instead of kept.
    pub out: &'a mut Tensor<B, B::E>,
    /// `(F,)`, accumulates.
    pub d_bias: &'a mut Tensor<B, f32>,
}

impl<B: Device> BiasGeluBackward<'_, B> {
    /// Panics on mismatched shapes; returns `(T, F)`.
    pub fn check(&self) -> (usize, usize) {
        let shape = [self.x.rows(), self.bias.len()];
        for x in [self.x, &*self.d, &*self.out] {
            assert_eq!(x.shape(), shape, "bias_gelu_backward: shapes");
        }
        assert_eq!(self.d_bias.len(), shape[1], "bias_gelu_backward: the bias's gradient");
        shape.into()
    }
}

/// Pooling: one vector a sequence.
pub struct PoolForward<'a, B: Device> {
    /// The batch.
    pub batch: Packed<'a, B>,
    /// cls or mean.
    pub pooling: Pooling,
    /// `(T, H)`
    pub x: &'a Tensor<B, B::E>,
    /// `(S, H)`
    pub out: &'a mut Tensor<B, f32>,
}

impl<B: Device> PoolForward<'_, B> {
    /// Panics on mismatched shapes.
    pub fn check(&self) {
        let width = self.x.row_len();
        check_shapes("pool_forward", &[self.batch.n_tokens(), width], [self.x]);
        check_shapes("pool_forward", &[self.batch.n_seqs(), width], [&*self.out]);
    }
}

/// Gradient of [`PoolForward`].
pub struct PoolBackward<'a, B: Device> {
    /// The batch.
    pub batch: Packed<'a, B>,
    /// cls or mean.
    pub pooling: Pooling,
    /// `(S, H)`
    pub d_out: &'a Tensor<B, f32>,
    /// `(T, H)`
    pub d_x: &'a mut Tensor<B, B::E>,
}

impl<B: Device> PoolBackward<'_, B> {
    /// Panics on mismatched shapes.
    pub fn check(&self) {
        let width = self.d_x.row_len();
        check_shapes("pool_backward", &[self.batch.n_seqs(), width], [self.d_out]);
        check_shapes("pool_backward", &[self.batch.n_tokens(), width], [&*self.d_x]);
    }
}
