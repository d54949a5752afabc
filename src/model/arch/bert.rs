//! BERT (Devlin et al., arXiv 1810.04805).

use super::{Family, Names};
use crate::Result;
use crate::json::Fields;
use crate::model::{
    Activation, Biases, EmbeddingParams, LayerConfig, LayerParams, LayerPositions, ModelConfig, Norm, NormPlacement,
    Window,
};

pub static BERT: Family = Family { model_type: "bert", class: "BertModel", names: NAMES, describe };

pub const NAMES: Names = Names {
    embeddings: EmbeddingParams {
        word: &["embeddings.word_embeddings.weight"],
        position: &["embeddings.position_embeddings.weight"],
        token_type: &["embeddings.token_type_embeddings.weight"],
        norm_weight: &["embeddings.LayerNorm.weight"],
        norm_bias: &["embeddings.LayerNorm.bias"],
    },
    layer: LayerParams {
        qkv_weight: &[
            "encoder.layer.{}.attention.self.query.weight",
            "encoder.layer.{}.attention.self.key.weight",
            "encoder.layer.{}.attention.self.value.weight",
        ],
        qkv_bias: &[
            "encoder.layer.{}.attention.self.query.bias",
            "encoder.layer.{}.attention.self.key.bias",
            "encoder.layer.{}.attention.self.value.bias",
        ],
        attention_output_weight: &["encoder.layer.{}.attention.output.dense.weight"],
        attention_output_bias: &["encoder.layer.{}.attention.output.dense.bias"],
        attention_norm_weight: &["encoder.layer.{}.attention.output.LayerNorm.weight"],
        attention_norm_bias: &["encoder.layer.{}.attention.output.LayerNorm.bias"],
        intermediate_weight: &["encoder.layer.{}.intermediate.dense.weight"],
        intermediate_bias: &["encoder.layer.{}.intermediate.dense.bias"],
        output_weight: &["encoder.layer.{}.output.dense.weight"],
        output_bias: &["encoder.layer.{}.output.dense.bias"],
        output_norm_weight: &["encoder.layer.{}.output.LayerNorm.weight"],
        output_norm_bias: &["encoder.layer.{}.output.LayerNorm.bias"],
    },
    // Checkpoints converted from TensorFlow; bert-base-multilingual-cased is one.
    older: &[("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")],
    pooler: Some("pooler.dense"),
};

/// Many times what any encoder has, and few enough that a list of all parameters takes no time and the bytes of each fit
/// 64 bits. The other sizes are compared with the weights.
const MOST_LAYERS: usize = 1000;
const MOST_COLUMNS: usize = 1 << 20;

fn describe(family: &'static Family, fields: &Fields) -> Result<ModelConfig> {
    network(family, fields, fields.integer("pad_token_id")?.unwrap_or(0), 0)
}

/// BERT's network, with the first token of a text at `position_offset`.
pub fn network(
    family: &'static Family,
    fields: &Fields,
    pad_token_id: usize,
    position_offset: usize,
) -> Result<ModelConfig> {
    only(fields, "hidden_act", "gelu", "hbt computes the erf form of GELU")?;
    only(fields, "position_embedding_type", "absolute", "hbt computes learned absolute positions")?;
    if fields.boolean("is_decoder")? == Some(true) {
        return Err(fields.error("is_decoder is true, but hbt trains encoders only; choose an encoder model"));
    }
    let norm = norm(fields)?;
    let layer = LayerConfig {
        norm_placement: NormPlacement::AfterResidual,
        norm,
        positions: LayerPositions::Embedded,
        activation: Activation::Gelu,
        window: Window::Whole,
        biases: Biases::Everywhere,
    };
    Ok(ModelConfig {
        family,
        vocab_size: fields.size("vocab_size", None)?,
        hidden_size: fields.size_up_to(MOST_COLUMNS, "hidden_size", None)?,
        num_attention_heads: fields.size("num_attention_heads", None)?,
        intermediate_size: fields.size("intermediate_size", None)?,
        max_position_embeddings: fields.size("max_position_embeddings", None)?,
        position_offset,
        type_vocab_size: fields.size("type_vocab_size", Some(2))?,
        embedding_norm: norm,
        layers: vec![layer; fields.size_up_to(MOST_LAYERS, "num_hidden_layers", None)?],
        hidden_dropout_prob: probability(fields, "hidden_dropout_prob")?,
        attention_probs_dropout_prob: probability(fields, "attention_probs_dropout_prob")?,
        pad_token_id,
        initializer_range: fields.float("initializer_range", 0.02)?,
    })
}

fn only(fields: &Fields, key: &str, supported: &str, reason: &str) -> Result<()> {
    match fields.string(key)? {
        Some(other) if other != supported => {
            Err(fields.error(format!("{key} {other:?} is not supported, only {supported:?}: {reason}")))
        }
        _ => Ok(()),
    }
}

fn norm(fields: &Fields) -> Result<Norm> {
    match fields.float("layer_norm_eps", 1e-12)? {
        eps if eps > 0.0 => Ok(Norm::LayerNorm { eps }),
        eps => Err(fields.error(format!("layer_norm_eps {eps} is not above 0"))),
    }
}

fn probability(fields: &Fields, key: &str) -> Result<f32> {
    let p = fields.float(key, 0.1)?;
    if p < 1.0 { Ok(p) } else { Err(fields.error(format!("{key} is {p}; a dropout probability has to be below 1"))) }
}
