//! `--model`: a directory, or the id of a model on the Hugging Face hub. A model whose files are all in the hub's cache is
//! read from there without a request.

use super::directory::Modules;
use crate::hub::{Failure, Kind, Repo, list};
use crate::json::read_optional_object;
use crate::{Error, Result};
use std::path::{Path, PathBuf};

pub use crate::hub::{Hub, is_hub_id};

/// The directory of `model`: itself where it is one, else the hub's, fetched if need be.
///
/// # Errors
/// No such directory; no such model; no network and nothing in the cache.
pub fn resolve(model: &str) -> Result<PathBuf> {
    Hub::from_env().resolve(model)
}

impl Hub {
    /// See [`resolve`].
    ///
    /// # Errors
    /// As [`resolve`].
    pub fn resolve(&self, model: &str) -> Result<PathBuf> {
        let path = Path::new(model);
        if path.is_dir() {
            return Ok(path.to_owned());
        }
        if path.exists() {
            return Err(Error::file(path, "is a file, not a model directory; give the directory that holds it"));
        }
        if !is_hub_id(model) {
            return Err(Error::file(
                path,
                "no such directory; check the path, or give a hub id such as intfloat/multilingual-e5-small",
            ));
        }
        let cache = self.cache_dir()?;
        let repo = Repo::new(cache, Kind::Model, model);
        let cached = repo.main().and_then(cached_snapshot);
        match cached {
            Some(Cached { directory, complete }) if complete || self.offline => Ok(directory),
            None if self.offline => Err(Error::other(format!(
                "{model}: no such directory, and HF_HUB_OFFLINE is set while the hub's cache {} does not have all of it; \
                 unset HF_HUB_OFFLINE to fetch it, or give a directory",
                cache.display()
            ))),
            cached => self.fetch(&repo, model).or_else(|failure| match (failure, cached) {
                // Without a network the cache has to do: this model may just have no modules.json to be sure about.
                (Failure::Unreachable(_), Some(cached)) => Ok(cached.directory),
                (Failure::Unreachable(why), None) => {
                    let remedy = "check the network, or give a directory";
                    Err(Error::other(format!("{model}: no such directory, and {why}; {remedy}")))
                }
                (Failure::Refused(why), _) => Err(Error::other(format!("{model}: no such directory, and {why}"))),
                (Failure::Other(error), _) => Err(error),
            }),
        }
    }

    /// Fetches what is missing of the hub's newest version, file by file, and makes it the cache's `main`.
    fn fetch(&self, repo: &Repo, model: &str) -> std::result::Result<PathBuf, Failure> {
        let client = self.client(Kind::Model);
        let (sha, files) = list(&client, Kind::Model, model, "main")?;
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let snapshot = repo.snapshot(&sha);
        // By its commit, so that a version published meanwhile cannot mix in.
        let get = |name: &str| if files.contains(&name) { repo.fetch(&client, &sha, name) } else { Ok(()) };
        get("modules.json")?;
        let modules = Modules::read(&snapshot).map_err(Failure::Other)?;
        let mut weights = false;
        for folder in
            [Some(&modules.transformer), modules.pooling.as_ref(), modules.dense.as_ref()].into_iter().flatten()
        {
            let here: Vec<&str> = files.iter().copied().filter(|file| parent(file) == folder).collect();
            let single = here.iter().any(|file| base_name(file) == "model.safetensors");
            for file in here.into_iter().filter(|file| is_wanted(base_name(file), single)) {
                weights |= file.ends_with(".safetensors") && *folder == modules.transformer;
                get(file)?;
            }
        }
        if !weights {
            return Err(Failure::Other(Error::other(format!(
                "{model}: the hub has no safetensors weights of this model; load it with transformers and save it with \
                 save_pretrained(DIR), then give that directory"
            ))));
        }
        get("config_sentence_transformers.json")?;
        // For the license.
        get("README.md")?;
        repo.set_main(&sha)?;
        Ok(snapshot)
    }
}

/// A version of a model that the cache has.
struct Cached {
    directory: PathBuf,
    /// Whether nothing can be missing: `modules.json` is there, so that it is known what else belongs to the model.
    complete: bool,
}

/// The version in `directory`, if it has at least the encoder's configuration, tokenizer and weights.
fn cached_snapshot(directory: PathBuf) -> Option<Cached> {
    let complete = directory.join("modules.json").exists();
    let modules = Modules::read(&directory).ok()?;
    let transformer = directory.join(&modules.transformer);
    let has = |folder: &Path, name: &str| folder.join(name).exists();
    if !has(&transformer, "config.json") || !has(&transformer, "tokenizer.json") || !has_weights(&transformer) {
        return None;
    }
    let pooling = modules.pooling.is_none_or(|folder| has(&directory.join(folder), "config.json"));
    let dense = modules.dense.map(|folder| directory.join(folder));
    let dense = dense.is_none_or(|folder| has(&folder, "config.json") && has_weights(&folder));
    // What modules.json promises is part of the model: without it the embeddings would be others.
    (pooling && dense).then_some(Cached { directory, complete })
}

fn has_weights(folder: &Path) -> bool {
    if folder.join("model.safetensors").exists() {
        return true;
    }
    let index = read_optional_object(&folder.join("model.safetensors.index.json")).ok().flatten();
    let shards = index.as_ref().and_then(|index| index.get("weight_map")?.as_object());
    shards.is_some_and(|shards| {
        shards.values().all(|shard| shard.as_str().is_some_and(|shard| folder.join(shard).exists()))
    })
}

/// Whether hbt reads this file of a module; `single` says that the weights are not sharded.
fn is_wanted(name: &str, single: bool) -> bool {
    match name {
        "config.json" | "tokenizer.json" | "tokenizer_config.json" | "special_tokens_map.json" => true,
        "model.safetensors" => true,
        "model.safetensors.index.json" => !single,
        _ if name.ends_with(".safetensors") => !single && name.starts_with("model-") && name.contains("-of-"),
        _ => name.starts_with("sentence_") && name.ends_with("_config.json"),
    }
}

/// The folder part of a file name on the hub; `""` for the top.
fn parent(file: &str) -> &str {
    file.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn base_name(file: &str) -> &str {
    file.rsplit_once('/').map_or(file, |(_, name)| name)
}
