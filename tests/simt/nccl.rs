//! The stand-in for NCCL: each of its checks catches ranks that are wrong in exactly that way. The real library would hang,
//! or compute nonsense.

use super::driver::{Driver, Handle, call};
use crate::device::built;
use crate::dist::processes;
use libloading::Library;
use std::ffi::c_int;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const N: usize = 256;
const TASK: &str = "HBT_TEST_NCCL_TASK";
/// A folder where the first rank leaves the id.
const FOLDER: &str = "HBT_TEST_NCCL_FOLDER";
const IN_PROGRESS: c_int = 7;
const F32: c_int = 7;
const SUM: c_int = 0;

#[repr(C)]
#[derive(Clone, Copy)]
struct Id([u8; 128]);

#[repr(C)]
struct Config {
    size: usize,
    magic: u32,
    version: u32,
    blocking: c_int,
}

/// Calls a function of NCCL's with arguments of the types in the list.
macro_rules! nccl {
    ($rank:expr, $name:literal $(, $value:expr => $type:ty)*) => {{
        // SAFETY: the types are those of nccl.h.
        unsafe {
            let function = $rank.library.get::<unsafe extern "C" fn($($type),*) -> c_int>($name.as_bytes()).unwrap();
            function($($value),*)
        }
    }};
}

/// One rank, with a stream, and buffers that hold ones.
struct Rank {
    driver: Driver,
    library: Library,
    comm: Handle,
    stream: Handle,
    rank: usize,
    size: usize,
    send: u64,
    receive: u64,
}

impl Rank {
    /// Connects, in a world of `size` as this rank sees it.
    fn connect(size: usize, blocking: c_int) -> Result<Self, c_int> {
        let number = |name: &str| std::env::var(name).unwrap().parse::<usize>().unwrap();
        let (rank, file) = (number("HBT_RANK"), PathBuf::from(std::env::var_os(FOLDER).unwrap()).join("id"));
        let driver = Driver::new().unwrap();
        // SAFETY: a library of this project.
        let library = unsafe { Library::new(built().join("libnccl.so.2")) }.unwrap();
        let stream = driver.stream();
        let [send, receive] = [N, N * 4].map(|n| driver.allocate(n * 4));
        let mut made = Rank { driver, library, comm: std::ptr::null_mut(), stream, rank, size, send, receive };
        assert_eq!(made.driver.upload(send, &[rank as f32 + 1.0; N], stream), 0);
        let mut id = Id([0; 128]);
        if rank == 0 {
            assert_eq!(nccl!(made, "ncclGetUniqueId", &mut id => *mut Id), 0);
            fs::write(file.with_extension("new"), id.0).unwrap();
            fs::rename(file.with_extension("new"), &file).unwrap();
        }
        while !file.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        id.0 = fs::read(&file).unwrap().try_into().unwrap();
        let mut config = Config { size: size_of::<Config>(), magic: 0xcafe_beef, version: 21400, blocking };
        let code = nccl!(made, "ncclCommInitRankConfig", &mut made.comm => *mut Handle, size as c_int => c_int, id => Id,
            rank as c_int => c_int, &mut config => *mut Config);
        match made.settled(code) {
            0 => Ok(made),
            code => Err(code),
        }
    }

    /// The status when nothing is in progress any more.
    fn settled(&self, mut code: c_int) -> c_int {
        while code == IN_PROGRESS {
            assert_eq!(nccl!(self, "ncclCommGetAsyncError", self.comm => Handle, &mut code => *mut c_int), 0);
        }
        code
    }

    fn all_reduce(&self, send: u64, receive: u64, n: usize) -> c_int {
        nccl!(self, "ncclAllReduce", send => u64, receive => u64, n => usize, F32 => c_int, SUM => c_int,
            self.comm => Handle, self.stream => Handle)
    }

    fn all_gather(&self, n: usize) -> c_int {
        nccl!(self, "ncclAllGather", self.send => u64, self.receive => u64, n => usize, F32 => c_int, self.comm => Handle,
            self.stream => Handle)
    }

    fn broadcast(&self, root: usize) -> c_int {
        nccl!(self, "ncclBroadcast", self.send => u64, self.receive => u64, N => usize, F32 => c_int,
            root as c_int => c_int, self.comm => Handle, self.stream => Handle)
    }

    /// Begins a group of one call, and gives what the call answers.
    fn begin(&self, call: impl FnOnce() -> c_int) -> c_int {
        assert_eq!(nccl!(self, "ncclGroupStart"), 0);
        let code = call();
        let ended = nccl!(self, "ncclGroupEnd");
        assert!([0, IN_PROGRESS].contains(&ended), "{ended}");
        code
    }

    /// The first numbers of what was received, when a call has been carried out.
    fn done(&self, call: impl FnOnce() -> c_int, n: usize) -> Vec<f32> {
        assert_eq!(self.begin(call), 0);
        assert_eq!(self.settled(IN_PROGRESS), 0);
        let mut values = vec![0.0; n];
        assert_eq!(self.driver.download(&mut values, self.receive, self.stream), 0);
        values
    }

    fn end(&self) {
        assert_eq!(self.settled(nccl!(self, "ncclCommFinalize", self.comm => Handle)), 0);
        assert_eq!(nccl!(self, "ncclCommDestroy", self.comm => Handle), 0);
    }

    /// Every exchange, twice.
    fn exercise(&self) {
        let sum = (1..=self.size).sum::<usize>() as f32;
        for _ in 0..2 {
            assert_eq!(self.done(|| self.all_reduce(self.send, self.receive, N), N), [sum; N]);
            for root in 0..self.size {
                assert_eq!(self.done(|| self.broadcast(root), N), [root as f32 + 1.0; N]);
            }
            let gathered = self.done(|| self.all_gather(N), N * self.size);
            assert!(gathered.chunks(N).enumerate().all(|(rank, part)| part == [rank as f32 + 1.0; N]));
            // In place.
            assert_eq!(self.done(|| self.all_reduce(self.receive, self.receive, N), N), [self.size as f32; N]);
        }
    }

    /// Something goes wrong in this process, or in the first.
    fn err(&self, task: &str) {
        let is_first = self.rank == 0;
        let all = || self.all_reduce(self.send, self.receive, N);
        let not_answered = || assert_eq!(self.settled(IN_PROGRESS), 0);
        match task {
            "count" => {
                drop(self.done(|| self.all_reduce(self.send, self.receive, if is_first { N } else { N - 1 }), 1))
            }
            "function" => drop(self.done(|| if is_first { all() } else { self.broadcast(0) }, 1)),
            "root" => drop(self.done(|| self.broadcast(self.rank), 1)),
            "absent" => {
                if is_first {
                    self.done(all, 1);
                }
                std::thread::sleep(Duration::from_secs(2));
            }
            "freed" => {
                assert_eq!(self.begin(all), 0);
                // The stand-in's memory is free at once, as the group is not on the stream yet; a real one's may be.
                self.driver.free(self.send);
                not_answered();
                assert_eq!(self.driver.synchronize(self.stream), 700);
            }
            "written" | "received into" => {
                let address = if task == "written" { self.send } else { self.receive };
                assert_eq!(self.begin(all), 0);
                not_answered();
                let other = self.driver.stream();
                for i in 0..5_000_u32 {
                    assert_eq!(
                        call!(self.driver, "cuMemsetD8Async", address => u64, i as u8 => u8, 4 => usize, other => Handle),
                        0
                    );
                    std::thread::sleep(Duration::from_micros(100));
                }
            }
            "not asked" => {
                assert_eq!(self.begin(all), 0);
                let codes: Vec<_> = (0..20).map(|_| self.begin(all)).collect();
                println!("ANSWERED {codes:?}");
            }
            "overlap" => {
                println!("ANSWERED {}", self.begin(|| self.all_reduce(self.send + 4, self.send, N - 1)));
                println!("ANSWERED {}", self.begin(|| self.all_reduce(self.send, self.receive, N + 1)));
            }
            _ => unreachable!("{task}"),
        }
    }
}

#[test]
#[ignore = "one process of several, which the other tests start"]
fn rank() {
    let (Ok(task), Ok(size)) = (std::env::var(TASK), std::env::var("HBT_WORLD_SIZE")) else { return };
    let (is_first, size) = (std::env::var("HBT_RANK").is_ok_and(|rank| rank == "0"), size.parse().unwrap());
    let (size, blocking) = match task.as_str() {
        "world" => (size + usize::from(is_first), 0),
        "blocks" => (size, 1),
        _ => (size, 0),
    };
    match (Rank::connect(size, blocking), task.as_str()) {
        (Ok(rank), "works") => {
            rank.exercise();
            rank.end();
            println!("DONE");
        }
        (Ok(rank), "left") => rank.exercise(),
        (Ok(rank), task) => rank.err(task),
        (Err(code), _) => println!("REFUSED {code}"),
    }
}

/// What ranks say that do `task`, one after the other.
fn said(task: &str, size: usize, variables: &[(&str, &str)]) -> Vec<(bool, String)> {
    let folder = tempfile::tempdir().unwrap();
    let mut all = vec![(TASK, task), (FOLDER, folder.path().to_str().unwrap()), ("SIMT_DEVICES", "4")];
    all.extend([("SIMT_NCCL_PATIENCE", "2"), ("NCCL_ALGO", "Ring")]);
    all.extend(variables);
    // The stand-in's device of a rank is the first that it sees.
    let of_rank = |rank: usize| match task {
        "same GPU" => Vec::new(),
        _ => vec![("SIMT_FIRST_DEVICE", rank.to_string())],
    };
    let outputs = processes::run("simt::nccl::rank", size, &all, of_rank);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    outputs.iter().map(|done| (done.status.success(), text(&done.stdout) + &text(&done.stderr))).collect()
}

#[test]
fn ranks_exchange_what_they_have() {
    if Driver::new().is_none() {
        return;
    }
    for (size, seed) in [(1, "1"), (2, "2"), (3, "3"), (4, "4")] {
        for (is_good, text) in said("works", size, &[("SIMT_SEED", seed)]) {
            assert!(is_good && text.contains("DONE"), "{size} ranks: {text}");
        }
    }
}

#[test]
fn ranks_that_do_not_agree_end_with_both_calls() {
    if Driver::new().is_none() {
        return;
    }
    let sum = |n: usize| format!("AllReduce(count {n}, type 7, op 0, root 0) on rank ");
    let broadcast = |root: usize| format!("Broadcast(count 256, type 7, op 0, root {root}) on rank ");
    for (task, calls) in [
        ("count", [sum(256), sum(255)]),
        ("function", [sum(256), broadcast(0)]),
        ("root", [broadcast(0), broadcast(1)]),
    ] {
        for (rank, (is_good, text)) in said(task, 2, &[]).into_iter().enumerate() {
            let quoted = format!(
                "simt: nccl: call 0 of exchange 1 is {}{rank}, and {}{}",
                calls[rank],
                calls[1 - rank],
                1 - rank
            );
            assert!(!is_good && text.contains(&quoted), "{task}: {text}");
        }
    }
}

#[test]
fn a_rank_that_waits_for_another_ends_after_a_while() {
    if Driver::new().is_none() {
        return;
    }
    let start = Instant::now();
    let all = said("absent", 2, &[("SIMT_NCCL_PATIENCE", "0.5")]);
    assert!(
        all[0].1.contains("rank 0 has waited 0.5 s for rank 1 in exchange 1, 1 calls, the first AllReduce("),
        "{all:?}"
    );
    assert!(start.elapsed() >= Duration::from_millis(500));
}

#[test]
fn buffers_belong_to_an_exchange_until_it_is_over() {
    if Driver::new().is_none() {
        return;
    }
    for (task, words) in [
        ("freed", "ran after its memory was freed"),
        ("written", "what it sends was written to while it was under way"),
        ("received into", "where it receives was written to while it was under way"),
        ("overlap", "buffers that overlap, and not as they have to in place"),
        ("overlap", "a buffer that is not all of one live allocation"),
    ] {
        // On one of the ranks at least: a write may come between two flights.
        let all = said(task, 2, &[]);
        assert!(all.iter().any(|(_, text)| text.contains(words)), "{task}: {all:?}");
    }
}

#[test]
fn what_is_in_progress_has_to_be_awaited() {
    if Driver::new().is_none() {
        return;
    }
    for (_, text) in said("not asked", 2, &[]) {
        assert!(text.contains("a call while the communicator is in progress"), "{text}");
    }
}

#[test]
fn communicators_that_cannot_be() {
    if Driver::new().is_none() {
        return;
    }
    for (task, variables, words) in [
        ("same GPU", &[][..], "Duplicate GPU detected : rank 0 and rank 1 both on CUDA device 0"),
        ("world", &[], "rank 1 is one of 2, rank 0 one of 3"),
        ("blocks", &[], "a communicator that blocks"),
        ("left", &[], "the process ends with a communicator that was not destroyed"),
        ("works", &[("NCCL_ALGO", "")], "NCCL_ALGO is not set"),
    ] {
        let all = said(task, 2, variables);
        assert!(all.iter().any(|(_, text)| text.contains(words)), "{task}: {all:?}");
        assert!(all.iter().all(|(is_good, text)| !is_good || text.contains("REFUSED")), "{task}: {all:?}");
    }
    let shared = said("same GPU", 2, &[("NCCL_MULTI_RANK_GPU_ENABLE", "1")]);
    assert!(shared.iter().all(|(_, text)| !text.contains("REFUSED")), "{shared:?}");
}
