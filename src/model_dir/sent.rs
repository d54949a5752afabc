//! What describes a model, as it goes from a process that has its directory to one that has not: all but the weights.

use super::ModelDir;
use crate::files::{share_directory, write_file};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_128;

/// Names of files that are read of a directory and of the folders of its modules, besides weights. Its manifest is not among
/// them, which is for what may change on a disk, nor its card.
pub const DESCRIBING: [&str; 10] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "modules.json",
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_xlm-roberta_config.json",
    "config_sentence_transformers.json",
    super::directory::OWN_FILE,
];

/// Files by their names from the directory, with slashes.
type Files = BTreeMap<String, String>;

impl ModelDir {
    /// The files that describe the model, in one message.
    ///
    /// # Errors
    /// If one cannot be read, or is no text.
    pub fn to_message(&self) -> Result<Vec<u8>> {
        let mut files = Files::new();
        let modules = std::fs::read_dir(&self.path).into_iter().flatten().flatten().map(|entry| entry.path());
        let folders = modules.filter(|path| path.is_dir());
        for folder in [self.path.clone()].into_iter().chain(folders) {
            for path in DESCRIBING.map(|name| folder.join(name)) {
                let text = match std::fs::read_to_string(&path) {
                    Ok(text) => text,
                    Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
                    Err(e) => return Err(Error::io("read", path, e)),
                };
                let name = path.strip_prefix(&self.path).ok().and_then(Path::to_str);
                let name = name.ok_or_else(|| Error::file(&path, "has a name that is not UTF-8; rename it"))?;
                files.insert(name.replace(std::path::MAIN_SEPARATOR, "/"), text);
            }
        }
        serde_json::to_vec(&files).map_err(|e| Error::other(e.to_string()))
    }

    /// Writes the files of a message into a directory below `cache`, unless they are there. Its name is a hash of them.
    ///
    /// # Errors
    /// Something else than [`ModelDir::to_message`] gives, and if the directory cannot be written.
    pub fn from_message(message: &[u8], cache: &Path) -> Result<PathBuf> {
        let files: Files = serde_json::from_slice(message)
            .map_err(|e| Error::other(format!("what has come of the model is damaged ({e}); start again")))?;
        let target = cache.join(format!("model-{:032x}", xxh3_128(message)));
        let has = |directory: &Path, (name, text): (&String, &String)| {
            std::fs::read(directory.join(name)).is_ok_and(|found| found == text.as_bytes())
        };
        share_directory(
            &target,
            |directory| files.iter().all(|file| has(directory, file)),
            |new| {
                for (name, text) in &files {
                    let path = new.join(name);
                    let parent = path.parent().expect("a joined path has a parent");
                    std::fs::create_dir_all(parent).map_err(|e| Error::io("create", parent, e))?;
                    write_file(&path, |file| file.write_all(text.as_bytes()))?;
                }
                Ok(())
            },
        )?;
        Ok(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// All that is read of a directory, but for the weights.
    #[test]
    fn a_model_is_described_elsewhere_as_where_it_is() {
        let root = tempfile::tempdir().unwrap();
        for name in ["bert", "labse", "st54", "xlmr"] {
            let here = ModelDir::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap();
            let message = here.to_message().unwrap();
            let there = ModelDir::from_message(&message, root.path()).unwrap();
            assert_eq!(ModelDir::from_message(&message, root.path()).unwrap(), there);
            assert!(!there.join("model.safetensors").exists());
            let there = ModelDir::open(&there).unwrap();
            let words = |dir: &ModelDir| format!("{dir:?}").replace(dir.path.to_str().unwrap(), "DIR");
            assert_eq!(words(&there), words(&here), "{name}");
            assert_eq!(fs::read(&there.tokenizer).unwrap(), fs::read(&here.tokenizer).unwrap());
        }
        assert!(ModelDir::from_message(b"{", root.path()).unwrap_err().to_string().contains("is damaged"));
    }
}
