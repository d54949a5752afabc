//! The lines of metrics of a run: one a step, each written through to the system, and read back when the run goes on.

use super::checkpoint::RunDir;
use crate::files::write_file_atomic;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, ErrorKind, Write};
use std::path::Path;

impl RunDir {
    /// Number of the last step that has a line of metrics, 0 if none has.
    ///
    /// # Errors
    /// Those of [`RunDir::open_metrics`].
    pub fn last_reported_step(&self) -> Result<u64> {
        Ok(self.lines_up_to(u64::MAX)?.last().map_or(0, |(step, _)| *step))
    }

    /// Lines of metrics with their steps, as far as these are not above `step`. Every step has a line, so that one whose number
    /// does not follow the one before is not what was written.
    fn lines_up_to(&self, step: u64) -> Result<Vec<(u64, String)>> {
        #[derive(Deserialize)]
        struct Line {
            step: u64,
        }
        let path = self.metrics();
        let Ok(file) = File::open(&path) else { return Ok(Vec::new()) };
        let mut kept: Vec<(u64, String)> = Vec::new();
        let mut lines = BufReader::new(file).lines().zip(1..).peekable();
        while let Some((line, number)) = lines.next() {
            let read = line.ok().and_then(|line| Some((serde_json::from_str::<Line>(&line).ok()?.step, line)));
            let follows = |at: u64| kept.last().is_none_or(|(before, _)| before.checked_add(1) == Some(at));
            match read {
                Some((at, _)) if follows(at) && at > step => break,
                Some(whole) if follows(whole.0) => kept.push(whole),
                // The last line of a killed run may be incomplete.
                None if lines.peek().is_none() => break,
                _ => return Err(damaged_metrics(&path, number)),
            }
        }
        Ok(kept)
    }

    /// Opens `metrics.jsonl` for the steps after `step`: lines of later steps, which a killed run wrote after its last
    /// save, are dropped.
    ///
    /// # Errors
    /// If it cannot be read or written, or its lines are not those of steps one after the other up to `step`.
    pub fn open_metrics(&self, step: u64) -> Result<BufWriter<File>> {
        let path = self.metrics();
        let kept = self.lines_up_to(step)?;
        // A file that was moved away is no damage; the new one begins behind the step of the save.
        let begins =
            || self.lines_up_to(u64::MAX).map(|all| all.first().is_none_or(|(at, _)| at.checked_sub(1) == Some(step)));
        let is_whole = kept.last().map_or_else(begins, |(last, _)| Ok(*last == step))?;
        if !is_whole {
            return Err(damaged_metrics(&path, kept.len() as u64 + 1));
        }
        let kept: String = kept.into_iter().map(|(_, line)| line + "\n").collect();
        write_file_atomic(&path, kept.as_bytes())?;
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

    /// Makes the lines so far durable, so that a state on the disk has those of all its steps.
    ///
    /// # Errors
    /// If the system cannot write them.
    pub(super) fn sync_metrics(&self) -> Result<()> {
        match File::open(self.metrics()).and_then(|file| file.sync_all()) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io("write", self.metrics(), e)),
            _ => Ok(()),
        }
    }
}

fn damaged_metrics(path: &Path, line: u64) -> Error {
    Error::line(path, line, "is damaged; move the file away, and the run goes on with a new one")
}

/// Whether the first line of a file, if it has a whole one, is of a step.
pub(super) fn holds_metrics(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let mut line = String::new();
    let is_read = BufReader::new(file).read_line(&mut line).is_ok();
    let has = |value: &Value, key: &str| value.get(key).is_some_and(Value::is_number);
    let is_step = |value: Value| has(&value, "step") && has(&value, "grad_norm");
    // A killed run may have written a part of one.
    let is_torn = line.is_empty() || (!line.ends_with('\n') && line.starts_with("{\"step\":"));
    is_read && (is_torn || serde_json::from_str(&line).is_ok_and(is_step))
}
