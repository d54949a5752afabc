//! The processes that train together: who started them, that they mean the same, and how they end.

use hbt::dist::{Peers, Place};
use hbt::progress::{be_quiet, say, say_always};
use hbt::train::Ranks;
use hbt::{Error, Result};
use std::sync::Arc;
use std::time::Duration;

/// How long a process with an error gives the first to say the same one.
const FIRST_SAYS: Duration = Duration::from_secs(2);

/// Runs `command` as one of the processes that a launcher has started, or alone.
///
/// # Errors
/// Those of `command`, of a process that is alone; those of several end all processes here.
pub fn run<T>(command: impl FnOnce(&Ranks) -> Result<T>) -> Result<T> {
    let place = Place::current()?;
    let peers = Arc::new(Peers::open(place)?);
    if place.size == 1 {
        return command(&Ranks::new(peers));
    }
    hbt::memory::share_among(place.local_size as u64);
    if place.rank > 0 {
        be_quiet();
    } else {
        say(&format!("{} ranks, started by {}", place.size, place.launcher));
    }
    let ranks = Ranks::new(Arc::clone(&peers));
    let done = command(&ranks);
    drop(ranks);
    match done {
        Ok(result) => {
            // A launcher may end all when one has ended.
            peers.barrier()?;
            Arc::into_inner(peers).expect("nothing is left that could exchange").finish()?;
            Ok(result)
        }
        Err(error) => end(&peers, &error),
    }
}

/// Fails in one of several processes, for a command that would do everything in each.
///
/// # Errors
/// In every process but one that is alone.
pub fn require_alone(command: &str) -> Result<()> {
    match Place::current()? {
        Place { size: 1, .. } => Ok(()),
        Place { size, launcher, .. } => {
            let message =
                format!("hbt {command} runs in one process, and {launcher} started {size}; start it by itself");
            Err(Error::usage(message))
        }
    }
}

/// Ends all processes, with one line if all have the same error.
fn end(peers: &Peers, error: &Error) -> ! {
    if peers.rank() > 0 {
        // What is wrong for all, the first says, and ends this process.
        std::thread::sleep(FIRST_SAYS);
    }
    say_always(&format!("error: rank {}: {}", peers.rank(), crate::in_full(error)));
    peers.abort(i32::from(crate::exit_code(error)))
}

/// Calls `f` in the first process of each machine, then in the others: what the first has made is there for them.
pub fn first_of_machine<T>(ranks: &Ranks, f: impl FnOnce() -> Result<T>) -> Result<T> {
    let (peers, is_first) = (ranks.peers(), ranks.peers().place().local_rank == 0);
    if !is_first {
        peers.barrier()?;
    }
    let made = f()?;
    if is_first {
        peers.barrier()?;
    }
    Ok(made)
}

/// Threads of this process, where none are asked for: its share of the machine's.
pub fn threads_of(place: &Place) -> Option<usize> {
    if place.local_size == 1 {
        return None;
    }
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    // A launcher that binds processes to cores has divided them already.
    let is_bound = n_processors().is_some_and(|all| allowed < all);
    Some(if is_bound { allowed } else { (allowed / place.local_size).max(1) })
}

/// Processors of the machine, whoever may use them.
fn n_processors() -> Option<usize> {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").ok()?;
    online
        .trim()
        .split(',')
        .map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(last.parse::<usize>().ok()? + 1 - first.parse::<usize>().ok()?)
        })
        .sum()
}
