//! One value for every parameter of an encoder, in one order that everything shares: a row of a table below for each.
//!
//! The same structs hold tensors, gradients, optimizer state, host arrays and [`ParamSpec`]s; `H` is the hidden size,
//! `F` the feed-forward size. Linear weights are `(out, in)`, as PyTorch stores them.

use super::arch::TensorNames;
use super::{Activation, Biases, DenseSpec, ModelConfig};
use crate::Result;

/// A table of parameters, a row each: its field, and what there is to know of it before it has a value, but for what
/// checkpoints call it. The struct, its iteration and its [`ParamSpec`]s follow, and from these its initial values, the
/// optimizer's groups, loading, saving and checkpoints.
macro_rules! parameters {
    ($(#[$meta:meta])* $name:ident($of:ident: $source:ty) { $($(#[$doc:meta])* $field:ident = $spec:expr;)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name<T> {
            $($(#[$doc])* pub $field: T,)+
        }

        impl<T> $name<T> {
            /// Of one value a parameter, in the order of the fields.
            fn take(values: &mut impl Iterator<Item = T>) -> Self {
                let mut next = || values.next().expect("one value a parameter");
                $name { $($field: next()),+ }
            }

            /// Every parameter in the order of the fields.
            pub fn iter(&self) -> impl Iterator<Item = &T> {
                [$(&self.$field),+].into_iter()
            }

            /// As `iter`, to change them.
            pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
                [$(&mut self.$field),+].into_iter()
            }
        }

        impl $name<ParamSpec> {
            /// With the names of tensors that `hf` makes of those in `names`.
            fn of($of: $source, names: &$name<TensorNames>, hf: impl Fn(&str) -> String) -> Self {
                let tensors = |names: TensorNames| names.iter().map(|name| hf(name)).collect();
                $name { $($field: ParamSpec { hf: tensors(names.$field), ..$spec }),+ }
            }
        }
    };
}

parameters! {
    /// The embedding tables and the LayerNorm of their sum.
    EmbeddingParams(of: &ModelConfig) {
        /// `(vocab_size, H)`
        word = ParamSpec { has_sparse_rows: true, ..table("word_embeddings", of.vocab_size, Some(of.pad_token_id), of) };
        /// `(max_position_embeddings, H)`. Where positions start behind the padding's, position pad_token_id is never used.
        position = {
            let padding = (of.position_offset > 0).then_some(of.pad_token_id);
            table("position_embeddings", of.max_position_embeddings, padding, of)
        };
        /// `(type_vocab_size, H)`
        token_type = table("token_type_embeddings", of.type_vocab_size, None, of);
        /// `(H,)`
        norm_weight = vector("embedding_norm.weight", of.hidden_size, Init::Ones);
        /// `(H,)`
        norm_bias = vector("embedding_norm.bias", of.hidden_size, Init::Zeros);
    }
}

parameters! {
    /// The parameters of one transformer layer.
    LayerParams(of: Layer) {
        /// `(3 H, H)`: query, key and value stacked.
        qkv_weight = of.weight("qkv", [3 * of.hidden(), of.hidden()]);
        /// `(3 H,)`
        qkv_bias = of.bias("qkv", 3 * of.hidden());
        /// `(H, H)`
        attention_output_weight = of.weight("attention_output", [of.hidden(), of.hidden()]);
        /// `(H,)`
        attention_output_bias = of.bias("attention_output", of.hidden());
        /// `(H,)` LayerNorm after the attention's residual.
        attention_norm_weight = of.norm("attention_norm");
        /// `(H,)`
        attention_norm_bias = of.bias("attention_norm", of.hidden());
        /// `(F, H)`
        intermediate_weight = of.weight("intermediate", [of.feed_forward(), of.hidden()]);
        /// `(F,)`
        intermediate_bias = of.bias("intermediate", of.feed_forward());
        /// `(H, F)`
        output_weight = of.weight("output", [of.hidden(), of.feed_forward()]);
        /// `(H,)`
        output_bias = of.bias("output", of.hidden());
        /// `(H,)` LayerNorm after the feed-forward's residual.
        output_norm_weight = of.norm("output_norm");
        /// `(H,)`
        output_norm_bias = of.bias("output_norm", of.hidden());
    }
}

parameters! {
    /// The linear layer after pooling (sentence-transformers' `Dense`, with tanh).
    DenseParams(of: (&DenseSpec, f32)) {
        /// `(out, in)`
        weight = ParamSpec {
            file: ParamFile::Dense,
            ..matrix("dense.weight", [of.0.out_features, of.0.in_features], of.1)
        };
        /// `(out,)`
        bias = ParamSpec { file: ParamFile::Dense, ..vector("dense.bias", of.0.out_features, Init::Zeros) };
    }
}

/// sentence-transformers' names.
const DENSE_NAMES: DenseParams<TensorNames> = DenseParams { weight: &["linear.weight"], bias: &["linear.bias"] };

/// The parameters of a whole encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderParams<T> {
    /// Before the first layer.
    pub embeddings: EmbeddingParams<T>,
    /// First to last.
    pub layers: Vec<LayerParams<T>>,
    /// Only in models such as LaBSE.
    pub dense: Option<DenseParams<T>>,
}

impl<T> EncoderParams<T> {
    /// Applies `f` to every parameter in the order of [`EncoderParams::iter`].
    ///
    /// # Errors
    /// The first error of `f`.
    pub fn try_map<U>(&self, mut f: impl FnMut(&T) -> Result<U>) -> Result<EncoderParams<U>> {
        self.try_map_dyn(&mut f)
    }

    /// Compiled once for all that is done to the parameters.
    fn try_map_dyn<U>(&self, f: &mut dyn FnMut(&T) -> Result<U>) -> Result<EncoderParams<U>> {
        let values: Vec<U> = self.iter().map(f).collect::<Result<_>>()?;
        Ok(EncoderParams::take(values, self.layers.len(), self.dense.is_some()))
    }

    /// Of one value a parameter, in the order of [`EncoderParams::iter`].
    fn take(values: Vec<T>, n_layers: usize, has_dense: bool) -> Self {
        let values = &mut values.into_iter();
        EncoderParams {
            embeddings: EmbeddingParams::take(values),
            layers: (0..n_layers).map(|_| LayerParams::take(values)).collect(),
            dense: has_dense.then(|| DenseParams::take(values)),
        }
    }

    /// Every parameter: the embeddings, the layers first to last, the dense layer.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let layers = self.layers.iter().flat_map(LayerParams::iter);
        self.embeddings.iter().chain(layers).chain(self.dense.iter().flat_map(DenseParams::iter))
    }

    /// As [`EncoderParams::iter`], to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let layers = self.layers.iter_mut().flat_map(LayerParams::iter_mut);
        self.embeddings.iter_mut().chain(layers).chain(self.dense.iter_mut().flat_map(DenseParams::iter_mut))
    }

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
    /// Hugging Face's names without a `bert.`-like prefix. Tensors of several, such as query, key and value, are stacked along
    /// rows.
    pub hf: Vec<String>,
    /// Where those tensors are.
    pub file: ParamFile,
    /// Shape of the whole parameter.
    pub shape: Vec<usize>,
    /// Whether weight decay applies: not to biases and LayerNorm.
    pub decay: bool,
    /// Whether it is the table of which a step reads few rows, so that only these have a gradient.
    pub has_sparse_rows: bool,
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

impl EncoderParams<ParamSpec> {
    /// The place in [`EncoderParams::iter`] of the table of which a step reads few rows.
    pub fn sparse(&self) -> usize {
        self.iter().position(|spec| spec.has_sparse_rows).expect("an encoder has a table of words")
    }
}

/// The parameters that a model of this configuration has.
pub fn specs(config: &ModelConfig, dense: Option<&DenseSpec>) -> EncoderParams<ParamSpec> {
    let names = &config.family.names;
    let layer = |number: usize| {
        let hf = |name: &str| name.replace("{}", &number.to_string());
        LayerParams::of(Layer { config, number }, &names.layer, hf)
    };
    let dense_of = |dense| DenseParams::of((dense, config.initializer_range), &DENSE_NAMES, str::to_owned);
    EncoderParams {
        embeddings: EmbeddingParams::of(config, &names.embeddings, str::to_owned),
        layers: (0..config.layers.len()).map(layer).collect(),
        dense: dense.map(dense_of),
    }
}

/// A layer whose parameters are described.
#[derive(Clone, Copy)]
struct Layer<'a> {
    config: &'a ModelConfig,
    number: usize,
}

impl Layer<'_> {
    fn hidden(self) -> usize {
        self.config.hidden_size
    }

    /// Rows of the first of the feed-forward block's linear layers.
    fn feed_forward(self) -> usize {
        match self.config.layers[self.number].activation {
            Activation::Gelu => self.config.intermediate_size,
        }
    }

    fn name(self, own: &str, kind: &str) -> String {
        format!("layer.{}.{own}.{kind}", self.number)
    }

    fn weight(self, own: &str, shape: [usize; 2]) -> ParamSpec {
        matrix(&self.name(own, "weight"), shape, self.config.initializer_range)
    }

    fn bias(self, own: &str, len: usize) -> ParamSpec {
        match self.config.layers[self.number].biases {
            Biases::Everywhere => vector(&self.name(own, "bias"), len, Init::Zeros),
        }
    }

    /// A norm's weight.
    fn norm(self, own: &str) -> ParamSpec {
        vector(&self.name(own, "weight"), self.hidden(), Init::Ones)
    }
}

/// An embedding table.
fn table(name: &str, rows: usize, zero_row: Option<usize>, config: &ModelConfig) -> ParamSpec {
    let std = config.initializer_range;
    ParamSpec { init: Init::Normal { std, zero_row }, ..matrix(name, [rows, config.hidden_size], std) }
}

fn matrix(name: &str, shape: [usize; 2], std: f32) -> ParamSpec {
    let init = Init::Normal { std, zero_row: None };
    ParamSpec { shape: shape.to_vec(), decay: true, ..vector(name, 0, init) }
}

fn vector(name: &str, len: usize, init: Init) -> ParamSpec {
    ParamSpec {
        name: name.to_owned(),
        hf: Vec::new(),
        file: ParamFile::Encoder,
        shape: vec![len],
        decay: false,
        has_sparse_rows: false,
        init,
    }
}
