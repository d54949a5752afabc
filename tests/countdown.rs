//! Countdown faults, as SQLite tests itself (<https://sqlite.org/testing.html>, "I/O error testing" and "crash testing"): at
//! each call that changes a file in turn, the process is killed, a write is torn, the call fails, the disk dies or is full.
//! What an undisturbed command leaves is the measure: the same command again ends with the same bytes, and nothing else is
//! there. `tests/countdown/faults.cpp` counts the calls.
//!
//! `cargo test` makes a few of the faults, `.ci/countdown` all of them.

mod flips;

use crate::common::{Done, EVENTS, Sandbox, files, fixture, program, run_contents, train};
use crate::model_io::hub::LocalHub;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

type Contents = BTreeMap<String, Vec<u8>>;

/// A command, and what is there before it.
struct Scenario {
    before: Contents,
    args: Vec<String>,
    /// What a user types after a failure.
    again: Vec<String>,
    /// Variables for both.
    variables: Vec<(&'static str, String)>,
}

/// What goes wrong, and at which call from 1.
#[derive(Clone, Copy, Debug)]
struct Fault {
    kind: &'static str,
    at: usize,
}

/// How an undisturbed command ends, and the calls it makes.
struct Undisturbed {
    after: Contents,
    stdout: String,
    calls: Vec<String>,
}

/// How many faults the environment asks for of each scenario: a number, or `all`.
fn n_asked() -> Option<usize> {
    let asked = std::env::var("HBT_COUNTDOWN").ok()?;
    Some(if asked == "all" { usize::MAX } else { asked.parse().expect("HBT_COUNTDOWN is a number, or all") })
}

/// The library that makes the faults, if they can be made here.
fn library() -> Option<&'static PathBuf> {
    static LIBRARY: OnceLock<Option<PathBuf>> = OnceLock::new();
    let build = || {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            eprintln!("skipped: calls are counted on Linux on x86-64 only");
            return None;
        }
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/countdown/faults.cpp");
        let library = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("countdown-{}.so", std::process::id()));
        let mut compile = Command::new(std::env::var("CXX").unwrap_or("c++".to_owned()));
        compile.args(["-std=c++17", "-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(source);
        assert!(compile.status().unwrap().success());
        let probe = Command::new(program()).arg("--version").env("LD_PRELOAD", &library).output().unwrap();
        if !probe.status.success() {
            eprintln!("skipped: {}", String::from_utf8_lossy(&probe.stderr));
            return None;
        }
        Some(library)
    };
    LIBRARY.get_or_init(build).as_ref()
}

/// Everything below the sandbox, without the times in lines of metrics.
fn contents(sandbox: &Sandbox) -> Contents {
    let mut all = files(&sandbox.path(""));
    if all.contains_key("run/metrics.jsonl") {
        all.extend(run_contents(sandbox, "run").into_iter().map(|(name, bytes)| (format!("run/{name}"), bytes)));
    }
    all
}

impl Scenario {
    fn new(before: Contents, args: &[&str]) -> Self {
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        Scenario { before, again: args.clone(), args, variables: vec![] }
    }

    fn sandbox(&self) -> Sandbox {
        let sandbox = Sandbox::new();
        for (name, bytes) in &self.before {
            match name.strip_suffix('/') {
                Some(folder) => std::fs::create_dir_all(sandbox.path(folder)).unwrap(),
                None => sandbox.write(name, bytes),
            }
        }
        sandbox
    }

    fn command(&self, sandbox: &Sandbox, args: &[String]) -> Command {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = sandbox.command(&args);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs the command, with a fault or without; returns how it ended and the calls that it made.
    fn run(&self, sandbox: &Sandbox, fault: Option<Fault>) -> (Done, Vec<String>) {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut command = self.command(sandbox, &self.args);
        command.env("LD_PRELOAD", library().unwrap()).env("COUNTDOWN_LOG", log.path());
        if let Some(Fault { kind, at }) = fault {
            command.env("COUNTDOWN_KIND", kind).env("COUNTDOWN_AT", at.to_string());
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let start = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if start.elapsed() > Duration::from_secs(120) {
                child.kill().unwrap();
                panic!("{:?} hangs with {fault:?}", self.args);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let done = Done::new(child.wait_with_output().unwrap());
        let root = format!("{}/", sandbox.path("").to_str().unwrap().trim_end_matches('/'));
        let calls = std::fs::read_to_string(log.path()).unwrap();
        (done, calls.lines().map(|call| call.replace(&root, "")).collect())
    }

    fn undisturbed(&self) -> Undisturbed {
        let sandbox = self.sandbox();
        let (done, calls) = self.run(&sandbox, None);
        let stdout = done.ok().stdout;
        Undisturbed { after: contents(&sandbox), stdout, calls }
    }

    /// What is wrong after the fault, if anything is.
    fn check(&self, undisturbed: &Undisturbed, fault: Fault) -> Result<(), String> {
        let sandbox = self.sandbox();
        let (done, calls) = self.run(&sandbox, Some(fault));
        // Threads make their calls in their own order.
        let call = calls.get(fault.at - 1).map_or("", String::as_str);
        let Undisturbed { after, stdout, .. } = undisturbed;
        // What is kept only to save the next run some time may be missing where it could not be written.
        let spared = fault.kind == "fails" && call.contains("/.evaluation-");
        let after = &after
            .iter()
            .filter(|(name, _)| !(spared && name.starts_with("cache/evaluation-")))
            .map(|(name, bytes)| (name.clone(), bytes.clone()))
            .collect::<Contents>();
        let is_killed = matches!(fault.kind, "kill" | "torn") && !call.is_empty();
        // What cannot be removed stays until the next command, after an error; in the cache, after a success, too.
        let may_stay = fault.kind == "dead" || call.starts_with("remove ");
        match done.code {
            None if is_killed => {}
            Some(0) if !is_killed => {
                let mut now = contents(&sandbox);
                now.retain(|name, _| !(may_stay && name.starts_with("cache/") && is_temporary(name)));
                let mut after = after.clone();
                if done.stderr.contains("warning: no report was written: ") {
                    // The page is for people to look at; the next command writes it.
                    after.retain(|name, _| !name.contains("report.html"));
                    now.retain(|name, _| !name.contains("report.html"));
                }
                difference(&after, &now).map_or(Ok(()), |what| Err(format!("succeeds at {call}: {what}")))?;
            }
            Some(1) if !is_killed => {
                let errors = done.stderr.lines().filter(|line| line.starts_with("error: ")).count();
                let is_last = done.stderr.lines().last().is_some_and(|line| line.starts_with("error: "));
                if errors != 1 || !is_last {
                    return Err(format!("at {call}: {}", done.stderr));
                }
                let all = files(&sandbox.path(""));
                // Where the new content is not known to be on the disk, the old one is kept beside it.
                let is_kept = |name: &str| call.starts_with("sync ") && name.contains(".hbt-old/");
                let is_new = |name: &str| !may_stay && !is_kept(name) && !self.before.contains_key(name);
                let left = all.keys().find(|name| is_temporary(name) && is_new(name));
                left.map_or(Ok(()), |name| Err(format!("at {call}: leaves {name}; {}", done.stderr)))?;
            }
            code => return Err(format!("at {call}: ends with {code:?}: {}", done.stderr)),
        }
        // What was there is there as it was, or as it is to be; where names cannot be exchanged, for an instant beside it.
        let now = files(&sandbox.path(""));
        let beside =
            |name: &str| now.get(&name.replace("/last/", "/.last.hbt-old/").replace("/best/", "/.best.hbt-old/"));
        for (name, old) in self.before.iter().filter(|(name, _)| after.contains_key(*name) && !is_temporary(name)) {
            let is_whole = ["metrics.jsonl", EVENTS].iter().any(|appended| name.ends_with(appended))
                || now.get(name).or_else(|| beside(name)).is_some_and(|it| it == old || *it == after[name]);
            if !is_whole {
                return Err(format!("at {call}: {name} is neither the old nor the new one"));
            }
        }
        let again = Done::new(self.command(&sandbox, &self.again).output().unwrap());
        if again.code != Some(0) || again.stdout != *stdout {
            return Err(format!("at {call}: again: {:?} {}{}", again.code, again.stdout, again.stderr));
        }
        difference(after, &contents(&sandbox)).map_or(Ok(()), |what| Err(format!("at {call}: again: {what}")))
    }

    /// All faults, or about `n_few` of them, the same in every run.
    fn sweep(&self, n_few: usize) {
        let undisturbed = self.undisturbed();
        let calls = undisturbed.calls.iter().zip(1..);
        let kinds = calls.flat_map(|(call, at)| {
            KINDS
                .iter()
                .filter(|(_, calls)| calls.is_empty() || calls.contains(&call.split(' ').next().unwrap()))
                .map(move |&(kind, _)| Fault { kind, at })
        });
        let all: Vec<Fault> = [Fault { kind: "short", at: 1 }].into_iter().chain(kinds).collect();
        let n = n_asked().unwrap_or(n_few).min(all.len());
        // What was replaced cannot be removed, which is one call of many.
        let removal =
            all.iter().find(|fault| fault.kind == "fails" && undisturbed.calls[fault.at - 1].starts_with("remove "));
        let chosen = (0..n).map(|i| all[i * all.len() / n]).chain(removal.copied());
        let faults: Vec<String> = chosen
            .filter_map(|fault| {
                self.check(&undisturbed, fault).err().map(|what| format!("{} {}: {what}", fault.kind, fault.at))
            })
            .collect();
        assert!(
            faults.is_empty(),
            "{} of {n} faults of {} calls:\n{}",
            faults.len(),
            undisturbed.calls.len(),
            faults.join("\n")
        );
    }
}

/// Kinds of faults, and the calls that each makes a difference to; none stands for all.
const KINDS: [(&str, &[&str]); 5] = [
    ("kill", &[]),
    ("torn", &["write", "pwrite"]),
    ("fails", &[]),
    ("dead", &[]),
    ("full", &["open", "write", "pwrite", "writev", "sendfile", "truncate", "mkdir", "link", "symlink"]),
];

fn is_temporary(name: &str) -> bool {
    name.split('/').any(|part| {
        (part.starts_with('.') && part.contains("hbt-")) || part.ends_with(".partial") || part.starts_with(".tmp")
    })
}

/// The first name that only one of the two has, or that differs.
fn difference(expected: &Contents, found: &Contents) -> Option<String> {
    let missing = expected.keys().find(|name| !found.contains_key(*name)).map(|name| format!("{name} is missing"));
    let more = || found.keys().find(|name| !expected.contains_key(*name)).map(|name| format!("{name} is left"));
    let other =
        || expected.iter().find(|(name, bytes)| found[*name] != **bytes).map(|(name, _)| format!("{name} differs"));
    missing.or_else(more).or_else(other)
}

fn data() -> Contents {
    files(&Sandbox::with_groups(8).path(""))
}

/// Saves twice, `best/` and `last/` each time.
const SETS: [&str; 7] = [
    "steps=2",
    "save_steps=1",
    "eval_steps=1",
    "dropout=0.1",
    "chunk_tokens=64",
    "query_max_len=16",
    "passage_max_len=16",
];

fn training() -> Scenario {
    let bert = fixture("bert");
    let args = train(&bert, &SETS);
    let mut scenario = Scenario::new(data(), &args);
    scenario.again.push("--resume".to_owned());
    scenario
}

#[test]
fn a_run() {
    if library().is_some() {
        training().sweep(8);
    }
}

/// A run that a kill has left in the middle of its second save, with files of others in its directories.
fn going_on() -> Scenario {
    let scenario = training();
    let calls = scenario.undisturbed().calls;
    let mut exchanges =
        (1..).zip(&calls).filter(|(_, call)| call.starts_with("rename ") && call.ends_with(".best.hbt-tmp"));
    let (at, _) = exchanges.nth(1).unwrap();
    let sandbox = scenario.sandbox();
    scenario.run(&sandbox, Some(Fault { kind: "kill", at }));
    sandbox.write("run/last/onnx/model.onnx", "an export");
    sandbox.write("run/best/notes.txt", "mine");
    let before = files(&sandbox.path(""));
    assert!(before.contains_key("run/.best.hbt-tmp/hbt_manifest.json"));
    Scenario::new(before, &["train", "--out", "run", "--resume"])
}

#[test]
fn a_run_that_goes_on() {
    if library().is_some() {
        going_on().sweep(6);
    }
}

/// On a file system that cannot exchange two names, the old content has another one for an instant.
#[test]
fn a_run_that_goes_on_in_two_steps() {
    if library().is_some() {
        let mut scenario = going_on();
        scenario.variables = vec![("COUNTDOWN_EXCHANGE", "no".to_owned())];
        scenario.sweep(4);
    }
}

#[test]
fn tokens() {
    if library().is_some() {
        Scenario::new(data(), &["prepare", "--model", &fixture("bert"), "--data", "data.jsonl"]).sweep(6);
    }
}

/// The built-in model is not in the cache; and it is, but damaged, so that a directory takes the place of another.
#[test]
fn the_built_in_model() {
    if library().is_none() {
        return;
    }
    let scenario = Scenario::new(data(), &["prepare", "--data", "data.jsonl"]);
    scenario.sweep(4);
    let mut before = scenario.undisturbed().after;
    before.retain(|name, _| !name.contains("/tokens-"));
    let config =
        before.iter_mut().find(|(name, _)| name.starts_with("cache/tiny-model-") && name.ends_with("/config.json"));
    *config.unwrap().1 = b"damaged".to_vec();
    Scenario { before, ..scenario }.sweep(4);
}

/// A model of the hub that is fetched.
#[test]
fn the_hubs_cache() {
    if library().is_none() {
        return;
    }
    let model = "org/tiny";
    let hub = LocalHub::of(model, files(Path::new(&fixture("bert"))));
    let mut scenario = Scenario::new(data(), &["prepare", "--model", model, "--data", "data.jsonl"]);
    scenario.variables = vec![("HF_HUB_OFFLINE", "0".to_owned()), ("HF_ENDPOINT", hub.endpoint)];
    scenario.sweep(4);
}

/// Files that are there already are replaced.
#[test]
fn results() {
    if library().is_none() {
        return;
    }
    let bert = fixture("bert");
    for (output, args) in [
        ("mined.jsonl", &["mine", "--data", "data.jsonl", "--range-min", "2", "--output"][..]),
        ("texts.npy", &["encode", "--input", "texts.txt", "--output"]),
        ("texts.jsonl", &["encode", "--input", "texts.txt", "--output"]),
        ("report.json", &["eval", "--data", "data.jsonl", "--task", "parallel", "--json"]),
    ] {
        let mut before = data();
        before.insert("texts.txt".to_owned(), b"who wrote it\nand when\n".to_vec());
        before.insert(output.to_owned(), b"old".to_vec());
        Scenario::new(before, &[args, &[output, "--overwrite", "--model", &bert]].concat()).sweep(3);
    }
}

#[test]
fn manual_pages() {
    if library().is_some() {
        Scenario::new(Contents::new(), &["completions", "--man", "man"]).sweep(4);
    }
}
