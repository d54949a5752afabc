//! The largest that anything of a step becomes, so that all memory is had before the first one.

use crate::backend::PackedHost;
use crate::data::bounds::BatchBounds;

/// The largest step of a run, item by item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepBounds {
    /// Queries of a batch.
    pub n_queries: usize,
    /// Queries and passages of a batch.
    pub n_seqs: usize,
    /// Different token ids of a batch.
    pub n_ids: usize,
    /// Chunks of a batch.
    pub n_chunks: usize,
    /// Tokens of a chunk.
    pub chunk_tokens: usize,
    /// Sequences of a chunk.
    pub chunk_seqs: usize,
    /// Integers that describe a batch.
    pub block_len: usize,
}

impl StepBounds {
    /// For batches within `batch`, in chunks of at most `chunk_tokens` tokens.
    pub fn new(batch: &BatchBounds, chunk_tokens: usize, vocab_size: usize) -> Self {
        let BatchBounds { n_queries, n_seqs, n_tokens, shortest, longest } = *batch;
        // Two chunks that follow one another have more than `chunk_tokens` tokens together.
        let n_chunks = n_seqs.min(2 * (n_tokens / chunk_tokens) + 1);
        // A longer sequence is a chunk of its own.
        let chunk_tokens = chunk_tokens.max(longest).min(n_tokens);
        StepBounds {
            n_queries,
            n_seqs,
            n_ids: vocab_size.min(n_tokens),
            n_chunks,
            chunk_tokens,
            chunk_seqs: n_seqs.min(chunk_tokens / shortest.max(1)),
            block_len: PackedHost::most_integers(n_tokens, n_seqs, n_chunks, longest),
        }
    }
}
