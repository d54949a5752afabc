//! Runs of several processes on real MPI, where [`HBT_TEST_MPI`](crate::dist::mpi) names some.

use crate::common::{Done, Sandbox, all_metrics, fixture, train};
use crate::dist::mpi::{folders, launcher};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The command that runs hbt in `size` processes.
fn ranks(sandbox: &Sandbox, folder: &Path, size: usize, args: &[&str]) -> Command {
    let hbt = sandbox.command(args);
    let mut command = launcher(folder, size);
    command.arg(hbt.get_program()).args(hbt.get_args());
    for (name, value) in hbt.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    if let Some(directory) = hbt.get_current_dir() {
        command.current_dir(directory);
    }
    command.stdin(Stdio::null());
    command
}

fn run(sandbox: &Sandbox, folder: &Path, size: usize, args: &[&str]) -> Done {
    Done::new(ranks(sandbox, folder, size, args).output().unwrap())
}

/// Ten steps with all that a step may have, and evaluations on the way.
const SETS: [&str; 7] = [
    "steps=10",
    "batch_size=7",
    "eval_steps=4",
    "symmetric=true",
    "temperature_learning_rate=1e-2",
    "seed=5",
    "save_steps=5",
];

fn sandbox() -> Sandbox {
    Sandbox::with_groups(16)
}

/// The lines of metrics agree but for rounding, as two groupings of the same sums do after some steps.
fn assert_same_steps(what: &str, got: &[Value], expected: &[Value]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (got, expected) in got.iter().zip(expected) {
        let (got, expected) = (got.as_object().unwrap(), expected.as_object().unwrap());
        assert!(got.keys().eq(expected.keys()), "{what}");
        for (name, value) in got.iter().filter(|(name, _)| *name != "seconds") {
            match (value.as_f64(), expected[name].as_f64()) {
                (Some(a), Some(b)) => {
                    assert!((a - b).abs() <= 2e-3 * b.abs().max(0.05), "{what}: {name} {a}, {b} in {got:?}");
                }
                _ => assert_eq!(*value, expected[name], "{what}: {name}"),
            }
        }
    }
}

#[test]
fn a_run_is_the_same_on_any_number_of_ranks() {
    let bert = fixture("bert");
    for folder in folders() {
        let sandbox = sandbox();
        sandbox.hbt(&train(&bert, &[&SETS[..], &["out=one"]].concat())).ok();
        let one = all_metrics(&sandbox, "one");
        for size in [2, 4] {
            let out = format!("out=ranks{size}");
            let done = run(&sandbox, &folder, size, &train(&bert, &[&SETS[..], &[&out]].concat())).ok();
            let first = format!("{size} ranks, started by ");
            assert_eq!(done.stderr.matches(&first).count(), 1, "only one of them speaks: {}", done.stderr);
            assert_eq!(done.stderr.matches("step 10:").count(), 1, "{}", done.stderr);
            let run_dir = format!("ranks{size}");
            assert_same_steps(&format!("{size} ranks"), &all_metrics(&sandbox, &run_dir), &one);
            // Once more: the same bytes.
            let again = format!("out=again{size}");
            run(&sandbox, &folder, size, &train(&bert, &[&SETS[..], &[&again]].concat())).ok();
            let weights = |run: &str| sandbox.bytes(&format!("{run}/last/model.safetensors"));
            assert!(weights(&run_dir) == weights(&format!("again{size}")), "{size} ranks twice");
        }
    }
}

/// A run that stopped goes on in as many processes as before, to the same bytes, and in fewer or more.
#[test]
fn a_run_goes_on_on_other_ranks() {
    let bert = fixture("bert");
    for folder in folders() {
        let sandbox = sandbox();
        let sets = |out: &'static str| ["steps=300", "batch_size=7", "eval_task=none", "save_steps=100", out];
        run(&sandbox, &folder, 2, &train(&bert, &sets("out=whole"))).ok();
        let whole = all_metrics(&sandbox, "whole");
        for (out, then) in [("out=same", 2), ("out=fewer", 1), ("out=more", 3)] {
            let name = &out[4..];
            let mut child = ranks(&sandbox, &folder, 2, &train(&bert, &sets(out)));
            let child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            stop_one(&child, &sandbox, name);
            let stopped = Done::new(child.wait_with_output().unwrap());
            assert!(sandbox.path(&format!("{name}/last/model.safetensors")).exists(), "{}", stopped.stderr);
            let done = all_metrics(&sandbox, name).len();
            assert!(done < 300, "the run was over before it was stopped");
            let run_dir = sandbox.path(name);
            let args = ["train", "--out", run_dir.to_str().unwrap(), "--resume"];
            if then == 1 { sandbox.hbt(&args) } else { run(&sandbox, &folder, then, &args) }.ok();
            let resumed = all_metrics(&sandbox, name);
            let end = (done + 10).min(300);
            assert_same_steps(out, &resumed[..end], &whole[..end]);
            let weights = |run: &str| sandbox.bytes(&format!("{run}/last/model.safetensors"));
            assert_eq!(weights(name) == weights("whole"), then == 2, "{out}");
        }
    }
}

/// Asks one process of a run, not the first, to stop when it has done a step or two.
fn stop_one(launcher: &std::process::Child, sandbox: &Sandbox, run: &str) {
    let start = Instant::now();
    let metrics = sandbox.path(&format!("{run}/metrics.jsonl"));
    let n_lines = || std::fs::read_to_string(&metrics).map_or(0, |text| text.lines().count());
    while n_lines() < 3 && start.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let of_run = processes(run);
    assert!(!of_run.is_empty(), "the run is over already, or never began; launcher {}", launcher.id());
    let last = of_run.iter().max().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &last]).status().unwrap().success());
}

/// The processes of hbt that write this run.
fn processes(run: &str) -> Vec<u32> {
    let wanted = format!("out={run}");
    let is_it = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut args = line.split(|byte| *byte == 0);
        args.next().is_some_and(|program| program.ends_with(b"hbt")) && args.any(|arg| arg == wanted.as_bytes())
    };
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|pid| pid.file_name().to_str()?.parse().ok()).filter(is_it).collect()
}

/// What differs between the processes is one error, by the rank and the line.
#[test]
fn ranks_that_mean_something_else_are_refused() {
    for folder in folders() {
        let sandbox = sandbox();
        let bert = fixture("bert");
        let args = train(&bert, &["steps=2", "batch_size=4"]);
        let error = run(&sandbox, &folder, 2, &[&args[..], &["--set", "mode=nonsense"]].concat());
        assert_ne!(error.code, Some(0));
        assert_eq!(error.stderr.matches("error: ").count(), 1, "{}", error.stderr);
        assert!(error.stderr.contains("error: rank 0: "), "{}", error.stderr);
        // A launcher's own way to give one process another argument.
        let mut command = launcher(&folder, 1);
        let hbt = sandbox.command(&args);
        for (name, value) in hbt.get_envs().filter_map(|(name, value)| Some((name, value?))) {
            command.env(name, value);
        }
        command.current_dir(sandbox.path("."));
        command.arg(hbt.get_program()).args(hbt.get_args()).args([":", "-n", "1"]);
        command.arg(hbt.get_program()).args(hbt.get_args()).args(["--set", "batch_size=5"]);
        let error = Done::new(command.stdin(Stdio::null()).output().unwrap());
        assert_ne!(error.code, Some(0));
        assert!(
            error.stderr.contains("rank 1 has another configuration than rank 0: \"batch_size = 5\""),
            "{}",
            error.stderr
        );
        assert!(!sandbox.path("run/last").exists());
    }
}

/// A process that is killed takes the run with it, and nothing is left.
#[test]
fn a_killed_rank_ends_the_run() {
    let bert = fixture("bert");
    for folder in folders() {
        let sandbox = sandbox();
        let sets = ["steps=100000", "batch_size=7", "eval_task=none", "out=killed", "save_steps=1000"];
        let mut command = ranks(&sandbox, &folder, 3, &train(&bert, &sets));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let start = Instant::now();
        while processes("killed").len() < 3 && start.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(500));
        let victim = *processes("killed").iter().max().unwrap();
        assert!(Command::new("kill").args(["-KILL", &victim.to_string()]).status().unwrap().success());
        let start = Instant::now();
        let status = child.wait_with_output().unwrap().status;
        assert!(!status.success());
        while !processes("killed").is_empty() && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(processes("killed"), Vec::<u32>::new(), "left by {}", folder.display());
    }
}
