//! A backend that computes nothing: it adds up the memory that it is asked for and the work that it is given. What a run
//! will take is so read off the very code that will take it.

mod collectives;
mod device;
mod ledger;

pub use ledger::{Exchange, Memory, Work, WorkKind};

use super::ops::check_columns;
use super::*;
use crate::Result;
use ledger::Ledger;
use std::marker::PhantomData;
use std::sync::Arc;

/// Stands in for a device with element type `E`.
#[derive(Clone, Debug)]
pub struct Tally<E> {
    ledger: Arc<Ledger>,
    score_blocks: ScoreBlocks,
    n_ranks: usize,
    marker: PhantomData<E>,
}

/// Memory that is counted as long as it lives, and is not there.
pub struct Counted<T> {
    ledger: Arc<Ledger>,
    purpose: Purpose,
    taken: u64,
    on_host: bool,
    marker: PhantomData<T>,
}

/// A block that batches are laid out in: it is there, but what is never written to takes up no memory.
pub struct CountedBlock {
    block: Vec<i32>,
    _counted: Counted<i32>,
}

impl<T> Counted<T> {
    fn new(ledger: &Arc<Ledger>, len: usize, on_host: bool) -> Self {
        let purpose = Purpose::current();
        let taken = ledger.take(purpose, len * size_of::<T>(), on_host);
        Counted { ledger: Arc::clone(ledger), purpose, taken, on_host, marker: PhantomData }
    }
}

impl<T> Drop for Counted<T> {
    fn drop(&mut self) {
        self.ledger.give_back(self.purpose, self.taken, self.on_host);
    }
}

impl AsMut<[i32]> for CountedBlock {
    fn as_mut(&mut self) -> &mut [i32] {
        &mut self.block
    }
}

/// Bytes in use.
fn bytes<E: Element, T: Value>(x: &Tensor<Tally<E>, T>) -> usize {
    x.len() * size_of::<T>()
}

/// Bytes of the bits of columns that are left out.
fn of_bits<E: Element>(candidates: &Candidates<Tally<E>>) -> usize {
    candidates.left_out.map_or(0, |bits| bits.len() * size_of::<i32>())
}

/// Sum of the squares of the lengths of a chunk's sequences.
fn squares<E: Element>(batch: &Packed<Tally<E>>) -> usize {
    // A sequence has one entry for every so many rows.
    let of_entry = |&len: &i32| (len as usize).pow(2) as f64 / (len as usize).div_ceil(ATTENTION_ROWS) as f64;
    batch.work_lens.iter().map(of_entry).sum::<f64>() as usize
}

impl<E: Element> Tally<E> {
    /// One that stands in for a processor and has been asked for nothing; its buffers take multiples of `granularity` bytes.
    pub fn new(granularity: usize) -> Self {
        let (ledger, score_blocks) = (Arc::new(Ledger::new(granularity)), ScoreBlocks::of_cpu());
        Tally { ledger, score_blocks, n_ranks: 1, marker: PhantomData }
    }

    /// One that stands in for a GPU of so many bytes: its buffers take multiples of 256, and blocks of scores are as there.
    pub fn of_gpu(memory: u64) -> Self {
        const GRANULARITY: usize = 256;
        Tally { score_blocks: ScoreBlocks::of_gpu(memory, !E::IS_F32), ..Self::new(GRANULARITY) }
    }

    /// The same as the first of `n_ranks` ranks' devices, which exchange by themselves.
    pub fn among(self, n_ranks: usize) -> Self {
        Tally { n_ranks, ..self }
    }

    /// Number of ranks, this one included.
    pub fn n_ranks(&self) -> usize {
        self.n_ranks
    }

    /// One for the same device that has been asked for nothing.
    pub fn anew(&self) -> Self {
        Tally { ledger: Arc::new(self.ledger.anew()), ..self.clone() }
    }

    /// What is held at present.
    pub fn memory(&self) -> Memory {
        self.ledger.memory()
    }

    /// All work since the last call, and how often each piece was done.
    pub fn take_work(&self) -> Vec<(Work, u64)> {
        self.ledger.take_work()
    }

    /// All that was exchanged with other ranks since the last call, tensor by tensor, in its order.
    pub fn take_exchanged(&self) -> Vec<Exchange> {
        self.ledger.take_exchanged()
    }

    fn note(&self, kind: WorkKind, flops: usize, bytes: usize) -> Result<()> {
        self.ledger.note(Work { kind, flops: flops as u64, bytes: bytes as u64 });
        Ok(())
    }

    /// An operation that takes as long as its memory.
    fn note_rows(&self, bytes: usize) -> Result<()> {
        self.note(WorkKind::Rows, 0, bytes)
    }

    fn product<C: Value>(&self, args: Gemm<Self, C>) -> Result<()> {
        let (m, n, k) = args.check();
        let out = bytes(args.out) * if args.accumulate { 2 } else { 1 };
        self.note(WorkKind::Product, 2 * m * n * k, bytes(args.a) + bytes(args.b) + out)
    }

    /// What an update of `n` weights reads and writes of them: the weight, or the master where there is one, and then the
    /// working weight is only written.
    fn weight_bytes(n: usize) -> usize {
        n * (2 * size_of::<f32>() + if E::IS_F32 { 0 } else { size_of::<E>() })
    }

    /// One pass over both moments of `n` weights.
    fn moment_bytes(n: usize) -> usize {
        n * 2 * size_of::<f32>()
    }

    /// AdamW of `n` weights: their gradient is read, the rest read and written.
    fn note_adamw(&self, n: usize) -> Result<()> {
        self.note_rows(n * size_of::<f32>() + Self::weight_bytes(n) + 2 * Self::moment_bytes(n))
    }
}

/// Formulas of the operations are in [`Operations`]. What an operation reads or writes by rows counts as that many rows.
impl<E: Element> Operations for Tally<E> {
    const MAX_HEAD_SIZE: usize = usize::MAX;

    fn score_blocks(&self) -> ScoreBlocks {
        self.score_blocks.clone()
    }

    fn zero_all(&self, xs: &mut [&mut Tensor<Self, f32>]) -> Result<()> {
        self.note_rows(xs.iter().map(|x| bytes(x)).sum())
    }

    fn cast(&self, x: &Tensor<Self, f32>, out: &mut Tensor<Self, E>) -> Result<()> {
        self.note_rows(bytes(x) + bytes(out))
    }

    fn copy_rows(&self, _: &Tensor<Self, f32>, _: usize, out: &mut Tensor<Self, f32>) -> Result<()> {
        self.note_rows(2 * bytes(out))
    }

    fn paste_rows(&self, x: &Tensor<Self, f32>, _: &mut Tensor<Self, f32>, _: usize) -> Result<()> {
        self.note_rows(2 * bytes(x))
    }

    fn gather_rows(&self, _: &Tensor<Self, f32>, _: Ints<Self>, out: &mut Tensor<Self, f32>) -> Result<()> {
        self.note_rows(2 * bytes(out))
    }

    fn gather_cast(
        &self,
        _: &Tensor<Self, f32>,
        _: Ints<Self>,
        scale: Option<&Tensor<Self, f32>>,
        out: &mut Tensor<Self, E>,
    ) -> Result<()> {
        self.note_rows(out.len() * size_of::<f32>() + bytes(out) + scale.map_or(0, bytes))
    }

    fn scatter_rows(
        &self,
        x: &Tensor<Self, f32>,
        scale: Option<&Tensor<Self, f32>>,
        _: Ints<Self>,
        _: &mut Tensor<Self, f32>,
    ) -> Result<()> {
        self.note_rows(2 * bytes(x) + scale.map_or(0, bytes))
    }

    fn copy_columns(&self, x: &Tensor<Self, f32>, out: &mut Tensor<Self, f32>) -> Result<()> {
        check_columns("copy_columns", x, out);
        self.note_rows(2 * bytes(out))
    }

    fn add_columns(&self, x: &Tensor<Self, f32>, out: &mut Tensor<Self, f32>) -> Result<()> {
        check_columns("add_columns", out, x);
        self.note_rows(3 * bytes(x))
    }

    fn gemm(&self, args: Gemm<Self, E>) -> Result<()> {
        self.product(args)
    }

    fn gemm_f32(&self, args: Gemm<Self, f32>) -> Result<()> {
        self.product(args)
    }

    fn embedding_forward(&self, args: EmbeddingForward<Self>) -> Result<()> {
        let (n, h) = args.check();
        let tables = 2 * n * h * size_of::<E>();
        self.note_rows(tables + bytes(args.sum) + bytes(args.out) + bytes(args.mean) + bytes(args.rstd))
    }

    fn embedding_backward(&self, args: EmbeddingBackward<Self>) -> Result<()> {
        args.check();
        self.note_rows(bytes(args.d_out) + bytes(args.sum) + bytes(args.d_sum) + bytes(args.mean) + bytes(args.rstd))
    }

    fn segment_sum(&self, args: SegmentSum<Self>) -> Result<()> {
        let (_, h) = args.check();
        self.note_rows(bytes(args.x) + 2 * args.segments.rows().len() * h * size_of::<f32>())
    }

    fn residual_layer_norm_forward(&self, args: ResidualLayerNormForward<Self>) -> Result<()> {
        args.check();
        self.note_rows(2 * bytes(args.x) + bytes(args.residual) + bytes(args.out) + bytes(args.mean) + bytes(args.rstd))
    }

    fn residual_layer_norm_backward(&self, args: ResidualLayerNormBackward<Self>) -> Result<()> {
        args.check();
        let out = bytes(args.d_residual) + bytes(args.d_x);
        self.note_rows(bytes(args.d_out) + bytes(args.sum) + bytes(args.mean) + bytes(args.rstd) + out)
    }

    fn bias_gelu_forward(&self, args: BiasGeluForward<Self>) -> Result<()> {
        args.check();
        self.note_rows(bytes(args.x) + bytes(args.out))
    }

    fn bias_gelu_backward(&self, args: BiasGeluBackward<Self>) -> Result<()> {
        args.check();
        self.note_rows(bytes(args.x) + 2 * bytes(args.d) + bytes(args.out))
    }

    /// Two products.
    fn attention_forward(&self, args: AttentionForward<Self>) -> Result<()> {
        args.check();
        let flops = 4 * args.out.row_len() * squares(&args.batch);
        self.note(WorkKind::Attention, flops, bytes(args.qkv) + bytes(args.lse) + bytes(args.out))
    }

    /// Five products: the scores again, and the gradients of probabilities, query, key and value.
    fn attention_backward(&self, args: AttentionBackward<Self>) -> Result<()> {
        args.check();
        let flops = 10 * args.out.row_len() * squares(&args.batch);
        let saved = bytes(args.qkv) + bytes(args.lse) + bytes(args.out);
        self.note(WorkKind::Attention, flops, saved + bytes(args.d_out) + bytes(args.d_qkv))
    }

    fn pool_forward(&self, args: PoolForward<Self>) -> Result<()> {
        args.check();
        let read = match args.pooling {
            Pooling::Cls => args.out.len() * size_of::<E>(),
            Pooling::Mean => bytes(args.x),
        };
        self.note_rows(read + bytes(args.out))
    }

    fn pool_backward(&self, args: PoolBackward<Self>) -> Result<()> {
        args.check();
        self.note_rows(bytes(args.d_out) + bytes(args.d_x))
    }

    fn bias_tanh_forward(&self, x: &mut Tensor<Self, f32>, _: &Tensor<Self, E>) -> Result<()> {
        self.note_rows(2 * bytes(x))
    }

    fn bias_tanh_backward(
        &self,
        y: &Tensor<Self, f32>,
        d: &mut Tensor<Self, f32>,
        _: &mut Tensor<Self, f32>,
    ) -> Result<()> {
        self.note_rows(bytes(y) + 2 * bytes(d))
    }

    fn l2_normalize_forward(
        &self,
        x: &Tensor<Self, f32>,
        out: &mut Tensor<Self, f32>,
        inv_norm: &mut Tensor<Self, f32>,
    ) -> Result<()> {
        self.note_rows(bytes(x) + bytes(out) + bytes(inv_norm))
    }

    fn l2_normalize_backward(
        &self,
        y: &Tensor<Self, f32>,
        inv_norm: &Tensor<Self, f32>,
        d: &mut Tensor<Self, f32>,
    ) -> Result<()> {
        self.note_rows(bytes(y) + bytes(inv_norm) + 2 * bytes(d))
    }

    fn info_nce_rows(&self, args: InfoNceRows<Self>) -> Result<()> {
        args.check();
        let stats = args.scores.rows() * ROW_STATS * size_of::<f32>();
        // A query's own candidates are few beside all. Their ends, and the positive's score:
        let a_row = args.distill.map_or(0, |_| DISTILL_STATS + 3);
        let of_teacher = args.scores.rows() * a_row * size_of::<f32>();
        self.note_rows(bytes(args.scores) + bytes(args.d_scores) + stats + of_bits(&args.candidates) + of_teacher)
    }

    fn info_nce_exps(&self, args: InfoNceExps<Self>) -> Result<()> {
        let (rows, n, d) = args.check();
        let out =
            bytes(args.exps) + bytes(args.scale) + rows * ROW_STATS * size_of::<f32>() + of_bits(&args.candidates);
        self.note(WorkKind::Product, 2 * rows * n * d, bytes(args.rows) + bytes(args.columns) + out)
    }

    fn info_nce_columns(&self, args: InfoNceColumns<Self>) -> Result<()> {
        args.check();
        self.note_rows(bytes(args.scores) + 2 * bytes(args.state) + of_bits(&args.candidates))
    }

    fn sum_of_squares(&self, xs: &[&Tensor<Self, f32>], _: &mut Tensor<Self, f32>) -> Result<()> {
        self.note_rows(xs.iter().map(|x| bytes(x)).sum())
    }

    fn adamw(&self, args: AdamW<Self>) -> Result<()> {
        args.check();
        self.note_adamw(args.parameters.iter().map(|parameter| parameter.grad.len()).sum())
    }

    fn adamw_rows(&self, args: AdamWRows<Self>) -> Result<()> {
        args.check();
        self.note_adamw(args.grad.len())
    }

    fn adamw_catch_up(&self, args: AdamWCatchUp<Self>) -> Result<()> {
        args.check();
        let n = args.rows.map_or(args.weight.rows(), Ints::len) * args.weight.row_len();
        self.note_rows(Self::weight_bytes(n) + Self::moment_bytes(n))
    }
}
