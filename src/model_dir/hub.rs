//! `--model`: a directory, or the id of a model on the Hugging Face hub.
//!
//! The cache is the one that the Python libraries use, and so are the variables: `HF_HUB_CACHE` (or
//! `HUGGINGFACE_HUB_CACHE`), `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`,
//! `HF_HUB_DOWNLOAD_TIMEOUT`. A model whose files are all in the cache is read from there without a request.

mod cache;
mod client;

use super::directory::{Modules, stays_inside};
use crate::json::read_optional_object;
use crate::{Error, Result};
use cache::Repo;
use client::Client;
use serde::Deserialize;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

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
    /// How long a connection, an answer's head or the next piece of its body may take.
    pub timeout: Duration,
}

/// What `huggingface_hub` waits.
const TIMEOUT: Duration = Duration::from_secs(10);

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
            timeout: var("HF_HUB_DOWNLOAD_TIMEOUT")
                .and_then(|seconds| seconds.parse().ok())
                .filter(|&seconds| seconds > 0)
                .map_or(TIMEOUT, Duration::from_secs),
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
        let Some(cache) = &self.cache else {
            return Err(Error::other("no home directory to keep the hub's cache in; set HF_HOME to a directory"));
        };
        let repo = Repo::new(cache, model);
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
                (Failure::Unreachable(why) | Failure::Refused(why), _) => {
                    Err(Error::other(format!("{model}: no such directory, and {why}")))
                }
                (Failure::Other(error), _) => Err(error),
            }),
        }
    }

    /// Fetches what is missing of the hub's newest version, file by file, and makes it the cache's `main`.
    fn fetch(&self, repo: &Repo, model: &str) -> std::result::Result<PathBuf, Failure> {
        let client =
            Client::new(self.endpoint.as_deref().unwrap_or("https://huggingface.co"), self.token(), self.timeout);
        let info = client.text(&format!("/api/models/{model}/revision/main"))?;
        let Info { sha, siblings } = serde_json::from_str(&info)
            .map_err(|e| Failure::Refused(format!("what answers is no hub ({e}); check HF_ENDPOINT and proxies")))?;
        if !sha.bytes().all(|b| b.is_ascii_alphanumeric()) || sha.is_empty() {
            return Err(Failure::Refused(format!(
                "what answers is no hub (commit {sha:?}); check HF_ENDPOINT and proxies"
            )));
        }
        let files: Vec<&str> =
            siblings.iter().map(|file| file.rfilename.as_str()).filter(|file| is_file(file)).collect();
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
        repo.set_main(&sha)?;
        Ok(snapshot)
    }

    /// The one that was given, else the one that `hf auth login` stored beside the cache.
    fn token(&self) -> Option<String> {
        let stored = || std::fs::read_to_string(self.cache.as_ref()?.parent()?.join("token")).ok();
        self.token.clone().or_else(stored).map(|token| token.trim().to_owned()).filter(|token| !token.is_empty())
    }
}

/// What the hub says about a model.
#[derive(Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// Why a model could not be fetched, as far as it matters for falling back on the cache.
enum Failure {
    /// No answer, or none for now.
    Unreachable(String),
    /// An answer that says no.
    Refused(String),
    /// Something else, such as the disk.
    Other(Error),
}

impl Failure {
    fn unreachable(why: &str) -> Failure {
        Failure::Unreachable(format!("the hub cannot be reached ({why}); check the network, or give a directory"))
    }

    /// A hub that has answered `status` so often that it is left alone.
    fn busy(status: u16, tries: u32, asked: Option<String>) -> Failure {
        let what = if status == 429 { "has had too many requests" } else { "is out of order" };
        let later = asked.map_or_else(|| "later".to_owned(), |wait| format!("in {wait}, as it asks"));
        let often = if tries == 1 { String::new() } else { format!(", {tries} times") };
        Failure::Unreachable(format!("the hub {what} ({status}{often}); try again {later}, or give a directory"))
    }

    /// The hub's refusal. It answers 401 for what does not exist, too, as it does not tell strangers which names are taken.
    fn of_status(status: u16) -> Failure {
        Failure::Refused(match status {
            401 | 404 => format!(
                "the hub does not show such a model ({status}); check the spelling, or set HF_TOKEN if the model is not public"
            ),
            403 => "the hub does not let you read it (403); accept the model's conditions on its page, and set HF_TOKEN to a \
                    token that may read it"
                .to_owned(),
            _ => format!("the hub refuses the request ({status}); check HF_ENDPOINT and proxies"),
        })
    }

    fn disk(e: io::Error) -> Failure {
        if e.kind() == io::ErrorKind::StorageFull {
            let why = "the disk of the hub's cache is full; free some space or set HF_HOME to another disk";
            return Failure::Refused(why.to_owned());
        }
        Failure::Refused(format!("the hub's cache cannot be written ({e}); set HF_HOME to a directory that can"))
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

/// `ORG/NAME`, or a `NAME` without an organisation such as `xlm-roberta-base`, in the characters that the hub allows.
/// Anything else is meant as a path.
pub fn is_hub_id(model: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_name = |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(allowed);
    let mut parts = model.split('/');
    parts.by_ref().take(2).all(is_name) && parts.next().is_none()
}

/// Whether a file name of the hub is one, and cannot lead out of the snapshot's directory.
fn is_file(name: &str) -> bool {
    stays_inside(name) && name.split('/').all(|part| !matches!(part, "" | "."))
}

/// The folder part of a file name on the hub; `""` for the top.
fn parent(file: &str) -> &str {
    file.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn base_name(file: &str) -> &str {
    file.rsplit_once('/').map_or(file, |(_, name)| name)
}
