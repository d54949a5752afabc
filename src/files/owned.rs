//! How hbt knows what it wrote: never by a name.
//!
//! A directory that it saves has a [`Manifest`], the length and the hash of each of its files, which is checked before they
//! are read back. A text that people may edit begins with a [mark](marked), the hash of the rest: once edited, it is theirs.
//! What has neither is somebody else's, and is not replaced.

use super::write_file;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// Name of the manifest in its directory.
pub const MANIFEST: &str = "hbt_manifest.json";

/// The card of a model is for people to edit, and nothing reads it back.
const CARD: &str = "README.md";

/// Of the manifest's own layout.
const FORMAT: u32 = 1;

/// What hbt wrote into a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    directory: PathBuf,
    files: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    bytes: u64,
    xxh3_128: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    format: u32,
    /// By path from the directory, with slashes.
    files: BTreeMap<String, Entry>,
    /// Of this object with an empty string here.
    xxh3_128: String,
}

impl Content {
    fn text(&self) -> String {
        serde_json::to_string_pretty(self).expect("names and numbers are JSON") + "\n"
    }

    /// The hash that belongs into [`Content::xxh3_128`].
    fn hash(&self) -> String {
        let Content { format, ref files, .. } = *self;
        hex(xxh3_128(Content { format, files: files.clone(), xxh3_128: String::new() }.text().as_bytes()))
    }
}

impl Manifest {
    /// Writes the manifest of all files in `directory`.
    ///
    /// # Errors
    /// If a file cannot be read, or the manifest not be written.
    pub fn write(directory: &Path) -> Result<()> {
        let mut files = BTreeMap::new();
        for name in names_below(directory)?.iter().filter_map(|name| name.to_str()).filter(|&name| name != MANIFEST) {
            let path = directory.join(name);
            let (bytes, hash) = File::open(&path).and_then(hash_of).map_err(|e| Error::io("read", &path, e))?;
            files.insert(name.replace(std::path::MAIN_SEPARATOR, "/"), Entry { bytes, xxh3_128: hex(hash) });
        }
        let mut content = Content { format: FORMAT, files, xxh3_128: String::new() };
        content.xxh3_128 = content.hash();
        write_file(&directory.join(MANIFEST), |file| file.write_all(content.text().as_bytes()))
    }

    /// The manifest in `directory`; `None` where there is none.
    ///
    /// # Errors
    /// If it cannot be read, is damaged, or is of a layout that this version does not know.
    pub fn read(directory: &Path) -> Result<Option<Manifest>> {
        #[derive(Deserialize)]
        struct Layout {
            format: u32,
        }
        let path = directory.join(MANIFEST);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if is_absent(&e) => return Ok(None),
            Err(e) => return Err(Error::io("read", &path, e)),
        };
        if let Ok(Layout { format }) = serde_json::from_slice(&bytes)
            && format != FORMAT
        {
            let message = format!("has layout {format}, which another version of hbt wrote; this one reads {FORMAT}");
            return Err(Error::file(&path, message));
        }
        match serde_json::from_slice::<Content>(&bytes) {
            Ok(content) if content.hash() == content.xxh3_128 => {
                Ok(Some(Manifest { directory: directory.to_owned(), files: content.files }))
            }
            _ => Err(Error::file(&path, "is damaged or was edited; copy the directory again")),
        }
    }

    /// Paths of the files in its directory that it does not list, from there: what others keep there.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn others(&self) -> Result<Vec<PathBuf>> {
        let mut names = names_below(&self.directory)?;
        let is_own = |name: &str| name == MANIFEST || self.files.contains_key(name);
        names.retain(|name| !name.to_str().is_some_and(is_own));
        Ok(names)
    }

    /// Fails unless every file but the model's card is what hbt wrote. `remedy` says what to do about one that is not.
    ///
    /// # Errors
    /// A file that is gone or has other bytes, by its name.
    pub fn verify(&self, remedy: &str) -> Result<()> {
        for (name, entry) in self.files.iter().filter(|(name, _)| *name != CARD) {
            let path = self.directory.join(name);
            let file = File::open(&path).map_err(|e| match is_absent(&e) {
                true => Error::file(&path, format!("is missing, and hbt saved it with the other files; {remedy}")),
                false => Error::io("read", &path, e),
            })?;
            let found = hash_of(file).map_err(|e| Error::io("read", &path, e))?;
            entry.check(&path, found, remedy)?;
        }
        Ok(())
    }

    /// Fails unless `bytes`, read from the file `path` of the directory, are what hbt wrote there. A file that the manifest
    /// does not list is not hbt's, and may be anything.
    ///
    /// # Errors
    /// Other bytes.
    pub fn check(&self, path: &Path, bytes: &[u8], remedy: &str) -> Result<()> {
        let name = path.strip_prefix(&self.directory).ok().and_then(Path::to_str);
        match name.and_then(|name| self.files.get(name)) {
            Some(entry) => entry.check(path, (bytes.len() as u64, xxh3_128(bytes)), remedy),
            None => Ok(()),
        }
    }
}

impl Entry {
    fn check(&self, path: &Path, (bytes, hash): (u64, u128), remedy: &str) -> Result<()> {
        if bytes != self.bytes {
            let message = format!("has {bytes} bytes, and {} when hbt saved it; {remedy}", self.bytes);
            return Err(Error::file(path, message));
        }
        if hex(hash) != self.xxh3_128 {
            let message = "is not what hbt saved here: it is damaged, was edited, or belongs to another save";
            return Err(Error::file(path, format!("{message}; {remedy}")));
        }
        Ok(())
    }
}

/// Fails unless hbt may put a directory of its own in the place of `target`: there is nothing, or what it saved there.
///
/// # Errors
/// A file, a link to nowhere, or a directory with a content and no manifest.
pub fn refuse_foreign_directory(target: &Path) -> Result<()> {
    let choose = "move it away, or choose another directory";
    let entries = match fs::read_dir(target) {
        Ok(entries) => entries,
        Err(e) if is_absent(&e) && fs::symlink_metadata(target).is_err() => return Ok(()),
        Err(e) if is_absent(&e) => return Err(Error::file(target, format!("is a link to nowhere; {choose}"))),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
            return Err(Error::file(target, format!("is a file where a directory has to be written; {choose}")));
        }
        Err(e) => return Err(Error::io("read", target, e)),
    };
    if entries.count() == 0 || Manifest::read(target)?.is_some() {
        return Ok(());
    }
    Err(Error::file(target, format!("is not empty, and this version of hbt did not write it; {choose}")))
}

/// Puts what others keep in `old`, a directory with a manifest, into `new`, which is to replace it.
///
/// # Errors
/// If a file can be neither linked nor copied.
pub fn keep_foreign(old: &Path, new: &Path) -> Result<()> {
    let Some(manifest) = Manifest::read(old)? else { return Ok(()) };
    for name in manifest.others()? {
        let (from, to) = (old.join(&name), new.join(&name));
        if fs::symlink_metadata(&to).is_ok() {
            continue;
        }
        let folder = super::parent(&to);
        fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
        // The same file under a second name, as the first is about to go; some file systems know no such thing.
        let kept = fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(drop));
        kept.map_err(|e| Error::io("copy", &from, e))?;
    }
    Ok(())
}

const MARK: &str = "# hbt wrote this file for the run in this directory. xxh3_128 of what follows: ";

/// `text` with a first line, a comment of TOML, by which [`is_marked`] knows it.
pub fn marked(text: &str) -> String {
    format!("{MARK}{}\n{text}", hex(xxh3_128(text.as_bytes())))
}

/// Whether `path` is a file that hbt wrote with a [mark](marked) and nobody has edited since.
///
/// # Errors
/// If it is there and cannot be read.
pub fn is_marked(path: &Path) -> Result<bool> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(e) if is_absent(&e) || e.kind() == io::ErrorKind::IsADirectory => return Ok(false),
        Err(e) => return Err(Error::io("read", path, e)),
    };
    let mut parts = text.splitn(2, |&byte| byte == b'\n');
    let (first, rest) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    Ok(first.strip_prefix(MARK.as_bytes()).is_some_and(|hash| hash == hex(xxh3_128(rest)).as_bytes()))
}

/// Paths of all files below `directory`, from there; links are not followed.
fn names_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let path = directory.join(&folder);
        let failed = |e| Error::io("read", &path, e);
        for entry in fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = folder.join(entry.file_name());
            if entry.file_type().map_err(failed)?.is_dir() { folders.push(name) } else { found.push(name) }
        }
    }
    Ok(found)
}

fn is_absent(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::NotFound
}

/// Length and hash of a file.
fn hash_of(mut file: File) -> io::Result<(u64, u128)> {
    let (mut hash, mut bytes, mut buffer) = (Xxh3::new(), 0, vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((bytes, hash.digest128())),
            Ok(n) => {
                hash.update(&buffer[..n]);
                bytes += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn hex(hash: u128) -> String {
    format!("{hash:032x}")
}
