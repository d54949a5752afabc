//! `--model`: a directory, or the id of a model on the Hugging Face hub.
//!
//! The cache is the one that the Python libraries use, and so are the variables: `HF_HUB_CACHE` (or
//! `HUGGINGFACE_HUB_CACHE`), `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`. A model whose files are all in the
//! cache is read from there without a request.

use super::directory::Modules;
use crate::json::read_optional_object;
use crate::{Error, Result};
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};
use std::io;
use std::path::{Path, PathBuf};

/// The directory of `model`: itself where it is one, else the hub's, fetched if need be.
///
/// # Errors
/// No such directory; no such model; no network and nothing in the cache.
pub fn resolve(model: &str) -> Result<PathBuf> {
    Hub::from_vars(|name| std::env::var(name).ok().filter(|value| !value.is_empty())).resolve(model)
}

/// Where models come from that are no directory.
#[derive(Clone, Debug)]
pub struct Hub {
    /// The folder that holds `models--ORG--NAME`; `None` where no variable and no home directory names one.
    pub cache: Option<PathBuf>,
    /// Never send a request.
    pub offline: bool,
    /// Instead of `https://huggingface.co`.
    pub endpoint: Option<String>,
    /// For models that are not public; by default the one that `hf auth login` stored.
    pub token: Option<String>,
}

impl Hub {
    /// As the variables say; `var` gives the value of one.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Hub {
        let home = || {
            let caches = var("XDG_CACHE_HOME").map(PathBuf::from);
            let caches = caches.or_else(|| Some(std::env::home_dir()?.join(".cache")))?;
            Some(caches.join("huggingface"))
        };
        let cache = var("HF_HUB_CACHE").or_else(|| var("HUGGINGFACE_HUB_CACHE")).map(PathBuf::from);
        let offline = var("HF_HUB_OFFLINE").map(|value| value.to_ascii_uppercase());
        Hub {
            cache: cache.or_else(|| Some(var("HF_HOME").map(PathBuf::from).or_else(home)?.join("hub"))),
            offline: matches!(offline.as_deref(), Some("1" | "ON" | "YES" | "TRUE")),
            endpoint: var("HF_ENDPOINT"),
            token: var("HF_TOKEN"),
        }
    }

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
        let Some(cache) = self.cache.clone().map(Cache::new) else {
            return Err(Error::other("no home directory to keep the hub's cache in; set HF_HOME to a directory"));
        };
        let cached = cached_snapshot(&cache, model);
        match cached {
            Some(Cached { directory, complete }) if complete || self.offline => Ok(directory),
            None if self.offline => Err(Error::other(format!(
                "{model}: no such directory, and HF_HUB_OFFLINE is set while the hub's cache {} does not have all of it; \
                 unset HF_HUB_OFFLINE to fetch it, or give a directory",
                cache.path().display()
            ))),
            cached => self.fetch(&cache, model).or_else(|e| match (e, cached) {
                // Without a network the cache has to do: this model may just have no modules.json to be sure about.
                (Failure::Unreachable(_), Some(cached)) => Ok(cached.directory),
                (Failure::Unreachable(e) | Failure::Refused(e), _) => Err(e),
            }),
        }
    }

    /// Fetches what is missing of the hub's newest version, file by file, and makes it the cache's `main`.
    fn fetch(&self, cache: &Cache, model: &str) -> std::result::Result<PathBuf, Failure> {
        let api = self.api(cache).map_err(|e| Failure::new(model, e))?;
        let main = Repo::model(model.to_owned());
        let info = api.repo(main.clone()).info().map_err(|e| Failure::new(model, e))?;
        let files: Vec<&str> = info.siblings.iter().map(|file| file.rfilename.as_str()).filter(stays_inside).collect();
        let snapshot = cache.repo(main.clone()).pointer_path(&info.sha);
        // By its commit, so that a version published meanwhile cannot mix in.
        let repo = api.repo(Repo::with_revision(model.to_owned(), RepoType::Model, info.sha.clone()));
        let get = |name: &str| -> std::result::Result<(), Failure> {
            if files.contains(&name) && !snapshot.join(name).exists() {
                repo.download(name).map_err(|e| Failure::new(model, e))?;
            }
            Ok(())
        };
        get("modules.json")?;
        let modules = Modules::read(&snapshot).map_err(Failure::Refused)?;
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
            return Err(Failure::Refused(Error::other(format!(
                "{model}: the hub has no safetensors weights of this model; load it with transformers and save it with \
                 save_pretrained(DIR), then give that directory"
            ))));
        }
        get("config_sentence_transformers.json")?;
        cache.repo(main).create_ref(&info.sha).map_err(|e| Failure::Refused(Error::io("write", cache.path(), e)))?;
        Ok(snapshot)
    }

    fn api(&self, cache: &Cache) -> std::result::Result<Api, ApiError> {
        let mut builder = ApiBuilder::from_cache(cache.clone());
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
        }
        if let Some(token) = &self.token {
            builder = builder.with_token(Some(token.clone()));
        }
        builder.build()
    }
}

/// Why a model could not be fetched, as far as it matters for falling back on the cache.
enum Failure {
    /// No answer.
    Unreachable(Error),
    /// An answer, or a disk, that says no.
    Refused(Error),
}

impl Failure {
    fn new(model: &str, error: ApiError) -> Failure {
        let text = error.to_string();
        // The status as ureq words it; hf-hub does not export ureq's error to match on.
        let status = text.split_once("http status: ").and_then(|(_, status)| status.parse::<u16>().ok());
        let message = |why: &str| Error::other(format!("{model}: no such directory, and {why}"));
        match (status, error) {
            (Some(401 | 403 | 404), _) => Failure::Refused(message(
                "the hub does not show such a model; check the spelling, or set HF_TOKEN if the model is not public",
            )),
            (_, ApiError::IoError(e)) if e.kind() == io::ErrorKind::StorageFull => Failure::Refused(message(
                "the disk of the hub's cache is full; free some space or set HF_HOME to another disk",
            )),
            _ => Failure::Unreachable(message(&format!(
                "the hub cannot be reached ({text}); check the network, or give a directory"
            ))),
        }
    }
}

/// A version of a model that the cache has.
struct Cached {
    directory: PathBuf,
    /// Whether nothing can be missing: `modules.json` is there, so that it is known what else belongs to the model.
    complete: bool,
}

/// The cache's `main`, if it has at least the encoder's configuration, tokenizer and weights.
fn cached_snapshot(cache: &Cache, model: &str) -> Option<Cached> {
    let repo = cache.repo(Repo::model(model.to_owned()));
    let modules_json = repo.get("modules.json");
    let directory = modules_json.clone().or_else(|| repo.get("config.json"))?.parent()?.to_owned();
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
    (pooling && dense).then_some(Cached { directory, complete: modules_json.is_some() })
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

/// `ORG/NAME` in the characters that the hub allows. One slash exactly: anything else is meant as a path.
fn is_hub_id(model: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_name = |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(allowed);
    model.split_once('/').is_some_and(|(org, name)| is_name(org) && is_name(name))
}

/// Whether a file name of the hub cannot lead out of the snapshot's directory.
fn stays_inside(file: &&str) -> bool {
    file.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// The folder part of a file name on the hub; `""` for the top.
fn parent(file: &str) -> &str {
    file.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn base_name(file: &str) -> &str {
    file.rsplit_once('/').map_or(file, |(_, name)| name)
}
