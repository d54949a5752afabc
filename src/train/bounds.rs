//! Upper bounds of the sizes in a step, so that all memory is allocated before the first one.

use super::share::Deal;
use crate::backend::{PackedHost, WORD_BITS};
use crate::data::bounds::BatchBounds;
use crate::loss::LossConfig;

/// Bounds of the steps of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepBounds {
    /// Number of queries of a batch.
    pub n_queries: usize,
    /// Number of queries and passages of a batch.
    pub n_seqs: usize,
    /// Number of those that one rank embeds.
    pub n_own_seqs: usize,
    /// Number of different token ids of a batch.
    pub n_ids: usize,
    /// Number of chunks of what one rank embeds of a batch.
    pub n_chunks: usize,
    /// Number of tokens of a chunk.
    pub chunk_tokens: usize,
    /// Number of sequences of a chunk.
    pub chunk_seqs: usize,
    /// Number of integers that describe a batch.
    pub block_len: usize,
}

impl StepBounds {
    /// Bounds for batches within `batch`, in chunks of at most `chunk_tokens` tokens, all in one rank.
    pub fn new(batch: &BatchBounds, chunk_tokens: usize, vocab_size: usize) -> Self {
        Self::of_share(Deal::ALONE, batch, chunk_tokens, vocab_size)
    }

    /// The same for a rank that embeds its share of each batch.
    pub fn of_share(deal: Deal, batch: &BatchBounds, chunk_tokens: usize, vocab_size: usize) -> Self {
        let BatchBounds { n_queries, n_seqs, n_tokens, shortest, longest, shares_texts } = *batch;
        let own = deal.bounds(batch);
        let of_bits = if shares_texts { n_queries * (n_seqs - n_queries).div_ceil(WORD_BITS) } else { 0 };
        // Two consecutive chunks have more than `chunk_tokens` tokens together.
        let n_chunks = own.n_seqs.min(2 * (own.n_tokens / chunk_tokens) + 1);
        // A longer sequence is a chunk of its own.
        let chunk_tokens = chunk_tokens.max(longest).min(own.n_tokens);
        StepBounds {
            n_queries,
            n_seqs,
            n_own_seqs: own.n_seqs,
            n_ids: vocab_size.min(n_tokens),
            n_chunks,
            chunk_tokens,
            chunk_seqs: own.n_seqs.min(chunk_tokens / shortest.max(1)),
            // What describes the batch is of all of it.
            block_len: PackedHost::most_integers(n_tokens, n_seqs, n_chunks, longest) + of_bits,
        }
    }

    /// These bounds with room for what the loss needs to know of a batch besides.
    pub fn for_loss(self, loss: &LossConfig) -> Self {
        let StepBounds { n_queries, n_seqs, block_len, .. } = self;
        let of_teacher = PackedHost::most_of_teacher(n_queries, n_seqs - n_queries);
        StepBounds { block_len: block_len + if loss.distillation.is_some() { of_teacher } else { 0 }, ..self }
    }
}
