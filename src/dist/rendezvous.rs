//! Where the processes of a run find each other: the address that rank 0 listens at, from what all of them have in their
//! environment. No shared disk is needed.
//!
//! `HBT_RENDEZVOUS=host:port` says it. Otherwise the host is `MASTER_ADDR`, the first host of a step of SLURM, or this one,
//! if all processes are on it. The port is `MASTER_PORT`, but not under torchrun, whose agent listens there itself;
//! then, and where it is not set, it is drawn from the job's name, below the ports that Linux gives to programs that ask
//! for any.
//!
//! Nobody has to say anything where hbt starts the processes ([`launch`](super::launch)), which hands rank 0 a socket that
//! listens already, and where they are connected by MPI ([`Rendezvous::through`]).

use super::{Launcher, Peers, Place};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::net::TcpListener;

/// Environment variable with the address.
pub const RENDEZVOUS: &str = "HBT_RENDEZVOUS";

/// Environment variable with the number of the socket that rank 0 inherits, listening at that address.
pub const SOCKET: &str = "HBT_RENDEZVOUS_SOCKET";

/// Ports that are drawn. Those from 32768 on Linux gives to others (`ip_local_port_range`).
const FIRST_PORT: u16 = 20_000;
const N_PORTS: u64 = 10_000;

/// An address, and the job that meets there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rendezvous {
    /// Name or number of rank 0's host.
    pub host: String,
    /// Port there.
    pub port: u16,
    /// The same for all processes of a run, and probably another for those of another.
    pub job: String,
}

impl Rendezvous {
    /// The one of this process.
    ///
    /// # Errors
    /// Those of [`Rendezvous::of`].
    pub fn current(place: &Place) -> Result<Self> {
        Rendezvous::of(place, &|name| std::env::var(name).ok())
    }

    /// A new one, at which rank 0 of `peers` listens from now on, with the socket that does, on rank 0.
    ///
    /// # Errors
    /// If rank 0 cannot listen, and those of the exchange.
    pub fn through(peers: &Peers, host: &str) -> Result<(Self, Option<TcpListener>)> {
        let Place { rank, size, local_size, .. } = *peers.place();
        let (interfaces, host) = if local_size == size { ("127.0.0.1", "127.0.0.1") } else { ("0.0.0.0", host) };
        let listener = (rank == 0).then(|| TcpListener::bind((interfaces, 0)));
        // Rank 0 has something to say in any case, as the others wait for it.
        let said = listener.as_ref().map(|listener| match listener.as_ref().map(TcpListener::local_addr) {
            Ok(Ok(address)) => {
                let (host, port) = (host.to_owned(), address.port());
                let job = format!("{host}/{port}/{}", std::process::id());
                Ok(Rendezvous { host, port, job })
            }
            Ok(Err(e)) => Err(e.to_string()),
            Err(e) => Err(e.to_string()),
        });
        let fault = |e: serde_json::Error| Error::other(format!("rank 0's address: {e}"));
        let mut bytes = serde_json::to_vec(&said).map_err(fault)?;
        peers.broadcast_bytes(0, &mut bytes)?;
        let said: Option<std::result::Result<Rendezvous, String>> = serde_json::from_slice(&bytes).map_err(fault)?;
        match said {
            Some(Ok(rendezvous)) => Ok((rendezvous, listener.and_then(std::io::Result::ok))),
            Some(Err(why)) => Err(Error::other(format!("rank 0 cannot listen on {host}: {why}"))),
            None => Err(Error::other("rank 0 does not say where it listens")),
        }
    }

    /// The socket that this process inherits, if it listens at this address.
    pub fn inherited(&self) -> Option<TcpListener> {
        let number = std::env::var(SOCKET).ok()?.parse().ok()?;
        inherit(number).filter(|listener| listener.local_addr().is_ok_and(|address| address.port() == self.port))
    }

    /// The one of a process at `place` with these variables.
    ///
    /// # Errors
    /// If they do not say where rank 0 is, or say what is no address.
    pub fn of(place: &Place, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let value = |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let job = job(place.launcher, &value);
        if let Some(address) = value(RENDEZVOUS) {
            let (host, port) = address.rsplit_once(':').unwrap_or((&address, ""));
            return Ok(Rendezvous { host: host_of(host), port: port_of(RENDEZVOUS, port, &address)?, job });
        }
        let first_of_step = || first_host(&value("SLURM_STEP_NODELIST")?).filter(|_| place.launcher == Launcher::Slurm);
        let local = || (place.local_size == place.size).then(|| "127.0.0.1".to_owned());
        let host = value("MASTER_ADDR").map(|host| host_of(&host)).or_else(first_of_step).or_else(local);
        let host = host.ok_or_else(|| {
            let Place { size, local_size, launcher, .. } = place;
            Error::other(format!(
                "{local_size} of {size} processes are on this machine, and {launcher} does not say where rank 0 is: set \
                 MASTER_ADDR to its host in the environment of all (with mpirun: -x MASTER_ADDR, or -genv)"
            ))
        })?;
        let port = match value("MASTER_PORT").filter(|_| place.launcher != Launcher::Torchrun) {
            Some(port) => port_of("MASTER_PORT", &port, &port)?,
            None => drawn_port(&job),
        };
        Ok(Rendezvous { host, port, job })
    }
}

/// A socket that whoever started this process has left open for it.
#[cfg(unix)]
#[allow(unsafe_code)]
fn inherit(number: std::os::fd::RawFd) -> Option<TcpListener> {
    use std::os::fd::{BorrowedFd, FromRawFd};
    // Standard input, output and error are no sockets of ours.
    if number <= 2 {
        return None;
    }
    // SAFETY: it is only asked whether this number is one of a file that is open.
    let is_open = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_setfd(is_open, rustix::io::FdFlags::CLOEXEC).ok()?;
    // SAFETY: the number is the launcher's, which has left it to this process, and nobody else in it knows it.
    Some(unsafe { TcpListener::from_raw_fd(number) })
}

#[cfg(not(unix))]
fn inherit(_: i32) -> Option<TcpListener> {
    None
}

/// A host without the brackets of an address of IPv6.
fn host_of(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').to_owned()
}

fn port_of(name: &str, port: &str, value: &str) -> Result<u16> {
    let wrong = || {
        Error::other(format!("{name}={value} has no port from 1 to 65535; write host:port, or for a port its number"))
    };
    port.parse().ok().filter(|&port| port > 0).ok_or_else(wrong)
}

/// What launchers call a job, its step, and how often it was begun anew.
fn job(launcher: Launcher, value: &dyn Fn(&str) -> Option<String>) -> String {
    let names: &[&str] = match launcher {
        // Jobs without a name are all called `none`; their agents' ports differ.
        Launcher::Torchrun => &["TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_PORT"],
        Launcher::Slurm => &["SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"],
        Launcher::OpenMpi => &["PMIX_NAMESPACE"],
        Launcher::Own => &[RENDEZVOUS],
        Launcher::Pmi | Launcher::Alone => &[],
    };
    names.iter().map(|name| value(name).unwrap_or_default()).collect::<Vec<_>>().join("/")
}

/// The same on all machines and in all versions: by FNV-1a, as Rust's own hash may change.
fn drawn_port(job: &str) -> u16 {
    let add = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    FIRST_PORT + (job.bytes().fold(0xcbf2_9ce4_8422_2325, add) % N_PORTS) as u16
}

/// The first of SLURM's list of hosts: of `gpu[01-04,7],login` it is `gpu01`.
fn first_host(list: &str) -> Option<String> {
    let end = list.find(['[', ',']).unwrap_or(list.len());
    let (prefix, rest) = list.split_at(end);
    let Some(ranges) = rest.strip_prefix('[') else { return Some(prefix.to_owned()).filter(|host| !host.is_empty()) };
    let (ranges, after) = ranges.split_once(']')?;
    let number = ranges.split(['-', ',']).next()?;
    // What comes behind the brackets up to the next host: another part of the name, with brackets of its own.
    let tail = after.split_once(',').map_or(after, |(tail, _)| tail);
    let tail = if tail.is_empty() { String::new() } else { first_host(after)? };
    Some(format!("{prefix}{number}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(launcher: Launcher, local_size: usize, list: &str) -> Result<Rendezvous> {
        let place = Place { rank: 1, size: 4, local_rank: 0, local_size, launcher };
        let find = |name: &str| {
            list.split_whitespace().find_map(|pair| Some(pair.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
        };
        Rendezvous::of(&place, &find)
    }

    fn address(launcher: Launcher, local_size: usize, list: &str) -> (String, u16) {
        let Rendezvous { host, port, .. } = of(launcher, local_size, list).unwrap();
        (host, port)
    }

    #[test]
    fn the_first_that_says_where_counts() {
        let all = "HBT_RENDEZVOUS=a:7 MASTER_ADDR=b MASTER_PORT=8 SLURM_STEP_NODELIST=c[3-4]";
        assert_eq!(address(Launcher::Slurm, 1, all), ("a".to_owned(), 7));
        assert_eq!(address(Launcher::Slurm, 1, &all[18..]), ("b".to_owned(), 8));
        assert_eq!(address(Launcher::Slurm, 1, &all[32..]), ("c3".to_owned(), 8));
        assert_eq!(address(Launcher::OpenMpi, 4, "MASTER_PORT=8"), ("127.0.0.1".to_owned(), 8));
        assert_eq!(address(Launcher::Own, 4, "HBT_RENDEZVOUS=[::1]:99"), ("::1".to_owned(), 99));
        let refused = of(Launcher::OpenMpi, 2, "MASTER_PORT=8").unwrap_err().to_string();
        assert!(
            refused.starts_with("2 of 4 processes are on this machine, and Open MPI's mpirun does not say"),
            "{refused}"
        );
    }

    #[test]
    fn the_port_of_torchruns_agent_is_taken() {
        let torchrun = |port: u16| address(Launcher::Torchrun, 4, &format!("MASTER_ADDR=a MASTER_PORT={port}")).1;
        assert!(torchrun(29500) != 29500 && (20_000..30_000).contains(&torchrun(29500)));
        assert_ne!(torchrun(29500), torchrun(29501), "two on one machine");
        assert_eq!(torchrun(29500), torchrun(29500));
    }

    #[test]
    fn jobs_meet_at_different_ports() {
        let step = |job: u32, step: u32, restart: u32| {
            let list = format!("SLURM_JOB_ID={job} SLURM_STEP_ID={step} SLURM_RESTART_COUNT={restart}");
            let found = of(Launcher::Slurm, 4, &list).unwrap();
            (found.port, found.job)
        };
        let all = [step(1, 0, 0), step(1, 1, 0), step(2, 0, 0), step(1, 0, 1), step(11, 0, 0)];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a.0 != b.0 && a.1 != b.1));
        }
        // FNV-1a of nothing, and of "a", as published.
        assert_eq!(u64::from(drawn_port("")), 20_000 + 0xcbf2_9ce4_8422_2325 % 10_000);
        assert_eq!(u64::from(drawn_port("a")), 20_000 + 0xaf63_dc4c_8601_ec8c % 10_000);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for list in ["HBT_RENDEZVOUS=a", "HBT_RENDEZVOUS=a:", "HBT_RENDEZVOUS=a:0", "MASTER_ADDR=a MASTER_PORT=x"] {
            let refused = of(Launcher::Slurm, 4, list).unwrap_err().to_string();
            assert!(refused.contains("has no port from 1 to 65535"), "{list}: {refused}");
        }
    }

    #[test]
    fn first_hosts() {
        for (list, first) in [
            ("gpu[01-04,7],login", Some("gpu01")),
            ("a,b", Some("a")),
            ("a", Some("a")),
            ("n[7]", Some("n7")),
            ("r[1-2]n[3,5],x", Some("r1n3")),
            ("r[1-2].site,x", Some("r1.site")),
            ("r[1", None),
            ("", None),
        ] {
            assert_eq!(first_host(list).as_deref(), first, "{list}");
        }
    }
}
