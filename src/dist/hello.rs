//! What processes tell each other when they meet, and what has to fit together.

use super::Place;
use crate::error::listed;
use serde::{Deserialize, Serialize};
use std::fs;

/// One process, as the others know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Its number.
    pub rank: usize,
    /// The number of processes that it was told of.
    pub size: usize,
    /// The job that it belongs to.
    pub job: String,
    /// The name of its machine, for people.
    pub host: String,
    /// What tells its machine from others, as far as known: names may be equal.
    pub machine: String,
    /// The id of its process on that machine.
    pub pid: u32,
    /// Its device for people, such as `GPU 1`.
    pub device: String,
    /// What tells a device that only one process may have from all others.
    pub device_id: Option<String>,
    /// Names of what has to be equal on all ranks (the version, the configuration, the data), and what it is here.
    pub equal: Vec<(String, String)>,
}

impl Hello {
    /// The one of this process, for a job. `equal` names what has to be equal on all ranks.
    pub fn new(
        place: &Place,
        job: &str,
        device: &str,
        device_id: Option<String>,
        equal: Vec<(String, String)>,
    ) -> Self {
        let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        let host = Some(read("/proc/sys/kernel/hostname")).filter(|host| !host.is_empty());
        Hello {
            rank: place.rank,
            size: place.size,
            job: job.to_owned(),
            host: host.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_else(|| "a host without a name".to_owned()),
            // Containers on one machine have processes of their own.
            machine: read("/proc/sys/kernel/random/boot_id") + &namespace(),
            pid: std::process::id(),
            device: device.to_owned(),
            device_id,
            equal,
        }
    }

    /// `rank 3 (host b, GPU 1)`
    pub fn name(&self) -> String {
        format!("rank {} (host {}, {})", self.rank, self.host, self.device)
    }

    /// Why this process cannot work together with `others`, if it cannot.
    pub fn misfit(&self, others: &[Hello], size: usize) -> Option<String> {
        let name = self.name();
        if self.size != size || self.rank >= size {
            return Some(format!(
                "{name} was told of {} processes, rank 0 of {size}: start all with one command",
                self.size
            ));
        }
        for other in others {
            let other_name = other.name();
            if self.rank == other.rank {
                let hosts = format!("on {} and on {}", other.host, self.host);
                return Some(format!("two processes are rank {}, {hosts}: end the one that is left over", self.rank));
            }
            if self.device_id.is_some() && self.device_id == other.device_id {
                return Some(format!("{other_name} and {name} have the same GPU: start one process for each GPU"));
            }
            let pairs = self.equal.iter().zip(&other.equal);
            if let Some(((what, here), (_, there))) = pairs.into_iter().find(|(mine, theirs)| mine != theirs) {
                let message = format!("{name} has another {what} ({here}) than {other_name} ({there})");
                return Some(format!("{message}: start all ranks with the same {what}"));
            }
        }
        None
    }
}

/// What tells processes of a container from those of others on the machine.
fn namespace() -> String {
    fs::read_link("/proc/self/ns/pid").map(|link| format!(" {}", link.display())).unwrap_or_default()
}

/// `rank 3`, `ranks 1, 2`: those of `0..size` that are not in `hellos`.
pub fn missing_ranks(hellos: &[Hello], size: usize) -> String {
    let is_missing = |rank: &usize| hellos.iter().all(|hello| hello.rank != *rank);
    let missing: Vec<String> = (0..size).filter(is_missing).map(|rank| rank.to_string()).collect();
    format!("rank{} {}", if missing.len() == 1 { "" } else { "s" }, listed(&missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(rank: usize) -> Hello {
        let equal = [("version", "1.0"), ("configuration", "ab12")];
        Hello {
            rank,
            size: 3,
            job: "7/0".to_owned(),
            host: format!("h{}", rank / 2),
            machine: format!("m{}", rank / 2),
            pid: 100,
            device: format!("GPU {}", rank % 2),
            device_id: Some(format!("uuid-{rank}")),
            equal: equal.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        }
    }

    #[test]
    fn what_fits_and_what_does_not() {
        let others = [hello(0), hello(1)];
        assert_eq!(hello(2).misfit(&others, 3), None);
        let misfit = |change: fn(&mut Hello)| {
            let mut other = hello(2);
            change(&mut other);
            other.misfit(&others, 3).unwrap()
        };
        let expected = "two processes are rank 1, on h0 and on h1: end the one that is left over";
        assert_eq!(misfit(|hello| hello.rank = 1), expected);
        let expected =
            "rank 0 (host h0, GPU 0) and rank 2 (host h1, GPU 0) have the same GPU: start one process for each GPU";
        assert_eq!(misfit(|hello| hello.device_id = Some("uuid-0".to_owned())), expected);
        let expected = "rank 2 (host h1, GPU 0) has another configuration (cd34) than rank 0 (host h0, GPU 0) (ab12): start \
                        all ranks with the same configuration";
        assert_eq!(misfit(|hello| hello.equal[1].1 = "cd34".to_owned()), expected);
        assert!(misfit(|hello| hello.size = 4).contains("was told of 4 processes, rank 0 of 3"));
        assert!(misfit(|hello| hello.rank = 3).contains("was told of 3 processes"));
        // Without a device of its own, as on processors.
        let mut cpus = [hello(0), hello(1)];
        cpus.iter_mut().for_each(|hello| hello.device_id = None);
        assert_eq!(cpus[1].misfit(&cpus[..1], 3), None);
    }

    #[test]
    fn who_has_not_come() {
        assert_eq!(missing_ranks(&[hello(0), hello(2)], 3), "rank 1");
        assert_eq!(missing_ranks(&[hello(1)], 4), "ranks 0, 2, 3");
    }
}
