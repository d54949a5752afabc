//! What the system sends: signals that were ignored at the start, limits on files and threads.

use super::resume::interrupted;
use crate::common::{Done, EVENTS, Sandbox, files, fixture, n_steps, program, train};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// `hbt` with `args`, started by a shell that runs `before`.
fn after(sandbox: &Sandbox, before: &str, args: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{before}; exec \"$@\""), "sh"]).arg(program()).args(args);
    command.current_dir(sandbox.path("")).env("HBT_CACHE", sandbox.path("cache")).env("CUDA_VISIBLE_DEVICES", "");
    command
}

const LONG: [&str; 3] = ["steps=100000", "eval_task=none", "save_steps=100000"];

#[test]
fn a_hangup_saves_and_stops() {
    let sandbox = Sandbox::with_groups(8);
    let bert = fixture("bert");
    let command = sandbox.command(&train(&bert, &LONG));
    interrupted(command, "-HUP", &sandbox.path("run/metrics.jsonl"), 2).interrupted();
}

/// `nohup` ignores hangups, and shells ignore Ctrl-C for jobs in the background of a script.
#[test]
fn ignored_signals_stay_ignored() {
    let bert = fixture("bert");
    for signal in ["HUP", "INT", "TERM"] {
        let sandbox = Sandbox::with_groups(8);
        let args = train(&bert, &LONG);
        let mut command = after(&sandbox, &format!("trap '' {signal}"), &args);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = || n_steps(&sandbox.path("run/metrics.jsonl"));
        let wait_for = |at_least: usize| {
            let start = Instant::now();
            while lines() < at_least {
                assert!(start.elapsed() < Duration::from_secs(60), "{signal}: {} lines", lines());
                std::thread::sleep(Duration::from_millis(2));
            }
        };
        let send = |signal: &str| {
            let sent = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
            assert!(sent.success());
        };
        wait_for(2);
        send(signal);
        // It would stop after the step in hand.
        wait_for(lines() + 5);
        send(if signal == "TERM" { "HUP" } else { "TERM" });
        let done = Done::new(child.wait_with_output().unwrap()).interrupted();
        assert_eq!(done.stderr.matches("stopping after this step").count(), 1, "{}", done.stderr);
    }
}

/// A limit on the size of files, which ends a process by default, is an error as a full disk is.
#[test]
fn a_limit_on_files_is_an_error() {
    let sandbox = Sandbox::with_groups(8);
    let bert = fixture("bert");
    let args = train(&bert, &["steps=2", "eval_task=none"]);
    let done = Done::new(after(&sandbox, "ulimit -f 60", &args).output().unwrap());
    let error = done.error();
    assert!(error.starts_with("error: cannot write run/.last.hbt-tmp/model.safetensors: File too large"), "{error}");
    assert!(error.ends_with("raise the limit on the size of files (ulimit -f), and run the command again"), "{error}");
    let left = files(&sandbox.path("run")).into_keys().collect::<Vec<_>>();
    assert_eq!(left, ["config.toml", "eval.json", "metrics.jsonl", EVENTS]);
    sandbox.hbt(&["train", "--out", "run", "--resume"]).ok();

    let texts: String = (0..2000).map(|i| format!("text {i}\n")).collect();
    sandbox.write("texts.txt", texts);
    let args = ["encode", "--model", &bert, "--input", "texts.txt", "--output", "out.npy"];
    let error = Done::new(after(&sandbox, "ulimit -f 60", &args).output().unwrap()).error();
    assert!(error.starts_with("error: cannot write out.npy: File too large"), "{error}");
    assert!(!sandbox.path("out.npy").exists() && !sandbox.path(".out.npy.hbt-tmp").exists());
}

#[test]
fn a_limit_on_threads_is_an_error() {
    let sandbox = Sandbox::with_groups(8);
    let bert = fixture("bert");
    sandbox.write("texts.txt", "who wrote it\n");
    let args = ["encode", "--model", &bert, "--input", "texts.txt"];
    // Nothing limits the superuser.
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
    let mut command = Command::new(if is_root { "setpriv" } else { "env" });
    if is_root {
        command.args(["--reuid=54321", "--regid=54321", "--clear-groups"]);
    }
    command.args(["sh", "-c", "ulimit -u 1 && exec \"$@\"", "sh"]).arg(program()).args(args);
    command.current_dir(sandbox.path("")).env("HBT_CACHE", sandbox.path("cache")).env("CUDA_VISIBLE_DEVICES", "");
    let Ok(output) = command.output() else {
        eprintln!("skipped: no setpriv");
        return;
    };
    if !matches!(output.status.code(), Some(0 | 1 | 101)) {
        eprintln!("skipped: another user may not run the program: {output:?}");
        return;
    }
    let error = Done::new(output).error();
    assert!(error.starts_with("error: threads: one a core cannot be started: "), "{error}");
}
