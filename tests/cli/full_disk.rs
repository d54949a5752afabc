//! A disk that fills up while a run saves.

use crate::common::{Sandbox, files, fixture, program, train};
use std::process::Command;

/// Trains on a disk of its own that holds the first save and not a second one beside it: the first is then still whole,
/// and once there is room the run goes on from it.
#[test]
fn a_full_disk_leaves_the_save_before() {
    let sandbox = Sandbox::with_groups(8);
    std::fs::create_dir(sandbox.path("disk")).unwrap();
    std::fs::create_dir(sandbox.path("rescued")).unwrap();
    // Namespaces of its own: nothing outside sees the mount.
    let unshare = |script: &str, args: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]).args(args);
        command.current_dir(sandbox.path("")).env("HBT_CACHE", sandbox.path("cache"));
        command.output()
    };
    let mount = "mount -t tmpfs -o size=700k tmpfs disk";
    if !unshare(mount, &[]).is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: this system lets no one mount a small file system");
        return;
    }
    let bert = fixture("bert");
    // A save takes about 300 kB, and 600 kB while the old one is still there; best/ takes another 110 kB.
    let args = train(&bert, &["steps=6", "save_steps=2", "eval_steps=3"]);
    let args: Vec<&str> = args.iter().map(|&arg| if arg == "run" { "disk/run" } else { arg }).collect();
    let script = format!("{mount} && \"$@\"; code=$?; cp -r disk/. rescued; exit $code");
    let program = program();
    let output = unshare(&script, &[&[program.to_str().unwrap()], args.as_slice()].concat()).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let error = stderr.lines().last().unwrap();
    assert!(error.starts_with("error: cannot write ") && error.contains("/disk/run/"), "{error}");
    assert!(
        error.ends_with("No space left on device (os error 28); free some disk space and run the command again"),
        "{error}"
    );
    assert_eq!(stderr.matches("error").count(), 2, "{stderr}");

    let left = files(&sandbox.path("rescued/run"));
    assert!(left.keys().all(|name| !name.contains("hbt-tmp")), "{:?}", left.keys());
    let state = sandbox.json("rescued/run/last/training_state.json");
    assert!(state["step"] == 2 || state["step"] == 4, "{state}");
    // The message says to run the command again: with --resume, as the run directory is there.
    let again = sandbox.hbt(&["train", "--out", "rescued/run", "--resume"]).ok();
    assert!(again.stderr.contains(&format!("resuming rescued/run at step {} of 6", state["step"])), "{}", again.stderr);

    let undisturbed = Sandbox::with_groups(8);
    undisturbed.hbt(&train(&bert, &["steps=6", "save_steps=2", "eval_steps=3"])).ok();
    let weights = "last/model.safetensors";
    assert_eq!(files(&sandbox.path("rescued/run"))[weights], files(&undisturbed.path("run"))[weights]);
}
