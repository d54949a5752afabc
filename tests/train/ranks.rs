//! Runs of several processes: as torchrun starts them, over TCP, and on real MPI where
//! [`HBT_TEST_MPI`](crate::dist::mpi) names some.

use crate::common::{Done, Sandbox, all_metrics, fixture, train};
use crate::dist::mpi::{folders, launcher};
use crate::tolerance;
use serde_json::Value;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What starts processes.
pub enum World {
    Tcp,
    Mpi(PathBuf),
}

impl World {
    pub fn all() -> Vec<World> {
        [World::Tcp].into_iter().chain(folders().into_iter().map(World::Mpi)).collect()
    }

    /// The processes of a run, or the one launcher of them; `own` are more arguments of one rank.
    pub fn start(&self, sandbox: &Sandbox, size: usize, args: &[&str], own: Option<(usize, &[&str])>) -> Vec<Child> {
        let of_rank = |rank: usize| match own {
            Some((of, more)) if of == rank => [args, more].concat(),
            _ => args.to_vec(),
        };
        let begin = |mut command: Command| {
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let World::Mpi(folder) = self else {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let rank = |rank: usize| {
                let mut command = sandbox.command(&of_rank(rank));
                for (name, value) in [("RANK", rank), ("WORLD_SIZE", size)] {
                    command.env(name, value.to_string()).env(format!("LOCAL_{name}"), value.to_string());
                }
                command.env("HBT_RENDEZVOUS", format!("127.0.0.1:{port}"));
                begin(command)
            };
            return (0..size).map(rank).collect();
        };
        let hbt = sandbox.command(args);
        let (segments, size_of_each) = if own.is_some() { (size, 1) } else { (1, size) };
        let mut command = launcher(folder, size_of_each);
        // By default it ends all as soon as one is gone, before any can say which.
        if folder.join("mpiexec.hydra").exists() {
            command.arg("-disable-auto-cleanup");
        }
        for (name, value) in hbt.get_envs().filter_map(|(name, value)| Some((name, value?))) {
            command.env(name, value);
        }
        command.current_dir(sandbox.path("."));
        for rank in 0..segments {
            if rank > 0 {
                command.args([":", "-n", "1"]);
            }
            command.arg(hbt.get_program()).args(of_rank(rank));
        }
        vec![begin(command)]
    }

    pub fn run(&self, sandbox: &Sandbox, size: usize, args: &[&str]) -> Done {
        finish(self.start(sandbox, size, args, None))
    }
}

/// What all have said, and the first exit code that is not 0.
pub fn finish(children: Vec<Child>) -> Done {
    let all: Vec<Done> = children.into_iter().map(|child| Done::new(child.wait_with_output().unwrap())).collect();
    let code = all.iter().map(|done| done.code).find(|code| *code != Some(0)).unwrap_or(Some(0));
    let text = |of: fn(&Done) -> &str| all.iter().map(of).collect::<String>();
    Done { code, stdout: text(|done| &done.stdout), stderr: text(|done| &done.stderr) }
}

/// Ten steps with all that a step may have, and evaluations on the way.
const SETS: [&str; 8] = [
    "precision=f32",
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

/// The lines of metrics agree: steps as those of PyTorch do, evaluations but for a few ranks that rounding exchanges.
fn assert_same_steps(what: &str, got: &[Value], expected: &[Value]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (got, expected) in got.iter().zip(expected) {
        let (got, expected) = (got.as_object().unwrap(), expected.as_object().unwrap());
        assert!(got.keys().eq(expected.keys()), "{what}");
        let most = if got.contains_key("loss") { tolerance::PYTORCH_STEPS } else { 1e-3 };
        for (name, value) in got.iter().filter(|(name, _)| *name != "seconds") {
            match (value.as_f64(), expected[name].as_f64()) {
                (Some(a), Some(b)) => {
                    assert!((a - b).abs() <= most * b.abs().max(0.05), "{what}: {name} {a}, {b} in {got:?}");
                }
                _ => assert_eq!(*value, expected[name], "{what}: {name}"),
            }
        }
    }
}

#[test]
fn a_run_is_the_same_on_any_number_of_ranks() {
    let bert = fixture("bert");
    for world in World::all() {
        let sandbox = sandbox();
        sandbox.hbt(&train(&bert, &[&SETS[..], &["out=one"]].concat())).ok();
        let one = all_metrics(&sandbox, "one");
        for size in [2, 3, 4] {
            let out = format!("out=ranks{size}");
            let done = world.run(&sandbox, size, &train(&bert, &[&SETS[..], &[&out]].concat())).ok();
            let first = format!("{size} ranks, started by ");
            assert_eq!(done.stderr.matches(&first).count(), 1, "only one of them speaks: {}", done.stderr);
            assert_eq!(done.stderr.matches("step 10:").count(), 1, "{}", done.stderr);
            let run_dir = format!("ranks{size}");
            assert_same_steps(&format!("{size} ranks"), &all_metrics(&sandbox, &run_dir), &one);
            // Once more: the same bytes.
            let again = format!("out=again{size}");
            world.run(&sandbox, size, &train(&bert, &[&SETS[..], &[&again]].concat())).ok();
            let weights = |run: &str| sandbox.bytes(&format!("{run}/last/model.safetensors"));
            assert!(weights(&run_dir) == weights(&format!("again{size}")), "{size} ranks twice");
        }
    }
}

/// A run that stopped goes on in as many processes as before, to the same bytes, and in fewer or more.
#[test]
fn a_run_goes_on_on_other_ranks() {
    let bert = fixture("bert");
    for world in World::all() {
        let sandbox = sandbox();
        let sets = |out: &'static str| ["steps=300", "batch_size=7", "eval_task=none", "save_steps=100", out];
        world.run(&sandbox, 2, &train(&bert, &sets("out=whole"))).ok();
        let whole = all_metrics(&sandbox, "whole");
        for (out, then) in [("out=same", 2), ("out=fewer", 1), ("out=more", 3)] {
            let name = &out[4..];
            let children = world.start(&sandbox, 2, &train(&bert, &sets(out)), None);
            stop_one(&sandbox, name);
            let stopped = finish(children);
            assert!(sandbox.path(&format!("{name}/last/model.safetensors")).exists(), "{}", stopped.stderr);
            let done = all_metrics(&sandbox, name).len();
            assert!(done < 300, "the run was over before it was stopped");
            let run_dir = sandbox.path(name);
            let args = ["train", "--out", run_dir.to_str().unwrap(), "--resume"];
            if then == 1 { sandbox.hbt(&args) } else { world.run(&sandbox, then, &args) }.ok();
            let resumed = all_metrics(&sandbox, name);
            let end = (done + 10).min(300);
            assert_same_steps(out, &resumed[..end], &whole[..end]);
            let weights = |run: &str| sandbox.bytes(&format!("{run}/last/model.safetensors"));
            assert_eq!(weights(name) == weights("whole"), then == 2, "{out}");
        }
    }
}

/// Asks one process of a run, not the first, to stop when it has done a step or two.
fn stop_one(sandbox: &Sandbox, run: &str) {
    wait_for_lines(sandbox, run, 3);
    let of_run = processes(run);
    assert!(!of_run.is_empty(), "the run is over already, or never began");
    let last = of_run.iter().max().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &last]).status().unwrap().success());
}

/// Waits until a run has as many lines of metrics.
pub fn wait_for_lines(sandbox: &Sandbox, run: &str, n: usize) {
    let start = Instant::now();
    let metrics = sandbox.path(&format!("{run}/metrics.jsonl"));
    let n_lines = || std::fs::read_to_string(&metrics).map_or(0, |text| text.lines().count());
    while n_lines() < n {
        assert!(start.elapsed() < Duration::from_secs(60), "no {n} lines of {run}");
        std::thread::sleep(Duration::from_millis(1));
    }
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

/// What is wrong for all, or differs between the processes, is one error, by the rank and the line.
#[test]
fn ranks_that_mean_something_else_are_refused() {
    let bert = fixture("bert");
    for world in World::all() {
        let sandbox = sandbox();
        let args = train(&bert, &["steps=2", "batch_size=4"]);
        let error = world.run(&sandbox, 2, &[&args[..], &["--set", "mode=nonsense"]].concat());
        assert_ne!(error.code, Some(0));
        assert_eq!(error.stderr.matches("error: ").count(), 1, "{}", error.stderr);
        assert!(error.stderr.contains("error: rank ") && error.stderr.contains("mode"), "{}", error.stderr);
        let error = finish(world.start(&sandbox, 2, &args, Some((1, &["--set", "batch_size=5"]))));
        assert_ne!(error.code, Some(0));
        assert_eq!(error.stderr.matches("error: ").count(), 1, "{}", error.stderr);
        let expected =
            "rank 1 has another configuration than rank 0: \"batch_size = 5\" where rank 0 has \"batch_size = 4\"";
        assert!(error.stderr.contains(expected), "{}", error.stderr);
        assert!(!sandbox.path("run/last").exists());
    }
}

/// A process that is killed, or stands still, takes the run with it within ten seconds, with one line, and nothing is left.
#[test]
fn a_rank_that_is_gone_ends_the_run() {
    let bert = fixture("bert");
    for (number, world) in World::all().into_iter().enumerate() {
        for signal in ["KILL", "STOP"] {
            // Ten seconds of waiting, once.
            if signal == "STOP" && number > 0 {
                continue;
            }
            let sandbox = sandbox();
            let out = format!("out={signal}{number}");
            let sets = ["steps=100000", "batch_size=7", "eval_task=none", &out, "save_steps=1000"];
            let children = world.start(&sandbox, 3, &train(&bert, &sets), None);
            let run = &out[4..];
            wait_for_lines(&sandbox, run, 3);
            let victim = *processes(run).iter().max().unwrap();
            let start = Instant::now();
            assert!(
                Command::new("kill").args([&format!("-{signal}"), &victim.to_string()]).status().unwrap().success()
            );
            let done = finish(children);
            assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
            assert_ne!(done.code, Some(0));
            assert_eq!(done.stderr.matches("error: rank ").count(), 1, "{}", done.stderr);
            assert!(done.stderr.contains(", cpu) ") && done.stderr.contains(", at step "), "{}", done.stderr);
            assert_eq!(processes(run), Vec::<u32>::new());
        }
    }
}

#[test]
fn what_starts_no_ranks_is_said() {
    let sandbox = sandbox();
    let bert = fixture("bert");
    let refused = |args: &[&str], variables: &[(&str, &str)], part: &str| {
        let mut command = sandbox.command(args);
        command.env("PATH", sandbox.path("nothing")).env_remove("HBT_MPI_LIBRARY");
        let done = Done::new(command.envs(variables.iter().copied()).output().unwrap());
        assert!(matches!(done.code, Some(1 | 2)) && done.stderr.contains(part), "{}", done.stderr);
    };
    let devices = train(&bert, &["--devices=2"]);
    refused(&devices, &[], "there is no mpiexec in the PATH: install MPI (`pip install mpich`");
    let torchrun = [("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "2")];
    refused(&devices, &torchrun, "--devices: starts processes itself, and torchrun has started this one");
    refused(&train(&bert, &["--devices=0"]), &[], "--devices");
    refused(&train(&bert, &[]), &torchrun[..1], "WORLD_SIZE");
    // One of one is alone.
    let alone = [("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1")];
    let mut command = sandbox.command(&train(&bert, &["steps=2", "--devices=1"]));
    Done::new(command.envs(alone).output().unwrap()).ok();
}
