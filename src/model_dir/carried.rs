//! What a saved model takes over from the directory it came from.

use super::ModelDir;
use super::front_matter::license;
use super::weights::read_pooler;
use crate::json::read_optional_object;
use crate::model::ParamSpec;
use crate::{Error, Result};
use serde_json::{Map, Value};

/// All of a model directory that a save needs besides what [`ModelDir`] holds, in memory: the directory may go away before.
#[derive(Clone, Debug)]
pub struct Carried {
    /// `tokenizer.json`
    pub tokenizer: Vec<u8>,
    pub(super) tokenizer_config: Option<Map<String, Value>>,
    pub(super) special_tokens_map: Option<Map<String, Value>>,
    /// Keys of the front matter of its README, as far as these say under which license it is.
    pub(super) license: Vec<(&'static str, String)>,
    /// The pooler's weights, as far as there are any.
    pub(super) pooler: Vec<(ParamSpec, Vec<f32>)>,
}

impl Carried {
    /// Reads it.
    ///
    /// # Errors
    /// If a file cannot be read. A README is no part of the model: none that can be read is none.
    pub fn read(dir: &ModelDir) -> Result<Carried> {
        let object = |name: &str| read_optional_object(&dir.transformer.join(name));
        Ok(Carried {
            tokenizer: std::fs::read(&dir.tokenizer).map_err(|e| Error::io("read", &dir.tokenizer, e))?,
            tokenizer_config: object("tokenizer_config.json")?,
            special_tokens_map: object("special_tokens_map.json")?,
            license: std::fs::read_to_string(dir.path.join("README.md")).map_or(Vec::new(), |text| license(&text)),
            pooler: read_pooler(dir),
        })
    }
}
