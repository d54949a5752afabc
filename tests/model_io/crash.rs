//! Killed processes and full disks. The child processes are this test binary, told by a variable what to do.

use hbt::files::{recover, replace_directory, write_file, write_file_atomic};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Names the directory in which a child works; unset in an ordinary run.
const CHILD: &str = "HBT_TEST_CRASH_CHILD";

fn child_directory() -> Option<std::path::PathBuf> {
    std::env::var_os(CHILD).map(Into::into)
}

/// Runs the test `name` of this binary on its own, in `directory`.
fn command(name: &str, directory: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("model_io::crash::{name}"), "--nocapture"]).env(CHILD, directory);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Two files that are only ever written together.
fn write_generation(directory: &Path, generation: u64) -> hbt::Result<()> {
    for name in ["a", "b"] {
        write_file(&directory.join(name), |file| write!(file, "{generation} {}", "x".repeat(40_000)))?;
    }
    Ok(())
}

fn entries(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The child: saves one generation after another until it is killed.
#[test]
fn child_saves_until_it_is_killed() {
    let Some(directory) = child_directory() else { return };
    for generation in 1.. {
        replace_directory(&directory.join("last"), |temp| write_generation(temp, generation)).unwrap();
        write_file_atomic(&directory.join("state"), format!("{generation} {}", "y".repeat(40_000)).as_bytes()).unwrap();
    }
}

#[test]
fn kill_9_leaves_the_old_or_the_new_content() {
    let root = tempfile::tempdir().unwrap();
    let target = root.path().join("last");
    replace_directory(&target, |temp| write_generation(temp, 0)).unwrap();
    write_file_atomic(&root.path().join("state"), b"0 ").unwrap();
    let mut newest = 0;
    for round in 0..12u64 {
        let mut child = command("child_saves_until_it_is_killed", root.path()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(60_000 + 7_919 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        recover(&target).unwrap();
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        let (a, b, state) = (read(&target.join("a")), read(&target.join("b")), read(&root.path().join("state")));
        assert_eq!(a, b, "round {round}");
        assert_eq!(a.len(), a.find(' ').unwrap() + 1 + 40_000, "round {round}");
        assert!(state == "0 " || state.ends_with(&"y".repeat(40_000)), "round {round}");
        newest = newest.max(a.split(' ').next().unwrap().parse().unwrap());
    }
    assert!(newest > 0, "no child lived long enough to save");
    // What the killed processes left goes with the next save.
    replace_directory(&target, |temp| write_generation(temp, 0)).unwrap();
    write_file_atomic(&root.path().join("state"), b"done").unwrap();
    assert_eq!(entries(root.path()), ["last", "state"]);
}

/// The child: fills a disk of 300 kB on which a generation of 80 kB has been saved.
#[test]
fn child_fills_a_disk() {
    let Some(directory) = child_directory() else { return };
    let target = directory.join("last");
    replace_directory(&target, |temp| write_generation(temp, 1)).unwrap();
    let too_much = |temp: &Path| {
        write_generation(temp, 2)?;
        write_file(&temp.join("c"), |file| file.write_all(&vec![7; 1 << 20]))
    };
    let message = replace_directory(&target, too_much).unwrap_err().to_string();
    assert!(message.contains("No space left") && message.contains("free some disk space"), "{message}");
    let message = write_file_atomic(&directory.join("state"), &vec![7; 1 << 20]).unwrap_err().to_string();
    assert!(message.contains("No space left") && message.contains("free some disk space"), "{message}");
    assert_eq!(entries(&directory), ["last"]);
    assert!(fs::read_to_string(target.join("a")).unwrap().starts_with("1 "));
    replace_directory(&target, |temp| write_generation(temp, 3)).unwrap();
}

#[test]
fn a_full_disk_leaves_the_old_content_and_room_for_the_next_save() {
    let root = tempfile::tempdir().unwrap();
    // A mount of its own in namespaces of its own: nothing outside the child sees it.
    let script = "mount -t tmpfs -o size=300k tmpfs \"$0\" && exec \"$@\"";
    let unshare = |program: &[&std::ffi::OsStr]| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]).arg(root.path()).args(program);
        command.env(CHILD, root.path()).output().unwrap_or_else(|e| panic!("cannot run unshare: {e}"))
    };
    if !Command::new("unshare").arg("--version").output().is_ok_and(|out| out.status.success())
        || !unshare(&["true".as_ref()]).status.success()
    {
        eprintln!("skipped: this system lets no one mount a small file system");
        return;
    }
    let exe = std::env::current_exe().unwrap();
    let test = ["--exact", "model_io::crash::child_fills_a_disk"].map(std::ffi::OsStr::new);
    let output = unshare(&[exe.as_os_str(), test[0], test[1]]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && stdout.contains("1 passed"), "in a mount of its own: {stdout}");
}

#[test]
fn a_device_that_is_full_is_one_clear_error() {
    let full = Path::new("/dev/full");
    if !full.exists() {
        eprintln!("skipped: no /dev/full");
        return;
    }
    let message = write_file(full, |file| file.write_all(b"x")).unwrap_err().to_string();
    assert!(message.starts_with("cannot write /dev/full: No space left"), "{message}");
    assert!(message.ends_with("free some disk space and run the command again"), "{message}");
}
