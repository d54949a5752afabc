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

impl TextKind {
    /// The same for people: `"query: " and 512 tokens`.
    pub fn in_words(&self) -> String {
        format!("{:?} and {} tokens", self.prefix, self.max_len)
    }

    /// One line that says how many of `n` texts were cut, if any were; `what` is what they are: "queries", "passages".
    pub fn cut_note(&self, n_cut: u64, n: u64, what: &str) -> Option<String> {
        let share = 100.0 * n_cut as f64 / n.max(1) as f64;
        let share = if share < 0.1 { "less than 0.1 %".to_owned() } else { format!("{share:.1} %") };
        (n_cut > 0).then(|| format!("{n_cut} of {n} {what} ({share}) cut at {} tokens", self.max_len))
    }
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

impl RetrieverSettings {
    /// Queries and passages of the model that a training with these settings saves: sentence-transformers knows one length,
    /// so both are cut at the longer of the two.
    pub fn as_saved(&self) -> [TextKind; 2] {
        let max_len = self.query.max_len.max(self.passage.max_len);
        [&self.query, &self.passage].map(|kind| TextKind { max_len, ..kind.clone() })
    }
}
