//! Data sets of the hub, in the version that is asked for: a list of files, of which those are fetched that are needed.

use super::{Client, Failure, Hub, Kind, MAIN, Repo, is_commit, is_file, is_hub_id, list};
use crate::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// A version of a data set, of which the cache may have some files.
///
/// mteb names versions by their commits, and the Python libraries keep no `refs` for these. So a file is looked for where it
/// would be, in the commit's `snapshots`.
#[derive(Debug)]
pub struct Dataset {
    hub: Hub,
    repo: Repo,
    id: String,
    commit: String,
    directory: PathBuf,
    files: Vec<String>,
}

impl Hub {
    /// The data set `id` at a commit, or at its newest. One request lists its files; the list of a commit is kept beside the
    /// cache's files, so that the next time needs none. Without an answer the files in the cache are all there are.
    ///
    /// # Errors
    /// No such data set or commit; no network, and nothing of that version in the cache.
    pub fn dataset(&self, id: &str, commit: Option<&str>) -> Result<Dataset> {
        if !is_hub_id(id) || !commit.is_none_or(is_commit) {
            let of = commit.map_or(String::new(), |commit| format!(" at {commit}"));
            return Err(Error::other(format!(
                "{id}{of}: no such directory, and no data set of the hub has such a name; check the spelling"
            )));
        }
        let repo = Repo::new(self.cache_dir()?, Kind::Dataset, id);
        let of = |commit: &str, files: Vec<String>| Dataset {
            hub: self.clone(),
            directory: repo.snapshot(commit),
            repo: repo.clone(),
            id: id.to_owned(),
            commit: commit.to_owned(),
            files,
        };
        if let Some((commit, files)) = commit.and_then(|commit| Some((commit, repo.list_of(commit)?))) {
            return Ok(of(commit, files));
        }
        let cached = || {
            let commit = commit.map(str::to_owned).or_else(|| repo.main_commit())?;
            let files = repo.list_of(&commit).or_else(|| Some(files_in(&repo.snapshot(&commit))))?;
            (!files.is_empty()).then(|| of(&commit, files))
        };
        let why = match self.offline {
            true => "HF_HUB_OFFLINE is set".to_owned(),
            false => match self.list_dataset(&repo, id, commit) {
                Ok((commit, files)) => return Ok(of(&commit, files)),
                Err(Failure::Unreachable(why)) => why,
                Err(Failure::Refused(why)) => return Err(Error::other(format!("{id}: {why}"))),
                Err(Failure::Other(error)) => return Err(error),
            },
        };
        cached().ok_or_else(|| {
            let directory = repo.snapshot(commit.unwrap_or("COMMIT"));
            Error::other(format!(
                "{id}: {why}, and the hub's cache has nothing of it; fetch it with {}, which puts it into {}, or \
                 name a copy of it with --data",
                fetch_command(id, commit),
                directory.display()
            ))
        })
    }

    fn list_dataset(
        &self,
        repo: &Repo,
        id: &str,
        commit: Option<&str>,
    ) -> std::result::Result<(String, Vec<String>), Failure> {
        let client = self.client(Kind::Dataset);
        let (sha, files) = list(&client, Kind::Dataset, id, commit.unwrap_or(MAIN))?;
        // A commit is a fact; what is newest is not.
        let sha = commit.map_or(sha, str::to_owned);
        repo.keep_list(&sha, &files)?;
        if commit.is_none() {
            repo.set_main(&sha)?;
        }
        Ok((sha, files))
    }
}

impl Dataset {
    /// Where its files are, or will be.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The commit.
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// The names of its files, in the order of the hub's list or of their names.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(String::as_str)
    }

    /// Fetches those of these files that the cache does not have.
    ///
    /// # Errors
    /// Offline, or no network; the hub refuses; the disk.
    pub fn fetch<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let missing: Vec<&str> =
            names.into_iter().filter(|name| is_file(name) && !self.directory.join(name).exists()).collect();
        let Some(first) = missing.first() else { return Ok(()) };
        let why = match self.hub.offline {
            true => "HF_HUB_OFFLINE is set".to_owned(),
            false => match self.fetch_all(&self.hub.client(Kind::Dataset), &missing) {
                Ok(()) => return Ok(()),
                Err(Failure::Unreachable(why)) => why,
                Err(Failure::Refused(why)) => return Err(Error::other(format!("{}: {why}", self.id))),
                Err(Failure::Other(error)) => return Err(error),
            },
        };
        let more = match missing.len() - 1 {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        Err(Error::other(format!(
            "{}: {why}, and the hub's cache lacks {first}{more}; fetch it with {}, which puts it into {}, or name a copy \
             of it with --data",
            self.id,
            fetch_command(&self.id, Some(&self.commit)),
            self.directory.display()
        )))
    }

    fn fetch_all(&self, client: &Client, names: &[&str]) -> std::result::Result<(), Failure> {
        names.iter().try_for_each(|name| self.repo.fetch(client, &self.commit, name))
    }
}

/// What fetches a data set without hbt.
fn fetch_command(id: &str, commit: Option<&str>) -> String {
    let revision = commit.map_or(String::new(), |commit| format!(" --revision {commit}"));
    format!("hf download --repo-type dataset {id}{revision}")
}

/// The names of the files in a snapshot, which are links; none if it is not there.
fn files_in(snapshot: &Path) -> Vec<String> {
    fn walk(folder: &Path, prefix: &str, names: &mut Vec<String>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = entry.path();
            // Snapshots have no links to folders, so no loops.
            match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                true => walk(&path, &format!("{prefix}{name}/"), names),
                false if path.exists() => names.push(format!("{prefix}{name}")),
                false => {}
            }
        }
    }
    let mut names = Vec::new();
    walk(snapshot, "", &mut names);
    names.sort();
    names
}
