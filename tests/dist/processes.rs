//! Ranks that are processes of this program of tests, each of which runs one ignored test.

use crate::device::{BUILT, built, is_real};
use hbt::dist::hello::Hello;
use hbt::dist::watch::Settings;
use hbt::dist::{Peers, Place, Rendezvous, Star, Watch};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// What `size` processes say that run `test`, each with these variables and with those of its number.
pub fn run(
    test: &str,
    size: usize,
    variables: &[(&str, &str)],
    of_rank: impl Fn(usize) -> Vec<(&'static str, String)>,
) -> Vec<Output> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let stand_in = if is_real() { PathBuf::new() } else { built() };
    let program = std::env::current_exe().unwrap();
    let rank = |rank: usize| {
        let mut command = Command::new(&program);
        command.args(["--exact", test, "--ignored", "--nocapture"]).envs(variables.iter().copied()).envs(of_rank(rank));
        let size = size.to_string();
        for (name, value) in [("RANK", &rank.to_string()), ("WORLD_SIZE", &size)] {
            command.env(format!("HBT_{name}"), value).env(format!("HBT_LOCAL_{name}"), value);
        }
        command.env("HBT_RENDEZVOUS", format!("127.0.0.1:{port}")).env(BUILT, &stand_in);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let ranks: Vec<_> = (0..size).map(rank).collect();
    ranks.into_iter().map(|rank| rank.wait_with_output().unwrap()).collect()
}

/// All ranks, for a process that [`run`] has started, and what watches that they live.
pub fn meet() -> (Peers, Watch) {
    let place = Place::current().unwrap();
    let rendezvous = Rendezvous::current(&place).unwrap();
    let hello = Hello::new(&place, &rendezvous.job, &format!("GPU {}", place.local_rank), None, Vec::new());
    let star = Star::meet(hello, &rendezvous, None, Duration::from_secs(60)).unwrap();
    let leave = |line: Option<&str>| line.into_iter().for_each(|line| eprintln!("error: {line}"));
    let settings =
        Settings { silence: Duration::from_secs(60), stall: Duration::from_secs(600), leave: Box::new(leave) };
    let progress = Arc::default();
    let (watch, relay) = Watch::begin(star, Arc::clone(&progress), settings);
    (Peers::over(place, Box::new(relay), progress), watch)
}
