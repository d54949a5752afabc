//! The folder of a model's results, as mteb's cache has it: `results/ORG__MODEL/REVISION/TASK.json` and `model_meta.json`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::files::{Found, Settings, TaskResult, version};
use crate::files::write_file_atomic;
use crate::json::{Fields, read_optional_object};
use crate::{Error, Result};

/// Name of the file that describes the model.
pub const MODEL_META: &str = "model_meta.json";

/// A model as mteb names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelName {
    name: String,
    revision: String,
}

impl ModelName {
    /// A model that is called `ORG/MODEL`, and what tells apart models of this name.
    ///
    /// # Errors
    /// If they cannot be names of folders, as mteb makes them.
    pub fn new(name: impl Into<String>, revision: impl Into<String>) -> Result<Self> {
        let (name, revision) = (name.into(), revision.into());
        let is_part = |part: &str| {
            !part.is_empty() && !part.starts_with('.') && !part.contains(|c: char| r"/\:".contains(c) || c.is_control())
        };
        if !name.split_once('/').is_some_and(|(owner, model)| is_part(owner) && is_part(model)) {
            return Err(Error::usage(format!("mteb cannot file a model called {name:?}; name it ORG/MODEL")));
        }
        if !is_part(&revision) {
            let message = format!("mteb cannot file a revision called {revision:?}; use letters and digits");
            return Err(Error::usage(message));
        }
        Ok(ModelName { name, revision })
    }

    /// `ORG/MODEL`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What tells apart models of this name.
    pub fn revision(&self) -> &str {
        &self.revision
    }
}

/// What `model_meta.json` says of a model, where it is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelMeta {
    /// Number of parameters.
    pub n_parameters: Option<u64>,
    /// Number of those that are embeddings of words.
    pub n_embedding_parameters: Option<u64>,
    /// Dimension of the embeddings.
    pub embed_dim: Option<usize>,
    /// Longest text in tokens.
    pub max_tokens: Option<usize>,
    /// Whether queries or documents have a prefix.
    pub use_instructions: Option<bool>,
    /// The model on the hub that this one was trained from.
    pub adapted_from: Option<String>,
}

impl ModelMeta {
    /// All keys that `mteb submit-results` wants; null is what a person has to fill in.
    fn to_json(&self, model: &ModelName) -> Value {
        let ModelMeta { n_parameters, n_embedding_parameters, embed_dim, max_tokens, use_instructions, adapted_from } =
            self;
        // Weights in f32.
        let memory = n_parameters.map(|n| (n as f64 * 4.0 / f64::from(1 << 20)).round());
        json!({
            "name": model.name, "revision": model.revision, "release_date": null, "languages": null,
            "n_parameters": n_parameters, "n_embedding_parameters": n_embedding_parameters, "memory_usage_mb": memory,
            "max_tokens": max_tokens, "embed_dim": embed_dim, "license": null, "open_weights": null,
            "public_training_code": null, "public_training_data": null, "framework": [], "reference": null,
            "similarity_fn_name": "cosine", "use_instructions": use_instructions, "training_datasets": null,
            "adapted_from": adapted_from, "modalities": ["text"], "model_type": ["dense"], "loader": null,
        })
    }
}

/// What an earlier run left of a task.
#[derive(Clone, Debug, PartialEq)]
pub enum Earlier {
    /// Nothing.
    Nothing,
    /// A result to go on from: same model, task, data, settings and version of hbt.
    Same(TaskResult),
    /// A result of hbt's that differs in what is said here, to be replaced.
    Other(String),
}

/// The folder of a model's results.
#[derive(Clone, Debug)]
pub struct ModelFolder {
    path: PathBuf,
    model: ModelName,
}

impl ModelFolder {
    /// The folder of `model` below `cache`, which is what mteb's `ResultCache` is given.
    pub fn new(cache: &Path, model: ModelName) -> Self {
        let name = model.name.replace('/', "__").replace(' ', "_");
        ModelFolder { path: cache.join("results").join(name).join(&model.revision), model }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file of a task's result.
    pub fn result_path(&self, task_name: &str) -> PathBuf {
        self.path.join(format!("{task_name}.json"))
    }

    /// Whether there is a description of the model.
    ///
    /// # Errors
    /// One that cannot be read, or describes another model.
    pub fn has_meta(&self) -> Result<bool> {
        let path = self.path.join(MODEL_META);
        let Some(there) = read_optional_object(&path)? else { return Ok(false) };
        let fields = Fields::new(&path, &there);
        let is_ours = (fields.string("name")?, fields.string("revision")?)
            == (Some(&self.model.name), Some(&self.model.revision));
        match is_ours {
            true => Ok(true),
            false => Err(fields.error("describes another model than its folder is named after; move it away")),
        }
    }

    /// Writes what is known of the model, unless there is a file already, which a person may have completed.
    ///
    /// # Errors
    /// As [`has_meta`](Self::has_meta), and if the file cannot be written.
    pub fn write_meta(&self, meta: &ModelMeta) -> Result<()> {
        if self.has_meta()? {
            return Ok(());
        }
        fs::create_dir_all(&self.path).map_err(|e| Error::io("create", &self.path, e))?;
        write_file_atomic(&self.path.join(MODEL_META), format!("{:#}", meta.to_json(&self.model)).as_bytes())
    }

    /// Writes a result, replacing an earlier one of the task.
    ///
    /// # Errors
    /// If the file cannot be written, or would lie elsewhere by the name of the task.
    pub fn write(&self, result: &TaskResult) -> Result<()> {
        if result.task_name.contains(['/', '\\']) {
            return Err(Error::usage(format!("task {:?} cannot name a file; call it otherwise", result.task_name)));
        }
        fs::create_dir_all(&self.path).map_err(|e| Error::io("create", &self.path, e))?;
        write_file_atomic(&self.result_path(&result.task_name), result.text(&self.model).as_bytes())
    }
    /// What an earlier run left of a task that is now run on this data with these settings.
    ///
    /// # Errors
    /// If the file cannot be read, was written by another program, or is damaged.
    pub fn read(&self, task_name: &str, dataset_revision: &str, settings: &Settings) -> Result<Earlier> {
        let path = self.result_path(task_name);
        let text = match fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Earlier::Nothing),
            Err(e) => return Err(Error::io("read", &path, e)),
        };
        let found = Found::parse(&path, &text)?;
        let now = version();
        let fixed = [
            ("task", found.result.task_name.as_str(), task_name),
            ("dataset's revision", &found.result.dataset_revision, dataset_revision),
            ("model", &found.model, &self.model.name),
            ("model's revision", &found.revision, &self.model.revision),
            ("version", &found.version, &now),
        ];
        let theirs = &found.result.settings;
        let keys = theirs.keys().chain(settings.keys().filter(|key| !theirs.contains_key(*key)));
        let value = |of: &Settings, key: &str| of.get(key).cloned().unwrap_or_else(|| "not set".to_owned());
        let others = keys.map(|key| (key.as_str(), value(theirs, key), value(settings, key)));
        let all = fixed.map(|(what, then, now)| (what, then.to_owned(), now.to_owned())).into_iter().chain(others);
        let differs = all.filter(|(_, then, now)| then != now);
        let differs: Vec<String> =
            differs.map(|(what, then, now)| format!("{what} was {then}, and is {now}")).collect();
        match differs.is_empty() {
            true => Ok(Earlier::Same(found.result)),
            false => Ok(Earlier::Other(differs.join("; "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::mteb::entries::Entry;

    fn result(precision: &str) -> TaskResult {
        let settings = Settings::from([("precision".to_owned(), precision.to_owned())]);
        let mut result = TaskResult::new("XQuADRetrieval", "194842d6", settings);
        let languages = vec!["deu-Latn".to_owned()];
        let (numbers, groups) = (Vec::new(), Vec::new());
        result.record("validation", Entry { numbers, groups, main_score: 0.5, hf_subset: "de".into(), languages });
        result
    }

    fn folder(cache: &Path, revision: &str) -> ModelFolder {
        ModelFolder::new(cache, ModelName::new("hbt/e5 small", revision).unwrap())
    }

    #[test]
    fn a_run_goes_on_from_its_own_results_only() {
        let cache = tempfile::tempdir().unwrap();
        let here = folder(cache.path(), "abc");
        let f32_settings = result("f32").settings;
        let read =
            |folder: &ModelFolder, settings: &Settings| folder.read("XQuADRetrieval", "194842d6", settings).unwrap();
        assert_eq!(read(&here, &f32_settings), Earlier::Nothing);
        here.write(&result("f32")).unwrap();
        assert!(cache.path().join("results/hbt__e5_small/abc/XQuADRetrieval.json").is_file());
        assert_eq!(read(&here, &f32_settings), Earlier::Same(result("f32")));
        assert_eq!(read(&folder(cache.path(), "abd"), &f32_settings), Earlier::Nothing);

        let other = |text: &str| Earlier::Other(text.to_owned());
        assert_eq!(read(&here, &result("bf16").settings), other("precision was f32, and is bf16"));
        assert_eq!(read(&here, &Settings::new()), other("precision was f32, and is not set"));
        let earlier = here.read("XQuADRetrieval", "51adfef1", &f32_settings).unwrap();
        assert_eq!(earlier, other("dataset's revision was 194842d6, and is 51adfef1"));
        // Copied by hand into the folder of another revision, or task.
        let there = folder(cache.path(), "abd");
        fs::create_dir_all(there.path()).unwrap();
        for name in ["XQuADRetrieval", "MLQARetrieval"] {
            fs::copy(here.result_path("XQuADRetrieval"), there.result_path(name)).unwrap();
        }
        assert_eq!(read(&there, &f32_settings), other("model's revision was abc, and is abd"));
        let both = other("task was XQuADRetrieval, and is MLQARetrieval; model's revision was abc, and is abd");
        assert_eq!(there.read("MLQARetrieval", "194842d6", &f32_settings).unwrap(), both);

        fs::write(here.result_path("XQuADRetrieval"), b"{\"hbt\": \xff").unwrap();
        let message = here.read("XQuADRetrieval", "194842d6", &f32_settings).unwrap_err().to_string();
        assert!(message.contains("is damaged"), "{message}");
    }

    #[test]
    fn what_is_known_of_a_model_is_written_once() {
        let cache = tempfile::tempdir().unwrap();
        let here = folder(cache.path(), "abc");
        let meta = ModelMeta { n_parameters: Some(117_653_760), embed_dim: Some(384), ..ModelMeta::default() };
        here.write_meta(&meta).unwrap();
        let path = here.path().join(MODEL_META);
        let written: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!((&written["name"], &written["revision"]), (&json!("hbt/e5 small"), &json!("abc")));
        // 117,653,760 numbers of 4 bytes are 448.8 MiB.
        assert_eq!((&written["embed_dim"], &written["memory_usage_mb"]), (&json!(384), &json!(449.0)));
        assert_eq!((&written["framework"], &written["license"]), (&json!([]), &Value::Null));
        // A person has added the license.
        let edited = fs::read_to_string(&path).unwrap().replace("\"license\": null", "\"license\": \"mit\"");
        fs::write(&path, &edited).unwrap();
        here.write_meta(&meta).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), edited);
        fs::write(&path, edited.replace("\"abc\"", "\"abd\"")).unwrap();
        let message = here.write_meta(&meta).unwrap_err().to_string();
        assert!(message.contains("describes another model"), "{message}");
    }

    #[test]
    fn names_that_are_no_folders_are_refused() {
        for name in ["e5", "/e5", "a/", "a/b/c", "../e5", "a/..", "a/b\nc", "a\\b/c", "C:/x"] {
            assert!(ModelName::new(name, "1").unwrap_err().to_string().contains("ORG/MODEL"), "{name}");
        }
        for revision in ["", "..", "a/b", ".x"] {
            assert!(ModelName::new("a/b", revision).unwrap_err().to_string().contains("revision"), "{revision}");
        }
        let mut elsewhere = result("f32");
        elsewhere.task_name = "../x".to_owned();
        let cache = tempfile::tempdir().unwrap();
        assert!(folder(cache.path(), "abc").write(&elsewhere).unwrap_err().to_string().contains("cannot name a file"));
    }
}
