//! Models with random weights: the shapes that end-to-end benchmarks run.

use super::inputs::{FEED_FORWARD, HEADS, HIDDEN, LARGE_VOCABULARY, SMALL_VOCABULARY};
use crate::Result;
use crate::backend::{Backend, Element, Pooling, Tensor};
use crate::model::{Arch, Encoder, EncoderParams, ModelConfig, ParamSpec, random_init, specs};

const SEED: u64 = 1;

/// A transformer's sizes; hidden size 384 with 12 heads in all of them.
#[derive(Clone, Copy)]
pub struct ModelShape {
    pub name: &'static str,
    pub layers: usize,
    pub vocabulary: usize,
}

/// sentence-transformers' all-MiniLM-L6.
pub const MINILM_L6: ModelShape = ModelShape { name: "minilm-l6", layers: 6, vocabulary: SMALL_VOCABULARY };
/// intfloat's multilingual-e5-small.
pub const MULTILINGUAL_E5_SMALL: ModelShape =
    ModelShape { name: "multilingual-e5-small", layers: 12, vocabulary: LARGE_VOCABULARY };

impl ModelShape {
    fn config(&self) -> ModelConfig {
        ModelConfig {
            arch: Arch::Bert,
            vocab_size: self.vocabulary,
            hidden_size: HIDDEN,
            num_hidden_layers: self.layers,
            num_attention_heads: HEADS,
            intermediate_size: FEED_FORWARD,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            pad_token_id: 0,
            initializer_range: 0.02,
        }
    }

    /// Floating-point operations of one forward pass over sequences of these lengths: twice the weights of the linear
    /// layers a token, and the attention's two products. A training step does three times as much, the second run of
    /// what backward did not keep not counted.
    pub fn forward_flops(&self, lengths: &[usize]) -> u64 {
        let weights = 4 * HIDDEN * HIDDEN + 2 * HIDDEN * FEED_FORWARD;
        let n_tokens: usize = lengths.iter().sum();
        let squares: usize = lengths.iter().map(|n| n * n).sum();
        (self.layers * (2 * weights * n_tokens + 4 * HIDDEN * squares)) as u64
    }

    /// Random weights.
    pub fn encoder<B: Backend>(&self, backend: &B) -> Result<Encoder<B>> {
        Ok(self.draw(backend, |_, _| Ok(()))?.0)
    }

    /// Random weights, what the parameters are, and the same weights in f32 where the working type rounds them.
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
        let config = self.config();
        let specs = specs(&config, None);
        let weights = random_init(&specs, SEED, |spec, values| {
            also(spec, &values)?;
            let values: Vec<B::E> = values.into_iter().map(B::E::from_f32).collect();
            Tensor::from_slice(backend, &values, &spec.shape)
        })?;
        Ok((Encoder { config, pooling: Pooling::Mean, weights }, specs))
    }
}

/// What an optimizer is made of.
pub struct Trainable<B: Backend> {
    pub encoder: Encoder<B>,
    pub specs: EncoderParams<ParamSpec>,
    pub master: Option<EncoderParams<Tensor<B, f32>>>,
}
