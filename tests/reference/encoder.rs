//! The whole encoder, put together from the other references.

use super::attention::attention;
use super::embedding::{Embedding, embedding};
use super::gelu::bias_gelu;
use super::gemm::linear;
use super::layer_norm::{Residual, residual_layer_norm};
use super::pooling::{bias_tanh, l2_normalize, pool};
use hbt::backend::Pooling;
use hbt::model::{EncoderParams, LayerParams, ModelConfig, Norm};

/// A model with its weights on the host.
#[derive(Clone)]
pub struct Model {
    pub config: ModelConfig,
    pub pooling: Pooling,
    pub params: EncoderParams<Vec<f64>>,
}

/// Dropout factors of a whole batch: of the embedding, and of each layer.
pub struct Masks {
    pub embedding: Vec<f64>,
    pub layers: Vec<LayerMasks>,
}

pub struct LayerMasks {
    /// For each (token, head), one a key.
    pub attention: Vec<Vec<f64>>,
    pub attention_output: Vec<f64>,
    pub output: Vec<f64>,
}

/// `(S, D)` unit embeddings of the sequences of `ids` that start at `cu_seqlens`.
pub fn embed(model: &Model, ids: &[i32], cu_seqlens: &[i32], masks: &Masks) -> Vec<f64> {
    let (config, params) = (&model.config, &model.params);
    // BERT's positions start at 0, the RoBERTa family's behind its padding position.
    let first_position = match config.family.model_type {
        "bert" => 0,
        "xlm-roberta" => config.pad_token_id as i32 + 1,
        other => panic!("no reference for {other}"),
    };
    let positions = cu_seqlens.windows(2).flat_map(|w| (0..w[1] - w[0]).map(|i| first_position + i)).collect();
    let mut x = embedding(&Embedding {
        ids: ids.to_vec(),
        positions,
        word: params.embeddings.word.clone(),
        position: params.embeddings.position.clone(),
        token_type: params.embeddings.token_type.clone(),
        weight: params.embeddings.norm_weight.clone(),
        bias: params.embeddings.norm_bias.clone(),
        eps: eps(config.embedding_norm),
        mask: masks.embedding.clone(),
    })
    .out;
    for ((weights, masks), described) in params.layers.iter().zip(&masks.layers).zip(&config.layers) {
        x = layer(config, eps(described.norm), weights, masks, cu_seqlens, x);
    }
    let pooled = pool(&x, cu_seqlens, config.hidden_size, model.pooling);
    match &params.dense {
        None => l2_normalize(&pooled, config.hidden_size),
        Some(dense) => {
            let d = dense.bias.len();
            l2_normalize(&bias_tanh(&linear(&pooled, &dense.weight, &vec![0.0; d]), &dense.bias), d)
        }
    }
}

fn eps(norm: Norm) -> f64 {
    let Norm::LayerNorm { eps } = norm;
    f64::from(eps)
}

fn layer(
    config: &ModelConfig,
    eps: f64,
    w: &LayerParams<Vec<f64>>,
    masks: &LayerMasks,
    cu_seqlens: &[i32],
    x: Vec<f64>,
) -> Vec<f64> {
    let h = config.hidden_size;
    let qkv = linear(&x, &w.qkv_weight, &w.qkv_bias);
    let context = attention(&qkv, cu_seqlens, config.num_attention_heads, h, &masks.attention).out;
    let middle = residual_layer_norm(&Residual {
        x: linear(&context, &w.attention_output_weight, &vec![0.0; h]),
        branch_bias: w.attention_output_bias.clone(),
        residual: x,
        weight: w.attention_norm_weight.clone(),
        bias: w.attention_norm_bias.clone(),
        eps,
        mask: masks.attention_output.clone(),
    })
    .out;
    let intermediate = linear(&middle, &w.intermediate_weight, &vec![0.0; w.intermediate_bias.len()]);
    let branch = linear(&bias_gelu(&intermediate, &w.intermediate_bias), &w.output_weight, &vec![0.0; h]);
    residual_layer_norm(&Residual {
        x: branch,
        branch_bias: w.output_bias.clone(),
        residual: middle,
        weight: w.output_norm_weight.clone(),
        bias: w.output_norm_bias.clone(),
        eps,
        mask: masks.output.clone(),
    })
    .out
}
