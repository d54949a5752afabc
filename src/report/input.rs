//! What a report is made of: run directories, and results of evaluations in files and folders.

use super::results::{self, Given};
use crate::eval::EvalReport;
use crate::eval::mteb::files::TaskResult;
use crate::metrics_file::lines;
use crate::{Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::fs;
use std::path::{Path, PathBuf};

/// Points of a curve: a step and a value, by step.
pub type Points = Vec<(u64, f64)>;

/// A run, or a result, as far as it is known.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// What it is called.
    pub name: String,
    /// Where it was read; of results of one model, the folder.
    pub path: PathBuf,
    /// The model that results in mteb's form are of.
    pub model: Option<String>,
    /// Values of steps, by their names in `metrics.jsonl`, in that order.
    pub curves: Vec<(String, Points)>,
    /// Figures on the way, by the evaluation's name, or its task where it is the only one, and the figure's.
    pub figures: Vec<(String, String, Points)>,
    /// The report on the model before training.
    pub before: Option<EvalReport>,
    /// The report on the model after it, or the only one that there is.
    pub after: Option<EvalReport>,
    /// The name of the evaluation that these two are of, where there are others.
    pub evaluation: Option<String>,
    /// The other evaluations.
    pub others: Vec<OtherReports>,
    /// Results in mteb's form, by task.
    pub results: Vec<TaskResult>,
    /// Keys of the configuration, ascending, with their values as TOML has them.
    pub settings: Vec<(String, String)>,
    /// What results in files were made with.
    pub made_with: Vec<(String, String)>,
}

/// Reports on a run by an evaluation that did not decide which model is best.
#[derive(Clone, Debug, Deserialize)]
pub struct OtherReports {
    /// The evaluation's name.
    #[serde(rename = "evaluation")]
    pub name: String,
    /// The report on the model before training.
    pub before: Option<EvalReport>,
    /// The report on the model after it.
    pub after: Option<EvalReport>,
}

/// Files of a run directory.
const METRICS: &str = "metrics.jsonl";
pub(super) const REPORTS: &str = "eval.json";
const CONFIG: &str = "config.toml";

/// The runs in `paths`: run directories, their `eval.json`, files that `hbt eval --json` wrote, and results in mteb's folders: a
/// file, a model's folder, or one of several models, each of which is a run. Those of the same name go by their paths.
///
/// # Errors
/// One that cannot be read, is none of these, or is damaged; by file and, in `metrics.jsonl`, line.
pub fn read(paths: &[impl AsRef<Path>]) -> Result<Vec<Run>> {
    let mut runs: Vec<Run> = Vec::new();
    for path in paths {
        for run in read_all(path.as_ref())? {
            // Files of one model's folder are one run, as the folder is.
            match runs.iter_mut().find(|known| run.is_of_folder() && known.path == run.path) {
                Some(known) => known.join(run),
                None => runs.push(run),
            }
        }
    }
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    for (run, name) in runs.iter_mut().zip(&names) {
        if names.iter().filter(|other| *other == name).count() > 1 {
            run.name = run.path.display().to_string();
        }
    }
    Ok(runs)
}

fn read_all(path: &Path) -> Result<Vec<Run>> {
    if !path.is_dir() {
        return Ok(vec![results::read_file(path)?]);
    }
    let [metrics, reports_file, config] = [METRICS, REPORTS, CONFIG].map(|name| path.join(name));
    if metrics.is_file() || reports_file.is_file() {
        return Ok(vec![read_run(path, &metrics, &reports_file, &config)?]);
    }
    let runs = results::read_folders(path)?;
    if runs.is_empty() {
        let message = format!(
            "is not a run directory: it has no {METRICS} and no {REPORTS}, and there are no results of hbt eval --results in it; \
             name one of hbt train, or of those"
        );
        return Err(Error::file(path, message));
    }
    Ok(runs)
}

fn read_run(path: &Path, metrics: &Path, reports_file: &Path, config: &Path) -> Result<Run> {
    let mut run = Run::new(path);
    run.read_metrics(metrics)?;
    if reports_file.is_file() {
        run.read_reports(reports_file)?;
    }
    if config.is_file() {
        run.settings = settings(config)?;
    }
    Ok(run)
}

/// A directory's own name; a file's without its ending, and that of a run's reports is the run's.
fn name_of(path: &Path) -> String {
    // `.` and `..` have no name of their own.
    let whole = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let of_run = whole.parent().filter(|_| whole.file_name().is_some_and(|name| name == REPORTS));
    let name = match of_run {
        Some(run) => run.file_name(),
        None if whole.is_dir() => whole.file_name(),
        None => whole.file_stem(),
    };
    name.map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

impl Run {
    /// One that nothing is known of but where it is.
    pub(super) fn new(path: &Path) -> Self {
        Run { name: name_of(path), path: path.to_owned(), ..Run::default() }
    }

    /// Whether it is what is in a model's folder of results.
    fn is_of_folder(&self) -> bool {
        self.model.is_some() && self.path.is_dir()
    }

    /// Takes the results of another one that it does not have.
    fn join(&mut self, other: Run) {
        for result in other.results {
            if !self.results.iter().any(|known| known.task_name == result.task_name) {
                self.results.push(result);
            }
        }
    }

    fn read_metrics(&mut self, path: &Path) -> Result<()> {
        for line in lines(path) {
            let damaged = |number| Error::line(path, number, "is damaged; copy the run again, or take the file away");
            let line = line.map_err(damaged)?;
            let values = line.values();
            // Of several evaluations, each has a name.
            match values.get("evaluation").or_else(|| values.get("task")).and_then(Value::as_str) {
                Some(name) => self.add_evaluation(line.step, name, &values),
                None => self.add_step(line.step, &values),
            }
        }
        Ok(())
    }

    /// Takes the reports before and after training, or what else such a file holds.
    pub(super) fn read_reports(&mut self, path: &Path) -> Result<()> {
        let given = results::read_json(path)?;
        let not_one = |why: String| {
            let message = format!(
                "is not a result of hbt eval --json, nor a run's {REPORTS} ({why}); name one, or a run directory"
            );
            Error::file(path, message)
        };
        given.and_then(|given| self.take(given)).map_err(not_one)
    }

    /// Takes what was given of a model.
    pub(super) fn take(&mut self, given: Value) -> std::result::Result<(), String> {
        match Given::read(given)? {
            Given::Run(of) => {
                (self.evaluation, self.before, self.after, self.others) =
                    (of.evaluation, of.before, of.after, of.others);
            }
            Given::Results(results) => results.into_iter().for_each(|of| self.add_result(of)),
        }
        Ok(())
    }

    fn add_step(&mut self, step: u64, values: &Map<String, Value>) {
        for (name, value) in numbers(values) {
            let at = self.curves.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
                self.curves.push((name.to_owned(), Vec::new()));
                self.curves.len() - 1
            });
            self.curves[at].1.push((step, value));
        }
    }

    fn add_evaluation(&mut self, step: u64, task: &str, values: &Map<String, Value>) {
        for (name, value) in numbers(values) {
            let is_it = |known: &(String, String, Points)| known.0 == task && known.1 == name;
            let at = self.figures.iter().position(is_it).unwrap_or_else(|| {
                self.figures.push((task.to_owned(), name.to_owned(), Vec::new()));
                self.figures.len() - 1
            });
            self.figures[at].2.push((step, value));
        }
    }

    /// The points of a value of steps, by its name.
    pub fn curve(&self, name: &str) -> &[(u64, f64)] {
        self.curves.iter().find(|(known, _)| known == name).map_or(&[], |(_, points)| points)
    }

    /// The points of a figure of an evaluation.
    pub fn figure(&self, evaluation: &str, name: &str) -> &[(u64, f64)] {
        self.figures.iter().find(|known| known.0 == evaluation && known.1 == name).map_or(&[], |(_, _, points)| points)
    }
}

/// The numbers of a line but for that of the step.
fn numbers(values: &Map<String, Value>) -> impl Iterator<Item = (&str, f64)> {
    values.iter().filter(|(name, _)| *name != "step").filter_map(|(name, value)| Some((name.as_str(), value.as_f64()?)))
}

/// The keys of a configuration; those of a table after its name.
fn settings(path: &Path) -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
        Error::file(path, format!("is not TOML ({}); put it right, or copy the run again", e.message()))
    })?;
    Ok(table.into_iter().map(|(key, value)| (key, value.to_string())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"{"model":"m","task":"parallel","split":"all","languages":["de"],"main":"multilingual_map",
        "figures":[{"task":"parallel","setting":"multilingual","metric":"map","cutoff":null,"value":0.5}],
        "by_direction":{},"by_query_language":{}}"#;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    /// Two evaluations of one task, which the name tells apart.
    #[test]
    fn evaluations_go_by_their_names() {
        let line = |name: &str, map: f64| {
            format!("{{\"step\":0,\"evaluation\":\"{name}\",\"task\":\"parallel\",\"split\":\"all\",\"map\":{map}}}\n")
        };
        let reports = format!(
            "{{\"evaluation\":\"a\",\"before\":null,\"after\":{REPORT},\
             \"others\":[{{\"evaluation\":\"b\",\"before\":{REPORT},\"after\":null}}]}}"
        );
        let dir = folder(&[("metrics.jsonl", &(line("a", 0.25) + &line("b", 0.5))), ("eval.json", &reports)]);
        let runs = read(&[dir.path()]).unwrap();
        let [run] = runs.as_slice() else { panic!("one") };
        assert_eq!((run.figure("a", "map"), run.figure("b", "map")), (&[(0, 0.25)][..], &[(0, 0.5)][..]));
        assert_eq!((run.evaluation.as_deref(), run.before.is_some(), run.after.is_some()), (Some("a"), false, true));
        let others: Vec<_> =
            run.others.iter().map(|of| (of.name.as_str(), of.before.is_some(), of.after.is_some())).collect();
        assert_eq!(others, [("b", true, false)]);
    }

    #[test]
    fn a_run_is_read_whole() {
        let lines = "{\"step\":0,\"task\":\"parallel\",\"split\":\"all\",\"map\":0.25,\"gap\":null}\n\
                     {\"step\":1,\"loss\":2.5,\"mode\":\"mixed\"}\n{\"step\":2,\"loss\":1.5}\n\
                     {\"step\":2,\"task\":\"parallel\",\"split\":\"all\",\"map\":0.5}\n{\"step\":3,\"lo";
        let reports = format!("{{\"before\":null,\"after\":{REPORT}}}");
        let dir = folder(&[
            ("a/metrics.jsonl", lines),
            ("a/eval.json", &reports),
            ("a/config.toml", "steps = 2\nmode = 'hybrid'\n"),
            ("b/metrics.jsonl", ""),
            ("c/b.json", REPORT),
        ]);
        let names = ["a", "a/eval.json", "b", "c/b.json"].map(|name| dir.path().join(name));
        let runs = read(&names).unwrap();
        let called: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
        let typed: Vec<String> = names.iter().map(|path| path.display().to_string()).collect();
        assert_eq!(called, typed, "two of each name");
        assert_eq!(read(&names[..1]).unwrap()[0].name, "a");
        assert_eq!(runs[0].curve("loss"), [(1, 2.5), (2, 1.5)]);
        assert_eq!(runs[0].figure("parallel", "map"), [(0, 0.25), (2, 0.5)]);
        assert!(runs[0].figure("parallel", "gap").is_empty() && runs[0].figure("other", "map").is_empty());
        assert_eq!(runs[0].settings, [("mode".into(), "\"hybrid\"".into()), ("steps".into(), "2".into())]);
        for run in [&runs[0], &runs[1], &runs[3]] {
            assert!(run.before.is_none() && run.after.as_ref().unwrap().model == "m");
        }
        assert!(runs[2].curves.is_empty() && runs[2].after.is_none());
    }

    #[test]
    fn damage_is_one_error_that_names_the_place() {
        for (name, text, expected) in [
            ("run/metrics.jsonl", "{\"step\":1}\n{\"step\":3}\n", "metrics.jsonl, line 2: is damaged; "),
            ("run/metrics.jsonl", "none\n{\"step\":3}\n", "metrics.jsonl, line 1: is damaged; "),
            ("run/eval.json", "{\"before\": 1, \"after\": null}", "eval.json: is not a result of hbt eval --json, nor"),
            ("run/eval.json", "{", "eval.json: is not a result of hbt eval --json, nor"),
            (
                "run/notes.txt",
                "",
                "run: is not a run directory: it has no metrics.jsonl and no eval.json, and there are no results of",
            ),
        ] {
            let dir = folder(&[(name, text)]);
            let error = read(&[dir.path().join("run")]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let dir = folder(&[("run/metrics.jsonl", ""), ("run/config.toml", "steps = \n"), ("x.json", "[]")]);
        let error = read(&[dir.path().join("run")]).unwrap_err().to_string();
        assert!(error.contains("config.toml: is not TOML"), "{error}");
        let error = read(&[dir.path().join("x.json")]).unwrap_err().to_string();
        assert!(error.contains("x.json: is not a result"), "{error}");
        let error = read(&[dir.path().join("gone.json")]).unwrap_err().to_string();
        assert!(error.starts_with("cannot read ") && error.ends_with("; check the path"), "{error}");
    }
}
