//! Lists of tensors in a kernel's parameters, so that one launch works on all of them: kernels/tensor_list.cuh.

use super::kernels::tensor_list_cuh::{LIST_SPAN, MOST_TENSORS};
use super::{Cuda, CudaElement, Tensor};

/// Which blocks of a grid work on which of up to `N` tensors.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct TensorBlocks<const N: usize> {
    pub n: u32,
    pub len: [u32; N],
    pub first: [u32; N],
    /// `first[N]` of the kernels, or zero: where the list is shorter, its end is in `first`.
    end: u32,
}

// SAFETY: nothing but u32, so zero is one and there is no padding.
unsafe impl<const N: usize> bytemuck::Zeroable for TensorBlocks<N> {}
// SAFETY: as above.
unsafe impl<const N: usize> bytemuck::Pod for TensorBlocks<N> {}

impl<const N: usize> TensorBlocks<N> {
    /// Blocks of `span` elements for at most `N` tensors of these lengths.
    pub fn new(lens: impl Iterator<Item = usize>, span: usize) -> Self {
        let mut blocks = TensorBlocks { n: 0, len: [0; N], first: [0; N], end: 0 };
        let mut n_blocks = 0;
        for (i, len) in lens.enumerate() {
            blocks.n += 1;
            blocks.len[i] = u32::try_from(len).unwrap_or_else(|_| panic!("a list of tensors: one of {len} elements"));
            n_blocks += len.div_ceil(span) as u32;
            *blocks.first.get_mut(i + 1).unwrap_or(&mut blocks.end) = n_blocks;
        }
        blocks
    }

    /// Blocks of all tensors.
    pub fn n_blocks(&self) -> usize {
        *self.first.get(self.n as usize).unwrap_or(&self.end) as usize
    }
}

/// `TensorList` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
pub(super) struct TensorList {
    pub x: [u64; MOST_TENSORS],
    pub blocks: TensorBlocks<MOST_TENSORS>,
}

impl TensorList {
    /// Tensors in the list.
    pub fn len(&self) -> usize {
        self.blocks.n as usize
    }

    /// As many lists as it takes for all of `xs`, each with the number of its first.
    pub fn of<'a, E: CudaElement>(
        xs: impl ExactSizeIterator<Item = &'a Tensor<Cuda<E>, f32>> + Clone,
    ) -> impl Iterator<Item = (usize, TensorList)> {
        (0..xs.len()).step_by(MOST_TENSORS).map(move |first| {
            let part = || xs.clone().skip(first).take(MOST_TENSORS);
            let mut list =
                TensorList { x: [0; MOST_TENSORS], blocks: TensorBlocks::new(part().map(Tensor::len), LIST_SPAN) };
            list.x.iter_mut().zip(part()).for_each(|(address, x)| *address = x.buffer().address());
            (first, list)
        })
    }
}
