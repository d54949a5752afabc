//! Results of evaluations: what `hbt eval --json` wrote, and mteb's folders, `results/ORG__MODEL/REVISION/TASK.json`.

use super::input::{OtherReports, REPORTS, Run};
use crate::eval::EvalReport;
use crate::eval::mteb::files::Written;
use crate::eval::mteb::folder::MODEL_META;
use crate::{Error, Result};
use serde::Deserialize;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// The folder of a cache of mteb's that has the models'.
const RESULTS: &str = "results";
/// From such a folder to that of a revision.
const LEVELS: usize = 2;
/// Digits of a revision that tell two of one model apart.
const DIGITS: usize = 8;

/// The result of an evaluation, in either form.
pub(super) enum OneResult {
    /// On a task of hbt's.
    Report(Box<EvalReport>),
    /// On a task of mteb's, or a directory.
    Task(Box<Written>),
}

/// What a file holds.
pub(super) enum Given {
    /// The reports of a run.
    Run { evaluation: Option<String>, before: Option<EvalReport>, after: Option<EvalReport>, others: Vec<OtherReports> },
    /// Results of one model, one or more.
    Results(Vec<OneResult>),
}

impl Given {
    /// Reads what a file holds.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(value: Value) -> std::result::Result<Self, String> {
        #[derive(Deserialize)]
        struct Reports {
            evaluation: Option<String>,
            before: Option<EvalReport>,
            after: Option<EvalReport>,
            #[serde(default)]
            others: Vec<OtherReports>,
        }
        if value.get("before").is_some() && value.get("after").is_some() {
            let Reports { evaluation, before, after, others } = read_as(value)?;
            return Ok(Given::Run { evaluation, before, after, others });
        }
        let all = match value.get("results").and_then(Value::as_array) {
            Some(results) => results.clone(),
            None => vec![value],
        };
        if all.is_empty() {
            return Err("it has no result".to_owned());
        }
        all.into_iter().map(OneResult::read).collect::<std::result::Result<_, _>>().map(Given::Results)
    }
}

impl OneResult {
    fn read(value: Value) -> std::result::Result<Self, String> {
        if Written::is_of(&value) {
            let damaged = || "scores of mteb's form that cannot be read".to_owned();
            return Written::read(&value).map(Box::new).map(OneResult::Task).ok_or_else(damaged);
        }
        read_as(value).map(Box::new).map(OneResult::Report)
    }
}

fn read_as<T: serde::de::DeserializeOwned>(value: Value) -> std::result::Result<T, String> {
    serde_json::from_value(value).map_err(|e| e.to_string())
}

/// The JSON in a file, or why there is none. Python writes NaN, which is null here.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn read_json(path: &Path) -> Result<std::result::Result<Value, String>> {
    let text = fs::read(path).map_err(|e| Error::io("read", path, e))?;
    let text = String::from_utf8_lossy(&text);
    let read = serde_json::from_str(&text).or_else(|e| {
        let without = text.replace(": NaN", ": null");
        if *without == *text { Err(e) } else { serde_json::from_str(&without) }
    });
    Ok(read.map_err(|e| e.to_string()))
}

impl Run {
    /// Takes one more result. The first report is the run's, others stand beside it.
    pub(super) fn add_result(&mut self, result: OneResult) {
        match result {
            OneResult::Report(report) if self.after.is_none() => {
                self.settings_of(report.hbt.as_ref().map(|origin| (&origin.version, &origin.settings)));
                self.after = Some(*report);
            }
            OneResult::Report(report) => {
                let name = report.task.to_owned();
                self.others.push(OtherReports { name, before: None, after: Some(*report) });
            }
            OneResult::Task(of) => {
                let Written { result, model, version } = *of;
                self.settings_of(version.as_ref().map(|version| (version, &result.settings)));
                if self.model.is_none() {
                    self.model = model.map(|(name, _)| name);
                }
                self.results.push(result);
            }
        }
    }

    /// What a result was made with, unless another one has said it.
    fn settings_of(&mut self, made: Option<(&String, &crate::eval::mteb::files::Settings)>) {
        if let Some((version, settings)) = made.filter(|_| self.settings.is_empty()) {
            let version = ("version".to_owned(), version.clone());
            self.settings = settings.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
            self.settings.push(version);
        }
    }
}

/// The run that results in memory are, which goes by its model.
///
/// # Errors
/// Values that are no results.
pub fn of_results(results: Vec<Value>) -> Result<Run> {
    let mut run = Run::default();
    let not_one = |why| Error::other(format!("a result cannot be shown: {why}"));
    run.take(serde_json::json!({ RESULTS: results })).map_err(not_one)?;
    let of_report = || run.after.as_ref().map(|report| report.model.clone());
    run.name = run.model.clone().or_else(of_report).unwrap_or_default();
    Ok(run)
}

/// What a file holds. One of a model's folder goes by the model.
pub(super) fn read_file(path: &Path) -> Result<Run> {
    if path.file_name().is_some_and(|name| name == MODEL_META) {
        let message = "describes a model, and has no result; name its folder, or a file of a task beside it";
        return Err(Error::file(path, message));
    }
    let folder = path.parent().filter(|folder| folder.join(MODEL_META).is_file());
    if let Some(folder) = folder.filter(|_| path.file_name().is_some_and(|name| name != REPORTS)) {
        return read_folder(folder, &[path.to_owned()]);
    }
    let mut run = Run::new(path);
    run.read_reports(path)?;
    Ok(run)
}

/// Every model that has results in a directory: mteb's cache, its folder of results, a model's, or a revision's. Two revisions
/// of a model have the beginnings of theirs in their names.
pub(super) fn read_folders(directory: &Path) -> Result<Vec<Run>> {
    let below = directory.join(RESULTS);
    let start = if below.is_dir() { &below } else { directory };
    let mut folders = Vec::new();
    find_folders(start, LEVELS, &mut folders)?;
    let mut runs = Vec::new();
    for (folder, files) in folders {
        runs.push(read_folder(&folder, &files)?);
    }
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    for (run, name) in runs.iter_mut().zip(&names) {
        if names.iter().filter(|other| *other == name).count() > 1 {
            let revision = run.path.file_name().unwrap_or_default().to_string_lossy();
            run.name = format!("{name} {}", revision.chars().take(DIGITS).collect::<String>());
        }
    }
    Ok(runs)
}

/// Folders that describe a model and have files of tasks, with these, by name; no more than so many `levels` below.
fn find_folders(directory: &Path, levels: usize, found: &mut Vec<(PathBuf, Vec<PathBuf>)>) -> Result<()> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory).map_err(|e| Error::io("read", directory, e))? {
        entries.push(entry.map_err(|e| Error::io("read", directory, e))?.path());
    }
    entries.sort();
    let is_hidden = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    entries.retain(|path| !is_hidden(path));
    if entries.iter().any(|path| path.ends_with(MODEL_META)) {
        let is_json = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "json");
        let files: Vec<PathBuf> =
            entries.into_iter().filter(|path| is_json(path) && !path.ends_with(MODEL_META)).collect();
        if !files.is_empty() {
            found.push((directory.to_owned(), files));
        }
        return Ok(());
    }
    let below = entries.into_iter().filter(|path| levels > 0 && path.is_dir());
    below.into_iter().try_for_each(|path| find_folders(&path, levels - 1, found))
}

/// The run that files of tasks in a model's folder are.
fn read_folder(folder: &Path, files: &[PathBuf]) -> Result<Run> {
    let mut run = Run::new(folder);
    for path in files {
        run.read_reports(path)?;
    }
    let meta = read_json(&folder.join(MODEL_META))?;
    let of_meta = meta.ok().and_then(|meta| meta.get("name")?.as_str().map(str::to_owned));
    // Files of mteb's do not say whose they are.
    run.model = run.model.or(of_meta);
    run.name = run.model.clone().unwrap_or(run.name);
    Ok(run)
}
