//! The lines of metrics of a run: one a step and one an evaluation, each written through to the system, and read back when the
//! run goes on. TensorBoard's events are made of them.

use super::checkpoint::RunDir;
use super::tensorboard;
use crate::files::write_file_atomic;
use crate::metrics_file::{Line, lines};
use crate::{Error, Result};
use serde::Serialize;
use serde_json::{Map, Value};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

/// `metrics.jsonl` and the event file that says the same, open for the lines to come.
pub struct MetricsLog {
    lines: Appended,
    events: Appended,
    /// Time that the steps so far have taken, which is what events have for a clock.
    seconds: f64,
}

impl MetricsLog {
    /// Writes a line of metrics, and its event, through to the system.
    ///
    /// # Errors
    /// If they cannot be written, for example to a full disk.
    pub fn write(&mut self, line: &impl Serialize) -> Result<()> {
        let line = serde_json::to_value(line).map_err(|e| Error::other(e.to_string()))?;
        self.lines.append(format!("{line}\n").as_bytes())?;
        let event = event(line.as_object().unwrap_or(&Map::new()), &mut self.seconds);
        self.events.append(&event)
    }
}

/// A file that grows.
struct Appended {
    file: BufWriter<File>,
    path: PathBuf,
}

impl Appended {
    /// Replaces the file by one that holds `bytes`, and more later.
    fn new(path: PathBuf, bytes: &[u8]) -> Result<Self> {
        write_file_atomic(&path, bytes)?;
        let file = File::options().append(true).open(&path).map_err(|e| Error::io("write", &path, e))?;
        Ok(Appended { file: BufWriter::new(file), path })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let Appended { file, path } = self;
        file.write_all(bytes).and_then(|()| file.flush()).map_err(|e| Error::io("write", path, e))
    }
}

/// The event of a line; `seconds` are those before it, and become those after it.
fn event(line: &Map<String, Value>, seconds: &mut f64) -> Vec<u8> {
    *seconds += tensorboard::seconds_of(line).unwrap_or(0.0);
    tensorboard::event(line, *seconds)
}

impl RunDir {
    /// Number of the last step that has a line of metrics, 0 if none has.
    ///
    /// # Errors
    /// Those of [`RunDir::open_metrics`].
    pub fn last_reported_step(&self) -> Result<u64> {
        Ok(self.lines_up_to(u64::MAX)?.last().map_or(0, |line| line.step))
    }

    /// Lines of metrics as far as their steps are not above `step`.
    fn lines_up_to(&self, step: u64) -> Result<Vec<Line>> {
        let path = self.metrics();
        let mut kept = Vec::new();
        for line in lines(&path) {
            match line.map_err(|number| damaged_metrics(&path, number))? {
                line if line.step > step => break,
                line => kept.push(line),
            }
        }
        Ok(kept)
    }

    /// Opens `metrics.jsonl` and the event file for what follows the save of `step`, whose state knows the evaluation of that
    /// step if it `is_evaluated`: lines of later steps and evaluations, which a killed run wrote after its last save, are
    /// dropped. Events are made anew from the lines.
    ///
    /// # Errors
    /// If they cannot be read or written, or the lines are not those of steps one after the other up to `step`.
    pub fn open_metrics(&self, step: u64, is_evaluated: bool) -> Result<MetricsLog> {
        let path = self.metrics();
        let mut kept = self.lines_up_to(step)?;
        kept.retain(|line| !line.is_evaluation || line.step < step || is_evaluated);
        // A file that was moved away is no damage; the new one begins behind the step of the save.
        let begins = || match lines(&path).next() {
            Some(Ok(line)) if line.is_evaluation => line.step == step,
            Some(Ok(line)) => line.step.checked_sub(1) == Some(step),
            _ => true,
        };
        if !kept.last().map_or_else(begins, |last| last.step == step) {
            return Err(damaged_metrics(&path, kept.len() as u64 + 1));
        }
        let (mut seconds, mut events) = (0.0, tensorboard::header());
        kept.iter().for_each(|line| events.extend(event(&line.values(), &mut seconds)));
        let kept: String = kept.into_iter().map(|line| line.text + "\n").collect();
        let lines = Appended::new(path, kept.as_bytes())?;
        let folder = self.tensorboard();
        fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, e))?;
        Ok(MetricsLog { lines, events: Appended::new(self.events(), &events)?, seconds })
    }

    /// Makes the lines so far durable, so that a state on the disk has those of all its steps.
    ///
    /// # Errors
    /// If the system cannot write them.
    pub(super) fn sync_metrics(&self) -> Result<()> {
        for path in [self.metrics(), self.events()] {
            match File::open(&path).and_then(|file| file.sync_all()) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(Error::io("write", &path, e)),
                _ => {}
            }
        }
        Ok(())
    }
}

fn damaged_metrics(path: &Path, line: u64) -> Error {
    Error::line(path, line, "is damaged; move the file away, and the run goes on with a new one")
}

/// Whether the first line of a file, if it has a whole one, is of a step or of an evaluation.
pub(super) fn holds_metrics(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let mut line = String::new();
    let is_read = BufReader::new(file).read_line(&mut line).is_ok();
    let is_metrics = |line: Line| {
        let values = line.values();
        let has = |key: &str, is: fn(&Value) -> bool| values.get(key).is_some_and(is);
        if line.is_evaluation { has("split", Value::is_string) } else { has("grad_norm", Value::is_number) }
    };
    // A killed run may have written a part of one.
    let is_torn = line.is_empty() || (!line.ends_with('\n') && line.starts_with("{\"step\":"));
    is_read && (is_torn || Line::parse(line).is_some_and(is_metrics))
}

/// Whether a file begins as an event file of hbt's does.
pub(super) fn holds_events(path: &Path) -> bool {
    let header = tensorboard::header();
    let mut begin = Vec::new();
    let is_read = File::open(path).and_then(|file| file.take(header.len() as u64).read_to_end(&mut begin)).is_ok();
    is_read && header.starts_with(&begin)
}
