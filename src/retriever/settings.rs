//! How a model reads and embeds texts.

use crate::backend::Pooling;

/// How texts of one role are turned into tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextKind {
    /// Put before every text.
    pub prefix: String,
    /// Length at which texts are cut, in tokens, prefix and special tokens included.
    pub max_len: usize,
}

/// All that decides what a [`Retriever`](super::Retriever) makes of a text, besides its model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetrieverSettings {
    /// How token vectors become one embedding.
    pub pooling: Pooling,
    /// How queries are read.
    pub query: TextKind,
    /// How passages are read.
    pub passage: TextKind,
    /// Tokens embedded at once.
    pub chunk_tokens: usize,
    /// Leading dimensions that embeddings are cut to, if they are; no more than the model has.
    pub truncate_dim: Option<usize>,
    /// The seed of random weights in place of the stored ones.
    pub from_scratch: Option<u64>,
}
