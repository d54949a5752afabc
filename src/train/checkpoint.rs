//! The run directory: configuration, metrics, models, and the state from which a killed run goes on.
//!
//! `last/` holds a model and, until the run is complete, the training state of the same step; both change in one
//! rename, so a killed run goes on from the last save and ends with the same bytes as one that was never killed.

use super::optimizer::{Optimizer, Touched};
use crate::backend::Backend;
use crate::eval::EvalReport;
use crate::files::{recover, write_file, write_file_atomic};
use crate::model::{EncoderParams, ParamSpec, specs};
use crate::model_dir::save::refuse_foreign_directory;
use crate::model_dir::{ModelCard, ModelSave, save};
use crate::retriever::Retriever;
use crate::tensor_file::{self, Block, Dtype, TensorFile, TensorHeader};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::{File, TryLockError};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

const STATE: &str = "training_state.json";
const MOMENTS: &str = "optimizer.safetensors";
/// Key for the rows of the word embeddings that have moments, and the last update in which each had a gradient.
const TOUCHED_ROWS: &str = "touched.rows";
const TOUCHED_UPDATES: &str = "touched.updates";

/// State of a run. Together with the weights and the optimizer's moments it is complete: the sampler, dropout and the
/// learning rate are functions of the seed and the step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TrainingState {
    /// Number of updates done.
    pub step: u64,
    /// Number of updates of the whole run.
    pub total_steps: u64,
    /// Whether the run is over, because the last step was done or because `patience` ran out.
    pub complete: bool,
    /// Identity of the training data: [`Datasets::key`](crate::data::datasets::Datasets::key).
    pub data: String,
    /// Instructions that computed the last steps, or others that give the same bytes; `None` on a GPU, or if an earlier
    /// version of hbt saved the state.
    #[serde(default)]
    pub instructions: Option<String>,
    /// Report on the model before the first step.
    pub before: Option<EvalReport>,
    /// The latest report, and the number of its step.
    pub latest: Option<(u64, EvalReport)>,
    /// The best value of `best_metric` so far, and its step.
    pub best: Option<(u64, f64)>,
    /// Number of evaluations since then.
    pub without_gain: usize,
    /// The [`LearnedTemperature`](crate::loss::LearnedTemperature), if it is learned.
    pub temperature: Option<[u64; 4]>,
}

/// A run directory. One process may use it at a time.
pub struct RunDir {
    path: PathBuf,
    /// Locked from [`RunDir::create`] on; the system unlocks it when the process ends for any reason.
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

    fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// Makes the directory, writes the configuration into it, and locks it against other processes.
    ///
    /// # Errors
    /// If it cannot be written, is in use, or holds something else in the place of the models.
    pub fn create(&mut self, config: &str) -> Result<()> {
        refuse_foreign_directory(&self.last())?;
        refuse_foreign_directory(&self.best())?;
        std::fs::create_dir_all(&self.path).map_err(|e| Error::io("create", &self.path, e))?;
        // If a directory cannot be opened or locked, the user has to avoid running twice.
        if let Ok(directory) = File::open(&self.path) {
            if matches!(directory.try_lock(), Err(TryLockError::WouldBlock)) {
                let message =
                    "is in use by another hbt; wait until it has ended, or choose another directory with --out";
                return Err(Error::file(&self.path, message));
            }
            self.lock = Some(directory);
        }
        write_file_atomic(&self.config(), config.as_bytes())
    }

    /// Whether a state has been saved, which could be lost or resumed.
    pub fn has_state(&self) -> bool {
        self.last().join(STATE).exists()
    }

    /// The state of the last save; `None` if nothing has been saved yet.
    ///
    /// # Errors
    /// If the state cannot be read.
    pub fn state(&self) -> Result<Option<TrainingState>> {
        recover(&self.last())?;
        let path = self.last().join(STATE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => {
                return Err(Error::file(&self.path, "is a file, or lies below one; choose a directory with --out"));
            }
            Err(e) => return Err(Error::io("read", &path, e)),
        };
        let state = serde_json::from_slice(&bytes)
            .map_err(|e| Error::file(&path, format!("is not a training state ({e}); start a new run")))?;
        Ok(Some(state))
    }

    /// Opens `metrics.jsonl` for the steps after `step`: lines of later steps, which a killed run wrote after its last
    /// save, are dropped.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub fn open_metrics(&self, step: u64) -> Result<BufWriter<File>> {
        #[derive(Deserialize)]
        struct Line {
            step: u64,
        }
        let path = self.metrics();
        let mut kept = Vec::new();
        if let Ok(file) = File::open(&path) {
            for line in BufReader::new(file).lines() {
                // The last line of a killed run may be incomplete.
                let Ok(line) = line else { break };
                match serde_json::from_str::<Line>(&line) {
                    Ok(parsed) if parsed.step <= step => kept.extend_from_slice(format!("{line}\n").as_bytes()),
                    _ => break,
                }
            }
        }
        write_file_atomic(&path, &kept)?;
        let file = File::options().append(true).open(&path).map_err(|e| Error::io("write", &path, e))?;
        Ok(BufWriter::new(file))
    }

    /// Writes one line of metrics through to the system.
    ///
    /// # Errors
    /// If it cannot be written, for example to a full disk.
    pub fn write_metrics(&self, out: &mut BufWriter<File>, line: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_string(line).map_err(|e| Error::other(e.to_string()))?;
        text.push('\n');
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| Error::io("write", self.metrics(), e))
    }

    /// Writes `eval.json`: the reports before and after training.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_reports(&self, before: Option<&EvalReport>, after: Option<&EvalReport>) -> Result<()> {
        let reports = serde_json::json!({ "before": before, "after": after });
        let text = serde_json::to_string_pretty(&reports).map_err(|e| Error::other(e.to_string()))?;
        write_file_atomic(&self.path.join("eval.json"), format!("{text}\n").as_bytes())
    }

    /// Saves the model as `last/`, with the state of the run and, unless it is complete, the optimizer's moments.
    ///
    /// # Errors
    /// If something cannot be written; the previous save is then unchanged.
    pub fn save_last<B: Backend>(
        &self,
        retriever: &Retriever<B>,
        optimizer: &Optimizer<B>,
        card: &ModelCard,
        state: &TrainingState,
    ) -> Result<()> {
        save_model(&self.last(), retriever, optimizer, card, |dir| {
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

    /// Restores the optimizer's moments from the last save.
    ///
    /// # Errors
    /// If they are missing or do not fit the model.
    pub fn load_moments<B: Backend>(
        &self,
        backend: &B,
        specs: &EncoderParams<ParamSpec>,
        optimizer: &mut Optimizer<B>,
        updates: u64,
    ) -> Result<()> {
        let moments = Moments { file: TensorFile::open(&self.last().join(MOMENTS), REMEDY)? };
        let sparse = specs.sparse();
        let specs: Vec<&ParamSpec> = specs.iter().collect();
        let touched = moments.touched(specs[sparse].shape[0], updates)?;
        optimizer.restore(backend, updates, &touched, |which, index| {
            let rows = [touched.rows.len(), specs[sparse].shape[1]];
            let shape = if index == sparse { &rows } else { &specs[index].shape[..] };
            let data = moments.data(&moment_name(which, specs[index]), Dtype::F32, Some(shape))?;
            Ok(data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
        })
    }
}

/// Remedy for moments that cannot be read.
const REMEDY: &str = "start a new run";

/// A file of moments.
struct Moments {
    file: TensorFile,
}

impl Moments {
    fn broken(&self, what: String) -> Error {
        Error::file(self.file.path(), format!("{what}; {REMEDY}"))
    }

    /// A tensor's bytes; `shape` is the required shape, `None` means a list of any length.
    fn data(&self, name: &str, dtype: Dtype, shape: Option<&[usize]>) -> Result<&[u8]> {
        let missing = || self.broken(format!("has no tensor {name:?}: another version of hbt wrote it"));
        let info = self.file.info(name).ok_or_else(missing)?;
        if shape.map_or(info.shape.len() != 1, |shape| info.shape != shape) || info.dtype != dtype {
            let (is, shape) = (info.dtype, &info.shape);
            return Err(self.broken(format!("tensor {name:?} is {is:?} {shape:?}, which does not fit the model")));
        }
        Ok(self.file.bytes(info))
    }

    fn touched(&self, vocab_size: usize, updates: u64) -> Result<Touched> {
        let list = |name| -> Result<Vec<i32>> {
            let data = self.data(name, Dtype::I32, None)?;
            Ok(data.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect())
        };
        let [rows, last] = [list(TOUCHED_ROWS)?, list(TOUCHED_UPDATES)?];
        let are_rows = rows.is_sorted_by(|a, b| a < b) && rows.iter().all(|&r| 0 <= r && (r as usize) < vocab_size);
        let are_updates = last.len() == rows.len() && last.iter().all(|&u| 1 <= u && u as u64 <= updates);
        if !are_rows || !are_updates {
            return Err(self.broken(format!("{TOUCHED_ROWS:?} or {TOUCHED_UPDATES:?} does not fit the run")));
        }
        Ok(Touched { rows, updates: last })
    }
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

fn moment_name(which: usize, spec: &ParamSpec) -> String {
    format!("{}.{}", ["m", "v"][which], spec.name)
}

/// Writes both moments of every parameter, one at a time through host memory; of the word embeddings only rows that
/// have any.
fn save_moments<B: Backend>(path: &Path, retriever: &Retriever<B>, optimizer: &Optimizer<B>) -> Result<()> {
    let backend = &retriever.backend;
    let specs = specs(&retriever.dir.config, retriever.dir.dense.as_ref());
    let touched = optimizer.touched(backend)?;
    let n_touched = touched.rows.len();
    let mut tensors = vec![
        TensorHeader { name: TOUCHED_ROWS.to_owned(), dtype: Dtype::I32, shape: vec![n_touched] },
        TensorHeader { name: TOUCHED_UPDATES.to_owned(), dtype: Dtype::I32, shape: vec![n_touched] },
    ];
    let indices = || (0..2).flat_map(|which| specs.iter().enumerate().map(move |(index, spec)| (which, index, spec)));
    tensors.extend(indices().map(|(which, _, spec)| {
        let shape = if spec.has_sparse_rows { vec![n_touched, spec.shape[1]] } else { spec.shape.clone() };
        TensorHeader { name: moment_name(which, spec), dtype: Dtype::F32, shape }
    }));
    let lists = [&touched.rows, &touched.updates].map(|list| Ok(Block::I32(list.clone())));
    let moments = indices().map(|(which, index, _)| optimizer.moment(backend, which, index, &touched).map(Block::F32));
    tensor_file::write(path, &tensors, lists.into_iter().chain(moments))
}
