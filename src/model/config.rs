//! The sizes of an encoder, as Hugging Face's `config.json` names them.

use crate::json::Fields;
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::path::Path;

/// Families that differ in where positions start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// `model_type` bert.
    Bert,
    /// `model_type` xlm-roberta or roberta, which are the same network.
    XlmRoberta,
}

/// A validated `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// From `model_type`.
    pub arch: Arch,
    /// Rows of the word table.
    pub vocab_size: usize,
    /// `H`; a multiple of `num_attention_heads`.
    pub hidden_size: usize,
    /// Transformer layers.
    pub num_hidden_layers: usize,
    /// Heads of each layer.
    pub num_attention_heads: usize,
    /// `F`, the width of the feed-forward block.
    pub intermediate_size: usize,
    /// Rows of the position table, those before [`ModelConfig::position_offset`] included.
    pub max_position_embeddings: usize,
    /// Rows of the token type table; hbt uses row 0.
    pub type_vocab_size: usize,
    /// Added to the variance of every LayerNorm.
    pub layer_norm_eps: f32,
    /// Dropout probability of embeddings and of both branches of a layer.
    pub hidden_dropout_prob: f32,
    /// Dropout probability of the attention's softmax.
    pub attention_probs_dropout_prob: f32,
    /// Id of the padding token.
    pub pad_token_id: usize,
    /// Standard deviation of the weights of a model trained from scratch.
    pub initializer_range: f32,
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
        let arch = arch(&fields)?;
        only(&fields, "hidden_act", "gelu", "hbt computes the erf form of GELU")?;
        only(&fields, "position_embedding_type", "absolute", "hbt computes learned absolute positions")?;
        if fields.boolean("is_decoder")? == Some(true) {
            return Err(fields.error("is_decoder is true, but hbt trains encoders only; choose an encoder model"));
        }
        let config = ModelConfig {
            arch,
            vocab_size: fields.size("vocab_size", None)?,
            hidden_size: fields.size("hidden_size", None)?,
            num_hidden_layers: fields.size("num_hidden_layers", None)?,
            num_attention_heads: fields.size("num_attention_heads", None)?,
            intermediate_size: fields.size("intermediate_size", None)?,
            max_position_embeddings: fields.size("max_position_embeddings", None)?,
            type_vocab_size: fields.size("type_vocab_size", Some(2))?,
            layer_norm_eps: fields.float("layer_norm_eps", 1e-12)?,
            hidden_dropout_prob: probability(&fields, "hidden_dropout_prob")?,
            attention_probs_dropout_prob: probability(&fields, "attention_probs_dropout_prob")?,
            pad_token_id: fields.integer("pad_token_id")?.unwrap_or(match arch {
                Arch::Bert => 0,
                Arch::XlmRoberta => 1,
            }),
            initializer_range: fields.float("initializer_range", 0.02)?,
        };
        config.check(path)?;
        Ok(config)
    }

    /// Reads the file `path`.
    ///
    /// # Errors
    /// As [`ModelConfig::from_json`], and when the file cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
        Self::from_json(path, &text)
    }

    /// Position of the first token: 0 for BERT, `pad_token_id + 1` for the RoBERTa family.
    pub fn position_offset(&self) -> usize {
        match self.arch {
            Arch::Bert => 0,
            Arch::XlmRoberta => self.pad_token_id + 1,
        }
    }

    /// Most tokens a text may have, special tokens included.
    pub fn max_seq_len(&self) -> usize {
        self.max_position_embeddings - self.position_offset()
    }

    fn check(&self, path: &Path) -> Result<()> {
        let fail = |message: String| Err(Error::file(path, message));
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return fail(format!(
                "hidden_size {} is not a multiple of num_attention_heads {}",
                self.hidden_size, self.num_attention_heads
            ));
        }
        if self.pad_token_id >= self.vocab_size {
            return fail(format!("pad_token_id {} is not below vocab_size {}", self.pad_token_id, self.vocab_size));
        }
        if self.max_position_embeddings <= self.position_offset() {
            return fail(format!(
                "max_position_embeddings {} leaves no position for a token: the first one is pad_token_id + 1 = {}",
                self.max_position_embeddings,
                self.position_offset()
            ));
        }
        if self.layer_norm_eps <= 0.0 {
            return fail(format!("layer_norm_eps {} is not above 0", self.layer_norm_eps));
        }
        Ok(())
    }
}

fn arch(fields: &Fields) -> Result<Arch> {
    match fields.string("model_type")? {
        Some("bert") => Ok(Arch::Bert),
        Some("roberta" | "xlm-roberta") => Ok(Arch::XlmRoberta),
        Some(other) => Err(fields.error(format!(
            "model_type {other:?} is not supported; hbt knows \"bert\", \"roberta\" and \"xlm-roberta\""
        ))),
        None => Err(fields.error("has no model_type; it has to be \"bert\", \"roberta\" or \"xlm-roberta\"")),
    }
}

fn only(fields: &Fields, key: &str, supported: &str, reason: &str) -> Result<()> {
    match fields.string(key)? {
        Some(other) if other != supported => {
            Err(fields.error(format!("{key} {other:?} is not supported, only {supported:?}: {reason}")))
        }
        _ => Ok(()),
    }
}

fn probability(fields: &Fields, key: &str) -> Result<f32> {
    let p = fields.float(key, 0.1)?;
    if p < 1.0 { Ok(p) } else { Err(fields.error(format!("{key} is {p}; a dropout probability has to be below 1"))) }
}
