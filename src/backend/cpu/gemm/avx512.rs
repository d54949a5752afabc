//! bf16 products by `vdpbf16ps`, blocked and packed.
//!
//! A kernel call computes 8 rows x 48 columns over one block of `k` in 24 registers, and for every pair of `k` loads
//! three registers of `b` and broadcasts eight pairs of `a`. `b` is packed once for all tasks. `a` is read where it is
//! when a row's pairs lie side by side, for a broadcast gains nothing by packing; else a task packs its own rows. The
//! result is cut into tiles by its shape alone, each computed by one task in a fixed order: the number of threads
//! changes no bit.
//!
//! The instruction takes denormal inputs and results as zero, and a lane's two products are added to the sum with the
//! roundings of the processor: expect f32 accuracy, not the bits of another machine.

use super::super::element::{Matrix, Start};
use super::pack::{Line, Source, lanes};
use crate::backend::Element;
use half::bf16;
use rayon::prelude::*;
use std::arch::x86_64::*;
use std::cell::Cell;
use std::ops::Range;

/// Rows of a kernel call.
const ROWS: usize = 8;
/// Registers a row.
const VECTORS: usize = 3;
/// Columns of a kernel call.
const COLUMNS: usize = 16 * VECTORS;
/// Most pairs of `k` in one block: a panel of `b` then stays close while the rows of a tile go by.
const BLOCK_PAIRS: usize = 256;
/// Panels of rows (of 8) and of columns (of 48) in a tile whose `a` is read in place: the tile's block of `b` fits the
/// second-level cache.
const TILE: (usize, usize) = (8, 8);
/// The same where `a` has to be packed: larger, since every tile of a row packs it anew.
const PACKED_TILE: (usize, usize) = (16, 16);
/// There are a multiple of this many tiles, so that they balance over 2, 4 or 8 threads.
const BALANCE: usize = 8;
/// Panels of `b` that one task packs.
const STRIP: usize = 2;
/// Multiplications below which waking other threads costs more than it saves.
const SERIAL: usize = 1 << 21;

thread_local! {
    /// Packed `b`, kept from call to call by the thread that called.
    static PACKED_B: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
    /// A tile's packed rows of `a`, and its sums over the blocks of `k` so far.
    static SCRATCH: Cell<(Vec<Line>, Vec<Line>)> = const { Cell::new((Vec::new(), Vec::new())) };
}

/// True when this processor has the instructions.
pub fn available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bf16")
}

/// The first `lines` of a buffer that grows as needed.
fn sized(buffer: &mut Vec<Line>, lines: usize) -> &mut [Line] {
    if buffer.len() < lines {
        buffer.resize(lines, Line([0; 16]));
    }
    &mut buffer[..lines]
}

/// How a product is cut. Depends on its shape and on the layout of `a`, on nothing else.
#[derive(Clone, Copy)]
struct Plan {
    m: usize,
    n: usize,
    /// Pairs of `k`, in all and in a block.
    pairs: usize,
    block_pairs: usize,
    /// `a` is read where it is.
    in_place: bool,
    row_tiles: usize,
    column_tiles: usize,
}

impl Plan {
    fn new(a: &Matrix<bf16>, n: usize) -> Self {
        let (m, pairs) = (a.rows, a.columns.div_ceil(2));
        // An odd row's last pair would reach into the next row.
        let in_place = a.column_stride == 1 && a.columns.is_multiple_of(2);
        let (tile_rows, tile_columns) = if in_place { TILE } else { PACKED_TILE };
        let row_panels = m.div_ceil(ROWS);
        let column_tiles = n.div_ceil(COLUMNS).div_ceil(tile_columns);
        // Each row of tiles reads all of `b`, so there are no more of them than balance asks for.
        let balance = BALANCE >> column_tiles.trailing_zeros().min(BALANCE.trailing_zeros());
        Plan {
            m,
            n,
            pairs,
            block_pairs: pairs.div_ceil(pairs.div_ceil(BLOCK_PAIRS).max(1)).max(1),
            in_place,
            row_tiles: row_panels.div_ceil(tile_rows).next_multiple_of(balance).min(row_panels),
            column_tiles,
        }
    }

    fn blocks(&self) -> usize {
        self.pairs.div_ceil(self.block_pairs).max(1)
    }

    fn block(&self, index: usize) -> Range<usize> {
        let first = index * self.block_pairs;
        first..(first + self.block_pairs).min(self.pairs)
    }

    fn column_panels(&self) -> usize {
        self.n.div_ceil(COLUMNS)
    }

    /// Lines of one panel of packed `b` in one block.
    fn panel_lines(&self) -> usize {
        self.block_pairs * VECTORS
    }

    /// Panels of packed `b` in one block, those included that only fill the last strip.
    fn packed_panels(&self) -> usize {
        self.column_panels().next_multiple_of(STRIP)
    }

    /// Row panels and column panels of a tile. Tiles one after the other share their columns of `b`.
    fn tile(&self, index: usize) -> (Range<usize>, Range<usize>) {
        let share = |panels: usize, parts: usize, i: usize| panels * i / parts..panels * (i + 1) / parts;
        (
            share(self.m.div_ceil(ROWS), self.row_tiles, index % self.row_tiles),
            share(self.column_panels(), self.column_tiles, index / self.row_tiles),
        )
    }
}

/// The result, of which every tile writes its own part.
#[derive(Clone, Copy)]
struct Output<C>(*mut C);

#[allow(unsafe_code)]
// SAFETY: tiles are disjoint, so no element is touched by two threads.
unsafe impl<C: Send> Send for Output<C> {}
#[allow(unsafe_code)]
// SAFETY: as above.
unsafe impl<C: Send> Sync for Output<C> {}

/// `out = start + a b`, summed in f32 and rounded once. Panics on sizes that do not fit and where it is not
/// [`available`].
#[allow(unsafe_code)]
pub fn multiply<C: Element>(out: &mut [C], start: Start<C>, a: Matrix<bf16>, b: Matrix<bf16>) {
    assert!(available(), "gemm: no AVX512-BF16 on this processor");
    super::check(out, start, &a, &b);
    if out.is_empty() {
        return;
    }
    let plan = Plan::new(&a, b.columns);
    let parallel = plan.m * plan.n * a.columns > SERIAL;
    let mut buffer = PACKED_B.take();
    let packed = sized(&mut buffer, plan.blocks() * plan.packed_panels() * plan.panel_lines());
    pack_b(plan, Source::columns(&b), packed, parallel);
    let task = Task { plan, start, a, b: packed, out: Output(out.as_mut_ptr()) };
    let tile = |index| {
        let mut scratch = SCRATCH.take();
        // SAFETY: `available` and the sizes were asserted, and every tile is computed once.
        unsafe { task.tile(index, &mut scratch) };
        SCRATCH.set(scratch);
    };
    let tiles = 0..plan.row_tiles * plan.column_tiles;
    if parallel {
        tiles.into_par_iter().with_max_len(1).for_each(tile);
    } else {
        tiles.for_each(tile);
    }
    PACKED_B.set(buffer);
}

/// Packs all of `b`: blocks of `k`, in them panels of columns, in them pairs.
#[allow(unsafe_code)]
fn pack_b(plan: Plan, b: Source, packed: &mut [Line], parallel: bool) {
    let strips = plan.packed_panels() / STRIP;
    let strip = |(index, out): (usize, &mut [Line])| {
        let (block, first) = (index / strips, index % strips * STRIP);
        let panels = STRIP.min(plan.column_panels() - first);
        let (out, _) = lanes(&mut out[..panels * plan.panel_lines()]).as_chunks_mut::<COLUMNS>();
        // SAFETY: `multiply` asserted that the processor has the instructions.
        unsafe { b.pack(first * COLUMNS, plan.block(block), out, plan.block_pairs) };
    };
    let len = STRIP * plan.panel_lines();
    if parallel {
        packed.par_chunks_mut(len).enumerate().for_each(strip);
    } else {
        packed.chunks_mut(len).enumerate().for_each(strip);
    }
}

/// What all tiles share.
#[derive(Clone, Copy)]
struct Task<'a, C> {
    plan: Plan,
    start: Start<'a, C>,
    a: Matrix<'a, bf16>,
    b: &'a [Line],
    out: Output<C>,
}

/// Where the kernel finds its rows of `a`: the first pair of the first row, and bytes from row to row.
#[derive(Clone, Copy)]
struct Rows {
    first: *const u8,
    stride: usize,
    /// Rows that exist; the kernel reads the last one again in place of those that do not.
    n: usize,
}

/// What the kernel does with its sums.
#[derive(Clone, Copy)]
struct Target<C> {
    out: *mut C,
    /// Elements from row to row.
    stride: usize,
    /// Columns that exist.
    columns: usize,
    /// Added at the end: nothing when null, else with `addend_stride` elements from row to row.
    addend: *const C,
    addend_stride: usize,
    /// 8 x 48 sums over the blocks of `k` before this one; not touched when there is one block only.
    partial: *mut f32,
    is_first_block: bool,
    is_last_block: bool,
}

#[allow(unsafe_code)]
impl<C: Element> Task<'_, C> {
    /// # Safety
    /// The processor must have the instructions, sizes must fit, and no tile may be computed by two threads at once.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn tile(&self, index: usize, (packed_a, partial): &mut (Vec<Line>, Vec<Line>)) {
        let plan = self.plan;
        let (row_panels, column_panels) = plan.tile(index);
        let cells = if plan.blocks() > 1 { row_panels.len() * column_panels.len() } else { 0 };
        let partial = sized(partial, cells * ROWS * VECTORS).as_mut_ptr().cast::<f32>();
        for block in 0..plan.blocks() {
            let pairs = plan.block(block);
            let packed = self.pack_rows(row_panels.clone(), pairs.clone(), packed_a);
            for (q, column_panel) in column_panels.clone().enumerate() {
                let b = &self.b[(block * plan.packed_panels() + column_panel) * plan.panel_lines()..];
                for (p, row_panel) in row_panels.clone().enumerate() {
                    let row = row_panel * ROWS;
                    let n = ROWS.min(plan.m - row);
                    let mut target = self.target(row, column_panel * COLUMNS, block);
                    target.partial = partial.wrapping_add((q * row_panels.len() + p) * ROWS * COLUMNS);
                    // SAFETY: `rows` are rows of `a` from this block on, or their packed copies; `b` is a whole panel;
                    // `target` stays within `out`, and within this tile's part of it.
                    unsafe {
                        if plan.in_place {
                            let first = self.a.data.as_ptr().wrapping_add(row * self.a.row_stride + 2 * pairs.start);
                            let rows = Rows { first: first.cast(), stride: 2 * self.a.row_stride, n };
                            kernel::<C, 4>(pairs.len(), rows, b.as_ptr(), target);
                        } else {
                            let first = packed[p * ROWS * pairs.len()..].as_ptr();
                            let rows = Rows { first: first.cast(), stride: 4, n };
                            kernel::<C, { 4 * ROWS }>(pairs.len(), rows, b.as_ptr(), target);
                        }
                    }
                }
            }
        }
    }

    /// Panels of packed rows, one after the other; nothing where rows are read in place.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn pack_rows<'b>(&self, panels: Range<usize>, pairs: Range<usize>, buffer: &'b mut Vec<Line>) -> &'b [u32] {
        if self.plan.in_place {
            return &[];
        }
        let used = panels.len() * ROWS * pairs.len();
        let packed = &mut lanes(sized(buffer, used.div_ceil(16)))[..used];
        let chunks = packed.as_chunks_mut::<ROWS>().0;
        Source::rows(&self.a).pack(panels.start * ROWS, pairs.clone(), chunks, pairs.len().max(1));
        packed
    }

    /// Where the sums of the kernel call at `row` and `column` go.
    fn target(&self, row: usize, column: usize, block: usize) -> Target<C> {
        let n = self.plan.n;
        let out = self.out.0.wrapping_add(row * n + column);
        let (addend, addend_stride) = match self.start {
            Start::Zero => (std::ptr::null(), 0),
            Start::Out => (out.cast_const(), n),
            Start::Bias(bias) => (bias[column..].as_ptr(), 0),
        };
        Target {
            out,
            stride: n,
            columns: COLUMNS.min(n - column),
            addend,
            addend_stride,
            partial: std::ptr::null_mut(),
            is_first_block: block == 0,
            is_last_block: block + 1 == self.plan.blocks(),
        }
    }
}

/// 8 rows x 48 columns. `STEP` is the bytes from one pair of a row to its next.
///
/// # Safety
/// The processor must have the instructions. Valid must be: a pair at `rows.first + i stride + p STEP` for each of
/// `rows.n` rows and `pairs` pairs; `3 pairs` lines of `b`; `target` for `rows.n` rows of `target.columns` elements,
/// and its `partial` where there are several blocks.
#[allow(unsafe_code)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn kernel<C: Element, const STEP: usize>(pairs: usize, rows: Rows, b: *const Line, target: Target<C>) {
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
/// As [`kernel`].
#[allow(unsafe_code)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn narrow_kernel<C: Element, const STEP: usize, const N: usize>(
    pairs: usize,
    rows: Rows,
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
/// As [`load`].
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
