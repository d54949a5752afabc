//! Self-attention: which kernels of kernels/attention*.cu take which part of the batch.
//!
//! Heads of 32, 64 and 128 in bf16 run on tensor cores: sequences of up to 32, 64 and 128 tokens each have a kernel that
//! reads everything once, longer ones are gone through in blocks. The batch's work list is sorted by length, so the
//! sequences of one kernel are neighbours in it. All else runs on the kernels of attention_any.cu.

use super::kernels::attention_any::{self, AttentionAnyBackwardInstance, MAX_ROWS, R};
use super::kernels::attention_backward::Share;
use super::kernels::attention_backward_long::LONG_BYTES;
use super::kernels::attention_cuh::{ITEM_ROWS, Shape};
use super::kernels::attention_forward::AttentionForwardInstance as Forward;
use super::kernels::attention_gradient_cuh::AttentionBackwardInstance as Backward;
use super::kernels::reduce_cuh::WARP;
use super::launch::{Grid, launch};
use super::partials::add_partials_blocks;
use super::pointers::{Scratch, in_bf16, out_bf16};
use super::{Cuda, CudaElement};
use crate::Result;
use crate::backend::{ATTENTION_ROWS, AttentionBackward, AttentionForward};
use std::ops::Range;

// Rows of one entry of the work list, which a block of threads takes.
const _: () = assert!(ITEM_ROWS == ATTENTION_ROWS && attention_any::ITEM_ROWS == ATTENTION_ROWS);
/// Blocks per head that leave sums of gradients behind. Each takes as many items as it has to, so that a batch of many
/// short sequences does not need memory for a sum each.
const MAX_GROUPS: usize = 512;
pub(super) use attention_any::MAX_HEAD_SIZE;

/// The kernels for one head size, with their dynamic shared memory.
struct TensorCores {
    head_size: usize,
    /// For sequences longer than [`ITEM_ROWS`], and of up to each of [`LENGTHS`].
    forward: [Forward; 4],
    forward_bytes: usize,
    /// For sequences of up to each of [`LENGTHS`].
    backward: [(Backward, usize); 3],
    /// For longer ones, the second after the first.
    backward_long: [Backward; 2],
    long_bytes: usize,
}

/// What the kernels for short sequences are made for, in the order of the work list.
const LENGTHS: [usize; 3] = [128, 64, 32];

macro_rules! tensor_cores {
    ($head:literal: $up_to_128:ident $up_to_64:ident $up_to_32:ident $long:ident $queries:ident $keys:ident) => {
        TensorCores {
            head_size: $head,
            forward: [Forward::$long, Forward::$up_to_128, Forward::$up_to_64, Forward::$up_to_32],
            forward_bytes: Shape::<$head>::FORWARD_BYTES,
            backward: [
                (Backward::$up_to_128, Share::<$head, 128>::BYTES),
                (Backward::$up_to_64, Share::<$head, 64>::BYTES),
                (Backward::$up_to_32, Share::<$head, 32>::BYTES),
            ],
            backward_long: [Backward::$queries, Backward::$keys],
            long_bytes: LONG_BYTES::<$head, { Shape::<$head>::TURN }>(),
        }
    };
}

const TENSOR_CORES: [TensorCores; 3] = [
    tensor_cores!(32: N32UpTo128 N32UpTo64 N32UpTo32 N32Long N32Queries N32Keys),
    tensor_cores!(64: N64UpTo128 N64UpTo64 N64UpTo32 N64Long N64Queries N64Keys),
    tensor_cores!(128: N128UpTo128 N128UpTo64 N128UpTo32 N128Long N128Queries N128Keys),
];

/// Whether bf16 heads of this size have kernels of their own.
pub(super) fn has_tensor_cores(head_size: usize) -> bool {
    TENSOR_CORES.iter().any(|kernels| kernels.head_size == head_size)
}

impl TensorCores {
    /// Those for this head size, if there are any.
    fn of<E: CudaElement>(head_size: usize) -> Option<&'static Self> {
        TENSOR_CORES.iter().find(|kernels| !E::IS_F32 && kernels.head_size == head_size)
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
    let AttentionForward { batch, n_heads, qkv, dropout, lse, out } = args;
    let (work, cu_seqlens, global_rows) = (batch.work(), batch.cu_seqlens(), batch.global_rows());
    let scale = scale(head_size);
    if let Some(kernels) = TensorCores::of::<E>(head_size) {
        for (instance, part) in kernels.forward.into_iter().zip(parts(batch.work_lens)) {
            launch!(
                cuda,
                attention_forward::AttentionForward {
                    out: out_bf16(out),
                    lse: &mut *lse,
                    qkv: in_bf16(qkv),
                    work,
                    cu_seqlens,
                    global_rows,
                    dropout,
                    scale,
                    n_heads,
                    first_item: part.items.start,
                    n_items: part.items.len(),
                },
                instance,
                Grid::from(part.blocks() * n_heads).with_shared(kernels.forward_bytes),
            )?;
        }
        return Ok(());
    }
    assert!(head_size <= MAX_HEAD_SIZE, "attention: heads of {head_size}");
    let n_items = batch.work_lens.len();
    let n_groups = n_items.min(MAX_GROUPS);
    launch!(
        cuda,
        attention_any::AttentionAnyForward {
            out,
            lse,
            qkv,
            work,
            cu_seqlens,
            global_rows,
            dropout,
            scale,
            n_heads,
            head_size,
            n_items,
            n_groups,
        },
        any_grid(n_groups * n_heads, batch.max_seqlen, head_size, 1),
    )
}

/// A launch of attention_any.cu. Warps have [`R`] rows at a time; `n_own` tensors' rows are in a block's shared memory.
fn any_grid(blocks: usize, max_seqlen: usize, head_size: usize, n_own: usize) -> Grid {
    let rows = max_seqlen.next_multiple_of(R).clamp(R, MAX_ROWS);
    Grid::new(blocks, rows / R * WARP).with_shared(attention_any::shared_bytes(rows, n_own, head_size))
}

pub(super) fn backward<E: CudaElement>(cuda: &Cuda<E>, mut args: AttentionBackward<Cuda<E>>) -> Result<()> {
    let head_size = args.check();
    let sums = if let Some(kernels) = TensorCores::of::<E>(head_size) {
        backward_on_tensor_cores(cuda, &mut args, kernels)?
    } else {
        assert!(head_size <= MAX_HEAD_SIZE, "attention: heads of {head_size}");
        backward_any(cuda, &mut args, head_size)?
    };
    let d_bias = args.d_bias;
    let width = d_bias.len();
    let Sums { scratch, n_delta, n_rows } = &sums;
    let (n_delta, n_rows) = (*n_delta, *n_rows);
    launch!(
        cuda,
        attention_backward::AttentionBackwardBias { d_bias, scratch, n_delta, n_rows, width },
        add_partials_blocks(width, 1),
    )
}

/// Rows of sums over tokens that the kernels left in scratch memory, from `n_delta` on.
struct Sums {
    scratch: Scratch,
    n_delta: usize,
    n_rows: usize,
}

fn backward_on_tensor_cores<E: CudaElement>(
    cuda: &Cuda<E>,
    args: &mut AttentionBackward<Cuda<E>>,
    kernels: &TensorCores,
) -> Result<Sums> {
    let (batch, n_heads, scale) = (args.batch, args.n_heads, scale(kernels.head_size));
    let mut parts = parts(batch.work_lens);
    let [(_, most_bytes), ..] = kernels.backward;
    if most_bytes > cuda.max_shared_bytes() {
        // Then the kernels for long sequences take the short ones too, one a block.
        parts = [0..batch.work_lens.len(), 0..0, 0..0, 0..0].map(|items| Part { items, per_block: 1 });
    }
    let n_delta = if parts[0].items.is_empty() { 0 } else { args.lse.len() };
    let n_rows = parts.iter().map(Part::groups).sum::<usize>();
    let mut scratch = cuda.scratch(n_delta + n_rows * args.qkv.row_len())?;

    let mut launch = |instance, shared, part: &Part, first_row: usize| {
        launch!(
            cuda,
            attention_gradient_cuh::AttentionBackward {
                d_qkv: out_bf16(args.d_qkv),
                scratch: &mut scratch,
                qkv: in_bf16(args.qkv),
                out: in_bf16(args.out),
                d_out: in_bf16(args.d_out),
                lse: args.lse,
                work: batch.work(),
                cu_seqlens: batch.cu_seqlens(),
                global_rows: batch.global_rows(),
                dropout: args.dropout,
                scale,
                n_heads,
                first_item: part.items.start,
                n_items: part.items.len(),
                n_groups: part.groups(),
                n_delta,
                first_row,
            },
            instance,
            Grid::from(part.groups() * n_heads).with_shared(shared),
        )
    };
    let [long, short @ ..] = &parts;
    // The second reads what the first leaves of each row of d_out.
    for instance in kernels.backward_long {
        launch(instance, kernels.long_bytes, long, 0)?;
    }
    let mut row = long.groups();
    for ((instance, bytes), part) in kernels.backward.into_iter().zip(short) {
        launch(instance, bytes, part, row)?;
        row += part.groups();
    }
    Ok(Sums { scratch, n_delta, n_rows })
}

fn backward_any<E: CudaElement>(
    cuda: &Cuda<E>,
    args: &mut AttentionBackward<Cuda<E>>,
    head_size: usize,
) -> Result<Sums> {
    let (batch, n_heads, scale) = (args.batch, args.n_heads, scale(head_size));
    let n_items = batch.work_lens.len();
    let n_groups = n_items.min(MAX_GROUPS);
    let n_delta = args.lse.len();
    let mut scratch = cuda.scratch(n_delta + n_groups * args.qkv.row_len())?;
    for instance in [AttentionAnyBackwardInstance::Queries, AttentionAnyBackwardInstance::Keys] {
        launch!(
            cuda,
            attention_any::AttentionAnyBackward {
                d_qkv: &mut *args.d_qkv,
                scratch: &mut scratch,
                qkv: args.qkv,
                out: args.out,
                d_out: args.d_out,
                lse: args.lse,
                work: batch.work(),
                cu_seqlens: batch.cu_seqlens(),
                global_rows: batch.global_rows(),
                dropout: args.dropout,
                scale,
                n_heads,
                head_size,
                n_items,
                n_groups,
                n_delta,
            },
            instance,
            any_grid(n_groups * n_heads, batch.max_seqlen, head_size, 2),
        )?;
    }
    Ok(Sums { scratch, n_delta, n_rows: n_groups })
}
