//! Products of large matrices, cut into tiles, with the operands in the order in which a [`Kernel`] reads them.
//!
//! A kernel call computes some rows and columns of the result over one block of `k` in registers. `b` is packed once
//! for all tasks. `a` is read in place if the elements of a lane lie side by side in its rows, because a broadcast
//! gains nothing from packing; otherwise each task packs its own rows. The result is cut into tiles by its shape alone,
//! and each tile is computed by one task in a fixed order: the number of threads changes no bit.

use super::super::element::{Matrix, Start};
use crate::backend::Element;
use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;
use std::cell::Cell;
use std::ops::Range;

/// The number of tiles is a multiple of this, so that they balance over 2, 4 or 8 threads.
const BALANCE: usize = 8;
/// Number of multiplications below which waking other threads costs more than it saves.
const SERIAL: usize = 1 << 21;

thread_local! {
    /// Packed `b`, kept from call to call by the calling thread.
    static PACKED_B: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
    /// A tile's packed rows of `a`, and its sums over the blocks of `k` so far.
    static SCRATCH: Cell<(Vec<Line>, Vec<Line>)> = const { Cell::new((Vec::new(), Vec::new())) };
}

/// Unit of packed memory: 16 lanes, one AVX-512 register.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Line(pub [u32; 16]);

/// The lanes of packed memory.
fn lanes(lines: &mut [Line]) -> &mut [u32] {
    bytemuck::cast_slice_mut(lines)
}

/// Sizes that suit a kernel.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Rows of a kernel call.
    pub rows: usize,
    /// Columns of a kernel call, a multiple of 16.
    pub columns: usize,
    /// Most lanes along `k` in one block: few enough that a panel of `b` stays in the cache while the rows of a tile
    /// pass.
    pub block: usize,
    /// Elements along `k` after which an f32 result is written; later ones are added to it. `b` packed for this many
    /// elements stays in the caches while the tiles pass. For a weight's gradient, a sum over all tokens, all of `b`
    /// would not.
    pub span: usize,
    /// Panels of rows and of columns in a tile whose `a` is read in place: as many as keep the tile's block of `b` in
    /// the second-level cache.
    pub tile: (usize, usize),
    /// `tile` for an `a` that has to be packed: larger, since every tile of a row packs it anew.
    pub packed_tile: (usize, usize),
    /// Panels of `b` that one task packs.
    pub strip: usize,
}

/// Computes a few rows and columns; defines the order of its operands, as 32-bit lanes along `k`.
pub trait Kernel: Copy + Send + Sync {
    /// Element type of the operands.
    type In: Element;
    /// Elements along `k` in a lane.
    const DEPTH: usize;

    /// Sizes that suit this kernel.
    fn shape(self) -> Shape;
    /// Packs panels of [`Shape::columns`] columns of `b`, the first of them beginning at column `first`. Each takes
    /// `panel_len` rows of lanes of `out`, the first `k.len()` of which are written; what lies outside `b` is zero.
    fn pack_columns(self, b: &Matrix<Self::In>, first: usize, k: Range<usize>, out: &mut [u32], panel_len: usize);
    /// [`Kernel::pack_columns`] for panels of [`Shape::rows`] rows of `a`.
    fn pack_rows(self, a: &Matrix<Self::In>, first: usize, k: Range<usize>, out: &mut [u32]);
    /// Computes `len` lanes of `k`.
    ///
    /// # Safety
    /// These must be valid: a lane at `rows.first + i stride + p step` for each of `rows.n` rows and `len` lanes of
    /// `k`; `len` rows of [`Shape::columns`] lanes of `b`; `target` for `rows.n` rows of `target.columns` elements, and
    /// its `partial` if there are several blocks.
    #[allow(unsafe_code)]
    unsafe fn call<C: Element>(self, len: usize, rows: OperandRows, b: *const Line, target: Target<C>);
}

/// The first `lines` of a buffer that grows as needed.
fn sized(buffer: &mut Vec<Line>, lines: usize) -> &mut [Line] {
    if buffer.len() < lines {
        buffer.resize(lines, Line([0; 16]));
    }
    &mut buffer[..lines]
}

/// Sizes of a product's pieces: a function of the kernel, the result's shape and the layout of `a` alone.
#[derive(Clone, Copy)]
struct Blocking {
    shape: Shape,
    m: usize,
    n: usize,
    /// Lanes of `k`, in total and in a block.
    len: usize,
    block: usize,
    /// Whether `a` is read without being packed.
    in_place: bool,
    row_tiles: usize,
    column_tiles: usize,
}

impl Blocking {
    fn new<K: Kernel>(kernel: K, a: &Matrix<K::In>, n: usize) -> Self {
        let (shape, m, len) = (kernel.shape(), a.rows, a.columns.div_ceil(K::DEPTH));
        // The last lane of a row that does not fill the lane would reach into the next row.
        let in_place = a.column_stride == 1 && a.columns.is_multiple_of(K::DEPTH);
        let (tile_rows, tile_columns) = if in_place { shape.tile } else { shape.packed_tile };
        let row_panels = m.div_ceil(shape.rows);
        let column_tiles = n.div_ceil(shape.columns).div_ceil(tile_columns);
        // Each row of tiles reads all of `b`, so there are only as many as balance needs.
        let balance = BALANCE >> column_tiles.trailing_zeros().min(BALANCE.trailing_zeros());
        Blocking {
            shape,
            m,
            n,
            len,
            block: len.div_ceil(len.div_ceil(shape.block).max(1)).max(1),
            in_place,
            row_tiles: row_panels.div_ceil(tile_rows).next_multiple_of(balance).min(row_panels),
            column_tiles,
        }
    }

    fn blocks(&self) -> usize {
        self.len.div_ceil(self.block).max(1)
    }

    fn block(&self, index: usize) -> Range<usize> {
        let first = index * self.block;
        first..(first + self.block).min(self.len)
    }

    fn column_panels(&self) -> usize {
        self.n.div_ceil(self.shape.columns)
    }

    /// Lines of one panel of packed `b` in one block.
    fn panel_lines(&self) -> usize {
        self.block * self.shape.columns / 16
    }

    /// Panels of packed `b` in one block, including those that only fill the last strip.
    fn packed_panels(&self) -> usize {
        self.column_panels().next_multiple_of(self.shape.strip)
    }

    /// Row panels and column panels of a tile. Consecutive tiles share their columns of `b`.
    fn tile(&self, index: usize) -> (Range<usize>, Range<usize>) {
        let share = |panels: usize, parts: usize, i: usize| panels * i / parts..panels * (i + 1) / parts;
        (
            share(self.m.div_ceil(self.shape.rows), self.row_tiles, index % self.row_tiles),
            share(self.column_panels(), self.column_tiles, index / self.row_tiles),
        )
    }
}

/// The result; every tile writes its own part of it.
#[derive(Clone, Copy)]
struct Output<C>(*mut C);

#[allow(unsafe_code)]
// SAFETY: tiles are disjoint, so no element is touched by two threads.
unsafe impl<C: Send> Send for Output<C> {}
#[allow(unsafe_code)]
// SAFETY: as above.
unsafe impl<C: Send> Sync for Output<C> {}

/// `out = start + a b`, summed in f32 and rounded once. Panics on sizes that do not fit.
pub fn multiply<K: Kernel, C: Element>(kernel: K, out: &mut [C], start: Start<C>, a: Matrix<K::In>, b: Matrix<K::In>) {
    super::check(out, start, &a, &b);
    if out.is_empty() {
        return;
    }
    let (k, span) = (a.columns, if C::IS_F32 { kernel.shape().span } else { usize::MAX });
    let mut first = 0usize;
    loop {
        let part = first..k.min(first.saturating_add(span));
        let start = if first == 0 { start } else { Start::Out };
        let a = Matrix { data: &a.data[part.start * a.column_stride..], columns: part.len(), ..a };
        let b = Matrix { data: &b.data[part.start * b.row_stride..], rows: part.len(), ..b };
        multiply_part(kernel, out, start, a, b);
        first = part.end;
        if first == k {
            break;
        }
    }
}

/// [`multiply`] over all of `k` at once.
#[allow(unsafe_code)]
fn multiply_part<K: Kernel, C: Element>(kernel: K, out: &mut [C], start: Start<C>, a: Matrix<K::In>, b: Matrix<K::In>) {
    let blocking = Blocking::new(kernel, &a, b.columns);
    let parallel = blocking.m * blocking.n * a.columns > SERIAL;
    let mut buffer = PACKED_B.take();
    let packed = sized(&mut buffer, blocking.blocks() * blocking.packed_panels() * blocking.panel_lines());
    pack_b(kernel, blocking, &b, packed, parallel);
    let task = Task { kernel, blocking, start, a, b: packed, out: Output(out.as_mut_ptr()) };
    let tile = |index| {
        let mut scratch = SCRATCH.take();
        // SAFETY: the sizes were asserted, and every tile is computed once.
        unsafe { task.tile(index, &mut scratch) };
        SCRATCH.set(scratch);
    };
    let tiles = 0..blocking.row_tiles * blocking.column_tiles;
    if parallel {
        tiles.into_par_iter().with_max_len(1).for_each(tile);
    } else {
        tiles.for_each(tile);
    }
    PACKED_B.set(buffer);
}

/// Packs all of `b`, ordered by block of `k`, then by panel of columns, then by lane of `k`.
fn pack_b<K: Kernel>(kernel: K, blocking: Blocking, b: &Matrix<K::In>, packed: &mut [Line], parallel: bool) {
    let strips = blocking.packed_panels() / blocking.shape.strip;
    let strip = |(index, out): (usize, &mut [Line])| {
        let (block, first) = (index / strips, index % strips * blocking.shape.strip);
        let panels = blocking.shape.strip.min(blocking.column_panels() - first);
        let out = lanes(&mut out[..panels * blocking.panel_lines()]);
        kernel.pack_columns(b, first * blocking.shape.columns, blocking.block(block), out, blocking.block);
    };
    let len = blocking.shape.strip * blocking.panel_lines();
    if parallel {
        packed.par_chunks_mut(len).enumerate().for_each(strip);
    } else {
        packed.chunks_mut(len).enumerate().for_each(strip);
    }
}

/// Data that all tiles share.
#[derive(Clone, Copy)]
struct Task<'a, K: Kernel, C> {
    kernel: K,
    blocking: Blocking,
    start: Start<'a, C>,
    a: Matrix<'a, K::In>,
    b: &'a [Line],
    out: Output<C>,
}

/// The rows of `a` that a kernel call reads.
#[derive(Clone, Copy)]
pub struct OperandRows {
    /// First lane of the first row.
    pub first: *const u8,
    /// Bytes from row to row.
    pub stride: usize,
    /// Bytes from a lane of a row to the next: 4 where rows are read in place, 4 times the rows of a panel where they
    /// are packed.
    pub step: usize,
    /// Number of rows; the kernel reads the last one again in place of missing ones.
    pub n: usize,
}

/// Target of the sums of a kernel call.
#[derive(Clone, Copy)]
pub struct Target<C> {
    /// Address of the first result.
    pub out: *mut C,
    /// Elements from row to row.
    pub stride: usize,
    /// Number of columns.
    pub columns: usize,
    /// Addend at the end: none if null, else with `addend_stride` elements from row to row.
    pub addend: *const C,
    /// Elements from row to row of `addend`.
    pub addend_stride: usize,
    /// Sums of the call over the earlier blocks of `k`; not accessed if there is only one block.
    pub partial: *mut f32,
    /// This is the first block: there are no sums yet.
    pub is_first_block: bool,
    /// This is the last block: the sums are the result.
    pub is_last_block: bool,
}

#[allow(unsafe_code)]
impl<K: Kernel, C: Element> Task<'_, K, C> {
    /// # Safety
    /// Sizes must fit, and no two threads may compute the same tile at once.
    unsafe fn tile(&self, index: usize, (packed_a, partial): &mut (Vec<Line>, Vec<Line>)) {
        let (blocking, Shape { rows, columns, .. }) = (self.blocking, self.blocking.shape);
        let (row_panels, column_panels) = blocking.tile(index);
        let cells = if blocking.blocks() > 1 { row_panels.len() * column_panels.len() } else { 0 };
        let partial = sized(partial, cells * rows * columns / 16).as_mut_ptr().cast::<f32>();
        for block in 0..blocking.blocks() {
            let k = blocking.block(block);
            let packed = self.pack_rows(row_panels.clone(), k.clone(), packed_a);
            for (q, column_panel) in column_panels.clone().enumerate() {
                let b = &self.b[(block * blocking.packed_panels() + column_panel) * blocking.panel_lines()..];
                for (p, row_panel) in row_panels.clone().enumerate() {
                    let row = row_panel * rows;
                    let n = rows.min(blocking.m - row);
                    let mut target = self.target(row, column_panel * columns, block);
                    target.partial = partial.wrapping_add((q * row_panels.len() + p) * rows * columns);
                    let rows = if blocking.in_place {
                        let first = self.a.data.as_ptr().wrapping_add(row * self.a.row_stride + K::DEPTH * k.start);
                        OperandRows { first: first.cast(), stride: size_of::<K::In>() * self.a.row_stride, step: 4, n }
                    } else {
                        OperandRows {
                            first: packed[p * rows * k.len()..].as_ptr().cast(),
                            stride: 4,
                            step: 4 * rows,
                            n,
                        }
                    };
                    // SAFETY: `rows` are rows of `a` from this block on, or their packed copies; `b` is a whole panel;
                    // `target` stays within `out`, and within this tile's part of it.
                    unsafe { self.kernel.call(k.len(), rows, b.as_ptr(), target) };
                }
            }
        }
    }

    /// Panels of packed rows, one after the other; empty where rows are read in place.
    fn pack_rows<'b>(&self, panels: Range<usize>, k: Range<usize>, buffer: &'b mut Vec<Line>) -> &'b [u32] {
        if self.blocking.in_place {
            return &[];
        }
        let rows = self.blocking.shape.rows;
        let used = panels.len() * rows * k.len();
        let packed = &mut lanes(sized(buffer, used.div_ceil(16)))[..used];
        self.kernel.pack_rows(&self.a, panels.start * rows, k, packed);
        packed
    }

    /// Target of the sums of the kernel call at `row` and `column`.
    fn target(&self, row: usize, column: usize, block: usize) -> Target<C> {
        let n = self.blocking.n;
        let out = self.out.0.wrapping_add(row * n + column);
        let (addend, addend_stride) = match self.start {
            Start::Zero => (std::ptr::null(), 0),
            Start::Out => (out.cast_const(), n),
            Start::Bias(bias) => (bias[column..].as_ptr(), 0),
        };
        Target {
            out,
            stride: n,
            columns: self.blocking.shape.columns.min(n - column),
            addend,
            addend_stride,
            partial: std::ptr::null_mut(),
            is_first_block: block == 0,
            is_last_block: block + 1 == self.blocking.blocks(),
        }
    }
}
