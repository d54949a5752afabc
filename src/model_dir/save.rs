//! Writing a model as a sentence-transformers directory, in the schema that every reader accepts.
//!
//! sentence-transformers 5.4 changed `modules.json` and `1_Pooling/config.json`; text-embeddings-inference and vLLM read
//! the older schema only, and sentence-transformers reads both. So the older one is written.

use super::directory::OWN_FILE;
use super::{Carried, ModelCard, ModelDir, card, tokenizer_files};
use crate::backend::Pooling;
use crate::files::owned::{Manifest, keep_foreign, refuse_foreign_directory};
use crate::json::pretty;
use crate::model::{ParamFile, ParamSpec, specs};
use crate::tensor_file::{self, Block, Dtype, TensorHeader};
use crate::{Error, Result, files};
use serde_json::{Value, json};
use std::io::Write;
use std::ops::Range;
use std::path::Path;

/// What a saved model consists of, its weights apart.
#[derive(Clone, Debug)]
pub struct ModelSave<'a> {
    /// Where `config.json` and the sizes come from.
    pub source: &'a ModelDir,
    /// The tokenizer, and weights that hbt does not train.
    pub carried: &'a Carried,
    /// How token vectors become one.
    pub pooling: Pooling,
    /// Whether to end with a Normalize module, so that a dot product is a cosine.
    pub normalize: bool,
    /// Most tokens a text may have, special tokens included.
    pub max_seq_length: usize,
    /// Tokens at which queries were cut in training.
    pub query_max_len: usize,
    /// Tokens at which passages were cut in training.
    pub passage_max_len: usize,
    /// Put before every query.
    pub query_prefix: &'a str,
    /// Put before every passage.
    pub passage_prefix: &'a str,
    /// For `README.md`.
    pub card: &'a ModelCard,
}

/// Writes the directory `target`, or replaces it as [`files::replace_directory`] does, with a [`Manifest`] of what it wrote.
/// Files that others have put into a directory of hbt's stay there.
///
/// `values` is asked for all elements of every parameter, a [piece](pieces) at a time, parameters in the order of
/// [`EncoderParams::iter`](crate::model::EncoderParams::iter): no more than that is held in host memory. `extra` is given
/// the temporary directory to add files of its own before it takes the target's name.
///
/// # Errors
/// When something cannot be written, when hbt did not write what is at `target`, and those of the closures. `target` is then
/// as it was.
pub fn save(
    target: &Path,
    model: &ModelSave,
    values: impl FnMut(&ParamSpec, Range<usize>) -> Result<Vec<f32>>,
    extra: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    refuse_foreign_directory(target)?;
    files::replace_directory(target, |directory| {
        write_modules(directory, model)?;
        write_config(directory, model.source)?;
        tokenizer_files::write(model.carried, model.max_seq_length, directory)?;
        write_text(&directory.join("README.md"), &card::render(model))?;
        write_all_weights(directory, model, values)?;
        extra(directory)?;
        Manifest::write(directory)?;
        keep_foreign(target, directory)
    })
}

fn write_modules(directory: &Path, model: &ModelSave) -> Result<()> {
    let hidden_size = model.source.config.hidden_size;
    let pooling = json!({
        "word_embedding_dimension": hidden_size,
        "pooling_mode_cls_token": model.pooling == Pooling::Cls,
        "pooling_mode_mean_tokens": model.pooling == Pooling::Mean,
        "pooling_mode_max_tokens": false,
        "pooling_mode_mean_sqrt_len_tokens": false,
        "pooling_mode_weightedmean_tokens": false,
        "pooling_mode_lasttoken": false,
        "include_prompt": true,
    });
    let mut modules = vec![("Transformer", None), ("Pooling", Some(pooling))];
    if let Some(dense) = model.source.dense {
        let config = json!({
            "in_features": dense.in_features,
            "out_features": dense.out_features,
            "bias": true,
            "activation_function": "torch.nn.modules.activation.Tanh",
        });
        modules.push(("Dense", Some(config)));
    }
    if model.normalize {
        modules.push(("Normalize", None));
    }
    let mut list = Vec::new();
    for (index, (class, config)) in modules.into_iter().enumerate() {
        let folder = if index == 0 { String::new() } else { format!("{index}_{class}") };
        let path = directory.join(&folder);
        std::fs::create_dir_all(&path).map_err(|e| Error::io("create", &path, e))?;
        if let Some(config) = config {
            write_json(&path.join("config.json"), &config)?;
        }
        let class = format!("sentence_transformers.models.{class}");
        list.push(json!({ "idx": index, "name": index.to_string(), "path": folder, "type": class }));
    }
    write_json(&directory.join("modules.json"), &Value::Array(list))?;
    let lengths = json!({ "query_max_len": model.query_max_len, "passage_max_len": model.passage_max_len });
    write_json(&directory.join(OWN_FILE), &lengths)?;
    let transformer = json!({ "max_seq_length": model.max_seq_length, "do_lower_case": false });
    write_json(&directory.join("sentence_bert_config.json"), &transformer)?;
    let sentence_transformers = json!({
        // The versions whose schema this is. A newer one than the reader's own makes sentence-transformers warn.
        "__version__": { "sentence_transformers": "3.0.0", "transformers": "4.41.0", "pytorch": "2.3.0" },
        // encode_document() takes "document"; "passage" is what E5's users type.
        "prompts": {
            "query": model.query_prefix,
            "document": model.passage_prefix,
            "passage": model.passage_prefix,
        },
        "default_prompt_name": null,
        "similarity_fn_name": "cosine",
    });
    write_json(&directory.join("config_sentence_transformers.json"), &sentence_transformers)
}

/// The model's own `config.json`, with what the saved weights change.
fn write_config(directory: &Path, source: &ModelDir) -> Result<()> {
    let mut config = source.config_json.clone();
    // A class name that ends in Classification would make text-embeddings-inference serve a classifier.
    config.insert("architectures".into(), json!([source.config.family.class]));
    // transformers 5 calls it dtype, 4 torch_dtype, and each reads the other's name only in newer releases.
    if config.contains_key("dtype") {
        config.insert("dtype".into(), "float32".into());
    }
    config.insert("torch_dtype".into(), "float32".into());
    write_json(&directory.join("config.json"), &Value::Object(config))
}

fn write_all_weights(
    directory: &Path,
    model: &ModelSave,
    mut values: impl FnMut(&ParamSpec, Range<usize>) -> Result<Vec<f32>>,
) -> Result<()> {
    let specs = specs(&model.source.config, model.source.dense.as_ref());
    let pooler = &model.carried.pooler;
    let in_file = |file| specs.iter().filter(move |spec| spec.file == file);
    let encoder = in_file(ParamFile::Encoder).chain(pooler.iter().map(|(spec, _)| spec));
    write_weights(&directory.join("model.safetensors"), encoder.collect(), |spec, part| {
        match pooler.iter().find(|(kept, _)| kept.name == spec.name) {
            Some((_, kept)) => Ok(kept[part].to_vec()),
            None => values(spec, part),
        }
    })?;
    if specs.dense.is_some() {
        write_weights(&directory.join("2_Dense/model.safetensors"), in_file(ParamFile::Dense).collect(), values)?;
    }
    Ok(())
}

/// Largest weight of a model that computes: the square of 2e19 is more than f32 holds, and no norm is finite then. The last
/// step of a run has no loss behind it that would tell.
const MOST: f32 = 1e18;

/// Streams the parameters `specs` into one safetensors file. The tensors of a stacked parameter follow one another in
/// the file as they do in the parameter.
fn write_weights(
    path: &Path,
    specs: Vec<&ParamSpec>,
    mut values: impl FnMut(&ParamSpec, Range<usize>) -> Result<Vec<f32>>,
) -> Result<()> {
    let header = |spec: &ParamSpec, name: &String| TensorHeader {
        name: name.clone(),
        dtype: Dtype::F32,
        shape: spec.hf_shape(),
    };
    let tensors: Vec<_> = specs.iter().flat_map(|spec| spec.hf.iter().map(|name| header(spec, name))).collect();
    let parts = specs.iter().flat_map(|spec| pieces(spec.len()).map(move |part| (spec, part)));
    let blocks = parts.map(|(spec, part)| {
        let values = values(spec, part.clone())?;
        // No `all`, which would leave the loop early and keep it from being vectorised.
        if !values.iter().fold(true, |are_usable, x| are_usable & (x.abs() <= MOST)) {
            return Err(Error::other(format!(
                "{} would be saved with values that are not finite or above {MOST:e}, so nothing was saved: training diverged; \
                 start again with a lower learning_rate",
                spec.hf.join(", ")
            )));
        }
        assert_eq!(values.len(), part.len(), "{part:?} of {}, which has shape {:?}", spec.name, spec.shape);
        Ok(Block::F32(values))
    });
    tensor_file::write(path, &tensors, blocks)
}

/// Cuts `len` elements into pieces of 4 MB: a large model's word table is not to be in memory twice.
pub fn pieces(len: usize) -> impl Iterator<Item = Range<usize>> {
    const PIECE: usize = 1 << 20;
    (0..len).step_by(PIECE).map(move |start| start..len.min(start + PIECE))
}

pub(super) fn write_json(path: &Path, value: &Value) -> Result<()> {
    write_text(path, &pretty(value))
}

fn write_text(path: &Path, text: &str) -> Result<()> {
    files::write_file(path, |file| file.write_all(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::pieces;

    #[test]
    fn pieces_follow_one_another_and_cover_everything() {
        for (len, expected) in [(0, 0), (1, 1), (1 << 20, 1), ((1 << 20) + 1, 2), (5 << 19, 3)] {
            let parts: Vec<_> = pieces(len).collect();
            assert_eq!(parts.len(), expected);
            assert_eq!(parts.iter().fold(0, |end, part| if part.start == end { part.end } else { usize::MAX }), len);
        }
    }
}
