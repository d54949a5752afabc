//! The run directory: configuration, metrics, models, and the state from which a killed run goes on.
//!
//! `last/` holds a model and, until the run is complete, the training state of the same step; both change in one
//! rename, so a killed run goes on from the last save and ends with the same bytes as one that was never killed.

use super::kept::share_weights;
use super::metrics::{holds_events, holds_metrics};
use super::moments::save_moments;
use super::optimizer::Optimizer;
use crate::backend::Backend;
use crate::eval::EvalReport;
use crate::files::owned::{MANIFEST, Manifest, is_marked, marked, refuse_foreign_directory};
use crate::files::{tidy, write_file, write_file_atomic};
use crate::model::ParamSpec;
use crate::model_dir::{ModelCard, ModelSave, save};
use crate::progress::say;
use crate::retriever::Retriever;
use crate::{Error, Result};
use serde::Serialize;
use serde_json::Value;
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

const STATE: &str = "training_state.json";
const MOMENTS: &str = "optimizer.safetensors";

pub use super::state::{OtherEvaluation, TrainingState};

/// A run directory. One process may use it at a time.
pub struct RunDir {
    path: PathBuf,
    /// Locked from [`RunDir::claim`] on; the system unlocks it when the process ends for any reason.
    lock: Option<File>,
}

impl RunDir {
    /// The directory `path`, which need not exist.
    pub fn new(path: &Path) -> Self {
        RunDir { path: path.to_owned(), lock: None }
    }

    /// Path of the run directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Path of the saved configuration.
    pub fn config(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// Path of the latest model.
    pub fn last(&self) -> PathBuf {
        self.path.join("last")
    }

    /// Path of the best model by `best_metric`.
    pub fn best(&self) -> PathBuf {
        self.path.join("best")
    }

    /// Path of the lines of metrics.
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// Path of the folder for TensorBoard.
    pub fn tensorboard(&self) -> PathBuf {
        self.path.join("tensorboard")
    }

    /// Path of the lines of metrics as TensorBoard reads them. Its name is that of no machine and of no time, so that a run has
    /// one such file, however often it was stopped.
    pub fn events(&self) -> PathBuf {
        self.tensorboard().join("events.out.tfevents.0.hbt")
    }

    /// Path of the reports before and after training.
    pub fn reports(&self) -> PathBuf {
        self.path.join("eval.json")
    }

    /// Path of the page for a browser.
    pub fn page(&self) -> PathBuf {
        self.path.join("report.html")
    }

    /// All that a run writes, whatever of it is there.
    pub fn outputs(&self) -> [PathBuf; 7] {
        [self.config(), self.metrics(), self.events(), self.reports(), self.page(), self.last(), self.best()]
    }

    /// Locks the directory, if there is one, against other processes, and removes what a killed one had not completed.
    ///
    /// # Errors
    /// If it is in use, or something cannot be removed.
    pub fn claim(&mut self) -> Result<()> {
        if self.lock.is_some() || !self.path.is_dir() {
            return Ok(());
        }
        // If a directory cannot be opened or locked, the user has to avoid running twice.
        if let Ok(directory) = File::open(&self.path) {
            if matches!(directory.try_lock(), Err(TryLockError::WouldBlock)) {
                let message =
                    "is in use by another hbt; wait until it has ended, or choose another directory with --out";
                return Err(Error::file(&self.path, message));
            }
            self.lock = Some(directory);
        }
        self.outputs().iter().try_for_each(|path| tidy(path))?;
        self.tidy_checkpoints()
    }

    /// Fails if the run would replace anything that hbt did not write. A run that `is_resumed` has a verified state here.
    ///
    /// # Errors
    /// The first such file or directory.
    pub fn refuse_foreign(&self, is_resumed: bool) -> Result<()> {
        match fs::metadata(&self.path) {
            Ok(found) if found.is_dir() => {}
            Err(e) if e.kind() != ErrorKind::NotADirectory => return Ok(()),
            _ => return Err(Error::file(&self.path, "is a file, or lies below one; choose a directory with --out")),
        }
        refuse_foreign_directory(&self.last())?;
        refuse_foreign_directory(&self.best())?;
        self.refuse_foreign_checkpoints(is_resumed)?;
        let is_own_run = is_resumed || is_marked(&self.config())?;
        // Of a resumed run, an edited configuration is read, and stays.
        for (path, is_own) in [
            (self.config(), is_own_run),
            (self.metrics(), is_own_run && holds_metrics(&self.metrics())),
            (self.events(), is_own_run && holds_events(&self.events())),
            (self.reports(), is_own_run && holds_reports(&self.reports())),
        ] {
            let Ok(found) = fs::symlink_metadata(&path) else { continue };
            if !is_own || (found.is_symlink() && !is_resumed) {
                let message = "is there already, and hbt did not write it for a run here; move it away, or choose another \
                               directory with --out";
                return Err(Error::file(path, message));
            }
        }
        Ok(())
    }

    /// Makes the directory, [claims](RunDir::claim) it, and writes the configuration into it. That of a run that
    /// `is_resumed` stays as it is if it was edited.
    ///
    /// # Errors
    /// Those of [`RunDir::claim`] and [`RunDir::refuse_foreign`], and if it cannot be written.
    pub fn create(&mut self, config: &str, is_resumed: bool) -> Result<()> {
        self.refuse_foreign(is_resumed)?;
        fs::create_dir_all(&self.path).map_err(|e| Error::io("create", &self.path, e))?;
        self.claim()?;
        let path = self.config();
        if path.exists() && !is_marked(&path)? {
            say(&format!("{} was edited since hbt wrote it, and stays as it is", path.display()));
            return Ok(());
        }
        write_file_atomic(&path, marked(config).as_bytes())
    }

    /// Whether a state has been saved, which could be lost or resumed.
    pub fn has_state(&self) -> bool {
        self.last().join(STATE).exists()
    }

    /// Where the state is saved, for messages.
    pub fn state_file(&self) -> PathBuf {
        self.last().join(STATE)
    }

    /// The state of the last save, all files of which are verified; `None` if nothing has been saved yet.
    ///
    /// # Errors
    /// If it cannot be read, another version of hbt saved it, or a file of it is not what was saved.
    pub fn state(&self) -> Result<Option<TrainingState>> {
        let (last, path) = (self.last(), self.state_file());
        let anew = format!("train on from its model in another directory (--model {} --out ANOTHER)", last.display());
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound && last.exists() => {
                let message = "is missing, so nobody can say where the run stopped; copy last/ again whole, or";
                return Err(Error::file(&path, format!("{message} {anew}")));
            }
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) if e.kind() == ErrorKind::NotADirectory => {
                return Err(Error::file(&self.path, "is a file, or lies below one; choose a directory with --out"));
            }
            Err(e) => return Err(Error::io("read", &path, e)),
        };
        let Some(manifest) = Manifest::read(&last)? else {
            let message = format!(
                "was written by another version of hbt, or not copied whole: it has no {MANIFEST}; go on with that \
                 version, copy it again, or {anew}"
            );
            return Err(Error::file(&last, message));
        };
        manifest.verify("copy last/ again whole, or start a new run")?;
        let state: TrainingState = serde_json::from_slice(&bytes)
            .map_err(|e| Error::file(&path, format!("is not a training state ({e}); start a new run")))?;
        match state.contradiction() {
            Some(what) => Err(Error::file(&path, format!("has {what}; start a new run"))),
            None => Ok(Some(state)),
        }
    }

    /// Writes `eval.json`, the reports before training and after it, as far as the run has come, unless it has them.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_reports(&self, state: &TrainingState) -> Result<()> {
        #[derive(Serialize)]
        struct Reports<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            evaluation: Option<&'a str>,
            before: Option<&'a EvalReport>,
            after: Option<&'a EvalReport>,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            others: Vec<Reports<'a>>,
        }
        let others = state.others.iter().map(|of| Reports {
            evaluation: Some(&of.name),
            before: of.before.as_ref(),
            after: of.latest.as_ref(),
            others: Vec::new(),
        });
        let reports = Reports {
            evaluation: state.evaluation.as_deref(),
            before: state.before.as_ref(),
            after: state.latest.as_ref().map(|(_, report)| report),
            others: others.collect(),
        };
        let text = serde_json::to_string_pretty(&reports).map_err(|e| Error::other(e.to_string()))?;
        let text = format!("{text}\n");
        if fs::read(self.reports()).is_ok_and(|found| found == text.as_bytes()) {
            return Ok(());
        }
        write_file_atomic(&self.reports(), text.as_bytes())
    }

    /// Whether `eval.json` has a report from after training.
    pub fn reports_end(&self) -> bool {
        let reports = fs::read(self.reports()).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        reports.is_some_and(|reports| reports.get("after").is_some_and(Value::is_object))
    }

    /// Saves the model as `last/`, with the state of the run and, unless it is complete, the optimizer's moments. The
    /// `keep` latest checkpoints besides it are kept.
    ///
    /// # Errors
    /// If something cannot be written; the previous save is then unchanged.
    pub fn save_last<B: Backend>(
        &self,
        retriever: &Retriever<B>,
        optimizer: &Optimizer<B>,
        card: &ModelCard,
        state: &TrainingState,
        keep: usize,
    ) -> Result<()> {
        if let Some(step) = self.saved_step().filter(|step| keep > 0 && *step != state.step) {
            self.keep_last(step)?;
        }
        self.save_as_last(retriever, optimizer, card, state)?;
        if keep > 0 { self.remove_oldest(keep) } else { Ok(()) }
    }

    /// The step of the last save, if there is one.
    fn saved_step(&self) -> Option<u64> {
        let text = fs::read(self.state_file()).ok()?;
        Some(serde_json::from_slice::<TrainingState>(&text).ok()?.step)
    }

    fn save_as_last<B: Backend>(
        &self,
        retriever: &Retriever<B>,
        optimizer: &Optimizer<B>,
        card: &ModelCard,
        state: &TrainingState,
    ) -> Result<()> {
        self.sync_metrics()?;
        save_model(&self.last(), retriever, optimizer, card, |dir| {
            // An evaluation of this step may have saved the same model.
            if state.best.is_some_and(|(at, _)| at == state.step) {
                share_weights(dir, &self.best());
            }
            let text = serde_json::to_string_pretty(state).map_err(|e| Error::other(e.to_string()))?;
            write_file(&dir.join(STATE), |out| out.write_all(text.as_bytes()))?;
            if state.complete {
                return Ok(());
            }
            save_moments(&dir.join(MOMENTS), retriever, optimizer)
        })
    }

    /// Saves the model as `best/`.
    ///
    /// # Errors
    /// Those of [`RunDir::save_last`].
    pub fn save_best<B: Backend>(
        &self,
        retriever: &Retriever<B>,
        optimizer: &Optimizer<B>,
        card: &ModelCard,
    ) -> Result<()> {
        save_model(&self.best(), retriever, optimizer, card, |_| Ok(()))
    }

    /// Path of the moments of the last save.
    pub(super) fn moments(&self) -> PathBuf {
        self.last().join(MOMENTS)
    }
}

/// Whether a file holds reports, as [`RunDir::write_reports`] writes them.
fn holds_reports(path: &Path) -> bool {
    const OF_ONE: [&str; 2] = ["before", "after"];
    const OF_SEVERAL: [&str; 4] = ["evaluation", "before", "after", "others"];
    let is_pair = |value: &Value| {
        let keys = value.as_object().map(|object| object.keys().map(String::as_str).collect::<Vec<_>>());
        keys.is_some_and(|keys| keys == OF_ONE || keys == OF_SEVERAL)
    };
    fs::read(path).is_ok_and(|bytes| serde_json::from_slice(&bytes).is_ok_and(|value| is_pair(&value)))
}

fn save_model<B: Backend>(
    target: &Path,
    retriever: &Retriever<B>,
    optimizer: &Optimizer<B>,
    card: &ModelCard,
    extra: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let (dir, encoder) = (&retriever.dir, &retriever.encoder);
    let model = ModelSave {
        source: dir,
        carried: retriever.carried(),
        pooling: encoder.pooling,
        // Training compares cosines, so embeddings are normalized.
        normalize: true,
        max_seq_length: retriever.settings.as_saved()[0].max_len,
        query_max_len: retriever.settings.query.max_len,
        passage_max_len: retriever.settings.passage.max_len,
        query_prefix: &retriever.settings.query.prefix,
        passage_prefix: &retriever.settings.passage.prefix,
        card,
    };
    let mut next = 0;
    let value = |_: &ParamSpec, part: Range<usize>| {
        // The first piece of a parameter starts a new one.
        next += usize::from(part.start == 0);
        optimizer.parameter(&retriever.backend, &encoder.weights, next - 1, part)
    };
    save(target, &model, value, extra)
}
