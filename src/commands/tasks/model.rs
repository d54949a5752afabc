//! What result files call a model.

use super::planned::Planned;
use hbt::config::Config;
use hbt::eval::mteb::folder::{ModelMeta, ModelName};
use hbt::model_dir::ModelDir;
use hbt::retriever::RetrieverSettings;
use hbt::{Error, Result};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// Owner of models that have none: `local/NAME` is a directory's.
const LOCAL: &str = "local";

/// The configured model: the hub's by its id and commit, a directory by its name and a hash of its content.
pub fn of_model(config: &Config, dir: &ModelDir) -> Result<ModelName> {
    let commit = || {
        let folder = dir.path.parent()?;
        (folder.file_name()? == "snapshots").then(|| dir.path.file_name()?.to_str().map(str::to_owned))?
    };
    match (&config.model, commit()) {
        (None, _) => ModelName::new("hbt/built-in", content(&dir.path, is_of_model)?),
        (Some(id), Some(commit)) if !Path::new(id).is_dir() => {
            ModelName::new(if id.contains('/') { id.clone() } else { format!("hub/{id}") }, commit)
        }
        (Some(_), _) => ModelName::new(local(&dir.path), content(&dir.path, is_of_model)?),
    }
}

/// Embeddings that someone made.
pub fn of_embeddings(directory: &Path) -> Result<ModelName> {
    let is_array = |path: &Path| path.extension().is_some_and(|extension| extension == "npy");
    ModelName::new(local(directory), content(directory, is_array)?)
}

fn local(directory: &Path) -> String {
    let whole = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let name = whole.file_name().map_or_else(|| "root".into(), |name| name.to_string_lossy().into_owned());
    let name: String = name.chars().map(|c| if c.is_alphanumeric() || ".-_".contains(c) { c } else { '_' }).collect();
    format!("{LOCAL}/{}", name.trim_start_matches('.'))
}

fn is_of_model(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "safetensors" || extension == "json")
}

/// A hash of the files below a directory that are `wanted`.
fn content(directory: &Path, wanted: impl Fn(&Path) -> bool) -> Result<String> {
    let mut files = Vec::new();
    list(directory, &mut files)?;
    files.retain(|path| wanted(path));
    files.sort();
    hash_of(directory, &files)
}

/// A hash of the files of a task's data.
pub fn content_of_data(task: &Planned) -> Result<String> {
    let root = &task.data.root;
    let files: Vec<PathBuf> = task.data.all_files(task.row)?.into_iter().map(|name| root.join(name)).collect();
    hash_of(root, &files)
}

/// A hash of files below a directory, with their names.
fn hash_of(directory: &Path, files: &[PathBuf]) -> Result<String> {
    let mut hash = Xxh3::new();
    let mut buffer = vec![0; 1 << 20];
    for path in files {
        let failed = |e| Error::io("read", path, e);
        let mut file = File::open(path).map_err(failed)?;
        let name = path.strip_prefix(directory).unwrap_or(path).as_os_str().as_encoded_bytes();
        hash.update(&(name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update(&file.metadata().map_err(failed)?.len().to_le_bytes());
        loop {
            let n = file.read(&mut buffer).map_err(failed)?;
            if n == 0 {
                break;
            }
            hash.update(&buffer[..n]);
        }
    }
    Ok(format!("{:032x}", hash.digest128()))
}

fn list(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).map_err(|e| Error::io("read", directory, e))? {
        let path = entry.map_err(|e| Error::io("read", directory, e))?.path();
        // A link to a directory may lead back.
        if path.is_dir() && !path.is_symlink() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// What `model_meta.json` says of it.
pub fn meta(config: &Config, dir: &ModelDir, of: &RetrieverSettings, n_parameters: u64) -> ModelMeta {
    ModelMeta {
        n_parameters: Some(n_parameters),
        n_embedding_parameters: Some((dir.config.vocab_size * dir.config.hidden_size) as u64),
        embed_dim: Some(of.truncate_dim.unwrap_or_else(|| dir.embedding_size())),
        max_tokens: Some(of.passage.max_len),
        use_instructions: Some(!of.query.prefix.is_empty() || !of.passage.prefix.is_empty()),
        adapted_from: config
            .model
            .clone()
            .filter(|model| hbt::model_dir::hub::is_hub_id(model) && !Path::new(model).is_dir()),
    }
}
