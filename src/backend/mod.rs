//! The operations an encoder, its loss and its optimizer are made of, and the devices that carry them out.
//!
//! Conventions, said once: tensors are contiguous and row-major. Parameter gradients accumulate (`+=`), activation
//! gradients overwrite (`=`). Statistics, losses, parameter gradients and optimizer state are f32; [`Backend::E`] is
//! the type of activations and of the weights' working copy. `T` is the number of tokens of a packed batch, `H` the
//! hidden size, `F` the feed-forward size, `S` the number of sequences. No operation uses a float atomic: the same
//! call on the same machine gives the same bytes, whatever the number of threads.

/// A device's operations, one a row: `name(&self, arguments) => what carries it out;`. Each is a [range](crate::trace)
/// of its name.
macro_rules! traced_ops {
    ($($name:ident(&$self:ident $(, $arg:ident: $type:ty)*) => $run:expr;)*) => {$(
        fn $name(&$self $(, $arg: $type)*) -> $crate::Result<()> {
            let _range = $crate::trace::op(stringify!($name));
            $run;
            Ok(())
        }
    )*};
}

pub mod cpu;
pub mod cuda;
pub mod ops;
pub mod packed;
pub mod philox;
mod purpose;
pub mod tally;
pub mod tensor;

pub use cpu::Cpu;
pub use cuda::Cuda;
pub use ops::*;
pub use packed::{
    ATTENTION_ROWS, HostPairing, Ints, Packed, PackedBatch, PackedHost, Pairing, Segments, attention_work,
};
pub use purpose::Purpose;
pub use tally::Tally;
pub use tensor::{Element, Precision, Tensor, Value};

use crate::Result;
use std::time::Duration;

/// Memory of a device, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// What buffers hold now.
    pub held: u64,
    /// The most that they held at a time.
    pub peak: u64,
    /// What was taken from the driver for them, and is not given back before the end.
    pub reserved: u64,
    /// What all processes have of the device: buffers, contexts, and the code of kernels.
    pub in_use: u64,
}

/// A device with an element type. See the module documentation for the conventions.
pub trait Backend: Sized + Send + Sync + 'static {
    /// Element type of activations and working weights.
    type E: Element;
    /// Memory on the device.
    type Buffer<T: Value>: Send + Sync;
    /// Host memory that the device reads by itself while the host goes on.
    type HostBlock: AsMut<[i32]> + Send;
    /// A copy on its way to the device.
    type Arrival: Send;
    /// Values on their way to the host.
    type Readback: Send;

    /// The largest head size that [`Backend::attention_forward`] and its backward take.
    const MAX_HEAD_SIZE: usize;

    /// What the training report calls this device.
    fn name(&self) -> String;

    /// How it wants the loss's scores cut: by the device alone, so that a run has the same bytes whenever it goes on there.
    fn score_blocks(&self) -> ScoreBlocks;

    /// How long the device takes over `run`: from when all earlier work is done until all that `run` asked for is.
    ///
    /// # Errors
    /// Those of `run`.
    fn time(&self, run: &mut dyn FnMut() -> Result<()>) -> Result<Duration>;
    /// Fills the device's caches with other data, so that what runs next reads its inputs from memory. False where that
    /// is not done: on a processor, whose caches hold what a step has just written in training, too.
    fn flush_cache(&self) -> Result<bool>;
    /// Starts or stops the profiler that watches the device, if one does, after all work that was given to the device
    /// before. False where a device has no such thing.
    ///
    /// # Errors
    /// When that work has failed.
    fn profiler(&self, _on: bool) -> Result<bool> {
        Ok(false)
    }

    /// What this process's buffers take of the device, where the device counts that. The peak is the one since the last call.
    ///
    /// # Errors
    /// When the device does not answer.
    fn memory_use(&self) -> Result<Option<MemoryUse>> {
        Ok(None)
    }

    /// Zeroed memory for `len` elements. On the CPU, what is never written to takes up no memory.
    fn alloc<T: Value>(&self, len: usize) -> Result<Self::Buffer<T>>;
    /// Copies host values to the first `from.len()` elements, behind the work that the device has; `from` may change when this
    /// returns, which waits for nothing as long as a step's uploads take less than a few MiB.
    fn upload<T: Value>(&self, from: &[T], to: &mut Self::Buffer<T>) -> Result<()>;
    /// Copies `to.len()` elements from `start` on to the host.
    fn download<T: Value>(&self, from: &Self::Buffer<T>, start: usize, to: &mut [T]) -> Result<()>;

    /// Memory for `len` integers that are to be fed.
    fn host_block(&self, len: usize) -> Result<Self::HostBlock>;
    /// Begins to copy the first `len` integers of `from` to `to`, beside the work that the device has, and waits for
    /// nothing. What is in `to` may be read after [`Backend::await_feed`]. `from` may not change before values that were
    /// asked for after that have been [received](Backend::receive).
    fn feed(&self, from: &Self::HostBlock, len: usize, to: &mut Self::Buffer<i32>) -> Result<Self::Arrival>;
    /// Lets all work that is asked for from now on wait for a copy; the host goes on.
    fn await_feed(&self, arrival: Self::Arrival) -> Result<()>;

    /// Room for `capacity` values.
    fn readback(&self, capacity: usize) -> Result<Self::Readback>;
    /// Asks for the values that `x` has at this point of the work, behind those asked for before; the host goes on.
    ///
    /// # Panics
    /// When `to` has no room for them.
    fn read_later(&self, x: &Tensor<Self, f32>, to: &mut Self::Readback) -> Result<()>;
    /// Whether all values that were asked for are here, so that [`Backend::receive`] does not wait.
    fn has_arrived(&self, from: &Self::Readback) -> Result<bool>;
    /// Waits for all values that were asked for, moves them to `to`, which loses what it held, and leaves `from` empty.
    fn receive(&self, from: &mut Self::Readback, to: &mut Vec<f32>) -> Result<()>;

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
    /// Where [`Backend::score_blocks`] do not say that they are made so.
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
