//! Families of encoders. A file each has all that tells a family from others: how its `config.json` describes an encoder,
//! what its checkpoints call the parameters, and the class that a saved model is loaded as.

mod bert;
mod xlm_roberta;

use super::{EmbeddingParams, LayerParams, ModelConfig};
use crate::Result;
use crate::json::Fields;

/// The families that hbt knows, a row each.
static FAMILIES: [&Family; 3] = [&bert::BERT, &xlm_roberta::ROBERTA, &xlm_roberta::XLM_ROBERTA];

/// Encoders that `config.json` calls by one `model_type`.
#[derive(Debug)]
pub struct Family {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// The class of transformers that loads a saved model: `architectures` in `config.json`.
    pub class: &'static str,
    /// What its checkpoints call the parameters.
    pub names: Names,
    /// What a `config.json` of this family describes.
    ///
    /// # Errors
    /// A missing or impossible value, or an encoder that hbt does not compute.
    describe: fn(&'static Family, &Fields) -> Result<ModelConfig>,
}

/// Names of the tensors that make up a parameter, one after another along its rows.
pub type TensorNames = &'static [&'static str];

/// What checkpoints call their tensors, without what a model with a head puts before them (`bert.` or the like).
#[derive(Debug)]
pub struct Names {
    /// Of the parameters before the first layer.
    pub embeddings: EmbeddingParams<TensorNames>,
    /// Of a layer's parameters; `{}` stands for its number.
    pub layer: LayerParams<TensorNames>,
    /// Parts of names with what older checkpoints have in their place.
    pub older: &'static [(&'static str, &'static str)],
    /// The linear layer on the first token that pre-training left in checkpoints, where the family has one. hbt computes it
    /// no more than any pooling does.
    pub pooler: Option<&'static str>,
}

impl Family {
    /// The family that `model_type` names.
    ///
    /// # Errors
    /// One that hbt does not know, or none.
    pub(super) fn of(fields: &Fields) -> Result<&'static Family> {
        let name = fields.string("model_type")?;
        FAMILIES.into_iter().find(|family| Some(family.model_type) == name).ok_or_else(|| match name {
            Some(other) => fields.error(format!("model_type {other:?} is not supported; hbt knows {}", known("and"))),
            None => fields.error(format!("has no model_type; it has to be {}", known("or"))),
        })
    }

    /// What `fields` describe.
    ///
    /// # Errors
    /// A missing or impossible value, or an encoder that hbt does not compute.
    pub(super) fn describe(&'static self, fields: &Fields) -> Result<ModelConfig> {
        (self.describe)(self, fields)
    }
}

/// All families in words.
fn known(conjunction: &str) -> String {
    let [first @ .., last] = FAMILIES.map(|family| format!("{:?}", family.model_type));
    format!("{} {conjunction} {last}", first.join(", "))
}
