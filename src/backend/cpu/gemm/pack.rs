//! Copies of an operand in the order in which the kernel reads it.
//!
//! `vdpbf16ps` takes two neighbours along `k` in one 32-bit lane, so a packed operand is a sequence of pairs `(x[lane,
//! 2 p], x[lane, 2 p + 1])`, where a lane is a row of `a` or a column of `b`. Elements outside the matrix (the second
//! half of an odd `k`'s last pair, lanes past the edge) are zero.

use super::super::element::Matrix;
use super::blocked::Line;
use half::bf16;
use std::arch::x86_64::*;
use std::ops::Range;

/// Rows of a strided operand that are prefetched.
const AHEAD: usize = 16;

/// An operand as packing sees it: `a`, or the transpose of `b`.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    data: &'a [u16],
    lanes: usize,
    lane_stride: usize,
    /// Length along `k`.
    depth: usize,
    depth_stride: usize,
}

impl<'a> Source<'a> {
    /// An operand whose lanes are its rows.
    pub fn rows(x: &Matrix<'a, bf16>) -> Self {
        Source {
            data: bytemuck::cast_slice(x.data),
            lanes: x.rows,
            lane_stride: x.row_stride,
            depth: x.columns,
            depth_stride: x.column_stride,
        }
    }

    /// An operand whose lanes are its columns.
    pub fn columns(x: &Matrix<'a, bf16>) -> Self {
        Source {
            data: bytemuck::cast_slice(x.data),
            lanes: x.columns,
            lane_stride: x.column_stride,
            depth: x.rows,
            depth_stride: x.row_stride,
        }
    }

    fn get(&self, lane: usize, k: usize) -> u32 {
        let inside = lane < self.lanes && k < self.depth;
        if inside { u32::from(self.data[lane * self.lane_stride + k * self.depth_stride]) } else { 0 }
    }

    /// Packs panels of `LANES` lanes, the first of them beginning at lane `first`. Each takes `panel_len` pairs of
    /// `out`, the first `pairs.len()` of which are written.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub fn pack<const LANES: usize>(
        &self,
        first: usize,
        pairs: Range<usize>,
        out: &mut [[u32; LANES]],
        panel_len: usize,
    ) {
        let panels = out.len() / panel_len;
        let whole = if self.lane_stride == 1 { panels.min((self.lanes - first) / LANES) } else { 0 };
        self.interleave(first..first + whole * LANES, pairs.clone(), out, panel_len);
        for panel in whole..panels {
            let first = first + panel * LANES;
            let out = &mut out[panel * panel_len..][..pairs.len()];
            if self.depth_stride == 1 && LANES.is_multiple_of(16) {
                self.transpose(first, pairs.clone(), out);
                continue;
            }
            for (pair, out) in pairs.clone().zip(out) {
                *out = std::array::from_fn(|lane| {
                    self.get(first + lane, 2 * pair) | self.get(first + lane, 2 * pair + 1) << 16
                });
            }
        }
    }

    /// Packs whole panels whose lanes are neighbours in memory: two rows give the pairs of all lanes.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn interleave<const LANES: usize>(
        &self,
        lanes: Range<usize>,
        pairs: Range<usize>,
        out: &mut [[u32; LANES]],
        panel_len: usize,
    ) {
        let row = |k: usize| self.data[lanes.start + k * self.depth_stride..][..lanes.len()].as_chunks::<LANES>().0;
        for (at, pair) in pairs.enumerate() {
            for k in [2 * pair + AHEAD, 2 * pair + AHEAD + 1] {
                prefetch(self.data.as_ptr().wrapping_add(lanes.start + k * self.depth_stride), lanes.len());
            }
            let low = row(2 * pair);
            if 2 * pair + 1 == self.depth {
                for (panel, low) in low.iter().enumerate() {
                    out[panel * panel_len + at] = low.map(u32::from);
                }
                continue;
            }
            for (panel, (low, high)) in low.iter().zip(row(2 * pair + 1)).enumerate() {
                for ((out, &low), &high) in out[panel * panel_len + at].iter_mut().zip(low).zip(high) {
                    *out = u32::from(low) | u32::from(high) << 16;
                }
            }
        }
    }

    /// Packs a panel whose lanes are contiguous, with their pairs side by side: blocks of 16 x 16 pairs are transposed.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    #[allow(unsafe_code)]
    fn transpose<const LANES: usize>(&self, first: usize, pairs: Range<usize>, out: &mut [[u32; LANES]]) {
        for column in (0..LANES).step_by(16) {
            for (block, out) in out.chunks_mut(16).enumerate() {
                let k = 2 * (pairs.start + 16 * block);
                let len = (2 * out.len()).min(self.depth - k);
                let rows = std::array::from_fn(|i| {
                    let lane = first + column + i;
                    if lane < self.lanes {
                        load_pairs(&self.data[lane * self.lane_stride + k..][..len])
                    } else {
                        _mm512_setzero_si512()
                    }
                });
                for (out, pairs) in out.iter_mut().zip(transpose_16(rows)) {
                    let out = &mut out[column..column + 16];
                    // SAFETY: 16 lanes are 64 bytes.
                    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), pairs) };
                }
            }
        }
    }
}

/// Prefetches `len` elements; the stride from row to row is longer than hardware prefetchers look ahead.
#[target_feature(enable = "avx512f")]
fn prefetch(from: *const u16, len: usize) {
    for at in (0..len).step_by(32) {
        _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(at).cast());
    }
}

/// Up to 32 elements, the rest zero.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[allow(unsafe_code)]
fn load_pairs(from: &[u16]) -> __m512i {
    let mask = if from.len() >= 32 { u32::MAX } else { (1 << from.len()) - 1 };
    // SAFETY: the mask leaves out what lies past the slice.
    unsafe { _mm512_maskz_loadu_epi16(mask, from.as_ptr().cast()) }
}

/// For step `s` of a transposition, the source lanes of the two new rows; 16 and above are lanes of the second row.
const EXCHANGE: [[Line; 2]; 4] = {
    let mut tables = [[Line([0; 16]); 2]; 4];
    let mut s = 0;
    while s < 4 {
        let step = 1 << s;
        let mut lane = 0;
        while lane < 16 {
            let is_second = lane & step != 0;
            tables[s][0].0[lane as usize] = if is_second { 16 + lane - step } else { lane };
            tables[s][1].0[lane as usize] = if is_second { 16 + lane } else { lane + step };
            lane += 1;
        }
        s += 1;
    }
    tables
};

/// Transposes 16 x 16 lanes: step `s` swaps, between rows `i` and `i + 2^s`, the lanes that are on the wrong side.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[allow(unsafe_code)]
fn transpose_16(mut rows: [__m512i; 16]) -> [__m512i; 16] {
    for (s, tables) in EXCHANGE.iter().enumerate() {
        // SAFETY: a Line is 64 aligned bytes.
        let [low, high] = [0, 1].map(|t| unsafe { _mm512_load_si512(tables[t].0.as_ptr().cast()) });
        for i in (0..16).filter(|i| i & (1 << s) == 0) {
            let (a, b) = (rows[i], rows[i + (1 << s)]);
            rows[i] = _mm512_permutex2var_epi32(a, low, b);
            rows[i + (1 << s)] = _mm512_permutex2var_epi32(a, high, b);
        }
    }
    rows
}
