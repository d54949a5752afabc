//! What a Hugging Face or sentence-transformers directory says about a model, before any weight is read.
//!
//! A sentence-transformers directory lists its modules in `modules.json`: a Transformer, a Pooling, perhaps a Dense,
//! perhaps a Normalize. Anything else there, or an option hbt would compute differently, is an error: an embedding
//! that is silently wrong costs more than a refusal.

use super::lengths::Lengths;
use super::prompts::Prompts;
use crate::backend::Pooling;
use crate::files::owned::Manifest;
use crate::hub::stays_inside;
use crate::json::{Fields, read_optional, read_optional_object};
use crate::model::{DenseSpec, ModelConfig};
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// What to do about a file that is not the one that hbt saved. Weights and tokenizer are checked; the configuration is for
/// people to edit.
pub(super) const CHANGED: &str = "copy the model again, or remove hbt_manifest.json if it was changed on purpose";

/// A model directory whose configuration has been read and checked.
#[derive(Clone, Debug)]
pub struct ModelDir {
    /// The directory itself.
    pub path: PathBuf,
    /// Where `config.json`, `tokenizer.json` and the weights are: usually `path`.
    pub transformer: PathBuf,
    /// Sizes of the encoder.
    pub config: ModelConfig,
    /// All of `config.json`, to be kept when the model is saved.
    pub config_json: Map<String, Value>,
    /// How token vectors become one; `None` where the directory does not say.
    pub pooling: Option<Pooling>,
    /// Sizes of the Dense module, where there is one.
    pub dense: Option<DenseSpec>,
    /// Where the weights of the Dense module are.
    pub dense_dir: Option<PathBuf>,
    /// Whether a Normalize module follows.
    pub normalize: bool,
    /// Tokens at which sentence-transformers cuts a text, special tokens included; never more than there are positions.
    pub max_seq_length: usize,
    /// The same for queries: `max_seq_length`, unless the directory gives them a length of their own.
    pub query_max_len: usize,
    /// The same for passages.
    pub passage_max_len: usize,
    /// What the model expects before every query; `None` where the directory does not say.
    pub query_prefix: Option<String>,
    /// What the model expects before every passage; `None` where the directory does not say.
    pub passage_prefix: Option<String>,
    /// All prompts that the directory has.
    pub prompts: Prompts,
    /// `tokenizer.json`
    pub tokenizer: PathBuf,
}

impl ModelDir {
    /// Reads everything but the weights.
    ///
    /// # Errors
    /// No such directory; no `config.json` or `tokenizer.json`; a file that is not what it has to be, or a tokenizer that is
    /// not the one that hbt saved; a module or an option
    /// that hbt does not compute.
    pub fn open(path: impl AsRef<Path>) -> Result<ModelDir> {
        let path = path.as_ref();
        if !path.is_dir() {
            let what = if path.exists() { "is a file, not a model directory" } else { "no such directory" };
            return Err(Error::file(path, format!("{what}; give the directory that holds the model's config.json")));
        }
        let modules = Modules::read(path)?;
        // An empty name must not leave a slash at the end: messages show it.
        let transformer: PathBuf = path.join(&modules.transformer).components().collect();
        let (config, config_json) = read_config(&transformer)?;
        let pooling = match &modules.pooling {
            Some(folder) => Some(read_pooling(&path.join(folder), &config)?),
            None => None,
        };
        let dense_dir = modules.dense.map(|folder| path.join(folder));
        let dense = match &dense_dir {
            Some(folder) => Some(read_dense(folder, &config)?),
            None => None,
        };
        let tokenizer = transformer.join("tokenizer.json");
        if !tokenizer.is_file() {
            return Err(Error::file(
                &transformer,
                "has no tokenizer.json; make it with transformers: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)",
            ));
        }
        if let Some(manifest) = Manifest::read(path)? {
            let bytes = std::fs::read(&tokenizer).map_err(|e| Error::io("read", &tokenizer, e))?;
            manifest.check(&tokenizer, &bytes, CHANGED)?;
        }
        let Lengths { any, query, passage } = Lengths::read(&transformer, &tokenizer, &config)?;
        let prompts = Prompts::read(path)?;
        Ok(ModelDir {
            path: path.to_owned(),
            transformer,
            config,
            config_json,
            pooling,
            dense,
            dense_dir,
            normalize: modules.normalize,
            max_seq_length: any,
            query_max_len: query,
            passage_max_len: passage,
            query_prefix: prompts.first(&["query"]).cloned(),
            passage_prefix: prompts.first(&["document", "passage", "corpus"]).cloned(),
            prompts,
            tokenizer,
        })
    }

    /// As [`ModelDir::open`], of the checkpoint of a run that goes on: with the lengths at which it has cut its texts.
    ///
    /// # Errors
    /// Those of [`ModelDir::open`].
    pub fn open_checkpoint(path: impl AsRef<Path>) -> Result<ModelDir> {
        let dir = ModelDir::open(&path)?;
        let file = &path.as_ref().join(OWN_FILE);
        let Some(map) = read_optional_object(file)? else { return Ok(dir) };
        let fields = Fields::new(file, &map);
        let [query_max_len, passage_max_len] =
            [("query_max_len", dir.query_max_len), ("passage_max_len", dir.passage_max_len)]
                .map(|(key, otherwise)| fields.size(key, Some(otherwise)));
        Ok(ModelDir { query_max_len: query_max_len?, passage_max_len: passage_max_len?, ..dir })
    }

    /// Length of an embedding.
    pub fn embedding_size(&self) -> usize {
        self.dense.map_or(self.config.hidden_size, |dense| dense.out_features)
    }

    /// Size of the files that hold the weights, as far as they are there.
    pub fn weights_bytes(&self) -> u64 {
        let folders = [Some(&self.transformer), self.dense_dir.as_ref()].into_iter().flatten();
        let files = folders.filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
        let weights = files.filter(|file| file.path().extension().is_some_and(|kind| kind == "safetensors"));
        // A hub model's files are links into its cache.
        weights.filter_map(|file| std::fs::metadata(file.path()).ok()).map(|file| file.len()).sum()
    }
}

/// The folders that `modules.json` names, relative to the model directory; `""` is that directory.
#[derive(Default)]
pub(super) struct Modules {
    pub(super) transformer: String,
    pub(super) pooling: Option<String>,
    pub(super) dense: Option<String>,
    normalize: bool,
}

impl Modules {
    /// A directory without `modules.json` is a Transformer alone.
    pub(super) fn read(directory: &Path) -> Result<Modules> {
        let path = &directory.join("modules.json");
        let Some(value) = read_optional(path)? else { return Ok(Modules::default()) };
        let list =
            value.as_array().ok_or_else(|| Error::file(path, "has to hold a list of modules, `[{...}, ...]`"))?;
        let mut modules = Modules::default();
        let mut last = None;
        for module in list {
            let module =
                module.as_object().ok_or_else(|| Error::file(path, format!("module {module} is not an object")))?;
            let fields = Fields::new(path, module);
            let class = fields.string("type")?.ok_or_else(|| fields.error("a module has no \"type\""))?;
            let kind = ModuleKind::from_class(class).ok_or_else(|| {
                let supported = "Transformer, Pooling, Dense and Normalize of sentence_transformers";
                fields.error(format!("module {class:?} is not supported; hbt knows {supported}"))
            })?;
            if last.is_none() != (kind == ModuleKind::Transformer) || last >= Some(kind) {
                let order = "one Transformer, one Pooling, then perhaps one Dense and one Normalize";
                return Err(fields.error(format!("module {class:?} is out of order; hbt computes {order}")));
            }
            last = Some(kind);
            let folder = fields.string("path")?.unwrap_or_default().to_owned();
            // What is named there is read, and in part copied into saved models.
            if !stays_inside(&folder) {
                return Err(fields.error(format!(
                    "the path {folder:?} of a module leads out of the directory; give a folder in it"
                )));
            }
            match kind {
                ModuleKind::Transformer => modules.transformer = folder,
                ModuleKind::Pooling => modules.pooling = Some(folder),
                ModuleKind::Dense => modules.dense = Some(folder),
                ModuleKind::Normalize => modules.normalize = true,
            }
        }
        Ok(modules)
    }
}

/// Modules in the only order hbt computes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ModuleKind {
    Transformer,
    Pooling,
    Dense,
    Normalize,
}

impl ModuleKind {
    /// Until 5.3 a class is `sentence_transformers.models.Pooling`, since 5.4
    /// `sentence_transformers.sentence_transformer.modules.pooling.Pooling`.
    fn from_class(class: &str) -> Option<ModuleKind> {
        match class.strip_prefix("sentence_transformers.")?.rsplit('.').next()? {
            "Transformer" => Some(ModuleKind::Transformer),
            "Pooling" => Some(ModuleKind::Pooling),
            "Dense" => Some(ModuleKind::Dense),
            "Normalize" => Some(ModuleKind::Normalize),
            _ => None,
        }
    }
}

fn read_config(directory: &Path) -> Result<(ModelConfig, Map<String, Value>)> {
    let path = &directory.join("config.json");
    let map = read_optional_object(path)?.ok_or_else(|| {
        Error::file(
            directory,
            "has no config.json; give a directory written by transformers, sentence-transformers or hbt",
        )
    })?;
    Ok((ModelConfig::from_map(path, &map)?, map))
}

fn read_pooling(folder: &Path, config: &ModelConfig) -> Result<Pooling> {
    let path = &folder.join("config.json");
    let map = read_optional_object(path)?.ok_or_else(|| {
        Error::file(folder, "has no config.json, but modules.json says that the pooling is described there")
    })?;
    let fields = Fields::new(path, &map);
    for key in ["word_embedding_dimension", "embedding_dimension"] {
        if let Some(size) = fields.integer(key)?.filter(|&size| size != config.hidden_size) {
            return Err(
                fields.error(format!("{key} is {size}, but the encoder's hidden_size is {}", config.hidden_size))
            );
        }
    }
    let modes = if map.contains_key("pooling_mode") { new_modes(&fields)? } else { legacy_modes(&fields, &map)? };
    let pooling = match modes.as_slice() {
        ["cls"] => Pooling::Cls,
        ["mean"] => Pooling::Mean,
        [] => return Err(fields.error("names no pooling mode; hbt knows cls and mean")),
        _ => return Err(fields.error(format!("pooling {} is not supported; hbt knows cls or mean", modes.join(" + ")))),
    };
    if pooling == Pooling::Mean && fields.boolean("include_prompt")? == Some(false) {
        return Err(fields.error("include_prompt is false, but hbt's mean is over the prefix too; set it to true"));
    }
    Ok(pooling)
}

/// Since 5.4: `"pooling_mode": "mean"`, or a list whose vectors are concatenated.
fn new_modes<'a>(fields: &Fields<'a>) -> Result<Vec<&'a str>> {
    let wrong = || fields.error("pooling_mode has to be a string or a list of strings");
    match fields.get("pooling_mode") {
        Some(Value::String(mode)) => Ok(vec![mode]),
        Some(Value::Array(modes)) => modes.iter().map(|mode| mode.as_str().ok_or_else(wrong)).collect(),
        _ => Err(wrong()),
    }
}

/// Until 5.3: one boolean a mode, such as `"pooling_mode_mean_tokens": true`.
fn legacy_modes<'a>(fields: &Fields, map: &'a Map<String, Value>) -> Result<Vec<&'a str>> {
    let mut modes = Vec::new();
    for key in map.keys() {
        let Some(mode) = key.strip_prefix("pooling_mode_") else { continue };
        if fields.boolean(key)? == Some(true) {
            modes.push(mode.trim_end_matches("_tokens").trim_end_matches("_token"));
        }
    }
    Ok(modes)
}

fn read_dense(folder: &Path, config: &ModelConfig) -> Result<DenseSpec> {
    let path = &folder.join("config.json");
    let map = read_optional_object(path)?.ok_or_else(|| {
        Error::file(folder, "has no config.json, but modules.json says that a Dense module is described there")
    })?;
    let fields = Fields::new(path, &map);
    let spec =
        DenseSpec { in_features: fields.size("in_features", None)?, out_features: fields.size("out_features", None)? };
    if spec.in_features != config.hidden_size {
        return Err(fields.error(format!(
            "in_features is {}, but the encoder's hidden_size is {}",
            spec.in_features, config.hidden_size
        )));
    }
    if fields.boolean("bias")? == Some(false) {
        return Err(fields.error("bias is false, but hbt computes a Dense module with a bias only"));
    }
    // sentence-transformers takes tanh where the key is absent.
    let activation = fields.string("activation_function")?.unwrap_or("Tanh");
    if activation.rsplit('.').next() != Some("Tanh") {
        return Err(
            fields.error(format!("activation_function {activation:?} is not supported; hbt computes Tanh only"))
        );
    }
    // Since 5.4 a Dense may also work on every token (late interaction).
    match fields.string("module_input_name")? {
        Some(input) if input != "sentence_embedding" => {
            Err(fields.error(format!("module_input_name {input:?} is not supported, only \"sentence_embedding\"")))
        }
        _ => Ok(spec),
    }
}

/// The lengths of a run's training texts, for the run itself: no other tool has a place for them, and none cuts texts by them.
pub(super) const OWN_FILE: &str = "hbt.json";
