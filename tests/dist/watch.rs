//! Ranks that meet, fit together or not, and end together. Each is a process: this very program of tests, which runs the
//! one test [`rank`].

use super::{exercise, threads};
use hbt::dist::hello::Hello;
use hbt::dist::watch::Settings;
use hbt::dist::{Launcher, Peers, Place, Progress, Rendezvous, Star, Watch};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What each process is to do.
const TASK: &str = "HBT_TEST_WATCH_TASK";
const SIZE: usize = 4;

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn spawn(task: &str) -> Vec<Child> {
    let port = free_port();
    let test = std::env::current_exe().unwrap();
    let rank = |rank: usize| {
        let mut command = Command::new(&test);
        command.args(["--exact", "dist::watch::rank", "--ignored", "--nocapture"]).env(TASK, task);
        let size = SIZE.to_string();
        for (name, value) in [("RANK", &rank.to_string()), ("WORLD_SIZE", &size)] {
            command.env(format!("HBT_{name}"), value).env(format!("HBT_LOCAL_{name}"), value);
        }
        command.env("HBT_RENDEZVOUS", format!("127.0.0.1:{port}"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    (0..SIZE).map(rank).collect()
}

/// Lines of errors of all ranks that do `task`, which have to end before `most` is over. Their panics are no errors of hbt's.
fn errors(task: &str, most: Duration) -> Vec<String> {
    let begin = Instant::now();
    let mut ranks = spawn(task);
    while ranks.iter_mut().any(|rank| rank.try_wait().unwrap().is_none()) {
        if begin.elapsed() > most {
            ranks.iter_mut().for_each(|rank| rank.kill().unwrap());
            panic!("{task}: some live after {most:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let outputs: Vec<Output> = ranks.into_iter().map(|rank| rank.wait_with_output().unwrap()).collect();
    assert!(outputs.iter().all(|output| !output.status.success()), "{task}: {outputs:?}");
    let text: String = outputs.iter().map(|output| String::from_utf8_lossy(&output.stderr).into_owned()).collect();
    text.lines().filter(|line| line.starts_with("error: ")).map(str::to_owned).collect()
}

fn hello(place: &Place, task: &str) -> Hello {
    let is_other = |of: &str| place.rank == 2 && task == of;
    let configuration = if is_other("misfit") { "b" } else { "a" };
    let device = Some(format!("uuid-{}", if is_other("same GPU") { 1 } else { place.rank }));
    let equal = vec![("configuration".to_owned(), configuration.to_owned())];
    Hello::new(place, "job", &format!("GPU {}", place.local_rank), device, equal)
}

#[test]
#[ignore = "one process of several, which the other tests start"]
fn rank() {
    let Ok(task) = std::env::var(TASK) else { return };
    let place = Place::current().unwrap();
    let rendezvous = Rendezvous::current(&place).unwrap();
    if place.rank == 2 && task == "absent" {
        std::process::exit(1);
    }
    let patience = Duration::from_secs(if task == "absent" { 2 } else { 60 });
    let star = Star::meet(hello(&place, &task), &rendezvous, None, patience).unwrap_or_else(|e| {
        if !e.is_said {
            eprintln!("error: {}", e.error);
        }
        std::process::exit(1);
    });
    let leave = |line: Option<&str>| line.into_iter().for_each(|line| eprintln!("error: {line}"));
    let (silence, stall) = (Duration::from_secs(4), Duration::from_secs(600));
    let settings = Settings { silence, stall, leave: Box::new(leave) };
    let progress = Arc::<Progress>::default();
    if task == "stall" {
        progress.expect_within(Duration::from_secs(3));
    }
    let (watch, relay) = Watch::begin(star, Arc::clone(&progress), settings);
    let peers = Peers::over(place, Box::new(relay), progress);
    if task == "work" {
        println!("HASH {:016x}", exercise(&peers));
        // Some come late to the end.
        std::thread::sleep(Duration::from_millis(100 * place.rank as u64));
        watch.finish();
        return;
    }
    let (who, what) = task.split_once(' ').map_or((2, task.as_str()), |(who, what)| (who.parse().unwrap(), what));
    for step in 0.. {
        peers.progress().begin_step(step);
        if place.rank == who && step == 200 {
            use rustix::process::{Signal, getpid, kill_process};
            match what {
                "kill" => kill_process(getpid(), Signal::KILL).unwrap(),
                "stop" => kill_process(getpid(), Signal::STOP).unwrap(),
                "exit" => std::process::exit(1),
                "fail" => watch.fail("cannot go on"),
                _ => loop {
                    std::thread::sleep(Duration::from_secs(1));
                },
            }
        }
        peers.all_reduce(&mut [&mut [1.0; 100]]).unwrap();
        // The rank is past at least one sign of life when it ends.
        std::thread::sleep(Duration::from_millis(8));
    }
}

#[test]
fn ranks_exchange_through_rank_0_and_end_together() {
    let expected = threads::world(SIZE, |peers| exercise(&peers))[0];
    for rank in spawn("work") {
        let output = rank.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains(&format!("HASH {expected:016x}")), "{output:?}");
    }
}

/// Asserts that there is one line, that begins like this, and in which a step is named, none that was not begun.
fn assert_names(errors: &[String], beginning: &str) {
    let [line] = errors else { panic!("one line: {errors:#?}") };
    assert!(line.starts_with(&format!("error: {beginning}")), "{line}");
    let step = line.split("at step ").nth(1).and_then(|rest| rest.split([':', ',']).next());
    let step: u64 = step.and_then(|step| step.parse().ok()).unwrap_or_else(|| panic!("{line}"));
    assert!((1..=200).contains(&step), "{line}");
}

fn name(rank: usize) -> String {
    let place = Place { rank, size: SIZE, local_rank: rank, local_size: SIZE, launcher: Launcher::Own };
    hello(&place, "").name()
}

/// The whole test is longer by some seconds in which the ranks begin and work.
const SOON: Duration = Duration::from_secs(25);

#[test]
fn a_rank_that_is_gone_ends_all_with_one_line() {
    for (task, rank) in [("2 kill", 2), ("1 exit", 1), ("0 kill", 0)] {
        assert_names(&errors(task, SOON), &format!("{} is gone, at step ", name(rank)));
    }
}

#[test]
fn a_rank_that_is_stopped_is_killed_and_ends_all() {
    for (task, rank) in [("2 stop", 2), ("0 stop", 0)] {
        let beginning = format!("{} has given no sign of life for ", name(rank));
        assert_names(&errors(task, SOON), &beginning);
    }
}

#[test]
fn a_rank_that_gets_no_further_is_named() {
    let beginning = format!("{} has got no further for 0.05 minutes, at step 200, and the others wait", name(2));
    assert_names(&errors("stall", SOON), &beginning);
}

#[test]
fn an_error_of_one_rank_is_said_once() {
    for rank in [0, 2] {
        let errors = errors(&format!("{rank} fail"), SOON);
        assert_eq!(errors, [format!("error: {}: cannot go on", name(rank))]);
    }
}

#[test]
fn ranks_that_do_not_fit_together_are_named_once() {
    let [misfit, same_gpu, absent] = ["misfit", "same GPU", "absent"].map(|task| errors(task, SOON));
    let [line] = &misfit[..] else { panic!("{misfit:#?}") };
    assert!(line.contains("has another configuration (") && line.contains("rank 2 (host "), "{line}");
    let [line] = &same_gpu[..] else { panic!("{same_gpu:#?}") };
    assert!(line.contains("have the same GPU") && line.contains("rank 1 (") && line.contains("rank 2 ("), "{line}");
    assert_eq!(absent, ["error: rank 2 of 4 did not come: see what they or their launcher say"]);
}

#[test]
fn others_that_call_are_not_let_in() {
    let place = |rank| Place { rank, size: 2, local_rank: rank, local_size: 2, launcher: Launcher::Own };
    let port = free_port();
    let rendezvous = Rendezvous { host: "127.0.0.1".to_owned(), port, job: "job".to_owned() };
    let meet = |rank: usize, job: &str, patience: u64| {
        let hello = Hello { job: job.to_owned(), ..hello(&place(rank), "") };
        Star::meet(hello, &rendezvous, None, Duration::from_millis(patience)).map(|star| star.roster.len())
    };
    std::thread::scope(|scope| {
        let rank_0 = scope.spawn(|| meet(0, "job", 60_000).unwrap());
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let refused = meet(1, "another job", 300).unwrap_err();
        assert!(!refused.is_said && refused.error.to_string().contains("did not reach rank 0 at 127.0.0.1"));
        assert_eq!(meet(1, "job", 60_000).unwrap(), 2);
        assert_eq!(rank_0.join().unwrap(), 2);
    });
}
