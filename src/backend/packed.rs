//! Packed batches: sequences end to end without padding, in chunks, and the index lists that operations need.
//!
//! All integers of a batch are one block, laid out on the host by a [`PackedHost`], so that one copy brings them to the
//! device. Each list in it begins at a multiple of 16 bytes. A [`Packed`] is one chunk of it, as operations see it.

mod layout;
mod pairing;

pub use layout::{ATTENTION_ROWS, PackedHost, attention_work};
pub use pairing::{HostPairing, Pairing};

use super::{Device, TeacherScores, Tensor};
use crate::Result;
use layout::{Chunk, PackedLayout, SegmentSpans, Span};
use std::ops::Range;

/// A range of the elements of an integer tensor.
pub struct Ints<'a, B: Device> {
    tensor: &'a Tensor<B, i32>,
    start: usize,
    len: usize,
}

// Derived, these would ask for a `B` that can be copied.
impl<B: Device> Clone for Ints<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Device> Copy for Ints<'_, B> {}

impl<'a, B: Device> Ints<'a, B> {
    /// The elements `part` of `tensor`.
    ///
    /// # Panics
    /// If `tensor` has fewer elements.
    pub fn new(tensor: &'a Tensor<B, i32>, part: Range<usize>) -> Self {
        assert!(part.start <= part.end && part.end <= tensor.len(), "ints: {part:?} of {}", tensor.len());
        Ints { tensor, start: part.start, len: part.len() }
    }

    /// All elements of `tensor`.
    pub fn all(tensor: &'a Tensor<B, i32>) -> Self {
        Self::new(tensor, 0..tensor.len())
    }

    /// The elements `part` of these.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn part(self, part: Range<usize>) -> Self {
        assert!(part.start <= part.end && part.end <= self.len, "ints: {part:?} of {}", self.len);
        Ints { tensor: self.tensor, start: self.start + part.start, len: part.len() }
    }

    /// The buffer that holds the elements.
    pub fn buffer(self) -> &'a B::Buffer<i32> {
        self.tensor.buffer()
    }

    /// Index of the first element in the buffer.
    pub fn start(self) -> usize {
        self.start
    }

    /// Number of elements.
    pub fn len(self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Copies the elements to the host.
    ///
    /// # Errors
    /// If the copy fails.
    pub fn to_vec(self, backend: &B) -> Result<Vec<i32>> {
        self.tensor.part_to_vec(backend, self.start..self.start + self.len)
    }
}

impl Span {
    fn of<B: Device>(self, block: &Tensor<B, i32>) -> Ints<'_, B> {
        Ints { tensor: block, start: self.start, len: self.len }
    }
}

/// A batch on a device.
pub struct PackedBatch<B: Device> {
    block: Tensor<B, i32>,
    layout: PackedLayout,
}

impl<B: Device> PackedBatch<B> {
    /// A batch without chunks.
    ///
    /// # Errors
    /// If the device has no memory left.
    pub fn new(backend: &B) -> Result<Self> {
        Ok(PackedBatch { block: Tensor::zeros(backend, &[0])?, layout: PackedLayout::default() })
    }

    /// Copies the contents of `host` to the device.
    ///
    /// # Errors
    /// If the device has no memory left or the copy fails.
    pub fn upload(&mut self, backend: &B, host: &PackedHost) -> Result<()> {
        self.layout.clone_from(&host.layout);
        self.block.assign(backend, host.block())
    }

    /// Reserves memory for `len` integers.
    ///
    /// # Errors
    /// If the device has no memory left.
    pub fn reserve(&mut self, backend: &B, len: usize) -> Result<()> {
        self.block.resize_rows(backend, len)
    }

    /// The host's half of [`PackedBatch::upload`]: writes the integers that [`PackedBatch::feed`] will bring to the
    /// device into `block`.
    ///
    /// # Panics
    /// If `block` is too short.
    pub fn lay_out(&mut self, host: &PackedHost, block: &mut [i32]) {
        self.layout.clone_from(&host.layout);
        block[..host.block().len()].copy_from_slice(host.block());
    }

    /// Starts the copy of `block`, which [`PackedBatch::lay_out`] has filled, to the device; see [`Device::feed`].
    ///
    /// # Errors
    /// If the device has no memory left or the copy fails.
    pub fn feed(&mut self, backend: &B, block: &B::HostBlock) -> Result<B::Arrival> {
        self.block.resize_rows(backend, self.layout.len)?;
        backend.feed(block, self.layout.len, self.block.buffer_mut())
    }

    /// Number of chunks.
    pub fn n_chunks(&self) -> usize {
        self.layout.chunks.len()
    }

    /// Number of sequences in all chunks.
    pub fn n_seqs(&self) -> usize {
        self.layout.chunks.last().map_or(0, |chunk| chunk.first_seq + chunk.cu_seqlens.len - 1)
    }

    /// The chunk `index`.
    ///
    /// # Panics
    /// If there is no such chunk.
    pub fn chunk(&self, index: usize) -> Packed<'_, B> {
        let chunk = &self.layout.chunks[index];
        let Span { start, len } = chunk.work_lens;
        Packed {
            block: &self.block,
            chunk,
            first_seq: chunk.first_seq,
            max_seqlen: chunk.max_seqlen,
            work_lens: &self.layout.work_lens[start..start + len],
        }
    }

    /// Token ids that occur in the batch, ascending; empty if nothing is propagated back. Row `r` of the gradient of
    /// the word embeddings belongs to the `r`-th of them.
    pub fn unique_ids(&self) -> Ints<'_, B> {
        self.layout.unique_ids.of(&self.block)
    }

    /// Which sequences belong together, those of the batch or, where several ranks have a share of it, of all.
    ///
    /// # Panics
    /// If the batch was laid out without this.
    pub fn pairing(&self) -> Pairing<'_, B> {
        let [places, labels, rejected, left_out, own, scores] = self.layout.pairing.map(|part| part.of(&self.block));
        assert!(!labels.is_empty() || self.n_seqs() == 0, "packed: a batch without a pairing has no loss");
        let left_out = Some(left_out).filter(|left_out| !left_out.is_empty());
        let teacher = (!scores.is_empty()).then_some(TeacherScores { own, scores });
        Pairing { n_queries: rejected.len() / 2, places, labels, rejected, left_out, teacher }
    }
}

/// A chunk of a packed batch: `S` sequences with `T` tokens in all.
pub struct Packed<'a, B: Device> {
    block: &'a Tensor<B, i32>,
    chunk: &'a Chunk,
    /// Place of the chunk's first sequence in the batch.
    pub first_seq: usize,
    /// Tokens of the longest sequence.
    pub max_seqlen: usize,
    /// `(W,)` for each entry of [`Packed::work`] the length of its sequence; on the host.
    pub work_lens: &'a [i32],
}

impl<B: Device> Clone for Packed<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Device> Copy for Packed<'_, B> {}

impl<'a, B: Device> Packed<'a, B> {
    /// Number of sequences, `S`.
    pub fn n_seqs(self) -> usize {
        self.chunk.cu_seqlens.len - 1
    }

    /// Number of tokens, `T`.
    pub fn n_tokens(self) -> usize {
        self.chunk.ids.len
    }

    /// `(T,)` token ids.
    pub fn ids(self) -> Ints<'a, B> {
        self.chunk.ids.of(self.block)
    }

    /// `(T,)` position ids.
    pub fn positions(self) -> Ints<'a, B> {
        self.chunk.positions.of(self.block)
    }

    /// `(S + 1,)` where each sequence starts; the last entry is `T`.
    pub fn cu_seqlens(self) -> Ints<'a, B> {
        self.chunk.cu_seqlens.of(self.block)
    }

    /// `(T,)` number of each token in the whole batch, whatever the chunk and the rank: dropout masks are functions of it.
    pub fn global_rows(self) -> Ints<'a, B> {
        self.chunk.global_rows.of(self.block)
    }

    /// `(W, 2)` pieces of the attention's work; see [`attention_work`].
    pub fn work(self) -> Ints<'a, B> {
        self.chunk.work.of(self.block)
    }

    /// The tokens by row of the gradient of the word embeddings.
    pub fn word_segments(self) -> Segments<'a, B> {
        self.segments(0)
    }

    /// The tokens by position.
    pub fn position_segments(self) -> Segments<'a, B> {
        self.segments(1)
    }

    /// The tokens by type: all of type 0.
    pub fn type_segments(self) -> Segments<'a, B> {
        self.segments(2)
    }

    fn segments(self, table: usize) -> Segments<'a, B> {
        let SegmentSpans { order, starts, rows } = self.chunk.segments[table];
        assert!(starts.len > 0, "packed: a batch without segments cannot be propagated back");
        Segments::new(order.of(self.block), starts.of(self.block), rows.of(self.block))
    }
}

/// Tokens sorted by the row of a table they read, as one list of `n` segments.
pub struct Segments<'a, B: Device> {
    order: Ints<'a, B>,
    starts: Ints<'a, B>,
    rows: Ints<'a, B>,
}

impl<B: Device> Clone for Segments<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Device> Copy for Segments<'_, B> {}

impl<'a, B: Device> Segments<'a, B> {
    /// Segments of lists as [`Segments::order`], [`Segments::starts`] and [`Segments::rows`] describe them.
    ///
    /// # Panics
    /// Unless there is one start more than rows.
    pub fn new(order: Ints<'a, B>, starts: Ints<'a, B>, rows: Ints<'a, B>) -> Self {
        assert_eq!(starts.len(), rows.len() + 1, "segments: starts and rows");
        Segments { order, starts, rows }
    }

    /// `(T,)` token indices, those of one segment together.
    pub fn order(self) -> Ints<'a, B> {
        self.order
    }

    /// `(n + 1,)` where each segment starts in `order`; the last entry is `T`.
    pub fn starts(self) -> Ints<'a, B> {
        self.starts
    }

    /// `(n,)` the row of the gradient that each segment adds to, ascending; no row occurs twice.
    pub fn rows(self) -> Ints<'a, B> {
        self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::layout::ALIGNMENT;
    use super::*;
    use crate::backend::Cpu;

    /// Every list of two chunks, by hand. The second is from the middle of a batch: its rows go on where the first's
    /// end.
    #[test]
    fn a_batch_is_laid_out_chunk_by_chunk() {
        let backend = Cpu::<f32>::new();
        let mut host = PackedHost::default();
        let ids = [9, 4, 9, 5, 5, 9];
        host.begin(Some(&ids));
        host.push_chunk(&ids[..4], &[0, 3, 4], &[0, 3], 2);
        host.push_chunk(&ids[4..], &[4, 6], &[4], 2);
        let mut batch = PackedBatch::new(&backend).unwrap();
        batch.upload(&backend, &host).unwrap();
        assert_eq!(batch.unique_ids().as_slice(), [4, 5, 9]);
        assert_eq!((batch.n_chunks(), batch.n_seqs()), (2, 3));

        let first = batch.chunk(0);
        assert_eq!((first.first_seq, first.n_seqs(), first.n_tokens(), first.max_seqlen), (0, 2, 4, 3));
        assert_eq!(first.ids().as_slice(), [9, 4, 9, 5]);
        assert_eq!(first.positions().as_slice(), [2, 3, 4, 2]);
        assert_eq!(first.cu_seqlens().as_slice(), [0, 3, 4]);
        assert_eq!(first.global_rows().as_slice(), [0, 1, 2, 3]);
        assert_eq!((first.work().as_slice(), first.work_lens), (&[0, 0, 1, 0][..], &[3, 1][..]));
        let lists = |s: Segments<Cpu<f32>>| [s.order(), s.starts(), s.rows()].map(|part| part.as_slice().to_vec());
        assert_eq!(lists(first.word_segments()), [vec![1, 3, 0, 2], vec![0, 1, 2, 4], vec![0, 1, 2]]);
        assert_eq!(lists(first.position_segments()), [vec![0, 3, 1, 2], vec![0, 2, 3, 4], vec![2, 3, 4]]);
        assert_eq!(lists(first.type_segments()), [vec![0, 1, 2, 3], vec![0, 4], vec![0]]);

        let second = batch.chunk(1);
        assert_eq!((second.first_seq, second.n_seqs(), second.n_tokens(), second.max_seqlen), (2, 1, 2, 2));
        assert_eq!(second.cu_seqlens().as_slice(), [0, 2]);
        assert_eq!(second.global_rows().as_slice(), [4, 5]);
        assert_eq!((second.work().as_slice(), second.work_lens), (&[0, 0][..], &[2][..]));
        // No token has id 4.
        assert_eq!(lists(second.word_segments()), [vec![0, 1], vec![0, 1, 2], vec![1, 2]]);
        for chunk in [first, second] {
            let parts = [chunk.ids(), chunk.positions(), chunk.cu_seqlens(), chunk.global_rows(), chunk.work()];
            let words = chunk.word_segments();
            let parts = parts.into_iter().chain([words.order(), words.starts(), words.rows()]);
            assert!(parts.into_iter().all(|part| part.start().is_multiple_of(ALIGNMENT)));
        }
    }

    #[test]
    #[should_panic(expected = "cannot be propagated back")]
    fn a_batch_without_segments_has_none() {
        let mut host = PackedHost::default();
        host.begin(None);
        host.push_chunk(&[1], &[0, 1], &[0], 0);
        let mut batch = PackedBatch::new(&Cpu::<f32>::new()).unwrap();
        batch.upload(&Cpu::new(), &host).unwrap();
        batch.chunk(0).word_segments();
    }
}
