//! The Hugging Face hub: what it holds is fetched into the cache that the Python libraries use, and read from there.
//!
//! The variables are theirs, too: `HF_HUB_CACHE` (or `HUGGINGFACE_HUB_CACHE`), `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN`,
//! `HF_HUB_OFFLINE`, `HF_HUB_DOWNLOAD_TIMEOUT`.

mod cache;
mod client;
mod dataset;

use crate::{Error, Result};
use serde::Deserialize;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

pub(crate) use cache::Repo;
pub use cache::dataset_of;
pub(crate) use client::Client;
pub use dataset::Dataset;

/// Where models and data sets come from that are no directory.
#[derive(Clone, Debug)]
pub struct Hub {
    /// The folder that holds `models--ORG--NAME` and `datasets--ORG--NAME`; `None` where no variable and no home directory
    /// names one.
    pub cache: Option<PathBuf>,
    /// Never send a request.
    pub offline: bool,
    /// Instead of `https://huggingface.co`.
    pub endpoint: Option<String>,
    /// For what is not public; by default the one that `hf auth login` stored.
    pub token: Option<String>,
    /// How long a connection, an answer's head or the next piece of its body may take.
    pub timeout: Duration,
}

/// What `huggingface_hub` waits.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What the newest version of a repository is called.
const MAIN: &str = "main";

/// What a repository of the hub holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Model,
    Dataset,
}

impl Kind {
    /// What messages call it.
    fn name(self) -> &'static str {
        match self {
            Kind::Model => "model",
            Kind::Dataset => "data set",
        }
    }

    /// Begins the names of the cache's folders, and the paths of the hub's interface.
    fn plural(self) -> &'static str {
        match self {
            Kind::Model => "models",
            Kind::Dataset => "datasets",
        }
    }

    /// Stands before an id in the paths of the hub's files.
    fn path(self) -> &'static str {
        match self {
            Kind::Model => "",
            Kind::Dataset => "datasets/",
        }
    }
}

impl Hub {
    /// As the environment's variables say.
    pub fn from_env() -> Hub {
        Hub::from_vars(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

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

    /// The cache's folder.
    ///
    /// # Errors
    /// Nothing names one.
    pub(crate) fn cache_dir(&self) -> Result<&Path> {
        self.cache
            .as_deref()
            .ok_or_else(|| Error::other("no home directory to keep the hub's cache in; set HF_HOME to a directory"))
    }

    /// For requests about repositories of one kind.
    pub(crate) fn client(&self, kind: Kind) -> Client {
        Client::new(self.endpoint.as_deref().unwrap_or("https://huggingface.co"), self.token(), self.timeout, kind)
    }

    /// The one that was given, else the one that `hf auth login` stored beside the cache.
    fn token(&self) -> Option<String> {
        let stored = || std::fs::read_to_string(self.cache.as_ref()?.parent()?.join("token")).ok();
        self.token.clone().or_else(stored).map(|token| token.trim().to_owned()).filter(|token| !token.is_empty())
    }
}

/// What the hub says about a repository.
#[derive(Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// The commit that a revision stands for, and the names of its files.
pub(crate) fn list(
    client: &Client,
    kind: Kind,
    id: &str,
    revision: &str,
) -> std::result::Result<(String, Vec<String>), Failure> {
    let info = client.text(&format!("/api/{}/{id}/revision/{revision}", kind.plural()))?;
    let Info { sha, siblings } = serde_json::from_str(&info)
        .map_err(|e| Failure::Refused(format!("what answers is no hub ({e}); check HF_ENDPOINT and proxies")))?;
    if !is_commit(&sha) {
        return Err(Failure::Refused(format!(
            "what answers is no hub (commit {sha:?}); check HF_ENDPOINT and proxies"
        )));
    }
    Ok((sha, siblings.into_iter().map(|file| file.rfilename).filter(|file| is_file(file)).collect()))
}

/// Why something could not be fetched, as far as it matters for falling back on the cache.
pub(crate) enum Failure {
    /// No answer, or none for now.
    Unreachable(String),
    /// An answer that says no.
    Refused(String),
    /// Something else, such as the disk.
    Other(Error),
}

impl Failure {
    fn unreachable(why: &str) -> Failure {
        Failure::Unreachable(format!("the hub cannot be reached ({why})"))
    }

    /// A hub that has answered `status` so often that it is left alone.
    fn busy(status: u16, tries: u32, asked: Option<String>) -> Failure {
        let what = if status == 429 { "has had too many requests" } else { "is out of order" };
        let later = asked.map_or_else(|| "later".to_owned(), |wait| format!("in {wait}, as it asks"));
        let often = if tries == 1 { String::new() } else { format!(", {tries} times") };
        Failure::Unreachable(format!("the hub {what} ({status}{often}; try again {later})"))
    }

    /// The hub's refusal. It answers 401 for what does not exist, too, as it does not tell strangers which names are taken.
    fn of_status(status: u16, kind: Kind) -> Failure {
        let what = kind.name();
        Failure::Refused(match status {
            401 | 404 => format!(
                "the hub does not show such a {what} ({status}); check the spelling, or set HF_TOKEN if the {what} is not \
                 public"
            ),
            403 => format!(
                "the hub does not let you read it (403); accept the {what}'s conditions on its page, and set HF_TOKEN to a \
                 token that may read it"
            ),
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

/// `ORG/NAME`, or a `NAME` without an organisation such as `xlm-roberta-base`, in the characters that the hub allows.
/// Anything else is meant as a path.
pub fn is_hub_id(id: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_name = |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(allowed);
    let mut parts = id.split('/');
    parts.by_ref().take(2).all(is_name) && parts.next().is_none()
}

/// Whether a commit is one, and so no path.
fn is_commit(commit: &str) -> bool {
    !commit.is_empty() && commit.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// Whether a file name of the hub is one, and cannot lead out of the snapshot's directory.
fn is_file(name: &str) -> bool {
    stays_inside(name) && name.split('/').all(|part| !matches!(part, "" | "."))
}

/// Whether a relative path with slashes leads to a place below where it begins, by its names: what is a link there was put
/// there by whoever made the directory, such as the hub's cache, whose files are links.
pub(crate) fn stays_inside(path: &str) -> bool {
    let is_plain = |part: Component| matches!(part, Component::Normal(_) | Component::CurDir);
    // A backslash is a separator on Windows, and in no name on the hub.
    !path.contains('\\') && Path::new(path).components().all(is_plain)
}
