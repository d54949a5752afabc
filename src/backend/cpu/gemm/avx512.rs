//! bf16 products by `vdpbf16ps`.
//!
//! A kernel call computes 8 rows x 48 columns in 24 registers, and for every pair of `k` loads three registers of `b` and
//! broadcasts eight pairs of `a`.
//!
//! The instruction takes denormal inputs and results as zero, and a lane's two products are added to the sum with the
//! roundings of the processor: expect f32 accuracy, not the bits of another machine.

use super::super::element::{Matrix, Start};
use super::blocked::{self, Kernel, Line, OperandRows, Shape, Target};
use super::pack::Source;
use crate::backend::Element;
use half::bf16;
use std::arch::x86_64::*;
use std::ops::Range;

/// Rows of a kernel call.
const ROWS: usize = 8;
/// Registers a row.
const VECTORS: usize = 3;
/// Columns of a kernel call.
const COLUMNS: usize = 16 * VECTORS;
const SHAPE: Shape =
    Shape { rows: ROWS, columns: COLUMNS, block: 256, span: usize::MAX, tile: (8, 8), packed_tile: (16, 16), strip: 2 };

/// Whether this processor has the instructions.
pub fn available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bf16")
}

/// `out = start + a b`, summed in f32 and rounded once. Panics on sizes that do not fit, and on a processor without the
/// instructions ([`available`]).
pub fn multiply<C: Element>(out: &mut [C], start: Start<C>, a: Matrix<bf16>, b: Matrix<bf16>) {
    blocked::multiply(DotPairs::new(), out, start, a, b);
}

/// The kernel. A value exists only where the instructions are [`available`].
#[derive(Clone, Copy)]
struct DotPairs(());

impl DotPairs {
    fn new() -> Self {
        assert!(available(), "gemm: no AVX512-BF16 on this processor");
        DotPairs(())
    }
}

#[allow(unsafe_code)]
impl Kernel for DotPairs {
    type In = bf16;
    const DEPTH: usize = 2;

    fn shape(self) -> Shape {
        SHAPE
    }

    fn pack_columns(self, b: &Matrix<bf16>, first: usize, pairs: Range<usize>, out: &mut [u32], panel_len: usize) {
        // SAFETY: a kernel exists only on a processor with the instructions.
        unsafe { Source::columns(b).pack::<COLUMNS>(first, pairs, out.as_chunks_mut().0, panel_len) };
    }

    fn pack_rows(self, a: &Matrix<bf16>, first: usize, pairs: Range<usize>, out: &mut [u32]) {
        let panel_len = pairs.len().max(1);
        // SAFETY: as above.
        unsafe { Source::rows(a).pack::<ROWS>(first, pairs, out.as_chunks_mut().0, panel_len) };
    }

    unsafe fn call<C: Element>(self, pairs: usize, rows: OperandRows, b: *const Line, target: Target<C>) {
        // SAFETY: the caller's promise; the processor has the instructions.
        unsafe {
            match rows.step {
                4 => kernel::<C, 4>(pairs, rows, b, target),
                _ => kernel::<C, { 4 * ROWS }>(pairs, rows, b, target),
            }
        }
    }
}

/// Computes 8 rows x 48 columns. `STEP`: bytes from one pair of a row to the next.
///
/// # Safety
/// The conditions of [`Kernel::call`]; the processor must have the instructions.
#[allow(unsafe_code)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn kernel<C: Element, const STEP: usize>(pairs: usize, rows: OperandRows, b: *const Line, target: Target<C>) {
    // SAFETY: the caller's promise.
    unsafe {
        match target.columns.div_ceil(16) {
            1 => narrow_kernel::<C, STEP, 1>(pairs, rows, b, target),
            2 => narrow_kernel::<C, STEP, 2>(pairs, rows, b, target),
            _ => narrow_kernel::<C, STEP, VECTORS>(pairs, rows, b, target),
        }
    }
}

/// [`kernel`] for `16 N` columns.
///
/// # Safety
/// The conditions of [`kernel`].
#[allow(unsafe_code)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn narrow_kernel<C: Element, const STEP: usize, const N: usize>(
    pairs: usize,
    rows: OperandRows,
    b: *const Line,
    target: Target<C>,
) {
    // SAFETY: the caller's promise; a register of 16 32-bit lanes is one of 32 bf16.
    unsafe {
        let a: [*const u8; ROWS] = std::array::from_fn(|i| rows.first.add(i.min(rows.n - 1) * rows.stride));
        let mut sums = [[_mm512_setzero_ps(); N]; ROWS];
        for pair in 0..pairs {
            let b: [__m512bh; N] =
                std::array::from_fn(|v| std::mem::transmute(_mm512_load_si512(b.add(pair * VECTORS + v).cast())));
            for i in 0..ROWS {
                let x = _mm512_set1_epi32(a[i].add(pair * STEP).cast::<i32>().read_unaligned());
                for v in 0..N {
                    sums[i][v] = _mm512_dpbf16_ps(sums[i][v], std::mem::transmute::<__m512i, __m512bh>(x), b[v]);
                }
            }
        }
        for (i, sums) in sums.iter_mut().enumerate().take(rows.n) {
            for (v, sum) in sums.iter_mut().enumerate() {
                let partial = target.partial.wrapping_add(i * COLUMNS + 16 * v);
                if !target.is_first_block {
                    *sum = _mm512_add_ps(*sum, _mm512_load_ps(partial));
                }
                if !target.is_last_block {
                    _mm512_store_ps(partial, *sum);
                    continue;
                }
                let mask = if target.columns >= 16 * (v + 1) { u16::MAX } else { (1 << (target.columns % 16)) - 1 };
                if !target.addend.is_null() {
                    *sum = _mm512_add_ps(*sum, load(target.addend.add(i * target.addend_stride + 16 * v), mask));
                }
                store(target.out.add(i * target.stride + 16 * v), mask, *sum);
            }
        }
    }
}

/// The elements that `mask` selects, widened.
///
/// # Safety
/// They must be valid, and the processor must have the instructions.
#[allow(unsafe_code)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn load<C: Element>(from: *const C, mask: u16) -> __m512 {
    // SAFETY: the caller's promise; an Element is f32 or bf16.
    unsafe {
        if C::IS_F32 {
            return _mm512_maskz_loadu_ps(mask, from.cast());
        }
        let bits = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from.cast()));
        _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16))
    }
}

/// Writes the elements that `mask` selects, rounded.
///
/// # Safety
/// The conditions of [`load`].
#[allow(unsafe_code)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn store<C: Element>(to: *mut C, mask: u16, x: __m512) {
    // SAFETY: the caller's promise; an Element is f32 or bf16.
    unsafe {
        if C::IS_F32 {
            return _mm512_mask_storeu_ps(to.cast(), mask, x);
        }
        _mm256_mask_storeu_epi16(to.cast(), mask, std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x)));
    }
}
