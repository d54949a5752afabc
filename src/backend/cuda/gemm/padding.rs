//! Products that cuBLASLt has no algorithm for, because lines of bf16 lie at odd distances: an odd number of candidates
//! makes such scores. Computed on copies whose lines are further apart.

use super::super::api::driver as sys;
use super::super::driver::{Stream, check};
use super::super::memory::{Arena, DeviceBuffer};
use super::{MatrixType, Operands, Shape};
use crate::Result;
use cudarc::driver::sys::{CUDA_MEMCPY2D, CUmemorytype};
use std::sync::Arc;

/// Elements of bf16 from one line to the next, so that each begins at a multiple of the 16 bytes of the widest access.
pub fn padded(len: usize) -> usize {
    len.next_multiple_of(8)
}

/// Calls `run` with operands that are laid out as `shape` with [`Shape::is_padded`] has them.
pub fn with_padding(
    stream: &Stream,
    arena: &Arc<Arena>,
    shape: Shape,
    operands: Operands,
    run: impl FnOnce(Operands) -> Result<()>,
) -> Result<()> {
    let [mut of_b, mut of_a, mut of_out] = shape.matrices().map(|(ty, len, lines)| Padded {
        len,
        lines,
        // Pieces go back at once: work that is queued later may have them, and runs later.
        memory: None,
        is_needed: ty == MatrixType::Bf16 && padded(len) != len,
    });
    let a = of_a.make(stream, arena, operands.a, true)?;
    let b = of_b.make(stream, arena, operands.b, true)?;
    let out = of_out.make(stream, arena, operands.out, shape.accumulate)?;
    run(Operands { a, b, out, ..operands })?;
    match &of_out.memory {
        Some(memory) => of_out.copy(stream, memory.address(), padded(of_out.len), operands.out, of_out.len),
        None => Ok(()),
    }
}

/// A matrix of bf16, `lines` of `len` elements.
struct Padded {
    len: usize,
    lines: usize,
    memory: Option<DeviceBuffer<u16>>,
    is_needed: bool,
}

impl Padded {
    /// The address of the copy, with the matrix in it if `is_filled`; the matrix's own where no copy is needed.
    fn make(&mut self, stream: &Stream, arena: &Arc<Arena>, matrix: u64, is_filled: bool) -> Result<u64> {
        if !self.is_needed {
            return Ok(matrix);
        }
        let memory = DeviceBuffer::new(arena, self.lines * padded(self.len))?;
        let address = memory.address();
        self.memory = Some(memory);
        if is_filled {
            self.copy(stream, matrix, self.len, address, padded(self.len))?;
        }
        Ok(address)
    }

    /// Queues the copy of all lines from one place to another; `ld` are elements between lines.
    fn copy(&self, stream: &Stream, from: u64, from_ld: usize, to: u64, to_ld: usize) -> Result<()> {
        let bytes = |n: usize| n * size_of::<u16>();
        stream.context.bind()?;
        let copy = CUDA_MEMCPY2D {
            srcXInBytes: 0,
            srcY: 0,
            srcMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
            srcHost: std::ptr::null(),
            srcDevice: from,
            srcArray: std::ptr::null_mut(),
            srcPitch: bytes(from_ld),
            dstXInBytes: 0,
            dstY: 0,
            dstMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
            dstHost: std::ptr::null_mut(),
            dstDevice: to,
            dstArray: std::ptr::null_mut(),
            dstPitch: bytes(to_ld),
            WidthInBytes: bytes(self.len),
            Height: self.lines,
        };
        // SAFETY: both have as many lines, and are as wide.
        check(unsafe { sys::cuMemcpy2DAsync_v2(&copy, stream.raw()) }, "copying a matrix")
    }
}
