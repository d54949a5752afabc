//! Connections of all ranks to rank 0, and who they are.

use super::Rendezvous;
use super::hello::{Hello, missing_ranks};
use super::link::{Kind, Link};
use crate::Error;
use std::io;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Longest hello or roster, and a hello's longest way.
const MOST_HELLO: usize = 16 << 20;
const HELLO_PATIENCE: Duration = Duration::from_secs(5);
/// How long rank 0 tells those that come late that it has refused another, and how long others wait for it beyond the time in
/// which all have to come.
const LATE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// Why the ranks have not met.
#[derive(Debug)]
pub struct NotMet {
    /// The problem and its solution.
    pub error: Error,
    /// Whether rank 0 has it, too, and says it for all.
    pub is_said: bool,
}

impl NotMet {
    fn of(message: String) -> Self {
        NotMet { error: Error::other(message), is_said: false }
    }
}

/// What one rank has of the star.
pub struct Star {
    /// Of rank 0 the connections to ranks 1, 2, ...; of others the one to rank 0.
    pub links: Vec<Link>,
    /// All ranks, in their order.
    pub roster: Vec<Hello>,
    /// This one's number.
    pub rank: usize,
}

impl Star {
    /// The rank at the other end of a link.
    pub fn peer(&self, link: usize) -> usize {
        if self.rank == 0 { link + 1 } else { 0 }
    }

    /// Returns when all ranks have come, and fit together: rank 0 listens, on `listener` if there is one already, and the
    /// others call it until `patience` is over.
    ///
    /// # Errors
    /// If some do not come, or do not fit together.
    pub fn meet(
        hello: Hello,
        rendezvous: &Rendezvous,
        listener: Option<TcpListener>,
        patience: Duration,
    ) -> Result<Self, NotMet> {
        let deadline = Instant::now() + patience;
        if hello.rank > 0 {
            return call(hello, rendezvous, deadline);
        }
        let listener = match listener {
            Some(listener) => listener,
            None if hello.size == 1 => return Ok(Star { links: Vec::new(), roster: vec![hello], rank: 0 }),
            None => listen(rendezvous).map_err(|e| {
                let Rendezvous { host, port, .. } = rendezvous;
                NotMet::of(format!(
                    "rank 0 cannot listen at {host}:{port}: {e}; set MASTER_PORT to a port that is free"
                ))
            })?,
        };
        answer(hello, &listener, deadline)
    }
}

/// Listens for ranks of this machine only where rank 0 is known by a name for this machine.
fn listen(rendezvous: &Rendezvous) -> io::Result<TcpListener> {
    let host = match rendezvous.host.as_str() {
        own @ ("127.0.0.1" | "localhost" | "::1") => own,
        host if host.contains(':') => "::",
        _ => "0.0.0.0",
    };
    TcpListener::bind((host, rendezvous.port))
}

/// Rank 0: accepts the others.
fn answer(hello: Hello, listener: &TcpListener, deadline: Instant) -> Result<Star, NotMet> {
    let size = hello.size;
    let mut links: Vec<Option<Link>> = (0..size).map(|_| None).collect();
    let mut hellos = vec![hello];
    listener.set_nonblocking(true).map_err(|e| NotMet::of(format!("rank 0 cannot listen: {e}")))?;
    while hellos.len() < size {
        let Some((link, hello)) = accept(listener, &hellos[0].job, deadline) else {
            let missing = missing_ranks(&hellos, size);
            let message = format!("{missing} of {size} did not come: see what they or their launcher say");
            return Err(refuse(links.into_iter().flatten(), message));
        };
        if let Some(message) = hello.misfit(&hellos, size) {
            let refused = refuse(links.into_iter().flatten().chain([link]), message);
            let n_missing = size - hellos.len() - 1;
            refuse_late(listener, &hellos[0].job, n_missing, deadline.min(Instant::now() + LATE), &refused);
            return Err(refused);
        }
        links[hello.rank] = Some(link);
        hellos.push(hello);
    }
    hellos.sort_by_key(|hello| hello.rank);
    let links: Vec<Link> = links.into_iter().flatten().collect();
    let roster = serde_json::to_vec(&hellos).map_err(|e| NotMet::of(format!("a roster of the ranks: {e}")))?;
    let gone = links.iter().zip(&hellos[1..]).find_map(|(link, hello)| {
        let is_sent = link.set_patience(None).and_then(|()| link.send(Kind::Roster, &roster));
        is_sent.is_err().then(|| format!("{} is gone before the run has begun: see what it says", hello.name()))
    });
    match gone {
        Some(message) => Err(refuse(links.into_iter(), message)),
        None => Ok(Star { links, roster: hellos, rank: 0 }),
    }
}

/// The next rank of this job that calls before `deadline`.
fn accept(listener: &TcpListener, job: &str, deadline: Instant) -> Option<(Link, Hello)> {
    while Instant::now() < deadline {
        match listener.accept() {
            // It may be somebody else's call, or one that has been given up.
            Ok((stream, _)) => match Link::new(stream).ok().and_then(|link| heard(link, job)) {
                Some(met) => return Some(met),
                None => continue,
            },
            Err(_) => std::thread::sleep(POLL),
        }
    }
    None
}

/// Tells ranks why nothing comes of it.
fn refuse(links: impl Iterator<Item = Link>, message: String) -> NotMet {
    // Those that are gone need no reason.
    links.for_each(|link| drop(link.send(Kind::Refused, message.as_bytes())));
    NotMet::of(message)
}

/// Tells it those that are still to come: they would go on calling.
fn refuse_late(listener: &TcpListener, job: &str, n: usize, until: Instant, why: &NotMet) {
    for _ in 0..n {
        let Some((link, _)) = accept(listener, job, until) else { return };
        refuse([link].into_iter(), why.error.to_string());
    }
}

/// A caller's hello, if it has one and belongs to this job.
fn heard(link: Link, job: &str) -> Option<(Link, Hello)> {
    link.set_patience(Some(HELLO_PATIENCE)).ok()?;
    let (_, bytes) = link.receive(MOST_HELLO).ok().filter(|(kind, _)| *kind == Kind::Hello)?;
    let hello: Hello = serde_json::from_slice(&bytes).ok()?;
    (hello.job == job).then_some((link, hello))
}

/// Another rank: calls rank 0 until it answers.
fn call(hello: Hello, rendezvous: &Rendezvous, deadline: Instant) -> Result<Star, NotMet> {
    let Rendezvous { host, port, .. } = rendezvous;
    let mut why = String::new();
    while Instant::now() < deadline {
        let answered = connect(rendezvous).and_then(|link| {
            let bytes = serde_json::to_vec(&hello)?;
            link.send(Kind::Hello, &bytes)?;
            // Rank 0, which may have begun later, says by its own deadline who did not come.
            link.set_patience(Some(deadline.saturating_duration_since(Instant::now()) + LATE))?;
            let answer = link.receive(MOST_HELLO)?;
            link.set_patience(None)?;
            Ok((link, answer))
        });
        match answered {
            Ok((link, (Kind::Roster, bytes))) => {
                let roster = serde_json::from_slice(&bytes);
                let roster = roster.map_err(|e| NotMet::of(format!("{host}:{port} says what is no roster: {e}")))?;
                return Ok(Star { links: vec![link], roster, rank: hello.rank });
            }
            Ok((_, (_, bytes))) => {
                let message = String::from_utf8_lossy(&bytes).into_owned();
                return Err(NotMet { error: Error::other(message), is_said: true });
            }
            // It may not listen yet, or be another run's that is about to end.
            Err(e) => why = e.to_string(),
        }
        std::thread::sleep(POLL * 5);
    }
    let name = hello.name();
    Err(NotMet::of(format!(
        "{name} did not reach rank 0 at {host}:{port}: {why}; set MASTER_ADDR to the host of rank 0"
    )))
}

fn connect(rendezvous: &Rendezvous) -> io::Result<Link> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "its name is not known");
    for address in (rendezvous.host.as_str(), rendezvous.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, HELLO_PATIENCE) {
            Ok(stream) => return Link::new(stream),
            Err(e) => failure = e,
        }
    }
    Err(failure)
}
