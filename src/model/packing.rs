//! From token ids to the device arrays that describe a packed batch.

use super::ModelConfig;
use crate::backend::{Backend, Packed, Segments, Tensor};
use crate::{Error, Result};
use std::ops::Range;

/// Several sequences without padding, on the host.
#[derive(Clone, Copy, Debug)]
pub struct Sequences<'a> {
    /// Token ids of all sequences, one after another.
    pub ids: &'a [i32],
    /// `(n_seqs + 1,)` where each sequence starts in `ids`; the last entry is their length.
    pub cu_seqlens: &'a [i32],
}

impl<'a> Sequences<'a> {
    /// Number of sequences.
    pub fn n_seqs(&self) -> usize {
        self.cu_seqlens.len() - 1
    }

    /// Cuts the sequences, in their order, into chunks of at most `chunk_tokens` tokens; a longer sequence is a chunk
    /// of its own.
    pub fn chunks(self, chunk_tokens: usize) -> impl Iterator<Item = Range<usize>> + use<'a> {
        let mut first = 0;
        std::iter::from_fn(move || {
            let end = |last: usize| self.cu_seqlens[last] as usize;
            let fits = |last: &usize| end(*last) - end(first) <= chunk_tokens || *last == first + 1;
            let last = (first + 1..=self.n_seqs()).take_while(fits).last()?;
            Some(std::mem::replace(&mut first, last)..last)
        })
    }
}

/// Device arrays of the chunk in hand, kept from chunk to chunk so that none is allocated in a step.
pub struct DeviceBatch<B: Backend> {
    /// The chunk.
    pub packed: Packed<B>,
    /// Its tokens by row of the word table's gradient.
    pub word_segments: Segments<B>,
    /// Its tokens by position.
    pub position_segments: Segments<B>,
    /// Its tokens by type: all of type 0.
    pub type_segments: Segments<B>,
    host: HostBatch,
}

/// What is put together on the host before it goes to the device.
#[derive(Default)]
struct HostBatch {
    ids: Vec<i32>,
    positions: Vec<i32>,
    cu_seqlens: Vec<i32>,
    global_rows: Vec<i32>,
    /// Row of a table's gradient that each token adds to.
    token_rows: Vec<i32>,
    order: Vec<i32>,
    starts: Vec<i32>,
    rows: Vec<i32>,
}

/// `to = from`, in the memory that `to` has.
fn refill(to: &mut Vec<i32>, from: impl IntoIterator<Item = i32>) {
    to.clear();
    to.extend(from);
}

impl<B: Backend> DeviceBatch<B> {
    /// Empty.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn new(backend: &B) -> Result<Self> {
        let empty = || Tensor::zeros(backend, &[0]);
        let segments = || Ok::<_, Error>(Segments { order: empty()?, starts: empty()?, rows: empty()? });
        Ok(Self {
            packed: Packed {
                ids: empty()?,
                positions: empty()?,
                cu_seqlens: empty()?,
                global_rows: empty()?,
                max_seqlen: 0,
            },
            word_segments: segments()?,
            position_segments: segments()?,
            type_segments: segments()?,
            host: HostBatch::default(),
        })
    }

    /// Puts the sequences `range` of `sequences` onto the device.
    ///
    /// # Errors
    /// When the device has no memory left, or the model has no such token id or position.
    pub fn load(&mut self, backend: &B, config: &ModelConfig, sequences: Sequences, range: Range<usize>) -> Result<()> {
        let cu = &sequences.cu_seqlens[range.start..=range.end];
        let (first, last) = (cu[0], cu[cu.len() - 1]);
        let ids = &sequences.ids[first as usize..last as usize];
        if let Some(id) = ids.iter().find(|&&id| id < 0 || id as usize >= config.vocab_size) {
            let n = config.vocab_size;
            return Err(Error::other(format!(
                "the tokenizer gave token id {id}, but the model's vocabulary has {n} rows; they do not belong together"
            )));
        }
        let host = &mut self.host;
        refill(&mut host.cu_seqlens, cu.iter().map(|&at| at - first));
        let local = &host.cu_seqlens;
        assert!(local.windows(2).all(|w| w[0] < w[1]), "a sequence has at least its special tokens");
        let max_seqlen = local.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0) as usize;
        if max_seqlen > config.max_seq_len() {
            let most = config.max_seq_len();
            return Err(Error::other(format!(
                "a text has {max_seqlen} tokens, but the model has {most} positions; lower query_max_len and passage_max_len"
            )));
        }
        let offset = config.position_offset() as i32;
        refill(&mut host.positions, local.windows(2).flat_map(|w| offset..offset + w[1] - w[0]));
        refill(&mut host.global_rows, first..last);
        refill(&mut host.ids, ids.iter().copied());
        self.packed.ids.assign(backend, ids)?;
        self.packed.positions.assign(backend, &host.positions)?;
        self.packed.cu_seqlens.assign(backend, local)?;
        self.packed.global_rows.assign(backend, &host.global_rows)?;
        self.packed.max_seqlen = max_seqlen;
        Ok(())
    }

    /// Sorts the chunk's tokens for the embedding tables' gradients. `unique_ids` are the ids of the whole step,
    /// ascending: row `r` of the word table's gradient belongs to `unique_ids[r]`.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn load_segments(&mut self, backend: &B, unique_ids: &[i32]) -> Result<()> {
        let host = &mut self.host;
        let row = |id: &i32| unique_ids.binary_search(id).expect("every id of a chunk is an id of its step") as i32;
        refill(&mut host.token_rows, host.ids.iter().map(row));
        host.assign_segments(backend, &mut self.word_segments)?;
        refill(&mut host.token_rows, host.positions.iter().copied());
        host.assign_segments(backend, &mut self.position_segments)?;
        host.token_rows.fill(0);
        host.assign_segments(backend, &mut self.type_segments)
    }
}

impl HostBatch {
    /// Tokens sorted by row, equal rows in token order.
    fn assign_segments<B: Backend>(&mut self, backend: &B, segments: &mut Segments<B>) -> Result<()> {
        let row = &self.token_rows;
        refill(&mut self.order, 0..row.len() as i32);
        // By token too, so that the sort may be one that needs no memory.
        self.order.sort_unstable_by_key(|&t| (row[t as usize], t));
        self.starts.clear();
        self.rows.clear();
        for (at, &t) in self.order.iter().enumerate() {
            if self.rows.last() != Some(&row[t as usize]) {
                self.starts.push(at as i32);
                self.rows.push(row[t as usize]);
            }
        }
        self.starts.push(self.order.len() as i32);
        segments.order.assign(backend, &self.order)?;
        segments.starts.assign(backend, &self.starts)?;
        segments.rows.assign(backend, &self.rows)
    }
}
