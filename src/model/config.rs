//! What an encoder is, as its family reads it from `config.json`: sizes, and what each layer computes.

use super::arch::Family;
use crate::json::Fields;
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::path::Path;

/// A validated `config.json`.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    /// From `model_type`.
    pub family: &'static Family,
    /// Rows of the word table.
    pub vocab_size: usize,
    /// `H`; a multiple of `num_attention_heads`.
    pub hidden_size: usize,
    /// Heads of each layer.
    pub num_attention_heads: usize,
    /// `F`, the width of the feed-forward block.
    pub intermediate_size: usize,
    /// Rows of the position table, those before `position_offset` included.
    pub max_position_embeddings: usize,
    /// Position of a text's first token, below `max_position_embeddings`.
    pub position_offset: usize,
    /// Rows of the token type table; hbt uses row 0.
    pub type_vocab_size: usize,
    /// Of the sum of a token's embeddings.
    pub embedding_norm: Norm,
    /// Transformer layers, first to last.
    pub layers: Vec<LayerConfig>,
    /// Dropout probability of embeddings and of both branches of a layer.
    pub hidden_dropout_prob: f32,
    /// Dropout probability of the attention's softmax.
    pub attention_probs_dropout_prob: f32,
    /// Id of the padding token.
    pub pad_token_id: usize,
    /// Standard deviation of the weights of a model trained from scratch.
    pub initializer_range: f32,
}

/// What a transformer layer computes.
///
/// The enums have what `src/model/layer/mod.rs` has operations for, and no more. It takes them apart without a wildcard: who adds
/// a variant for another family is shown by the compiler where it has to be computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerConfig {
    /// Where the layer's two norms stand.
    pub norm_placement: NormPlacement,
    /// What they compute.
    pub norm: Norm,
    /// How the attention knows where tokens stand.
    pub positions: LayerPositions,
    /// Between the feed-forward block's two linear layers.
    pub activation: Activation,
    /// Tokens that a token attends to.
    pub window: Window,
    /// Which linear layers and norms have one.
    pub biases: Biases,
}

/// Where the norms of a layer's two blocks stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlacement {
    /// Of the sum of a block's input and result (post-norm).
    AfterResidual,
}

/// How vectors are normalised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// To mean 0 and variance 1 (Ba et al., arXiv 1607.06450).
    LayerNorm {
        /// Added to the variance; above 0.
        eps: f32,
    },
}

/// How a layer's attention knows where tokens stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerPositions {
    /// From the position table, whose rows are added before the first layer; the attention itself does nothing.
    Embedded,
}

/// The function between the feed-forward block's two linear layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x Phi(x)`, by erf.
    Gelu,
}

/// Tokens of a text that one of them attends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// All.
    Whole,
}

/// Which linear layers and norms of a layer have a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Biases {
    /// All.
    Everywhere,
}

/// The linear layer after pooling (`2_Dense` of LaBSE): `tanh(x W^T + b)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DenseSpec {
    /// Length of the pooled vector.
    pub in_features: usize,
    /// Length of the embedding.
    pub out_features: usize,
}

impl ModelConfig {
    /// Columns of an attention head.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Reads the text of a `config.json`; `path` is what errors name.
    ///
    /// # Errors
    /// Invalid JSON, a missing or impossible value, or an encoder that hbt does not compute.
    pub fn from_json(path: &Path, text: &str) -> Result<Self> {
        let map: Map<String, Value> =
            serde_json::from_str(text).map_err(|e| Error::file(path, format!("not a JSON object: {e}")))?;
        Self::from_map(path, &map)
    }

    /// As [`ModelConfig::from_json`], from a parsed object.
    ///
    /// # Errors
    /// A missing or impossible value, or an encoder that hbt does not compute.
    pub fn from_map(path: &Path, map: &Map<String, Value>) -> Result<Self> {
        let fields = Fields::new(path, map);
        let config = Family::of(&fields)?.describe(&fields)?;
        let Self { hidden_size, num_attention_heads, pad_token_id, vocab_size, .. } = config;
        if !hidden_size.is_multiple_of(num_attention_heads) {
            return Err(fields.error(format!(
                "hidden_size {hidden_size} is not a multiple of num_attention_heads {num_attention_heads}"
            )));
        }
        if pad_token_id >= vocab_size {
            return Err(fields.error(format!("pad_token_id {pad_token_id} is not below vocab_size {vocab_size}")));
        }
        Ok(config)
    }

    /// Most tokens a text may have, special tokens included.
    pub fn max_seq_len(&self) -> usize {
        self.max_position_embeddings - self.position_offset
    }
}
