//! f32 products with the widest vectors that the processor has.
//!
//! A call keeps all its sums in registers: 6 x 16 in twelve of AVX2's sixteen, 8 x 48 in twenty-four of AVX-512's
//! thirty-two. Every processor takes each sum over the same blocks of `k` and in the same order, by fused
//! multiply-adds: AVX2 and AVX-512 give the same bits.

use super::super::element::{Matrix, Start};
use super::super::instructions::arch;
use super::blocked::{self, Kernel, Line, OperandRows, Shape, Target};
use crate::backend::Element;
use pulp::{Arch, Simd, WithSimd};
use std::array::from_fn;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Most rows and columns of a call.
const MOST_ROWS: usize = 8;
const MOST_COLUMNS: usize = 48;
/// Rows along `k` that are prefetched: the stride from one to the next is longer than hardware prefetchers look ahead.
const AHEAD: usize = 16;
/// Rows along `k` packed at once: panels lie about a power of two apart, and caches hold few lines at such distances.
const GROUP: usize = 8;

/// `out = start + a b` on all threads.
pub fn multiply<C: Element>(out: &mut [C], start: Start<C>, a: Matrix<f32>, b: Matrix<f32>) {
    multiply_with(arch(), out, start, a, b);
}

/// [`multiply`] with the instructions of `arch`.
pub fn multiply_with<C: Element>(arch: Arch, out: &mut [C], start: Start<C>, a: Matrix<f32>, b: Matrix<f32>) {
    blocked::multiply(MultiplyAdd { arch, shape: arch.dispatch(ShapeOf) }, out, start, a, b);
}

/// The kernel for an instruction set.
#[derive(Clone, Copy)]
struct MultiplyAdd {
    arch: Arch,
    shape: Shape,
}

impl MultiplyAdd {
    fn has_avx(self) -> bool {
        !matches!(self.arch, Arch::Scalar)
    }
}

/// Finds the shape that suits the registers.
struct ShapeOf;

impl WithSimd for ShapeOf {
    type Output = Shape;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Shape {
        let (rows, columns) = match S::F32_LANES {
            16 => (8, 48),
            8 | 4 => (6, 16),
            _ => (2, 16),
        };
        // Tiles of about 64 x 384 and 128 x 768 elements.
        let panels = |r: usize, c: usize| (r / rows, c / columns);
        Shape {
            rows,
            columns,
            block: 256,
            span: 1024,
            tile: panels(64, 384),
            packed_tile: panels(128, 768),
            strip: 192 / columns,
        }
    }
}

#[allow(unsafe_code)]
impl Kernel for MultiplyAdd {
    type In = f32;
    const DEPTH: usize = 1;

    fn shape(self) -> Shape {
        self.shape
    }

    fn pack_columns(self, b: &Matrix<f32>, first: usize, k: Range<usize>, out: &mut [u32], panel_len: usize) {
        let lanes = Lanes {
            data: b.data,
            n: b.columns,
            stride: b.column_stride,
            k_stride: b.row_stride,
            has_avx: self.has_avx(),
        };
        let out: &mut [f32] = bytemuck::cast_slice_mut(out);
        self.arch.dispatch(
            #[inline(always)]
            || match self.shape.columns {
                48 => lanes.pack::<48>(first, k, out, panel_len),
                _ => lanes.pack::<16>(first, k, out, panel_len),
            },
        );
    }

    fn pack_rows(self, a: &Matrix<f32>, first: usize, k: Range<usize>, out: &mut [u32]) {
        let lanes =
            Lanes { data: a.data, n: a.rows, stride: a.row_stride, k_stride: a.column_stride, has_avx: self.has_avx() };
        let (out, panel_len): (&mut [f32], _) = (bytemuck::cast_slice_mut(out), k.len().max(1));
        self.arch.dispatch(
            #[inline(always)]
            || match self.shape.rows {
                8 => lanes.pack::<8>(first, k, out, panel_len),
                6 => lanes.pack::<6>(first, k, out, panel_len),
                _ => lanes.pack::<2>(first, k, out, panel_len),
            },
        );
    }

    #[inline(always)]
    unsafe fn call<C: Element>(self, len: usize, rows: OperandRows, b: *const Line, target: Target<C>) {
        self.arch.dispatch(Call { len, rows, b: b.cast(), target });
    }
}

/// An operand as packing sees it: rows of `a`, or columns of `b`.
#[derive(Clone, Copy)]
struct Lanes<'a> {
    data: &'a [f32],
    n: usize,
    stride: usize,
    k_stride: usize,
    /// Whether the instructions in use include AVX.
    has_avx: bool,
}

impl Lanes<'_> {
    /// Packs panels of `N` lanes, `panel_len` steps of `k` from one panel to the next.
    #[inline(always)]
    fn pack<const N: usize>(self, first: usize, k: Range<usize>, out: &mut [f32], panel_len: usize) {
        let (out, _) = out.as_chunks_mut::<N>();
        let panels = out.len() / panel_len;
        let whole = panels.min((self.n - first) / N);
        if self.stride == 1 {
            for at in (0..k.len()).step_by(GROUP) {
                let n = GROUP.min(k.len() - at);
                let mut rows: [&[[f32; N]]; GROUP] = [&[]; GROUP];
                for (i, rows) in rows.iter_mut().enumerate().take(n) {
                    let row = &self.data[first + (k.start + at + i) * self.k_stride..][..whole * N];
                    prefetch(row.as_ptr().wrapping_add(AHEAD * self.k_stride), row.len());
                    *rows = row.as_chunks().0;
                }
                for panel in 0..whole {
                    for (out, row) in out[panel * panel_len + at..][..n].iter_mut().zip(&rows) {
                        *out = row[panel];
                    }
                }
            }
        } else {
            for panel in 0..whole {
                self.gather(first + panel * N, k.clone(), &mut out[panel * panel_len..]);
            }
        }
        for panel in whole..panels {
            for (k, out) in k.clone().zip(&mut out[panel * panel_len..]) {
                *out = from_fn(|i| {
                    let lane = first + panel * N + i;
                    if lane < self.n { self.data[lane * self.stride + k * self.k_stride] } else { 0.0 }
                });
            }
        }
    }

    /// Packs one whole panel whose lanes are contiguous: full 8 x 8 squares are transposed in registers.
    #[inline(always)]
    fn gather<const N: usize>(self, first: usize, k: Range<usize>, out: &mut [[f32; N]]) {
        for (from, out) in k.clone().step_by(GROUP).zip(out[..k.len()].chunks_mut(GROUP)) {
            let lane = |i: usize| &self.data[(first + i) * self.stride + from * self.k_stride..];
            let whole = out.len() == GROUP && self.k_stride == 1 && N.is_multiple_of(8);
            #[cfg(target_arch = "x86_64")]
            if whole && self.has_avx {
                for i in (0..N).step_by(8) {
                    let square = from_fn(|j| *lane(i + j).first_chunk().expect("eight steps of k are there"));
                    // SAFETY: the processor has the instructions.
                    #[allow(unsafe_code)]
                    let columns = unsafe { transpose(square) };
                    for (out, column) in out.iter_mut().zip(columns) {
                        out[i..i + 8].copy_from_slice(&column);
                    }
                }
                continue;
            }
            let _ = whole;
            for (s, out) in out.iter_mut().enumerate() {
                *out = from_fn(|i| lane(i)[s * self.k_stride]);
            }
        }
    }
}

/// Transposes 8 x 8: pairs within halves of a register, then pairs of pairs, then the halves.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
#[allow(unsafe_code)]
fn transpose(rows: [[f32; 8]; 8]) -> [[f32; 8]; 8] {
    use std::arch::x86_64::*;
    // SAFETY: a register is eight f32 in a row.
    let r: [__m256; 8] = rows.map(|row| unsafe { std::mem::transmute::<[f32; 8], __m256>(row) });
    let mut pairs = r;
    for i in (0..8).step_by(2) {
        (pairs[i], pairs[i + 1]) = (_mm256_unpacklo_ps(r[i], r[i + 1]), _mm256_unpackhi_ps(r[i], r[i + 1]));
    }
    let mut fours = r;
    for i in [0, 4] {
        for h in 0..2 {
            fours[i + 2 * h] = _mm256_shuffle_ps::<0x44>(pairs[i + h], pairs[i + 2 + h]);
            fours[i + 2 * h + 1] = _mm256_shuffle_ps::<0xee>(pairs[i + h], pairs[i + 2 + h]);
        }
    }
    let mut columns = r;
    for i in 0..4 {
        columns[i] = _mm256_permute2f128_ps::<0x20>(fours[i], fours[i + 4]);
        columns[i + 4] = _mm256_permute2f128_ps::<0x31>(fours[i], fours[i + 4]);
    }
    // SAFETY: as above.
    columns.map(|column| unsafe { std::mem::transmute::<__m256, [f32; 8]>(column) })
}

/// Prefetches `len` elements.
#[inline(always)]
#[allow(unsafe_code)]
fn prefetch<T>(from: *const T, len: usize) {
    #[cfg(target_arch = "x86_64")]
    for at in (0..len).step_by(64 / size_of::<T>()) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch may name any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(at).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (from, len);
}

/// One call; whoever makes it promises the conditions of [`Kernel::call`].
struct Call<C> {
    len: usize,
    rows: OperandRows,
    b: *const f32,
    target: Target<C>,
}

impl<C: Element> WithSimd for Call<C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 => match self.target.columns.div_ceil(16) {
                1 => self.compute::<S, 8, 1>(simd, 48),
                2 => self.compute::<S, 8, 2>(simd, 48),
                _ => self.compute::<S, 8, 3>(simd, 48),
            },
            8 => match self.target.columns.div_ceil(8) {
                1 => self.compute::<S, 6, 1>(simd, 16),
                _ => self.compute::<S, 6, 2>(simd, 16),
            },
            4 => self.compute::<S, 6, 4>(simd, 16),
            _ => self.compute::<S, 2, 16>(simd, 16),
        }
    }
}

#[allow(unsafe_code)]
impl<C: Element> Call<C> {
    /// Computes `H` rows and the first `W` vectors of panels of `columns`.
    #[inline(always)]
    fn compute<S: Simd, const H: usize, const W: usize>(self, simd: S, columns: usize) {
        let Call { len, rows, b, target } = self;
        // The sums leave the registers once, to a buffer that plain code over rows reads.
        let mut buffer = MaybeUninit::<[Line; MOST_ROWS * MOST_COLUMNS / 16]>::uninit();
        let one_block = target.is_first_block && target.is_last_block;
        let sums: *mut f32 = if one_block { buffer.as_mut_ptr().cast() } else { target.partial };
        // Prefetches what is needed at the end.
        if target.is_last_block {
            (0..rows.n).for_each(|i| prefetch(target.out.wrapping_add(i * target.stride), target.columns));
        }
        if !target.is_first_block {
            prefetch(target.partial, H * columns);
        }
        // SAFETY: the promise of `Kernel::call`; `sums` holds `H` rows of `columns`, and a vector of pulp is an array
        // of f32.
        unsafe {
            let a: [*const u8; H] = from_fn(|i| rows.first.add(i.min(rows.n - 1) * rows.stride));
            let mut acc = [[simd.splat_f32s(0.0); W]; H];
            for p in 0..len {
                let b: [S::f32s; W] =
                    from_fn(|v| b.add(p * columns + v * S::F32_LANES).cast::<S::f32s>().read_unaligned());
                for (a, acc) in a.iter().zip(&mut acc) {
                    let x = simd.splat_f32s(a.add(p * rows.step).cast::<f32>().read_unaligned());
                    for (acc, &b) in acc.iter_mut().zip(&b) {
                        *acc = simd.mul_add_e_f32s(x, b, *acc);
                    }
                }
            }
            for (i, acc) in acc.iter().enumerate() {
                for (v, &acc) in acc.iter().enumerate() {
                    let sum = sums.add(i * columns + v * S::F32_LANES).cast::<S::f32s>();
                    let before = if target.is_first_block { acc } else { simd.add_f32s(sum.read_unaligned(), acc) };
                    sum.write_unaligned(before);
                }
            }
            if target.is_last_block {
                for i in 0..rows.n {
                    let sums = std::slice::from_raw_parts(sums.add(i * columns), target.columns);
                    finish(&target, i, sums);
                }
            }
        }
    }
}

/// Adds the product's starting value to the row `i` of a call, and rounds.
///
/// # Safety
/// The conditions of [`Kernel::call`].
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn finish<C: Element>(target: &Target<C>, i: usize, sums: &[f32]) {
    // No references here: bias and result are the same memory where the product is added to `out`. SAFETY: the caller's
    // promise.
    unsafe {
        let out = target.out.add(i * target.stride);
        if target.addend.is_null() {
            sums.iter().enumerate().for_each(|(j, &sum)| out.add(j).write(C::from_f32(sum)));
        } else if target.addend_stride == 0 {
            let bias = std::slice::from_raw_parts(target.addend, sums.len());
            let out = std::slice::from_raw_parts_mut(out, sums.len());
            for ((out, sum), bias) in out.iter_mut().zip(sums).zip(bias) {
                *out = C::from_f32(sum + bias.to_f32());
            }
        } else {
            let out = std::slice::from_raw_parts_mut(out, sums.len());
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out = C::from_f32(sum + out.to_f32()));
        }
    }
}
