//! From token ids to packed batches.

use super::{Keep, ModelConfig};
use crate::backend::{HostPairing, PackedHost};
use crate::{Error, Result};
use std::ops::Range;

/// Several sequences without padding, on the host.
#[derive(Clone, Copy, Debug)]
pub struct Sequences<'a> {
    /// Token ids, one sequence after another. There may be others before the first sequence and behind the last.
    pub ids: &'a [i32],
    /// `(n_seqs + 1,)` where each sequence starts in `ids`, and where the last one ends.
    pub cu_seqlens: &'a [i32],
    /// `(n_seqs,)` the number of each sequence's first token in the whole batch, which dropout sees.
    pub first_rows: &'a [i32],
}

impl<'a> Sequences<'a> {
    /// A whole batch, whose tokens are numbered by their places in `ids`.
    pub fn new(ids: &'a [i32], cu_seqlens: &'a [i32]) -> Self {
        Sequences { ids, cu_seqlens, first_rows: &cu_seqlens[..cu_seqlens.len().saturating_sub(1)] }
    }

    /// Number of sequences.
    pub fn n_seqs(&self) -> usize {
        self.cu_seqlens.len() - 1
    }

    /// The token ids of those in `range`.
    fn ids_of(&self, range: &Range<usize>) -> &'a [i32] {
        &self.ids[self.cu_seqlens[range.start] as usize..self.cu_seqlens[range.end] as usize]
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

/// Lays out batches for a model.
pub struct Packer {
    vocab_size: usize,
    max_seq_len: usize,
    first_position: i32,
    chunk_tokens: usize,
    keep: Keep,
    host: PackedHost,
}

impl Packer {
    /// Batches in chunks of at most `chunk_tokens` tokens, for forwards that keep what `keep` says.
    pub fn new(config: &ModelConfig, chunk_tokens: usize, keep: Keep) -> Self {
        Packer {
            vocab_size: config.vocab_size,
            max_seq_len: config.max_seq_len(),
            first_position: config.position_offset as i32,
            chunk_tokens,
            keep,
            host: PackedHost::default(),
        }
    }

    /// Cuts `sequences` into chunks.
    ///
    /// # Errors
    /// When the model has no such token id or position.
    pub fn pack(&mut self, sequences: Sequences) -> Result<&PackedHost> {
        let ids = sequences.ids_of(&(0..sequences.n_seqs()));
        self.pack_of(ids, sequences)
    }

    /// The same of a batch that has the token ids `batch_ids`, of which `sequences` may be a part.
    fn pack_of(&mut self, batch_ids: &[i32], sequences: Sequences) -> Result<&PackedHost> {
        self.check(batch_ids, sequences.cu_seqlens)?;
        self.host.begin((self.keep == Keep::Everything).then_some(batch_ids));
        for chunk in sequences.chunks(self.chunk_tokens) {
            let cu_seqlens = &sequences.cu_seqlens[chunk.start..=chunk.end];
            let (ids, first_rows) = (sequences.ids_of(&chunk), &sequences.first_rows[chunk]);
            self.host.push_chunk(ids, cu_seqlens, first_rows, self.first_position);
        }
        Ok(&self.host)
    }

    /// As [`Packer::pack`], for a step of training.
    ///
    /// # Errors
    /// When the model has no such token id or position.
    pub fn pack_pairs(&mut self, sequences: Sequences, pairing: &HostPairing) -> Result<&PackedHost> {
        self.pack(sequences)?;
        self.host.push_pairing(pairing);
        Ok(&self.host)
    }

    /// As [`Packer::pack_pairs`], of the `sequences` that one of several ranks embeds, if any. The batch has the token ids
    /// `batch_ids` and is described by `pairing`.
    ///
    /// # Errors
    /// When the model has no such token id or position.
    pub fn pack_share(
        &mut self,
        batch_ids: &[i32],
        sequences: Sequences,
        pairing: &HostPairing,
    ) -> Result<&PackedHost> {
        self.pack_of(batch_ids, sequences)?;
        self.host.push_pairing(pairing);
        Ok(&self.host)
    }

    fn check(&self, ids: &[i32], cu_seqlens: &[i32]) -> Result<()> {
        let n = self.vocab_size;
        if let Some(id) = ids.iter().find(|&&id| id < 0 || id as usize >= n) {
            return Err(Error::other(format!(
                "the tokenizer gave token id {id}, but the model's vocabulary has {n} rows; they do not belong together"
            )));
        }
        let (longest, most) = (cu_seqlens.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0), self.max_seq_len);
        if longest as usize > most {
            return Err(Error::other(format!(
                "a text has {longest} tokens, but the model has {most} positions; lower query_max_len and passage_max_len"
            )));
        }
        Ok(())
    }
}
