//! One value for every parameter of an encoder, in one order that everything shares.
//!
//! The same struct holds tensors, gradients, optimizer state, host arrays and [`ParamSpec`]s; `H` is the hidden size,
//! `F` the feed-forward size. Linear weights are `(out, in)`, as PyTorch stores them.

use super::{DenseSpec, ModelConfig};
use crate::Result;

/// The parameters of one transformer layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerParams<T> {
    /// `(3 H, H)`: query, key and value stacked.
    pub qkv_weight: T,
    /// `(3 H,)`
    pub qkv_bias: T,
    /// `(H, H)`
    pub attention_output_weight: T,
    /// `(H,)`
    pub attention_output_bias: T,
    /// `(H,)` LayerNorm after the attention's residual.
    pub attention_norm_weight: T,
    /// `(H,)`
    pub attention_norm_bias: T,
    /// `(F, H)`
    pub intermediate_weight: T,
    /// `(F,)`
    pub intermediate_bias: T,
    /// `(H, F)`
    pub output_weight: T,
    /// `(H,)`
    pub output_bias: T,
    /// `(H,)` LayerNorm after the feed-forward's residual.
    pub output_norm_weight: T,
    /// `(H,)`
    pub output_norm_bias: T,
}

/// The linear layer after pooling (sentence-transformers' `Dense`, with tanh).
#[derive(Clone, Debug, PartialEq)]
pub struct DenseParams<T> {
    /// `(out, in)`
    pub weight: T,
    /// `(out,)`
    pub bias: T,
}

/// The parameters of a whole encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderParams<T> {
    /// `(vocab_size, H)`
    pub word_embeddings: T,
    /// `(max_position_embeddings, H)`
    pub position_embeddings: T,
    /// `(type_vocab_size, H)`
    pub token_type_embeddings: T,
    /// `(H,)` LayerNorm of the sum of the three embeddings.
    pub embedding_norm_weight: T,
    /// `(H,)`
    pub embedding_norm_bias: T,
    /// First to last.
    pub layers: Vec<LayerParams<T>>,
    /// Only in models such as LaBSE.
    pub dense: Option<DenseParams<T>>,
}

impl<T> LayerParams<T> {
    fn try_map<U>(&self, f: &mut impl FnMut(&T) -> Result<U>) -> Result<LayerParams<U>> {
        Ok(LayerParams {
            qkv_weight: f(&self.qkv_weight)?,
            qkv_bias: f(&self.qkv_bias)?,
            attention_output_weight: f(&self.attention_output_weight)?,
            attention_output_bias: f(&self.attention_output_bias)?,
            attention_norm_weight: f(&self.attention_norm_weight)?,
            attention_norm_bias: f(&self.attention_norm_bias)?,
            intermediate_weight: f(&self.intermediate_weight)?,
            intermediate_bias: f(&self.intermediate_bias)?,
            output_weight: f(&self.output_weight)?,
            output_bias: f(&self.output_bias)?,
            output_norm_weight: f(&self.output_norm_weight)?,
            output_norm_bias: f(&self.output_norm_bias)?,
        })
    }

    /// Every parameter in the order of the fields.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        [
            &self.qkv_weight,
            &self.qkv_bias,
            &self.attention_output_weight,
            &self.attention_output_bias,
            &self.attention_norm_weight,
            &self.attention_norm_bias,
            &self.intermediate_weight,
            &self.intermediate_bias,
            &self.output_weight,
            &self.output_bias,
            &self.output_norm_weight,
            &self.output_norm_bias,
        ]
        .into_iter()
    }

    /// As [`LayerParams::iter`], to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        [
            &mut self.qkv_weight,
            &mut self.qkv_bias,
            &mut self.attention_output_weight,
            &mut self.attention_output_bias,
            &mut self.attention_norm_weight,
            &mut self.attention_norm_bias,
            &mut self.intermediate_weight,
            &mut self.intermediate_bias,
            &mut self.output_weight,
            &mut self.output_bias,
            &mut self.output_norm_weight,
            &mut self.output_norm_bias,
        ]
        .into_iter()
    }
}

impl<T> EncoderParams<T> {
    /// Applies `f` to every parameter in the order of [`EncoderParams::iter`].
    ///
    /// # Errors
    /// The first error of `f`.
    pub fn try_map<U>(&self, mut f: impl FnMut(&T) -> Result<U>) -> Result<EncoderParams<U>> {
        Ok(EncoderParams {
            word_embeddings: f(&self.word_embeddings)?,
            position_embeddings: f(&self.position_embeddings)?,
            token_type_embeddings: f(&self.token_type_embeddings)?,
            embedding_norm_weight: f(&self.embedding_norm_weight)?,
            embedding_norm_bias: f(&self.embedding_norm_bias)?,
            layers: self.layers.iter().map(|layer| layer.try_map(&mut f)).collect::<Result<_>>()?,
            dense: match &self.dense {
                Some(dense) => Some(DenseParams { weight: f(&dense.weight)?, bias: f(&dense.bias)? }),
                None => None,
            },
        })
    }

    /// Every parameter: the embeddings, the layers first to last, the dense layer.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        [
            &self.word_embeddings,
            &self.position_embeddings,
            &self.token_type_embeddings,
            &self.embedding_norm_weight,
            &self.embedding_norm_bias,
        ]
        .into_iter()
        .chain(self.layers.iter().flat_map(LayerParams::iter))
        .chain(self.dense.iter().flat_map(|dense| [&dense.weight, &dense.bias]))
    }

    /// As [`EncoderParams::iter`], to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        [
            &mut self.word_embeddings,
            &mut self.position_embeddings,
            &mut self.token_type_embeddings,
            &mut self.embedding_norm_weight,
            &mut self.embedding_norm_bias,
        ]
        .into_iter()
        .chain(self.layers.iter_mut().flat_map(LayerParams::iter_mut))
        .chain(self.dense.iter_mut().flat_map(|dense| [&mut dense.weight, &mut dense.bias]))
    }
}

impl<T> EncoderParams<T> {
    /// Every parameter in one list, for operations on all of them at once.
    pub fn list(&self) -> Vec<&T> {
        // Sized by counting: a list that grows would take memory several times in every step.
        let mut list = Vec::with_capacity(self.iter().count());
        list.extend(self.iter());
        list
    }

    /// As [`EncoderParams::list`], to change them.
    pub fn list_mut(&mut self) -> Vec<&mut T> {
        let mut list = Vec::with_capacity(self.iter().count());
        list.extend(self.iter_mut());
        list
    }
}

/// How a parameter starts when a model is trained from scratch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Normal with mean 0; `zero_row` is the padding row of an embedding table, all zero.
    Normal {
        /// Standard deviation.
        std: f32,
        /// Row that is zero instead.
        zero_row: Option<usize>,
    },
    /// All zero.
    Zeros,
    /// All one.
    Ones,
}

/// Which weights of a model directory a parameter is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamFile {
    /// `model.safetensors` of the transformer itself.
    Encoder,
    /// `model.safetensors` of the Dense module.
    Dense,
}

/// What there is to know of a parameter before it has a value.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamSpec {
    /// Our own name, such as `layer.0.qkv.weight`; unique.
    pub name: String,
    /// Hugging Face's names without a `bert.`-like prefix: query, key and value for qkv, else one. Stacked along rows.
    pub hf: Vec<String>,
    /// Where those tensors are.
    pub file: ParamFile,
    /// Shape of the whole parameter.
    pub shape: Vec<usize>,
    /// Whether weight decay applies: not to biases and LayerNorm.
    pub decay: bool,
    /// How it starts from scratch.
    pub init: Init,
}

impl ParamSpec {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True when there is no element; no valid configuration has such a parameter.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shape of each of the [`ParamSpec::hf`] tensors.
    pub fn hf_shape(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        shape[0] /= self.hf.len();
        shape
    }
}

/// The parameters that a model of this configuration has.
pub fn specs(config: &ModelConfig, dense: Option<&DenseSpec>) -> EncoderParams<ParamSpec> {
    let hidden = config.hidden_size;
    let table = |name: &str, rows: usize, zero_row: Option<usize>| ParamSpec {
        name: name.to_owned(),
        hf: vec![format!("embeddings.{name}.weight")],
        file: ParamFile::Encoder,
        shape: vec![rows, hidden],
        decay: true,
        init: Init::Normal { std: config.initializer_range, zero_row },
    };
    // The RoBERTa family's position table has a padding row too: position pad_token_id is never used.
    let padding_position = (config.position_offset() > 0).then_some(config.pad_token_id);
    EncoderParams {
        word_embeddings: table("word_embeddings", config.vocab_size, Some(config.pad_token_id)),
        position_embeddings: table("position_embeddings", config.max_position_embeddings, padding_position),
        token_type_embeddings: table("token_type_embeddings", config.type_vocab_size, None),
        embedding_norm_weight: vector("embedding_norm.weight", &["embeddings.LayerNorm.weight"], hidden, Init::Ones),
        embedding_norm_bias: vector("embedding_norm.bias", &["embeddings.LayerNorm.bias"], hidden, Init::Zeros),
        layers: (0..config.num_hidden_layers).map(|layer| layer_specs(config, layer)).collect(),
        dense: dense.map(|dense| dense_specs(config, dense)),
    }
}

fn layer_specs(config: &ModelConfig, layer: usize) -> LayerParams<ParamSpec> {
    let (h, f) = (config.hidden_size, config.intermediate_size);
    let name = |own: &str| format!("layer.{layer}.{own}");
    let hf = |parts: &[&str], kind: &str| -> Vec<String> {
        parts.iter().map(|part| format!("encoder.layer.{layer}.{part}.{kind}")).collect()
    };
    let weight = |own: &str, parts: &[&str], out: usize, inputs: usize| {
        matrix(&name(&format!("{own}.weight")), &hf(parts, "weight"), [out, inputs], config.initializer_range)
    };
    let bias = |own: &str, parts: &[&str], len: usize| {
        vector(&name(&format!("{own}.bias")), &hf(parts, "bias"), len, Init::Zeros)
    };
    let norm = |own: &str, part: &str| vector(&name(&format!("{own}.weight")), &hf(&[part], "weight"), h, Init::Ones);
    let qkv = ["attention.self.query", "attention.self.key", "attention.self.value"];
    LayerParams {
        qkv_weight: weight("qkv", &qkv, 3 * h, h),
        qkv_bias: bias("qkv", &qkv, 3 * h),
        attention_output_weight: weight("attention_output", &["attention.output.dense"], h, h),
        attention_output_bias: bias("attention_output", &["attention.output.dense"], h),
        attention_norm_weight: norm("attention_norm", "attention.output.LayerNorm"),
        attention_norm_bias: bias("attention_norm", &["attention.output.LayerNorm"], h),
        intermediate_weight: weight("intermediate", &["intermediate.dense"], f, h),
        intermediate_bias: bias("intermediate", &["intermediate.dense"], f),
        output_weight: weight("output", &["output.dense"], h, f),
        output_bias: bias("output", &["output.dense"], h),
        output_norm_weight: norm("output_norm", "output.LayerNorm"),
        output_norm_bias: bias("output_norm", &["output.LayerNorm"], h),
    }
}

fn dense_specs(config: &ModelConfig, dense: &DenseSpec) -> DenseParams<ParamSpec> {
    let shape = [dense.out_features, dense.in_features];
    let weight = matrix("dense.weight", &["linear.weight"], shape, config.initializer_range);
    let bias = vector("dense.bias", &["linear.bias"], dense.out_features, Init::Zeros);
    DenseParams {
        weight: ParamSpec { file: ParamFile::Dense, ..weight },
        bias: ParamSpec { file: ParamFile::Dense, ..bias },
    }
}

fn matrix(name: &str, hf: &[impl AsRef<str>], shape: [usize; 2], std: f32) -> ParamSpec {
    ParamSpec {
        name: name.to_owned(),
        hf: hf.iter().map(|s| s.as_ref().to_owned()).collect(),
        file: ParamFile::Encoder,
        shape: shape.to_vec(),
        decay: true,
        init: Init::Normal { std, zero_row: None },
    }
}

fn vector(name: &str, hf: &[impl AsRef<str>], len: usize, init: Init) -> ParamSpec {
    ParamSpec {
        name: name.to_owned(),
        hf: hf.iter().map(|s| s.as_ref().to_owned()).collect(),
        file: ParamFile::Encoder,
        shape: vec![len],
        decay: false,
        init,
    }
}
