//! Models with random weights: the shapes that end-to-end benchmarks run.

use super::inputs::{FEED_FORWARD, HEADS, HIDDEN, LARGE_VOCABULARY, SMALL_VOCABULARY};
use crate::Result;
use crate::backend::{Backend, Element, Pooling, Tensor};
use crate::model::{Encoder, EncoderParams, ModelConfig, ParamSpec, random_init, specs};
use serde_json::json;
use std::path::Path;

const SEED: u64 = 1;

/// Sizes of a transformer.
#[derive(Clone, Copy)]
pub struct ModelShape {
    pub name: &'static str,
    /// The family's `model_type`.
    family: &'static str,
    positions: usize,
    token_types: usize,
    layer_norm_eps: f64,
    layers: usize,
    hidden: usize,
    heads: usize,
    feed_forward: usize,
    pub vocabulary: usize,
    /// A rate at which one step on a batch lowers its loss: the more layers, the smaller. At MiniLM's rate, XLM-R-large
    /// makes all texts the same.
    pub learning_rate: f32,
}

/// sentence-transformers' all-MiniLM-L6.
pub const MINILM_L6: ModelShape = ModelShape {
    name: "minilm-l6",
    family: "bert",
    positions: 512,
    token_types: 2,
    layer_norm_eps: 1e-12,
    layers: 6,
    hidden: HIDDEN,
    heads: HEADS,
    feed_forward: FEED_FORWARD,
    vocabulary: SMALL_VOCABULARY,
    learning_rate: 5e-4,
};
/// intfloat's multilingual-e5-small.
pub const MULTILINGUAL_E5_SMALL: ModelShape =
    ModelShape { name: "multilingual-e5-small", layers: 12, vocabulary: LARGE_VOCABULARY, ..MINILM_L6 };
/// XLM-RoBERTa base (Conneau et al., arXiv 1911.02116), 278 million parameters.
pub const XLM_R_BASE: ModelShape = ModelShape {
    name: "xlm-r-base",
    family: "xlm-roberta",
    positions: 514,
    token_types: 1,
    layer_norm_eps: 1e-5,
    layers: 12,
    hidden: 768,
    heads: 12,
    feed_forward: 3072,
    vocabulary: 250_002,
    learning_rate: 5e-5,
};
/// XLM-RoBERTa large, 560 million parameters.
pub const XLM_R_LARGE: ModelShape =
    ModelShape { name: "xlm-r-large", layers: 24, hidden: 1024, heads: 16, feed_forward: 4096, ..XLM_R_BASE };
/// A model of no use but to try out programs that run benchmarks, for which a real model would take too long.
pub const TINY: ModelShape = ModelShape {
    name: "tiny",
    layers: 2,
    hidden: 64,
    heads: 2,
    feed_forward: 128,
    vocabulary: 1000,
    learning_rate: 5e-4,
    ..XLM_R_BASE
};

impl ModelShape {
    fn config(&self) -> Result<ModelConfig> {
        let described = json!({
            "model_type": self.family,
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": self.feed_forward,
            "max_position_embeddings": self.positions,
            "type_vocab_size": self.token_types,
            "layer_norm_eps": self.layer_norm_eps,
        });
        ModelConfig::from_json(Path::new(self.name), &described.to_string())
    }

    /// Floating-point operations of one forward pass over sequences of these lengths: per token twice the weights of
    /// the linear layers, and the two products of attention. A training step does three times as much, without counting
    /// the second run of chunks that were not kept.
    pub fn forward_flops(&self, lengths: &[usize]) -> u64 {
        let weights = 4 * self.hidden * self.hidden + 2 * self.hidden * self.feed_forward;
        let n_tokens: usize = lengths.iter().sum();
        let squares: usize = lengths.iter().map(|n| n * n).sum();
        (self.layers * (2 * weights * n_tokens + 4 * self.hidden * squares)) as u64
    }

    /// An encoder with random weights.
    pub fn encoder<B: Backend>(&self, backend: &B) -> Result<Encoder<B>> {
        Ok(self.draw(backend, |_, _| Ok(()))?.0)
    }

    /// Random weights, descriptions of the parameters, and the same weights in f32 if the working type rounds them.
    pub fn trainable<B: Backend>(&self, backend: &B) -> Result<Trainable<B>> {
        let mut masters = Vec::new();
        let (encoder, specs) = self.draw(backend, |spec, values| {
            if !B::E::IS_F32 {
                masters.push(Tensor::from_slice(backend, values, &spec.shape)?);
            }
            Ok(())
        })?;
        let mut masters = masters.into_iter();
        let master = match B::E::IS_F32 {
            true => None,
            false => Some(specs.try_map(|_| Ok(masters.next().expect("one master a parameter")))?),
        };
        Ok(Trainable { encoder, specs, master })
    }

    fn draw<B: Backend>(
        &self,
        backend: &B,
        mut also: impl FnMut(&ParamSpec, &[f32]) -> Result<()>,
    ) -> Result<(Encoder<B>, EncoderParams<ParamSpec>)> {
        let config = self.config()?;
        let specs = specs(&config, None);
        let weights = random_init(&specs, SEED, |spec, values| {
            also(spec, &values)?;
            let values: Vec<B::E> = values.into_iter().map(B::E::from_f32).collect();
            Tensor::from_slice(backend, &values, &spec.shape)
        })?;
        Ok((Encoder { config, pooling: Pooling::Mean, weights }, specs))
    }
}

/// Inputs of an optimizer.
pub struct Trainable<B: Backend> {
    pub encoder: Encoder<B>,
    pub specs: EncoderParams<ParamSpec>,
    pub master: Option<EncoderParams<Tensor<B, f32>>>,
}
