//! The processes that work together: who started them, that all live, and how they end.

use super::device::resolve;
use super::gpus;
use super::model::content_key;
use hbt::backend::{Backend, Element, cuda};
use hbt::cli::TrainArgs;
use hbt::config::{Auto, Config, Device};
use hbt::dist::hello::Hello;
use hbt::dist::launch::Mpirun;
use hbt::dist::watch::Settings;
use hbt::dist::{Launcher, Peers, Place, Progress, Rendezvous, Star, Watch};
use hbt::files::remove_unfinished;
use hbt::progress::{be_quiet, say, say_always};
use hbt::retriever::Retriever;
use hbt::train::Ranks;
use hbt::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// How long all have to come once MPI has begun.
const PATIENCE: Duration = Duration::from_secs(60);
/// A rank of which nothing is heard for so long is gone: less than ten seconds, and more than a busy machine needs.
const SILENCE: Duration = Duration::from_secs(8);
/// A command in which no rank gets any further for so long hangs; a run says itself for how long.
const STALL: Duration = Duration::from_secs(600);

/// Sets what libraries read from the environment of one of several processes. Call it at the start of the program.
pub fn settle_environment() {
    if Place::current().is_ok_and(|place| place.size > 1) {
        cuda::exchange_in_rings();
    }
}

/// Runs `command`, which is to compute on the device `asked` for, as one of the processes that a launcher has started, or
/// alone.
///
/// # Errors
/// Those of `command`, of a process that is alone; those of several end all processes here.
pub fn run<T>(asked: Auto<Device>, command: impl FnOnce(&Ranks) -> Result<T>) -> Result<T> {
    let place = Place::current()?;
    if place.size == 1 {
        return command(&Ranks::default());
    }
    hbt::memory::share_among(place.local_size as u64);
    if place.rank > 0 {
        be_quiet();
    }
    let (peers, watch) = meet(place, resolve(asked))?;
    say(&format!("{} ranks, started by {}", place.size, place.launcher));
    let peers = Arc::new(peers);
    let ranks = Ranks::new(Arc::clone(&peers));
    let done = command(&ranks);
    drop(ranks);
    match done {
        Ok(result) => {
            // A launcher may end all when one has ended.
            watch.finish();
            Arc::into_inner(peers).expect("nothing is left that could exchange").finish()?;
            Ok(result)
        }
        Err(error) => watch.fail(&crate::in_full(&error)),
    }
}

/// Returns when all processes have come, and watches from then on that they live. On processors they exchange over MPI; those
/// that have none, as torchrun and hbt start them, through rank 0. So do processes on GPUs, which exchange what is large by
/// themselves, unless an `mpirun` has started them: then MPI knows where rank 0 is.
fn meet(place: Place, device: Device) -> Result<(Peers, Watch)> {
    let (name, id) = gpus::introduced(device);
    let version = ("version of hbt".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    let hello = |job: &str| Hello::new(&place, job, &name, id.clone(), vec![version.clone()]);
    let leave = |line: Option<&str>| {
        line.iter().for_each(|line| say_always(&format!("error: {line}")));
        remove_unfinished();
    };
    let settings = Settings { silence: SILENCE, stall: STALL, leave: Box::new(leave) };
    let star = |rendezvous: &Rendezvous, listener| {
        Star::meet(hello(&rendezvous.job), rendezvous, listener, PATIENCE).map_err(|not_met| match not_met.is_said {
            // Rank 0 has said it.
            true => std::process::exit(1),
            false => not_met.error,
        })
    };
    let has_no_mpi = match place.launcher {
        Launcher::Own | Launcher::Torchrun => true,
        Launcher::Slurm => device == Device::Cuda,
        Launcher::Alone | Launcher::OpenMpi | Launcher::Pmi => false,
    };
    if has_no_mpi {
        let rendezvous = Rendezvous::current(&place)?;
        let listener = rendezvous.inherited();
        let (star, progress) = (star(&rendezvous, listener)?, Arc::<Progress>::default());
        let (watch, relay) = Watch::begin(star, Arc::clone(&progress), settings);
        return Ok((Peers::over(place, Box::new(relay), progress), watch));
    }
    let peers = Peers::open(place)?;
    let (rendezvous, listener) = Rendezvous::through(&peers, &hello("").host)?;
    let (watch, _) = Watch::begin(star(&rendezvous, listener)?, Arc::clone(peers.progress()), settings);
    Ok((peers, watch))
}

/// `--devices N`: becomes a launcher of N processes of this command, unless it is one of them. Returns how they ended, where
/// it has not become another program.
///
/// # Errors
/// A process that another launcher has started; no launcher, or fewer GPUs.
pub fn start(args: &TrainArgs) -> Result<Option<ExitCode>> {
    let Some(n) = args.devices.filter(|n| *n > 1) else { return Ok(None) };
    let device = resolve(gpus::asked_for(&args.draft()));
    let place = Place::current()?;
    if place.launcher != Launcher::Alone {
        let message = format!("starts processes itself, and {} has started this one; take it away", place.launcher);
        return Err(Error::config("--devices", message));
    }
    // All but the option and its value.
    let (mut args, mut rest) = (std::env::args_os().skip(1), Vec::new());
    while let Some(arg) = args.next() {
        match arg.to_str().and_then(|arg| arg.strip_prefix(DEVICES)) {
            Some("") => drop(args.next()),
            Some(value) if value.starts_with('=') => {}
            _ => rest.push(arg),
        }
    }
    match device {
        Device::Cuda => gpus::launch(n as usize, &rest).map(Some),
        Device::Cpu => Err(Mpirun::find()?.exec(n as usize, &rest)),
    }
}

const DEVICES: &str = "--devices";

/// Runs a command that is done once in the first of several processes; the others have nothing to do.
pub fn once(command: impl FnOnce() -> Result<()>) -> Result<()> {
    // Variables that say a part only matter to those who work together.
    if Place::current().is_ok_and(|place| place.rank > 0) { Ok(()) } else { command() }
}

/// The file that this process writes where each writes its own: `trace.json`, `trace.rank1.json`, ....
pub fn own_file(path: &Path) -> PathBuf {
    match Place::current() {
        Ok(Place { rank: rank @ 1.., .. }) => {
            let ending = path.extension().map_or(String::new(), |ending| format!(".{}", ending.display()));
            path.with_extension(format!("rank{rank}{ending}"))
        }
        _ => path.to_owned(),
    }
}

/// Fails unless all ranks embed alike: with the same version, weights, number type and instructions.
///
/// # Errors
/// The first rank that does not.
pub fn require_same_model<B: Backend>(ranks: &Ranks, config: &Config, retriever: &Retriever<B>) -> Result<()> {
    if ranks.is_alone() {
        return Ok(());
    }
    let [version, key] = [env!("CARGO_PKG_VERSION"), &content_key(config, retriever)?];
    ranks.require_same("model", &format!("hbt {version} with {}\nmodel {key}", B::E::NAME))
}

/// What `f` makes in the first process, in all of them.
///
/// # Errors
/// Those of `f`, and a process that is gone.
pub fn of_first<T: Serialize + DeserializeOwned>(ranks: &Ranks, f: impl FnOnce() -> Result<T>) -> Result<T> {
    if ranks.is_alone() {
        return f();
    }
    let broken = |e: serde_json::Error| Error::other(format!("ranks do not understand each other: {e}"));
    let text = match ranks.leads() {
        true => Some(serde_json::to_string(&f()?).map_err(broken)?),
        false => None,
    };
    serde_json::from_str(&ranks.of_first(text)?.unwrap_or_default()).map_err(broken)
}

/// The least number that any process has.
///
/// # Errors
/// A process that is gone.
pub fn least(ranks: &Ranks, own: u64) -> Result<u64> {
    let of_ranks = ranks.peers().all_gather_bytes(&own.to_le_bytes())?;
    let numbers = of_ranks.iter().filter_map(|bytes| bytes[..].try_into().ok().map(u64::from_le_bytes));
    Ok(numbers.min().unwrap_or(own))
}

/// Has a process that gets no further for as long as the configuration says count as one that hangs.
pub fn expect_progress(ranks: &Ranks, config: &Config) {
    ranks.peers().progress().expect_within(Duration::from_secs_f64(60.0 * config.stall_minutes));
}

/// Calls `f` in the first process of each machine, then in the others: what the first has made is there for them.
pub fn first_of_machine<T>(ranks: &Ranks, f: impl FnOnce() -> Result<T>) -> Result<T> {
    let is_first = ranks.peers().place().local_rank == 0;
    if !is_first {
        ranks.peers().barrier()?;
    }
    let made = f()?;
    if is_first {
        ranks.peers().barrier()?;
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
