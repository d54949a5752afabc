//! The operations that an encoder, its loss and its optimizer are made of.

use super::*;
use crate::Result;
use crate::backend::Ints;

/// A device that carries out the operations. See the [module](crate::backend) for the conventions; the argument structs give the
/// shapes.
pub trait Operations: Device {
    /// The largest head size that [`Operations::attention_forward`] and its backward take.
    const MAX_HEAD_SIZE: usize;

    /// How it wants the loss's scores cut: by the device alone, so that a run has the same bytes whenever it goes on there.
    fn score_blocks(&self) -> ScoreBlocks;

    /// `x = 0` for every `x` of `xs`, at once.
    fn zero_all(&self, xs: &mut [&mut Tensor<Self, f32>]) -> Result<()>;
    /// `out = x` in the working type.
    fn cast(&self, x: &Tensor<Self, f32>, out: &mut Tensor<Self, Self::E>) -> Result<()>;
    /// `out[i] = x[start + i]` for every row of `out`.
    fn copy_rows(&self, x: &Tensor<Self, f32>, start: usize, out: &mut Tensor<Self, f32>) -> Result<()>;
    /// `out[start + i] = x[i]` for every row of `x`.
    fn paste_rows(&self, x: &Tensor<Self, f32>, out: &mut Tensor<Self, f32>, start: usize) -> Result<()>;
    /// `out[i] = x[rows[i]]`
    fn gather_rows(&self, x: &Tensor<Self, f32>, rows: Ints<Self>, out: &mut Tensor<Self, f32>) -> Result<()>;
    /// `out[i] = [scale[i]] x[rows[i]]` in the working type.
    fn gather_cast(
        &self,
        x: &Tensor<Self, f32>,
        rows: Ints<Self>,
        scale: Option<&Tensor<Self, f32>>,
        out: &mut Tensor<Self, Self::E>,
    ) -> Result<()>;
    /// `out[rows[i]] = [scale[i]] x[i]`, where no row occurs twice; the other rows of `out` are not read or written.
    fn scatter_rows(
        &self,
        x: &Tensor<Self, f32>,
        scale: Option<&Tensor<Self, f32>>,
        rows: Ints<Self>,
        out: &mut Tensor<Self, f32>,
    ) -> Result<()>;
    /// `out[i, j] = x[i, j]` for every column of `out`, which has no more than `x`.
    fn copy_columns(&self, x: &Tensor<Self, f32>, out: &mut Tensor<Self, f32>) -> Result<()>;
    /// `out[i, j] += x[i, j]` for every column of `x`, which has no more than `out`.
    fn add_columns(&self, x: &Tensor<Self, f32>, out: &mut Tensor<Self, f32>) -> Result<()>;

    /// `out = op(a) op(b) [+ bias] [+ out]`, accumulated in f32.
    fn gemm(&self, args: Gemm<Self, Self::E>) -> Result<()>;
    /// `out = op(a) op(b) [+ out]` with an f32 result: weight gradients and scores.
    fn gemm_f32(&self, args: Gemm<Self, f32>) -> Result<()>;

    /// `sum = word[id] + position[pos] + token_type[0]`, `out = dropout(LayerNorm(sum))`; keeps `sum`, `mean`, `rstd`.
    fn embedding_forward(&self, args: EmbeddingForward<Self>) -> Result<()>;
    /// `d_sum` from `d_out`, and the LayerNorm's own gradients.
    fn embedding_backward(&self, args: EmbeddingBackward<Self>) -> Result<()>;
    /// `out[row_s] += sum of x[order[i]]` over the segment `s`: the gradient of a gather.
    fn segment_sum(&self, args: SegmentSum<Self>) -> Result<()>;

    /// `x += branch bias, dropout, + residual` in place, `out = LayerNorm(x)`; keeps `x` (the sum), `mean`, `rstd`.
    fn residual_layer_norm_forward(&self, args: ResidualLayerNormForward<Self>) -> Result<()>;
    /// Gradients of the residual path, of the branch, of its bias and of the LayerNorm's weight and bias.
    fn residual_layer_norm_backward(&self, args: ResidualLayerNormBackward<Self>) -> Result<()>;

    /// `out = gelu(x + bias)`, `gelu(x) = x/2 (1 + erf(x / sqrt 2))`; keeps `x`.
    fn bias_gelu_forward(&self, args: BiasGeluForward<Self>) -> Result<()>;
    /// Turns `d_out` into `d_x` in place, adds the bias gradient, and writes `gelu(x + bias)` again for the weight gradient.
    fn bias_gelu_backward(&self, args: BiasGeluBackward<Self>) -> Result<()>;

    /// `out = dropout(softmax(q k^T scale)) v` for every sequence and head; keeps the log-sum-exp of each row.
    fn attention_forward(&self, args: AttentionForward<Self>) -> Result<()>;
    /// `d_qkv` from `d_out`, and its sum over the tokens.
    fn attention_backward(&self, args: AttentionBackward<Self>) -> Result<()>;

    /// One vector a sequence: its first token's (cls) or the mean of all its tokens'.
    fn pool_forward(&self, args: PoolForward<Self>) -> Result<()>;
    /// `d_x` from `d_out`; tokens that do not count get zero.
    fn pool_backward(&self, args: PoolBackward<Self>) -> Result<()>;
    /// `x = tanh(x + bias)` in place.
    fn bias_tanh_forward(&self, x: &mut Tensor<Self, f32>, bias: &Tensor<Self, Self::E>) -> Result<()>;
    /// `d = d (1 - y^2)` in place and `d_bias[j] += sum_i d[i, j]`, where `y` is the forward's result.
    fn bias_tanh_backward(
        &self,
        y: &Tensor<Self, f32>,
        d: &mut Tensor<Self, f32>,
        d_bias: &mut Tensor<Self, f32>,
    ) -> Result<()>;
    /// `out[i] = x[i] / max(|x[i]|, 1e-12)`; keeps `1 / max(|x[i]|, 1e-12)` in `inv_norm`.
    fn l2_normalize_forward(
        &self,
        x: &Tensor<Self, f32>,
        out: &mut Tensor<Self, f32>,
        inv_norm: &mut Tensor<Self, f32>,
    ) -> Result<()>;
    /// `d = (d - (d . y) y) inv_norm` in place, where `y` is the forward's result.
    fn l2_normalize_backward(
        &self,
        y: &Tensor<Self, f32>,
        inv_norm: &Tensor<Self, f32>,
        d: &mut Tensor<Self, f32>,
    ) -> Result<()>;

    /// Row-wise softmax cross-entropy of `scores / temperature` and its gradient; see [`InfoNceRows`].
    fn info_nce_rows(&self, args: InfoNceRows<Self>) -> Result<()>;
    /// Exponentials of scores out of their own product; see [`InfoNceExps`].
    ///
    /// # Panics
    /// Where [`Operations::score_blocks`] do not say that they are made so.
    fn info_nce_exps(&self, args: InfoNceExps<Self>) -> Result<()>;
    /// The softmax of the columns of a matrix that comes in blocks of rows; see [`InfoNceColumns`].
    fn info_nce_columns(&self, args: InfoNceColumns<Self>) -> Result<()>;

    /// `out[i] = sum xs[i]^2`; `out` has as many elements as there are `xs`.
    fn sum_of_squares(&self, xs: &[&Tensor<Self, f32>], out: &mut Tensor<Self, f32>) -> Result<()>;
    /// One AdamW update of whole parameters; see [`AdamW`].
    fn adamw(&self, args: AdamW<Self>) -> Result<()>;
    /// One AdamW update of the rows of a table that have a gradient; see [`AdamWRows`].
    fn adamw_rows(&self, args: AdamWRows<Self>) -> Result<()>;
    /// The AdamW updates that rows without a gradient have missed; see [`AdamWCatchUp`].
    fn adamw_catch_up(&self, args: AdamWCatchUp<Self>) -> Result<()>;
}
