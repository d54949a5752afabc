//! A directory of its own for every test that runs the binary, tiny data, and what a run leaves behind.

mod events;

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// A directory in which `hbt` runs, with a cache of its own.
pub struct Sandbox {
    dir: TempDir,
}

/// How a command ended.
pub struct Done {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// `HBT_TEST_ROOT`: a folder with the program and `tests/fixtures`, where these tests run on another machine than the one
/// that built them (`benches/gpu.sh`).
fn packed() -> Option<PathBuf> {
    std::env::var_os("HBT_TEST_ROOT").map(PathBuf::from)
}

/// The program.
pub fn program() -> PathBuf {
    packed().map_or_else(|| env!("CARGO_BIN_EXE_hbt").into(), |folder| folder.join("hbt"))
}

/// Directory of the fixtures.
pub fn fixtures() -> PathBuf {
    packed().unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into()).join("tests/fixtures")
}

/// A model directory among the fixtures: bert, xlmr, labse or st54; 2 layers, hidden size 32.
pub fn fixture(name: &str) -> String {
    fixtures().join(name).into_os_string().into_string().expect("a path in UTF-8")
}

/// Parallel groups that a tiny model can learn by heart: short strings of letters, other ones in every language.
pub fn groups(n: usize, langs: &[&str]) -> Vec<Value> {
    let letter = |x: usize| (b'a' + (x % 26) as u8) as char;
    let text = |i: usize, lang: usize, role: usize| {
        let [a, b, c] = [i * 7 + lang * 5 + role * 11, i / 3 + lang * 9 + role * 3 + 1, i * 3 + lang + 2 * role];
        format!("{} {} {}", letter(a), letter(b), letter(c))
    };
    let by_lang = |i: usize, role: usize, before: &str| {
        let texts =
            langs.iter().enumerate().map(|(l, code)| (code.to_string(), json!(before.to_owned() + &text(i, l, role))));
        Value::Object(texts.collect())
    };
    (0..n)
        .map(|i| json!({"id": format!("g{i}"), "query": by_lang(i, 0, "who wrote "), "positive": by_lang(i, 1, "book ")}))
        .collect()
}

/// JSON Lines.
pub fn jsonl(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

impl Sandbox {
    /// An empty directory.
    pub fn new() -> Self {
        Sandbox { dir: TempDir::new().unwrap() }
    }

    /// One that holds `data.jsonl`: `n` groups in Arabic, German and English.
    pub fn with_groups(n: usize) -> Self {
        let sandbox = Self::new();
        sandbox.write("data.jsonl", jsonl(&groups(n, &["ar", "de", "en"])));
        sandbox
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        String::from_utf8(self.bytes(name)).unwrap()
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(name)).unwrap()
    }

    /// A copy of a fixture model, to be damaged.
    pub fn copy_model(&self, fixture_name: &str, name: &str) {
        for (file, bytes) in files(Path::new(&fixture(fixture_name))) {
            self.write(&format!("{name}/{file}"), bytes);
        }
    }

    /// `hbt` with these arguments, in this directory.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        command.env("HBT_CACHE", self.path("cache")).env("HF_HUB_OFFLINE", "1").env("HF_HUB_CACHE", self.path("hub"));
        // Tests expect of `auto` the processor's values, whatever GPU is there.
        command.env("CUDA_VISIBLE_DEVICES", "");
        command
    }

    /// Runs it to its end.
    pub fn hbt(&self, args: &[&str]) -> Done {
        Done::new(self.command(args).output().unwrap())
    }

    /// Contents of the directory: files with their bytes, and directories, without the cache.
    pub fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let mut all = files(self.dir.path());
        all.retain(|name, _| !name.starts_with("cache/"));
        all
    }
}

impl Done {
    pub fn new(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Done { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Fails the test unless the command has succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self
    }

    /// Fails unless the command ended as Ctrl-C ends it.
    #[track_caller]
    pub fn interrupted(self) -> Self {
        assert_eq!(self.code, Some(130), "{}{}", self.stdout, self.stderr);
        self
    }

    /// The error of a command that has to have failed: one line, the last, exit code 1.
    #[track_caller]
    pub fn error(&self) -> String {
        assert_eq!(self.code, Some(1), "{}{}", self.stdout, self.stderr);
        let errors: Vec<&str> = self.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!((errors.len(), self.stderr.lines().last()), (1, errors.first().copied()), "{}", self.stderr);
        assert_eq!(self.stdout, "", "a failed command prints no result");
        errors[0].to_owned()
    }
}

/// All files below `root` by their path within it, temporary ones included; an empty directory is a file named `DIR/`.
pub fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            let inner = files(&path);
            if inner.is_empty() {
                found.insert(format!("{name}/"), vec![]);
            }
            found.extend(inner.into_iter().map(|(file, bytes)| (format!("{name}/{file}"), bytes)));
        } else {
            found.insert(name, fs::read(&path).unwrap());
        }
    }
    found
}

/// Makes a named pipe. Where one lies, [`Sandbox::contents`] would wait for ever.
#[cfg(unix)]
pub fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// `hbt train` on `data.jsonl` into `run`, with 4 queries a step and a temperature that suits tiny models, then `more`.
pub fn train<'a>(model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["train", "--model", model, "--data", "data.jsonl", "--out", "run"];
    for set in ["batch_size=4", "learning_rate=3e-3", "temperature=0.05", "eval_task=parallel"] {
        args.extend(["--set", set]);
    }
    for more in more {
        if !more.starts_with('-') {
            args.push("--set");
        }
        args.push(more);
    }
    args
}

/// A figure of a report, by its name: `multilingual_map`.
pub fn figure(report: &Value, name: &str) -> f64 {
    let named = |figure: &&Value| {
        let words = ["setting", "metric"].map(|key| figure[key].as_str());
        words.into_iter().flatten().collect::<Vec<_>>().join("_") == name && figure["cutoff"].is_null()
    };
    let figure = report["figures"].as_array().unwrap().iter().find(named);
    figure.unwrap_or_else(|| panic!("no {name}: {report}"))["value"].as_f64().unwrap()
}

/// The lines of `metrics.jsonl`, those of steps without the time, which no two runs share.
pub fn all_metrics(sandbox: &Sandbox, run: &str) -> Vec<Value> {
    let text = sandbox.read(&format!("{run}/metrics.jsonl"));
    let without_time = |line: &str| {
        let mut value: Value = serde_json::from_str(line).unwrap();
        let seconds = value.as_object_mut().unwrap().remove("seconds");
        assert!(is_evaluation(&value) == seconds.is_none() && seconds.is_none_or(|time| time.as_f64().unwrap() > 0.0));
        value
    };
    text.lines().map(without_time).collect()
}

fn is_evaluation(line: &Value) -> bool {
    line.get("task").is_some()
}

/// Those of steps.
pub fn metrics(sandbox: &Sandbox, run: &str) -> Vec<Value> {
    all_metrics(sandbox, run).into_iter().filter(|line| !is_evaluation(line)).collect()
}

/// Number of steps that a run has reported so far.
pub fn n_steps(metrics: &Path) -> usize {
    let is_step = |line: &&str| line.contains("\"loss\":");
    fs::read_to_string(metrics).map_or(0, |text| text.lines().filter(is_step).count())
}

/// The event file of a run.
pub const EVENTS: &str = "tensorboard/events.out.tfevents.0.hbt";

/// A run directory as two runs of one configuration must share it: every byte, but for the times.
pub fn run_contents(sandbox: &Sandbox, run: &str) -> BTreeMap<String, Vec<u8>> {
    let mut all = files(&sandbox.path(run));
    all.insert("metrics.jsonl".to_owned(), jsonl(&all_metrics(sandbox, run)).into_bytes());
    all.insert(EVENTS.to_owned(), events::in_words(&all[EVENTS]).into_bytes());
    all
}

/// The same without the configuration and the page, which shows it: of runs that differ there, and should not elsewhere.
pub fn run_results(sandbox: &Sandbox, run: &str) -> BTreeMap<String, Vec<u8>> {
    let mut all = run_contents(sandbox, run);
    for name in ["config.toml", "report.html"] {
        all.remove(name).unwrap_or_else(|| panic!("no {name}"));
    }
    all
}

/// Fails the test unless two run directories are equal, and names the files that differ.
#[track_caller]
pub fn assert_same_run(left: &BTreeMap<String, Vec<u8>>, right: &BTreeMap<String, Vec<u8>>, what: &str) {
    let names = |run: &BTreeMap<String, Vec<u8>>| run.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(left), names(right), "{what}");
    let differing: Vec<&String> = left.keys().filter(|name| left[*name] != right[*name]).collect();
    let Some(name) = differing.first() else { return };
    let text = |run: &BTreeMap<String, Vec<u8>>| String::from_utf8_lossy(&run[*name]).into_owned();
    let (left, right) = (text(left), text(right));
    let lines = left.lines().zip(right.lines()).find(|(left, right)| left != right);
    panic!("{what}: {differing:?} differ; {name}: {lines:?}");
}

/// Languages of XQuAD-R and how many sentences each has to choose from, as LAReQA publishes them.
pub const XQUAD_R_SENTENCES: [(&str, usize); 11] = [
    ("ar", 1222),
    ("de", 1276),
    ("el", 1234),
    ("en", 1180),
    ("es", 1215),
    ("hi", 1244),
    ("ru", 1219),
    ("th", 852),
    ("tr", 1167),
    ("vi", 1209),
    ("zh", 1196),
];
