//! The hub's cache, as the Python libraries lay it out: `models--ORG--NAME` or `datasets--ORG--NAME` with `blobs/HASH`,
//! `snapshots/COMMIT/FILE`, which are links to the blobs, and `refs/main`, the commit of the newest version that was fetched.

use super::client::Client;
use super::{Failure, Kind, MAIN, is_commit, is_file, is_hub_id};
use crate::files::SharedFile;
use crate::progress::{bar, say};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_128;

/// The folder of hbt's own, beside those of the Python libraries, for the names of files by commit.
const LISTS: &str = "hbt-lists";

/// The id of the data set that `path` is in, or is a version of, where some cache holds it: its place says so.
pub fn dataset_of(path: &Path) -> Option<String> {
    let names: Vec<&str> = path.iter().map(|name| name.to_str().unwrap_or_default()).collect();
    names.windows(3).find_map(|names| {
        let [folder, "snapshots", commit] = names else { return None };
        let id = folder.strip_prefix(Kind::Dataset.plural())?.strip_prefix("--")?.replacen("--", "/", 1);
        (is_hub_id(&id) && is_commit(commit)).then_some(id)
    })
}

/// One repository's part of the cache.
#[derive(Clone, Debug)]
pub(crate) struct Repo {
    folder: PathBuf,
    /// Its id, and the same in the paths of the hub's files.
    id: String,
    path: String,
}

impl Repo {
    pub(crate) fn new(cache: &Path, kind: Kind, id: &str) -> Repo {
        let folder = cache.join(format!("{}--{}", kind.plural(), id.replace('/', "--")));
        Repo { folder, id: id.to_owned(), path: format!("{}{id}", kind.path()) }
    }

    /// The newest version that was fetched.
    pub(crate) fn main(&self) -> Option<PathBuf> {
        self.main_commit().map(|commit| self.snapshot(&commit))
    }

    /// The commit of the newest version that was fetched.
    pub(super) fn main_commit(&self) -> Option<String> {
        let commit = fs::read_to_string(self.folder.join("refs").join(MAIN)).ok()?;
        let commit = commit.trim();
        is_commit(commit).then(|| commit.to_owned())
    }

    /// Where the files of a commit are.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// Makes a commit the newest version.
    pub(crate) fn set_main(&self, commit: &str) -> Result<(), Failure> {
        self.write("refs", MAIN, commit)
    }

    /// The files of a commit, if they were listed before.
    pub(super) fn list_of(&self, commit: &str) -> Option<Vec<String>> {
        let names = fs::read_to_string(self.folder.join(LISTS).join(commit)).ok()?;
        Some(names.lines().filter(|name| is_file(name)).map(str::to_owned).collect())
    }

    /// Keeps the names of a commit's files; that of a commit never changes.
    pub(super) fn keep_list(&self, commit: &str, names: &[String]) -> Result<(), Failure> {
        self.write(LISTS, commit, &names.iter().map(|name| format!("{name}\n")).collect::<String>())
    }

    fn write(&self, folder: &str, name: &str, text: &str) -> Result<(), Failure> {
        let folder = self.folder.join(folder);
        let write = || {
            fs::create_dir_all(&folder)?;
            let file = SharedFile::create(&folder, 0o666)?;
            file.as_file().write_all(text.as_bytes())?;
            file.persist(&folder.join(name))
        };
        write().map_err(Failure::disk)
    }

    /// Fetches a file of a commit, unless it is there. Several processes may do so at once: one fetches, the others wait. What
    /// a killed one has got is gone on from.
    pub(crate) fn fetch(&self, client: &Client, commit: &str, name: &str) -> Result<(), Failure> {
        let pointer = self.snapshot(commit).join(name);
        if pointer.exists() {
            return Ok(());
        }
        let blobs = self.folder.join("blobs");
        for folder in [Some(&*blobs), pointer.parent()].into_iter().flatten() {
            fs::create_dir_all(folder).map_err(Failure::disk)?;
        }
        let part = blobs.join(format!("{:032x}.hbt-part", xxh3_128(format!("{commit}/{name}").as_bytes())));
        let mut file = loop {
            let file = File::options().create(true).append(true).open(&part).map_err(Failure::disk)?;
            file.lock().map_err(Failure::disk)?;
            if pointer.exists() {
                return Ok(());
            }
            // Else a process that was killed right now had completed it.
            if part.exists() {
                break file;
            }
        };
        let etag = self.download(client, commit, name, &mut file)?;
        file.sync_all().map_err(Failure::disk)?;
        // Of a hub that gives no name, the part's own will do: it stands for the file of this commit.
        let blob =
            blobs.join(etag.unwrap_or_else(|| format!("{:032x}", xxh3_128(part.as_os_str().as_encoded_bytes()))));
        fs::rename(&part, &blob).map_err(Failure::disk)?;
        let up = "../".repeat(name.split('/').count() + 1);
        let blob_name = blob.file_name().expect("a blob has a name");
        link(&Path::new(&up).join("blobs").join(blob_name), &blob, &pointer).map_err(Failure::disk)
    }

    fn download(&self, client: &Client, commit: &str, name: &str, file: &mut File) -> Result<Option<String>, Failure> {
        let start = std::time::Instant::now();
        let bar = bar(0, "{prefix} {bar:24} {bytes}/{total_bytes}  {eta} left");
        let bar = bar.map(|bar| bar.with_prefix(name.to_owned()));
        let mut n_bytes = 0;
        let path = format!("/{}/resolve/{commit}/{name}", self.path);
        let etag = client.download(&path, file, &mut |arrived, all| {
            n_bytes = arrived;
            if let Some(bar) = &bar {
                bar.set_length(all.unwrap_or(arrived));
                bar.set_position(arrived);
            }
        });
        if let Some(bar) = &bar {
            bar.finish_and_clear();
        }
        let etag = etag?;
        // The small files need no lines of their own.
        if n_bytes > 1 << 20 {
            let seconds = start.elapsed().as_secs_f64();
            say(&format!("fetched {name} of {}, {:.1} MB in {seconds:.1} s", self.id, n_bytes as f64 / 1e6));
        }
        Ok(etag)
    }
}

/// Makes `pointer` a link to the blob, by a path from its folder; where there are no links, the blob itself.
fn link(relative: &Path, blob: &Path, pointer: &Path) -> io::Result<()> {
    // One that leads nowhere may be left.
    if fs::symlink_metadata(pointer).is_ok() {
        fs::remove_file(pointer)?;
    }
    #[cfg(unix)]
    {
        let _ = blob;
        std::os::unix::fs::symlink(relative, pointer)
    }
    #[cfg(not(unix))]
    {
        let _ = relative;
        fs::rename(blob, pointer)
    }
}

#[cfg(test)]
mod tests {
    use super::dataset_of;
    use std::path::Path;

    #[test]
    fn a_path_in_a_cache_tells_its_data_set() {
        for (path, id) in [
            ("/c/hub/datasets--org--set/snapshots/0123abc/de/train.parquet", Some("org/set")),
            ("c/datasets--squad/snapshots/0123abc", Some("squad")),
            ("/c/datasets--org--set/snapshots", None),
            ("/c/datasets--org--set/blobs/0123abc", None),
            ("/c/models--org--set/snapshots/0123abc/a.jsonl", None),
            ("/c/datasets--/snapshots/0123abc", None),
            ("/c/datasets--a b--set/snapshots/0123abc", None),
            ("/c/org/set/train.jsonl", None),
        ] {
            assert_eq!(dataset_of(Path::new(path)).as_deref(), id, "{path}");
        }
    }
}
