//! Losing the process at any moment: `kill -9`, again and again, and the end is that of an undisturbed run.

use crate::common::{Sandbox, assert_same_run, fixture, run_contents, train};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime};

const SETS: [&str; 6] =
    ["steps=30", "save_steps=3", "eval_steps=5", "dropout=0.1", "learning_rate=1e-2", "chunk_tokens=64"];

fn args(model: &str) -> Vec<&str> {
    train(model, &[&SETS[..], &["query_max_len=24", "passage_max_len=24"]].concat())
}

/// Starts the run, or goes on with it: in every other round by the short command that knows the run directory only.
fn go_on(sandbox: &Sandbox, model: &str, round: usize) -> Child {
    let mut args = args(model);
    if round % 2 == 1 && sandbox.path("run/config.toml").exists() {
        args = vec!["train", "--out", "run"];
    }
    args.push("--resume");
    sandbox.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Kills the run whenever `moment` says so, until it has come to its end. Returns the number of kills.
fn kill_until_done(sandbox: &Sandbox, model: &str, mut moment: impl FnMut(usize, &mut Child) -> bool) -> usize {
    for round in 0..200 {
        let mut child = go_on(sandbox, model, round);
        if moment(round, &mut child) {
            child.kill().unwrap();
        }
        let status = child.wait().unwrap();
        if status.success() {
            return round;
        }
        assert_eq!(status.code(), None, "only a kill ends it early");
    }
    panic!("200 rounds and no end");
}

fn undisturbed(model: &str) -> std::collections::BTreeMap<String, Vec<u8>> {
    let sandbox = Sandbox::with_groups(8);
    sandbox.hbt(&args(model)).ok();
    run_contents(&sandbox, "run")
}

#[test]
fn at_random_moments() {
    let model = fixture("bert");
    let start = Instant::now();
    let undisturbed = undisturbed(&model);
    let whole = start.elapsed().as_micros() as u64;
    let sandbox = Sandbox::with_groups(8);
    let mut random = 12345u64;
    // From before the first line is written to several saves later; later rounds live longer, so that it ends. The
    // first four together live at most five sixths of a whole run.
    let n_kills = kill_until_done(&sandbox, &model, |round, child| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let lifetime = Duration::from_micros((random >> 33) % (whole / 12 * (round as u64 + 1)));
        let start = Instant::now();
        while start.elapsed() < lifetime {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    });
    eprintln!("{n_kills} kills");
    assert!(n_kills >= 3, "{n_kills} kills are too few to mean anything");
    assert_same_run(&undisturbed, &run_contents(&sandbox, "run"), &format!("after {n_kills} kills"));
}

/// Kills while the temporary directory of a save is there, each time a little further into the save. One that is gone
/// before it is seen is no kill, so this begins anew until there have been enough.
#[test]
fn in_the_middle_of_saving() {
    let model = fixture("bert");
    let undisturbed = undisturbed(&model);
    let mut hits = 0;
    for _ in 0..8 {
        let sandbox = Sandbox::with_groups(8);
        kill_until_done(&sandbox, &model, |round, child| {
            let start = SystemTime::now();
            let name = if round % 2 == 0 { "run/.last.hbt-tmp" } else { "run/.best.hbt-tmp" };
            let temp = sandbox.path(name);
            // Files of an earlier kill are older than this process.
            let is_new = || temp.metadata().and_then(|meta| meta.modified()).is_ok_and(|time| time > start);
            while round < 6 && child.try_wait().unwrap().is_none() {
                if is_new() {
                    hits += 1;
                    std::thread::sleep(Duration::from_micros(300 * round as u64));
                    return true;
                }
                std::thread::sleep(Duration::from_micros(50));
            }
            false
        });
        assert_same_run(&undisturbed, &run_contents(&sandbox, "run"), "killed while saving");
        if hits >= 4 {
            return;
        }
    }
    panic!("{hits} kills while saving are too few to mean anything");
}
