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

impl Sequences<'_> {
    /// Number of sequences.
    pub fn n_seqs(&self) -> usize {
        self.cu_seqlens.len() - 1
    }

    /// Cuts the sequences, in their order, into chunks of at most `chunk_tokens` tokens; a longer sequence is a chunk
    /// of its own.
    pub fn chunks(&self, chunk_tokens: usize) -> Vec<Range<usize>> {
        let mut chunks = Vec::new();
        let mut first = 0;
        for s in 0..self.n_seqs() {
            if s > first && (self.cu_seqlens[s + 1] - self.cu_seqlens[first]) as usize > chunk_tokens {
                chunks.push(first..s);
                first = s;
            }
        }
        if first < self.n_seqs() {
            chunks.push(first..self.n_seqs());
        }
        chunks
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
        let local: Vec<i32> = cu.iter().map(|&at| at - first).collect();
        assert!(local.windows(2).all(|w| w[0] < w[1]), "a sequence has at least its special tokens");
        let max_seqlen = local.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0) as usize;
        if max_seqlen > config.max_seq_len() {
            let most = config.max_seq_len();
            return Err(Error::other(format!(
                "a text has {max_seqlen} tokens, but the model has {most} positions; lower query_max_len and passage_max_len"
            )));
        }
        let offset = config.position_offset() as i32;
        let positions: Vec<i32> = local.windows(2).flat_map(|w| (0..w[1] - w[0]).map(|i| i + offset)).collect();
        self.packed.ids.assign(backend, ids)?;
        self.packed.positions.assign(backend, &positions)?;
        self.packed.cu_seqlens.assign(backend, &local)?;
        self.packed.global_rows.assign(backend, &(first..last).collect::<Vec<_>>())?;
        self.packed.max_seqlen = max_seqlen;
        Ok(())
    }

    /// Sorts the chunk's tokens for the embedding tables' gradients. `unique_ids` are the ids of the whole step,
    /// ascending: row `r` of the word table's gradient belongs to `unique_ids[r]`.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn load_segments(&mut self, backend: &B, unique_ids: &[i32]) -> Result<()> {
        let ids = self.packed.ids.to_vec(backend)?;
        let rows = |id: i32| unique_ids.binary_search(&id).expect("every id of a chunk is an id of its step") as i32;
        assign_segments(backend, &mut self.word_segments, &ids.into_iter().map(rows).collect::<Vec<_>>())?;
        let positions = self.packed.positions.to_vec(backend)?;
        assign_segments(backend, &mut self.position_segments, &positions)?;
        assign_segments(backend, &mut self.type_segments, &vec![0; positions.len()])
    }
}

/// Tokens sorted by `row`, equal rows in token order.
fn assign_segments<B: Backend>(backend: &B, segments: &mut Segments<B>, row: &[i32]) -> Result<()> {
    let mut order: Vec<i32> = (0..row.len() as i32).collect();
    order.sort_by_key(|&t| row[t as usize]);
    let (mut starts, mut rows) = (Vec::new(), Vec::new());
    for (at, &t) in order.iter().enumerate() {
        if rows.last() != Some(&row[t as usize]) {
            starts.push(at as i32);
            rows.push(row[t as usize]);
        }
    }
    starts.push(order.len() as i32);
    segments.order.assign(backend, &order)?;
    segments.starts.assign(backend, &starts)?;
    segments.rows.assign(backend, &rows)
}
