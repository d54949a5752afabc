//! Self-attention: which kernels of kernels/attention*.cu take which part of the batch.
//!
//! Heads of 32, 64 and 128 in bf16 run on tensor cores: sequences of up to 32, 64 and 128 tokens each have a kernel that
//! reads everything once, longer ones are gone through in blocks. The batch's work list is sorted by length, so the
//! sequences of one kernel are neighbours in it. All else runs on the kernels of attention_any.cu.

use super::launch::{Grid, Scratch, args};
use super::partials::add_partials_grid;
use super::{Cuda, CudaElement};
use crate::Result;
use crate::backend::{AttentionBackward, AttentionForward};
use std::ops::Range;

/// Rows of one entry of the work list, which a block of threads takes; `ITEM_ROWS` in kernels/.
const ITEM_ROWS: usize = 128;
/// Blocks per head that leave sums of gradients behind. Each takes as many items as it has to, so that a batch of many
/// short sequences does not need memory for a sum each.
const MAX_GROUPS: usize = 512;
/// The largest head size of attention_any.cu: a lane has eight columns.
pub(super) const MAX_HEAD_SIZE: usize = 256;

/// The kernels for one head size, as in `Shape` of kernels/attention.cuh.
struct TensorCores {
    head_size: usize,
    threads: usize,
    /// Rows of the other kind that backward takes at a time from long sequences.
    turn: usize,
    /// For sequences longer than [`ITEM_ROWS`], and of up to each of [`LENGTHS`].
    forward: [&'static str; 4],
    /// For sequences of up to each of [`LENGTHS`].
    backward: [&'static str; 3],
    backward_queries: &'static str,
    backward_keys: &'static str,
}

/// What the kernels for short sequences are made for, in the order of the work list.
const LENGTHS: [usize; 3] = [128, 64, 32];

macro_rules! tensor_cores {
    ($head_size:literal, $threads:literal, $turn:literal) => {
        TensorCores {
            head_size: $head_size,
            threads: $threads,
            turn: $turn,
            forward: [
                concat!("attention_forward_", $head_size, "_long"),
                concat!("attention_forward_", $head_size, "_up_to_128"),
                concat!("attention_forward_", $head_size, "_up_to_64"),
                concat!("attention_forward_", $head_size, "_up_to_32"),
            ],
            backward: [
                concat!("attention_backward_", $head_size, "_up_to_128"),
                concat!("attention_backward_", $head_size, "_up_to_64"),
                concat!("attention_backward_", $head_size, "_up_to_32"),
            ],
            backward_queries: concat!("attention_backward_", $head_size, "_queries"),
            backward_keys: concat!("attention_backward_", $head_size, "_keys"),
        }
    };
}

const TENSOR_CORES: [TensorCores; 3] =
    [tensor_cores!(32, 128, 32), tensor_cores!(64, 128, 32), tensor_cores!(128, 256, 16)];

/// Whether bf16 heads of this size have kernels of their own.
pub(super) fn has_tensor_cores(head_size: usize) -> bool {
    TENSOR_CORES.iter().any(|kernels| kernels.head_size == head_size)
}

impl TensorCores {
    /// Those for this head size, if there are any.
    fn of<E: CudaElement>(head_size: usize) -> Option<&'static Self> {
        TENSOR_CORES.iter().find(|kernels| !E::IS_F32 && kernels.head_size == head_size)
    }

    /// Bytes of a tile of `rows` rows.
    fn tile(&self, rows: usize) -> usize {
        rows * self.head_size * 2
    }

    /// Each warp's sums over tokens of the three parts of qkv.
    fn sums(&self) -> usize {
        self.threads / 32 * 3 * self.head_size * 4
    }

    /// q, k, v; or q, and twice k and v of 64 rows.
    fn forward_shared(&self) -> usize {
        3 * self.tile(ITEM_ROWS)
    }

    /// q, k, v, d_o; dS of 32 queries; two numbers a row; a bit for each key that dropout keeps; sums.
    fn backward_shared(&self, length: usize) -> usize {
        let per_row = 32 * 2 + 2 * 4 + length / 32 * 4;
        4 * self.tile(ITEM_ROWS) + ITEM_ROWS * per_row + self.sums()
    }

    /// As for short sequences, but of the other kind of rows two turns at a time.
    fn long_shared(&self) -> usize {
        let per_row = 2 * 4 + ITEM_ROWS / 32 * 4;
        2 * self.tile(ITEM_ROWS) + 4 * self.tile(self.turn) + 2 * self.turn * per_row + ITEM_ROWS * 4 + self.sums()
    }
}

/// Items of the work list that one kernel takes, `per_block` a block.
struct Part {
    items: Range<usize>,
    per_block: usize,
}

impl Part {
    fn blocks(&self) -> usize {
        self.items.len().div_ceil(self.per_block)
    }

    /// Blocks per head that a backward kernel is launched with.
    fn groups(&self) -> usize {
        self.blocks().min(MAX_GROUPS)
    }
}

/// The work list cut into what is longer than [`ITEM_ROWS`] and what is up to each of [`LENGTHS`].
fn parts(work_lens: &[i32]) -> [Part; 4] {
    let longer = |length: usize| work_lens.partition_point(|&len| len as usize > length);
    let [a, b, c] = LENGTHS.map(longer);
    let part = |items, length| Part { items, per_block: ITEM_ROWS / length };
    [part(0..a, 128), part(a..b, 128), part(b..c, 64), part(c..work_lens.len(), 32)]
}

fn scale(head_size: usize) -> f32 {
    1.0 / (head_size as f32).sqrt()
}

pub(super) fn forward<E: CudaElement>(cuda: &Cuda<E>, args: AttentionForward<Cuda<E>>) -> Result<()> {
    let head_size = args.check();
    let (batch, n_heads, scale) = (args.batch, args.n_heads, scale(head_size));
    if let Some(kernels) = TensorCores::of::<E>(head_size) {
        for (name, part) in kernels.forward.into_iter().zip(parts(batch.work_lens)) {
            let grid = Grid::new(part.blocks() * n_heads, kernels.threads).with_shared(kernels.forward_shared());
            let (first, n) = (part.items.start, part.items.len());
            #[rustfmt::skip]
            let arguments = args![
                &*args.out, &*args.lse, args.qkv, batch.work(), batch.cu_seqlens(), batch.global_rows(),
                args.dropout, scale, n_heads, first, n,
            ];
            cuda.launch("attention_forward", name, grid, arguments)?;
        }
        return Ok(());
    }
    assert!(head_size <= MAX_HEAD_SIZE, "attention: heads of {head_size}");
    let n_items = batch.work_lens.len();
    let n_groups = n_items.min(MAX_GROUPS);
    let grid = any_grid(n_groups * n_heads, batch.max_seqlen, head_size, 1);
    #[rustfmt::skip]
    let arguments = args![
        &*args.out, &*args.lse, args.qkv, batch.work(), batch.cu_seqlens(), batch.global_rows(),
        args.dropout, scale, n_heads, head_size, n_items, n_groups,
    ];
    cuda.launch_typed("attention_any", "attention_any_forward", grid, arguments)
}

/// A launch of attention_any.cu. Warps have four rows at a time; a block holds their weights, `n_own` tensors' rows, and two
/// tensors' 32 rows of the other kind.
fn any_grid(blocks: usize, max_seqlen: usize, head_size: usize, n_own: usize) -> Grid {
    let rows = max_seqlen.next_multiple_of(4).clamp(4, 16);
    let floats = 32 * rows + n_own * rows * head_size + 2 * 32 * (head_size | 1);
    Grid::new(blocks, 8 * rows).with_shared(4 * floats)
}

pub(super) fn backward<E: CudaElement>(cuda: &Cuda<E>, args: AttentionBackward<Cuda<E>>) -> Result<()> {
    let head_size = args.check();
    let sums = if let Some(kernels) = TensorCores::of::<E>(head_size) {
        backward_on_tensor_cores(cuda, &args, kernels)?
    } else {
        assert!(head_size <= MAX_HEAD_SIZE, "attention: heads of {head_size}");
        backward_any(cuda, &args, head_size)?
    };
    let width = args.d_bias.len();
    let grid = add_partials_grid(width, 1);
    let arguments = args![&*args.d_bias, &sums.scratch, sums.start, sums.rows, width];
    cuda.launch("attention_backward", "attention_backward_bias", grid, arguments)
}

/// Rows of sums over tokens that the kernels left in scratch memory, from `start` on.
struct Sums {
    scratch: Scratch,
    start: usize,
    rows: usize,
}

fn backward_on_tensor_cores<E: CudaElement>(
    cuda: &Cuda<E>,
    args: &AttentionBackward<Cuda<E>>,
    kernels: &TensorCores,
) -> Result<Sums> {
    let (batch, n_heads, scale) = (args.batch, args.n_heads, scale(kernels.head_size));
    let mut parts = parts(batch.work_lens);
    let longest = LENGTHS[0];
    if kernels.backward_shared(longest) > cuda.max_shared_bytes() {
        // Then the kernels for long sequences take the short ones too, one a block.
        parts = [0..batch.work_lens.len(), 0..0, 0..0, 0..0].map(|items| Part { items, per_block: 1 });
    }
    let n_delta = if parts[0].items.is_empty() { 0 } else { args.lse.len() };
    let rows = parts.iter().map(Part::groups).sum::<usize>();
    let scratch = cuda.scratch(n_delta + rows * args.qkv.row_len())?;

    let launch = |module, name, shared, part: &Part, row: usize| {
        let grid = Grid::new(part.groups() * n_heads, kernels.threads).with_shared(shared);
        let (first, n, groups) = (part.items.start, part.items.len(), part.groups());
        #[rustfmt::skip]
        let arguments = args![
            &*args.d_qkv, &scratch, args.qkv, args.out, args.d_out, args.lse,
            batch.work(), batch.cu_seqlens(), batch.global_rows(),
            args.dropout, scale, n_heads, first, n, groups, n_delta, row,
        ];
        cuda.launch(module, name, grid, arguments)
    };
    let [long, short @ ..] = &parts;
    // The second reads what the first leaves of each row of d_out.
    for name in [kernels.backward_queries, kernels.backward_keys] {
        launch("attention_backward_long", name, kernels.long_shared(), long, 0)?;
    }
    let mut row = long.groups();
    for ((name, length), part) in kernels.backward.into_iter().zip(LENGTHS).zip(short) {
        launch("attention_backward", name, kernels.backward_shared(length), part, row)?;
        row += part.groups();
    }
    Ok(Sums { scratch, start: n_delta, rows })
}

fn backward_any<E: CudaElement>(cuda: &Cuda<E>, args: &AttentionBackward<Cuda<E>>, head_size: usize) -> Result<Sums> {
    let (batch, n_heads, scale) = (args.batch, args.n_heads, scale(head_size));
    let n_items = batch.work_lens.len();
    let rows = n_items.min(MAX_GROUPS);
    let n_delta = args.lse.len();
    let scratch = cuda.scratch(n_delta + rows * args.qkv.row_len())?;
    for name in ["attention_any_backward_queries", "attention_any_backward_keys"] {
        let grid = any_grid(rows * n_heads, batch.max_seqlen, head_size, 2);
        #[rustfmt::skip]
        let arguments = args![
            &*args.d_qkv, &scratch, args.qkv, args.out, args.d_out, args.lse,
            batch.work(), batch.cu_seqlens(), batch.global_rows(),
            args.dropout, scale, n_heads, head_size, n_items, rows, n_delta,
        ];
        cuda.launch_typed("attention_any", name, grid, arguments)?;
    }
    Ok(Sums { scratch, start: n_delta, rows })
}
