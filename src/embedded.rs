//! The model and the data that are part of the program, so that its first run needs neither files nor a network.

use crate::files::share_directory;
use crate::{Error, Result};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// Defaults that suit the built-in model and data, as a configuration file.
pub const PRESET: &str = include_str!("../weights/tiny/preset.toml");

/// (name in the directory, content)
type Files = &'static [(&'static str, &'static [u8])];

macro_rules! files {
    ($($name:literal),+ $(,)?) => { &[$(($name, include_bytes!(concat!("../weights/tiny/", $name)))),+] };
}

const MODEL: Files = files![
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
];

const DATA: Files = files!["data/train.jsonl", "data/test.jsonl"];

/// The built-in model as a directory below `cache`, written if it is not there or not what it was.
///
/// # Errors
/// When it cannot be written.
pub fn model(cache: &Path) -> Result<PathBuf> {
    unpack(cache, "tiny-model", MODEL)
}

/// The built-in parallel questions as a directory below `cache`, written if it is not there or not what it was.
///
/// # Errors
/// When it cannot be written.
pub fn data(cache: &Path) -> Result<PathBuf> {
    Ok(unpack(cache, "tiny-data", DATA)?.join("data"))
}

/// The directory's name holds a hash of the content: another version of hbt writes another directory. Its files are compared
/// with the program's own each time, which takes milliseconds.
fn unpack(cache: &Path, name: &str, files: Files) -> Result<PathBuf> {
    let mut hash = Xxh3::new();
    for (name, content) in files {
        hash.update(name.as_bytes());
        hash.update(content);
    }
    let target = cache.join(format!("{name}-{:016x}", hash.digest()));
    let has = |directory: &Path, name: &str, content: &[u8]| {
        let path = directory.join(name);
        let is_as_long = std::fs::metadata(&path).is_ok_and(|file| file.len() == content.len() as u64);
        is_as_long && std::fs::read(path).is_ok_and(|bytes| bytes == content)
    };
    let is_whole = |directory: &Path| files.iter().all(|(name, content)| has(directory, name, content));
    share_directory(&target, is_whole, |temp| {
        for (name, content) in files {
            let path = temp.join(name);
            let parent = path.parent().expect("a joined path has a parent");
            std::fs::create_dir_all(parent).map_err(|e| Error::io("create", parent, e))?;
            std::fs::write(&path, content).map_err(|e| Error::io("write", &path, e))?;
        }
        Ok(())
    })?;
    Ok(target)
}
