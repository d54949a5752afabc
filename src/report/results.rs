//! Results of evaluations: what `hbt eval --json` wrote, and mteb's folders, `results/ORG__MODEL/REVISION/TASK.json`.

use super::input::{OtherReports, REPORTS, Run};
use crate::eval::EvalReport;
use crate::eval::mteb::files::{Settings, Written};
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

/// The reports of a run.
#[derive(Deserialize)]
pub(super) struct Reports {
    pub evaluation: Option<String>,
    pub before: Option<EvalReport>,
    pub after: Option<EvalReport>,
    #[serde(default)]
    pub others: Vec<OtherReports>,
}

/// What a file holds.
pub(super) enum Given {
    /// The reports of a run.
    Run(Box<Reports>),
    /// Results of one model, one or more.
    Results(Vec<OneResult>),
}

impl Given {
    /// Reads what a file holds.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(value: Value) -> std::result::Result<Self, String> {
        if value.get("before").is_some() && value.get("after").is_some() {
            return read_as(value).map(Box::new).map(Given::Run);
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
                self.take_origin(report.hbt.as_ref().map(|origin| (origin.version.as_str(), &origin.settings)));
                self.after = Some(*report);
            }
            OneResult::Report(report) => {
                let name = report.task.to_owned();
                self.others.push(OtherReports { name, before: None, after: Some(*report) });
            }
            OneResult::Task(of) => {
                let Written { result, model, version } = *of;
                self.take_origin(version.as_deref().map(|version| (version, &result.settings)));
                if self.model.is_none() {
                    self.model = model.map(|(name, _)| name);
                }
                self.results.push(result);
            }
        }
    }

    /// What a result was made with, unless another one has said it.
    fn take_origin(&mut self, made: Option<(&str, &Settings)>) {
        if let Some((version, settings)) = made.filter(|_| self.made_with.is_empty()) {
            let version = ("version".to_owned(), version.to_owned());
            self.made_with = settings.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
            self.made_with.push(version);
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

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;
    use serde_json::json;

    /// A file of mteb's form with one subset, as hbt writes it.
    fn of_task(task: &str, model: &str, score: f64) -> Value {
        json!({
            "dataset_revision": "abc", "task_name": task, "mteb_version": "2.26.24+hbt.0.1.0",
            "scores": {"test": [{"ndcg_at_10": score, "main_score": score, "hf_subset": "default", "languages": ["eng-Latn"]}]},
            "evaluation_time": 1.5, "kg_co2_emissions": null, "date": 2.5, "evaluation_phases": [],
            "hbt": {"model": model, "revision": "1", "settings": {"precision": "f32"}, "xxh3_128": "0"},
        })
    }

    fn report(task: &str) -> Value {
        let figure = json!({"task": task, "setting": "multilingual", "metric": "map", "cutoff": null, "value": 0.5});
        json!({
            "model": "m", "task": task, "split": "all", "languages": ["de"], "main": "multilingual_map",
            "figures": [figure], "by_direction": {}, "by_query_language": {},
            "hbt": {"version": "0.1.0", "settings": {"precision": "bf16"}},
        })
    }

    fn folder(files: &[(&str, String)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn meta(name: &str) -> String {
        json!({ "name": name }).to_string()
    }

    fn tasks(run: &Run) -> Vec<&str> {
        run.results.iter().map(|result| result.task_name.as_str()).collect()
    }

    /// What `hbt eval --json` writes: one result of either form, or several of both.
    #[test]
    fn a_file_holds_one_result_or_several() {
        let several = json!({"results": [report("parallel"), of_task("ArguAna", "a/b", 0.5), report("xquad-r")]});
        let dir = folder(&[
            ("one.json", of_task("ArguAna", "a/b", 0.5).to_string()),
            ("own.json", report("parallel").to_string()),
            ("several.json", several.to_string()),
        ]);
        let runs = read(&["one.json", "own.json", "several.json"].map(|name| dir.path().join(name))).unwrap();
        let [one, own, all] = &runs[..] else { panic!("three") };
        assert_eq!((one.name.as_str(), one.model.as_deref(), tasks(one)), ("one", Some("a/b"), vec!["ArguAna"]));
        assert_eq!(one.results[0].score(), 0.5);
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(one.made_with, [pair("precision", "f32"), pair("version", "2.26.24+hbt.0.1.0")]);
        assert!(one.after.is_none() && own.results.is_empty());
        assert_eq!(own.made_with, [pair("precision", "bf16"), pair("version", "0.1.0")]);
        assert_eq!((all.after.as_ref().unwrap().task, tasks(all)), ("parallel", vec!["ArguAna"]));
        let others: Vec<_> = all.others.iter().map(|of| (of.name.as_str(), of.before.is_some())).collect();
        assert_eq!(others, [("xquad-r", false)]);
        let in_memory = of_results(several["results"].as_array().unwrap().clone()).unwrap();
        assert_eq!((in_memory.name.as_str(), tasks(&in_memory)), ("a/b", vec!["ArguAna"]));
        assert_eq!(of_results(vec![report("parallel")]).unwrap().name, "m");
    }

    /// mteb's folders: by the cache, the folder of results, a model's, a revision's or a file; and files of mteb's own, which say
    /// nothing of the model and have NaN.
    #[test]
    fn each_model_of_a_directory_is_a_run() {
        let by_mteb = r#"{"dataset_revision": "abc", "task_name": "Banking77Classification", "mteb_version": "2.26.24", "scores":
            {"test": [{"accuracy": 0.5, "f1": NaN, "scores_per_experiment": [{"accuracy": 0.5}], "main_score": 0.5,
            "hf_subset": "default", "languages": ["eng-Latn"]}]}, "evaluation_time": 1, "kg_co2_emissions": null}"#;
        let dir = folder(&[
            ("results/a__b/0123456789/model_meta.json", meta("a/b")),
            ("results/a__b/0123456789/ArguAna.json", of_task("ArguAna", "a/b", 0.5).to_string()),
            ("results/a__b/0123456789/STS17.json", of_task("STS17", "a/b", 0.5).to_string()),
            ("results/a__b/abcdefghij/model_meta.json", meta("a/b")),
            ("results/a__b/abcdefghij/ArguAna.json", of_task("ArguAna", "a/b", 0.25).to_string()),
            ("results/c__d/1/model_meta.json", meta("c/d")),
            ("results/c__d/1/Banking77Classification.json", by_mteb.to_owned()),
            ("results/e__f/1/model_meta.json", meta("e/f")),
            ("report.html", String::new()),
        ]);
        let at = |path: &str| read(&[dir.path().join(path)]).unwrap();
        let named = |runs: &[Run]| runs.iter().map(|run| run.name.clone()).collect::<Vec<_>>();
        for path in ["", "results"] {
            let runs = at(path);
            assert_eq!(named(&runs), ["a/b 01234567", "a/b abcdefgh", "c/d"]);
            assert_eq!((tasks(&runs[0]), tasks(&runs[1])), (vec!["ArguAna", "STS17"], vec!["ArguAna"]));
            let (split, entries) = &runs[2].results[0].scores()[0];
            assert_eq!((split.as_str(), entries[0].main_score, entries[0].numbers.len()), ("test", 0.5, 2));
            assert!(entries[0].numbers[1].1.is_nan());
        }
        assert_eq!(named(&at("results/a__b")), ["a/b 01234567", "a/b abcdefgh"]);
        assert_eq!(named(&at("results/a__b/abcdefghij")), ["a/b"]);
        // Files of one folder are one run, and none is there twice.
        let files = ["STS17.json", "ArguAna.json", "STS17.json"]
            .map(|name| dir.path().join("results/a__b/0123456789").join(name));
        let runs = read(&files).unwrap();
        assert_eq!((named(&runs), tasks(&runs[0])), (vec!["a/b".to_owned()], vec!["STS17", "ArguAna"]));
        let error = read(&[dir.path().join("results/c__d/1/model_meta.json")]).unwrap_err().to_string();
        assert!(error.contains("model_meta.json: describes a model, and has no result"), "{error}");
    }

    #[test]
    fn what_is_no_result_is_one_error() {
        let mut damaged = of_task("ArguAna", "a/b", 0.5);
        damaged["scores"]["test"][0]["main_score"] = "high".into();
        let dir = folder(&[
            ("scores.json", damaged.to_string()),
            ("none.json", json!({ "results": [] }).to_string()),
            ("two.json", json!({"results": [of_task("ArguAna", "a/b", 0.5), {"results": []}]}).to_string()),
            ("cache/results/a__b/1/model_meta.json", meta("a/b")),
            ("cache/results/a__b/1/ArguAna.json", "{\"task_name\": \"Ar".to_owned()),
        ]);
        for (name, expected) in [
            ("scores.json", "nor a run's eval.json (scores of mteb's form that cannot be read); "),
            ("none.json", "nor a run's eval.json (it has no result); "),
            ("two.json", "nor a run's eval.json (missing field `model`); "),
            ("cache", "cache/results/a__b/1/ArguAna.json: is not a result of hbt eval --json, nor"),
        ] {
            let error = read(&[dir.path().join(name)]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
