//! Settings of how a model reads and embeds texts.

use crate::backend::Pooling;

/// How texts of one role become tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextKind {
    /// Text put before every text.
    pub prefix: String,
    /// Length at which texts are cut, in tokens, prefix and special tokens included.
    pub max_len: usize,
}

/// All settings of a [`Retriever`](super::Retriever), besides its model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetrieverSettings {
    /// How token vectors become one embedding.
    pub pooling: Pooling,
    /// Prefix and maximum length of queries.
    pub query: TextKind,
    /// Prefix and maximum length of passages.
    pub passage: TextKind,
    /// Tokens embedded at once.
    pub chunk_tokens: usize,
    /// Number of leading dimensions that embeddings are cut to, if any; at most the model's.
    pub truncate_dim: Option<usize>,
    /// Seed of random weights that replace the stored ones.
    pub from_scratch: Option<u64>,
}
