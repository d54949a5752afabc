//! Images that NVRTC made, in the cache: each with its hash, so that a damaged one is none.

use super::{HEADERS, Source};
use crate::cache::cache_dir;
use crate::files::SharedFile;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Where an image is kept: a name that changes with all that it depends on. Nothing if there is no cache.
pub fn path(source: &Source, options: &[String], (major, minor): (u32, u32)) -> Option<PathBuf> {
    let mut hash = Xxh3::new();
    let texts = HEADERS.iter().map(|(_, text)| *text).chain([source.text]);
    for text in texts.chain(options.iter().map(String::as_str)) {
        hash.update(text.as_bytes());
        // So that no two lists of texts look alike.
        hash.update(&text.len().to_le_bytes());
    }
    let stem = source.name.trim_end_matches(".cu");
    let architecture = options.iter().find_map(|option| option.strip_prefix("--gpu-architecture=")).unwrap_or_default();
    let name = format!("{stem}-{architecture}-nvrtc{major}.{minor}-{:016x}.image", hash.digest());
    Some(cache_dir().ok()?.join("kernels").join(name))
}

/// The image, if it is there and whole. One that is not is removed.
pub fn read(path: &Path) -> Option<Vec<u8>> {
    let mut image = fs::read(path).ok()?;
    let hash = image.len().checked_sub(size_of::<u64>()).map(|start| image.split_off(start));
    if hash.is_some_and(|hash| hash == xxh3_64(&image).to_le_bytes()) {
        return Some(image);
    }
    remove(path);
    None
}

/// Writes the image in one step, as another process may be reading or writing it.
pub fn keep(path: &Path, image: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().expect("a file in the cache");
    fs::create_dir_all(folder)?;
    let file = SharedFile::create(folder, 0o600)?;
    file.as_file().write_all(image)?;
    file.as_file().write_all(&xxh3_64(image).to_le_bytes())?;
    file.persist(path)
}

/// Removes it. One that cannot be removed will be written over.
pub fn remove(path: &Path) {
    let _ = fs::remove_file(path);
}
