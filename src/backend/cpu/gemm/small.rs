//! Products of matrices that fit the first caches, within one thread and without packing: those of one head of
//! attention.

use super::super::math::LANES;
use pulp::{Simd, WithSimd};
use std::array::from_fn;

/// `out = [out +] a b`, where `a` is `(m, k)`, `b` `(k, n)` and `out` `(m, n)`. `b` and `out` are contiguous, and `n` is
/// a multiple of [`LANES`].
pub struct SmallProduct<'a> {
    /// `a[i, j]` is element `i row_stride + j column_stride`.
    pub a: &'a [f32],
    /// Elements from one row of `a` to the next.
    pub row_stride: usize,
    /// Elements from one column of `a` to the next.
    pub column_stride: usize,
    /// Row-major.
    pub b: &'a [f32],
    /// Row-major.
    pub out: &'a mut [f32],
    /// `m`, `n`, `k`
    pub sizes: [usize; 3],
    /// Add to what `out` holds instead of overwriting it.
    pub accumulate: bool,
}

/// Memory that one kernel call reads and writes.
#[derive(Clone, Copy)]
struct Tile {
    a: *const f32,
    row_stride: usize,
    column_stride: usize,
    b: *const f32,
    out: *mut f32,
    /// Elements from row to row of `b` and of `out`.
    n: usize,
    k: usize,
    accumulate: bool,
}

impl WithSimd for SmallProduct<'_> {
    type Output = ();

    #[inline(always)]
    #[allow(unsafe_code)]
    fn with_simd<S: Simd>(self, simd: S) {
        let [m, n, k] = self.sizes;
        assert!(n.is_multiple_of(LANES) && self.b.len() >= k * n && self.out.len() >= m * n, "small product: sizes");
        if m == 0 || k == 0 {
            return;
        }
        assert!((m - 1) * self.row_stride + (k - 1) * self.column_stride < self.a.len(), "small product: sizes of a");
        // 8 x 3 sums in 32 registers, 6 x 2 in 16. With their operands, 4 x 3 sums would need all 16 registers, and
        // then compilers move a register for each multiply-add.
        let (most_rows, most_vectors) = if S::REGISTER_COUNT >= 32 { (8, 3) } else { (6, 2) };
        let vectors = n / S::F32_LANES;
        let mut vector = 0;
        while vector < vectors {
            let width = match vectors - vector {
                1 => 1,
                2 | 4 => 2,
                _ => most_vectors,
            };
            let column = vector * S::F32_LANES;
            let mut row = 0;
            while row < m {
                let height = if m - row >= most_rows { most_rows } else { 1 << (m - row).ilog2() };
                let tile = Tile {
                    a: self.a[row * self.row_stride..].as_ptr(),
                    row_stride: self.row_stride,
                    column_stride: self.column_stride,
                    b: self.b[column..].as_ptr(),
                    out: self.out[row * n + column..].as_mut_ptr(),
                    n,
                    k,
                    accumulate: self.accumulate,
                };
                // SAFETY: rows `row..row + height` and `width` vectors from `column` on lie within `m` and `n`, and the
                // assertions say that `a`, `b` and `out` hold all of them.
                unsafe {
                    match width {
                        1 => tile.of_height::<S, 1>(simd, height),
                        2 => tile.of_height::<S, 2>(simd, height),
                        _ => tile.of_height::<S, 3>(simd, height),
                    }
                }
                row += height;
            }
            vector += width;
        }
    }
}

#[allow(unsafe_code)]
impl Tile {
    /// # Safety
    /// The conditions of [`Tile::compute`].
    #[inline(always)]
    unsafe fn of_height<S: Simd, const WIDTH: usize>(self, simd: S, height: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            match height {
                1 => self.compute::<S, 1, WIDTH>(simd),
                2 => self.compute::<S, 2, WIDTH>(simd),
                4 => self.compute::<S, 4, WIDTH>(simd),
                6 => self.compute::<S, 6, WIDTH>(simd),
                _ => self.compute::<S, 8, WIDTH>(simd),
            }
        }
    }

    /// Computes `HEIGHT` rows and `WIDTH` vectors with their sums in registers: each element of `a` is broadcast once.
    ///
    /// # Safety
    /// Readable must be `HEIGHT` rows of `k` elements of `a` and `k` rows of `WIDTH` vectors of `b`. Writable must be
    /// `HEIGHT` rows of `WIDTH` vectors of `out`, and nobody else may access them.
    #[inline(always)]
    unsafe fn compute<S: Simd, const HEIGHT: usize, const WIDTH: usize>(self, simd: S) {
        // SAFETY: the caller's promise; a vector of pulp is an array of f32.
        unsafe {
            let mut sums = [[simd.splat_f32s(0.0); WIDTH]; HEIGHT];
            for p in 0..self.k {
                let b: [S::f32s; WIDTH] =
                    from_fn(|v| self.b.add(p * self.n + v * S::F32_LANES).cast::<S::f32s>().read_unaligned());
                for (i, sums) in sums.iter_mut().enumerate() {
                    let a = simd.splat_f32s(*self.a.add(i * self.row_stride + p * self.column_stride));
                    for (sum, &b) in sums.iter_mut().zip(&b) {
                        *sum = simd.mul_add_e_f32s(a, b, *sum);
                    }
                }
            }
            for (i, sums) in sums.iter().enumerate() {
                for (v, &sum) in sums.iter().enumerate() {
                    let out = self.out.add(i * self.n + v * S::F32_LANES).cast::<S::f32s>();
                    let start = if self.accumulate { out.read_unaligned() } else { simd.splat_f32s(0.0) };
                    out.write_unaligned(simd.add_f32s(start, sum));
                }
            }
        }
    }
}
