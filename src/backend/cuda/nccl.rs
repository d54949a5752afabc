//! The communicator of a GPU with those of other ranks: NCCL, on the stream of all other work.
//!
//! It does not block: a call that takes long answers that it is in progress, and is asked until it is done, so that errors
//! arrive. While the host waits for the device, it asks for errors, too ([`Alarm`]): a GPU whose peer is gone waits for ever.
//! Nothing is aborted, as that has to be done by all ranks, and hangs where one is gone: who cannot go on ends the process.
//!
//! All on one communicator, one stream and one thread at a time: so NCCL's order is the same on all ranks.

use super::api::nccl::{self, Comm, Config, F32, IN_PROGRESS, Nccl, SUM, UniqueId};
use super::api::{Opened, Status};
use super::driver::{Alarm, Context, Stream, pause};
use super::{Cuda, CudaElement};
use crate::backend::{Collectives, Share, Tensor};
use crate::{Error, Result};
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Environment variable by which NCCL chooses how data goes from GPU to GPU.
const ALGORITHM: &str = "NCCL_ALGO";

/// Has NCCL exchange in rings, unless `NCCL_ALGO` says otherwise: what it chooses by itself, and so the order of sums, follows
/// from measurements of its own and from what the network can do, and need not be the same twice.
///
/// Call it at the start of a program, before it has threads; where there are, it does nothing.
pub fn exchange_in_rings() {
    let is_only_thread = std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1);
    if is_only_thread && std::env::var_os(ALGORITHM).is_none() {
        // SAFETY: nobody else reads the environment meanwhile, as there is no other thread.
        unsafe { std::env::set_var(ALGORITHM, "Ring") };
    }
}

/// NCCL's version, and the same in words with where it is; else why GPUs cannot exchange and what to do, as the first half of a
/// sentence.
///
/// # Errors
/// No NCCL, or too old a one.
pub fn require_nccl() -> std::result::Result<((u32, u32), String), String> {
    nccl::get().map(|nccl| (nccl.version, nccl.to_string())).map_err(str::to_owned)
}

/// How long GPUs may take to connect, which is a matter of seconds. Where they look for each other on the wrong network it may
/// never end.
const PATIENCE: Duration = Duration::from_secs(600);

/// Whether several ranks are to have one GPU, as NCCL can be told.
pub fn may_share_gpus() -> bool {
    std::env::var(nccl::SHARED_GPUS).is_ok_and(|value| value == "1")
}

/// A GPU's end of the exchange with those of other ranks.
pub(super) struct Communicator {
    nccl: &'static Opened<Nccl>,
    /// Null when it is over.
    comm: Mutex<Comm>,
    rank: usize,
    size: usize,
}

// SAFETY: NCCL's calls on a communicator may come from any thread, one at a time, which the lock sees to.
unsafe impl Send for Communicator {}
// SAFETY: as above.
unsafe impl Sync for Communicator {}

impl Communicator {
    /// Connects the GPU of `context` as number `rank` of `size`. Returns when all have been connected.
    pub fn new(context: &Context, rank: usize, size: usize, share: Share) -> Result<Arc<Self>> {
        let nccl = nccl::get().map_err(|why| Error::config("device", why))?;
        let failed = |doing: &str, status| {
            // SAFETY: no communicator.
            Error::other(format!("nccl: {doing} failed: {}", unsafe { nccl.describe(status, ptr::null_mut()) }))
        };
        let mut id = UniqueId([0; 128]);
        if rank == 0 {
            // SAFETY: writes one id.
            unsafe { nccl.ncclGetUniqueId(&mut id) }.ok().map_err(|status| failed("making an id", status))?;
        }
        let mut bytes = if rank == 0 { id.0.to_vec() } else { Vec::new() };
        share(&mut bytes)?;
        id.0 = bytes[..].try_into().map_err(|_| Error::other("nccl: the first rank's id has another length"))?;
        context.bind()?;
        let (mut comm, mut config) = (ptr::null_mut(), Config::non_blocking());
        // SAFETY: writes one handle; the configuration is read before it returns.
        let status = unsafe { nccl.ncclCommInitRankConfig(&mut comm, size as c_int, id, rank as c_int, &mut config) };
        if comm.is_null() {
            return Err(failed("connecting the GPUs", status));
        }
        let made = Communicator { nccl, comm: Mutex::new(comm), rank, size };
        let begin = Instant::now();
        made.settle_unless(comm, status, "connecting the GPUs", || begin.elapsed() > PATIENCE)?;
        Ok(Arc::new(made))
    }

    fn lock(&self) -> MutexGuard<'_, Comm> {
        self.comm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a call that answered `status` is done.
    fn settle(&self, comm: Comm, status: Status, doing: &str) -> Result<()> {
        self.settle_unless(comm, status, doing, || false)
    }

    /// Waits so, unless it `takes_too_long`.
    fn settle_unless(
        &self,
        comm: Comm,
        mut status: Status,
        doing: &str,
        takes_too_long: impl Fn() -> bool,
    ) -> Result<()> {
        let mut n_asked = 0;
        while status == IN_PROGRESS {
            if takes_too_long() {
                return Err(Error::other(format!(
                    "nccl: {doing} does not come to an end; NCCL_DEBUG=INFO says what it waits for, and NCCL_SOCKET_IFNAME \
                     names the network to take"
                )));
            }
            pause(&mut n_asked);
            status = self.state(comm);
        }
        // SAFETY: a communicator.
        let describe = |status| unsafe { self.nccl.describe(status, comm) };
        status.ok().map_err(|status| Error::other(format!("nccl: {doing} failed: {}", describe(status))))
    }

    /// How the calls so far, and what they began, have gone.
    fn state(&self, comm: Comm) -> Status {
        let mut state = Status::SUCCESS;
        // SAFETY: writes one status, of a communicator.
        match unsafe { self.nccl.ncclCommGetAsyncError(comm, &mut state) } {
            Status::SUCCESS => state,
            failed => failed,
        }
    }

    /// Queues calls that NCCL carries out together. Once that has failed, what was queued before may never be done.
    fn group(&self, stream: &Stream, doing: &str, calls: impl IntoIterator<Item = Call>) -> Result<()> {
        self.queue(stream, doing, calls).inspect_err(|_| stream.context.give_up())
    }

    fn queue(&self, stream: &Stream, doing: &str, calls: impl IntoIterator<Item = Call>) -> Result<()> {
        let comm = self.lock();
        assert!(!comm.is_null(), "nccl: {doing} after the end");
        stream.context.bind()?;
        // SAFETY: it takes nothing.
        self.settle(*comm, unsafe { self.nccl.ncclGroupStart() }, doing)?;
        for call in calls {
            // SAFETY: whoever calls this has checked the lengths of buffers, which are given back only behind this work.
            let status = unsafe { call.make(self.nccl, *comm, stream) };
            if ![Status::SUCCESS, IN_PROGRESS].contains(&status) {
                return self.settle(*comm, status, doing);
            }
        }
        // SAFETY: it takes nothing. What is queued now comes behind the group only when it is no longer in progress.
        self.settle(*comm, unsafe { self.nccl.ncclGroupEnd() }, doing)
    }

    /// Ends the exchange, when all ranks do.
    fn finish(&self, stream: &Stream) -> Result<()> {
        stream.synchronize()?;
        let mut comm = self.lock();
        // SAFETY: it lives, and nothing of it is under way.
        self.settle(*comm, unsafe { self.nccl.ncclCommFinalize(*comm) }, "ending the exchange")?;
        let ended = std::mem::replace(&mut *comm, ptr::null_mut());
        // SAFETY: finalized, and used no more.
        let status = unsafe { self.nccl.ncclCommDestroy(ended) };
        // SAFETY: no communicator.
        let describe = |status| unsafe { self.nccl.describe(status, ptr::null_mut()) };
        status.ok().map_err(|status| Error::other(format!("nccl: ending the exchange failed: {}", describe(status))))
    }
}

impl Alarm for Communicator {
    fn check(&self) -> Result<()> {
        let comm = self.lock();
        if comm.is_null() {
            return Ok(());
        }
        match self.state(*comm) {
            IN_PROGRESS => Ok(()),
            status => self.settle(*comm, status, "the exchange with other ranks' GPUs"),
        }
    }
}

/// One call of a group, on addresses of f32.
enum Call {
    AllGather {
        own: u64,
        all: u64,
        len: usize,
    },
    /// `own` matters on rank `root` only.
    Broadcast {
        root: usize,
        own: u64,
        to: u64,
        len: usize,
    },
    Sum {
        place: u64,
        len: usize,
    },
}

impl Call {
    /// # Safety
    /// At the addresses are `len` numbers, for each rank where all are gathered.
    unsafe fn make(self, nccl: &Nccl, comm: Comm, stream: &Stream) -> Status {
        let (from, to) = (|address: u64| address as *const c_void, |address: u64| address as *mut c_void);
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Call::AllGather { own, all, len } => {
                    nccl.ncclAllGather(from(own), to(all), len, F32, comm, stream.raw())
                }
                Call::Broadcast { root, own, to: place, len } => {
                    nccl.ncclBroadcast(from(own), to(place), len, F32, root as c_int, comm, stream.raw())
                }
                Call::Sum { place, len } => {
                    nccl.ncclAllReduce(from(place), to(place), len, F32, SUM, comm, stream.raw())
                }
            }
        }
    }
}

impl<E: CudaElement> Cuda<E> {
    fn communicator(&self) -> &Communicator {
        self.device.communicator.get().expect("whoever exchanges has connected")
    }
}

impl<E: CudaElement> Collectives<Self> for Cuda<E> {
    /// Where ranks have different numbers, as many broadcasts as ranks, in a group: NCCL's own gathering wants equal ones, so
    /// there would have to be padding, and copies of everything without it. All of them move as many bytes as one gathering.
    fn all_gather(&self, own: &Tensor<Self, f32>, lens: &[usize], all: &mut Tensor<Self, f32>) -> Result<()> {
        let communicator = self.communicator();
        let Communicator { rank, size, .. } = *communicator;
        assert!(lens.len() == size && lens[rank] == own.len(), "nccl: {lens:?} elements of {size} ranks");
        assert_eq!(lens.iter().sum::<usize>(), all.len(), "nccl: elements of all ranks");
        let (own, all) = (own.buffer().address(), all.buffer_mut().address());
        let calls = if lens.iter().all(|len| *len == lens[0]) {
            vec![Call::AllGather { own, all, len: lens[0] }]
        } else {
            let starts = lens.iter().scan(0, |end, len| Some(std::mem::replace(end, *end + len)));
            let broadcast = |(root, start)| Call::Broadcast { root, own, to: all + 4 * start as u64, len: lens[root] };
            starts.enumerate().map(broadcast).filter(|call| !matches!(call, Call::Broadcast { len: 0, .. })).collect()
        };
        communicator.group(&self.device.compute, "gathering", calls)
    }

    fn all_reduce(&self, tensors: &mut [&mut Tensor<Self, f32>]) -> Result<()> {
        let calls = tensors.iter_mut().filter(|tensor| !tensor.is_empty()).map(|tensor| {
            let len = tensor.len();
            Call::Sum { place: tensor.buffer_mut().address(), len }
        });
        self.communicator().group(&self.device.compute, "adding up", calls)
    }

    fn finish(&self) -> Result<()> {
        self.communicator().finish(&self.device.compute)
    }
}
