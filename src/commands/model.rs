//! The configured model.

use super::device;
use hbt::backend::cuda::{Kernels, Workload};
use hbt::backend::{Backend, Element, Precision};
use hbt::cache::cache_dir;
use hbt::config::Config;
use hbt::model_dir::{ModelDir, hub};
use hbt::progress::say;
use hbt::retriever::Retriever;
use hbt::train::Ranks;
use hbt::{Result, embedded};
use std::path::PathBuf;

/// As a directory on this machine.
pub fn model_dir(config: &Config) -> Result<ModelDir> {
    let dir = ModelDir::open(match &config.model {
        Some(model) => hub::resolve(model)?,
        None => embedded::model(&cache_dir()?)?,
    })?;
    e5_warning(config, &dir)?.iter().for_each(|warning| say(&format!("warning: {warning}")));
    Ok(dir)
}

/// The model that the first process `find`s, in all of them: the others `open` what describes it in a copy, and have no weights.
pub fn of_first(
    ranks: &Ranks,
    find: impl FnOnce() -> Result<ModelDir>,
    open: impl FnOnce(PathBuf) -> Result<ModelDir>,
) -> Result<ModelDir> {
    if ranks.is_alone() {
        return find();
    }
    let found = if ranks.leads() { Some(find()?) } else { None };
    let mut message = found.as_ref().map_or(Ok(Vec::new()), ModelDir::to_message)?;
    ranks.peers().broadcast_bytes(0, &mut message)?;
    match found {
        Some(found) => Ok(found),
        None => open(ModelDir::from_message(&message, &cache_dir()?)?),
    }
}

/// The warning about a model of the E5 family whose texts get no prefixes: its own directory does not name any, and without
/// them its embeddings are worse.
fn e5_warning(config: &Config, dir: &ModelDir) -> Result<Option<String>> {
    let original = dir.config_json.get("_name_or_path").and_then(|name| name.as_str());
    let is_e5 =
        |name: &str| name.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word.eq_ignore_ascii_case("e5"));
    let Some(name) = config.model.as_deref().into_iter().chain(original).find(|name| is_e5(name)) else {
        return Ok(None);
    };
    let has_none = config.text_kinds(dir)?.iter().all(|kind| kind.prefix.is_empty());
    let is_said = dir.query_prefix.is_some() || config.query_prefix.is_some() || !config.datasets.is_empty();
    Ok((has_none && !is_said).then(|| {
        format!(
            "{name} looks like an E5 model, and those expect \"query: \" before a query and \"passage: \" before a passage; set \
             query_prefix and passage_prefix (to \"\" if it was trained without)"
        )
    }))
}

/// What reports call it.
pub fn model_name(config: &Config) -> String {
    config.model.clone().unwrap_or_else(|| "built-in".to_owned())
}

/// The kernels that a model takes on a GPU.
pub fn kernels_of(dir: &ModelDir, trains: bool) -> Kernels {
    Kernels::Of(Workload { head_size: dir.config.head_size(), width: dir.config.hidden_size, trains })
}

/// What the configured model's embeddings depend on here.
pub fn content_key<B: Backend>(config: &Config, retriever: &Retriever<B>) -> Result<String> {
    let precision = if B::E::IS_F32 { Precision::F32 } else { Precision::Bf16 };
    retriever.content_key(device::instructions_of(config, precision).as_deref())
}
