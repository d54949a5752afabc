//! hbt's own launcher. It starts copies of this very program of tests, which run the one test [`copy`].

use hbt::dist::hello::Hello;
use hbt::dist::launch::{Copies, copies};
use hbt::dist::{Launcher, Place, Rendezvous, Star};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What each copy is to do, and the folder where it leaves a file.
const TASK: &str = "HBT_TEST_LAUNCH_TASK";
const FOLDER: &str = "HBT_TEST_LAUNCH_FOLDER";

fn arguments(test: &str) -> Vec<OsString> {
    ["--exact", test, "--ignored"].map(OsString::from).to_vec()
}

/// Three copies that do `task`.
fn launch(task: &str, folder: &Path, is_stopped: &dyn Fn() -> bool) -> hbt::Result<i32> {
    let variables = [(TASK.into(), task.into()), (FOLDER.into(), folder.into())];
    copies(&Copies { n: 3, args: &arguments("dist::launch::copy"), variables: &variables, is_stopped })
}

#[test]
#[ignore = "one process of several, which the other tests start"]
fn copy() {
    let (Ok(task), Some(folder)) = (std::env::var(TASK), std::env::var_os(FOLDER)) else { return };
    let place = Place::current().unwrap();
    let file = PathBuf::from(folder).join(place.rank.to_string());
    std::fs::write(file, format!("{} {place:?}", std::process::id())).unwrap();
    match (task.as_str(), place.rank) {
        ("end", _) => return,
        ("meet", _) => {
            let rendezvous = Rendezvous::current(&place).unwrap();
            let listener = rendezvous.inherited();
            assert_eq!(listener.is_some(), place.rank == 0);
            let hello = Hello::new(&place, &rendezvous.job, "CPU", None, Vec::new());
            let star = Star::meet(hello, &rendezvous, listener, Duration::from_secs(60)).unwrap();
            assert_eq!(star.roster.len(), 3);
            return;
        }
        ("exit", 1) => std::process::exit(7),
        ("kill", 1) => {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
        }
        _ => {}
    }
    std::thread::sleep(Duration::from_secs(100));
}

#[test]
#[ignore = "a launcher, which another test starts and kills"]
fn launcher() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    launch("sleep", Path::new(&folder), &|| false).unwrap();
}

/// Ids of the copies that have begun.
fn ids(folder: &Path) -> Vec<u32> {
    let text = |rank: u32| std::fs::read_to_string(folder.join(rank.to_string())).ok();
    (0..3).filter_map(|rank| text(rank)?.split_once(' ')?.0.parse().ok()).collect()
}

fn are_gone(ids: &[u32]) -> bool {
    ids.iter().all(|id| !Path::new("/proc").join(id.to_string()).exists())
}

#[test]
fn each_copy_knows_its_place() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(launch("end", folder.path(), &|| false).unwrap(), 0);
    for rank in 0..3 {
        let place = Place { rank, size: 3, local_rank: rank, local_size: 3, launcher: Launcher::Own };
        let text = std::fs::read_to_string(folder.path().join(rank.to_string())).unwrap();
        assert!(text.ends_with(&format!("{place:?}")), "{text}");
    }
}

#[test]
fn copies_meet_where_rank_0_was_left_a_socket() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(launch("meet", folder.path(), &|| false).unwrap(), 0);
}

#[test]
fn when_one_fails_the_others_end_soon_and_its_status_counts() {
    let folder = tempfile::tempdir().unwrap();
    let begin = Instant::now();
    assert_eq!(launch("exit", folder.path(), &|| false).unwrap(), 7);
    assert!(begin.elapsed() < Duration::from_secs(60));
    assert_eq!(ids(folder.path()).len(), 3);
    assert!(are_gone(&ids(folder.path())));
}

#[test]
fn one_that_is_killed_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = launch("kill", folder.path(), &|| false).unwrap_err().to_string();
    assert!(error.starts_with("rank 1 was ended from outside (signal: 9 (SIGKILL))"), "{error}");
}

#[test]
fn a_stop_is_passed_on() {
    let folder = tempfile::tempdir().unwrap();
    let begin = Instant::now();
    let error = launch("sleep", folder.path(), &|| ids(folder.path()).len() == 3).unwrap_err().to_string();
    assert!(error.contains("(signal: 15 (SIGTERM))"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(60));
}

#[test]
#[cfg(target_os = "linux")]
fn no_copy_outlives_the_launcher() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(arguments("dist::launch::launcher")).env(FOLDER, folder.path()).stdout(Stdio::null());
    let mut launcher = command.spawn().unwrap();
    while ids(folder.path()).len() < 3 {
        assert!(launcher.try_wait().unwrap().is_none(), "the launcher runs until it is killed");
        std::thread::sleep(Duration::from_millis(20));
    }
    launcher.kill().unwrap();
    launcher.wait().unwrap();
    let begin = Instant::now();
    while !are_gone(&ids(folder.path())) {
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", ids(folder.path()));
        std::thread::sleep(Duration::from_millis(20));
    }
}
