//! NCCL's functions, of any library of version 2.14 or newer.

use super::{Opened, Status, Toolkit, driver, text};
use cudarc::driver::sys::CUstream;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

/// Environment variable with the library's file, where it is not found by its name.
pub const LIBRARY: &str = "HBT_NCCL_LIBRARY";

/// Environment variable that lets several ranks have one GPU; of NCCL 2.30.
pub const SHARED_GPUS: &str = "NCCL_MULTI_RANK_GPU_ENABLE";

/// The first with communicators that do not block.
const OLDEST: (u32, u32) = (2, 14);

/// `ncclInProgress`
pub const IN_PROGRESS: Status = Status(7);
/// `ncclFloat32`
pub const F32: c_int = 7;
/// `ncclSum`
pub const SUM: c_int = 0;

/// `ncclComm_t`
pub type Comm = *mut c_void;

/// `ncclUniqueId`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct UniqueId(pub [u8; 128]);

/// The first fields of `ncclConfig_t`, all that it had in 2.14. Every NCCL reads as many bytes as the first says, and has its
/// own defaults for what came after the version that the third says (`parseCommConfig` in its `init.cc`).
#[repr(C)]
pub struct Config {
    size: usize,
    magic: c_uint,
    version: c_uint,
    blocking: c_int,
}

impl Config {
    /// Of a communicator whose calls do not wait.
    pub fn non_blocking() -> Self {
        Config { size: size_of::<Config>(), magic: 0xcafe_beef, version: 21400, blocking: 0 }
    }
}

super::functions! {
    /// All of them are in NCCL 2.14.
    Nccl {
        ncclGetVersion(version: *mut c_int) -> Status;
        ncclGetUniqueId(id: *mut UniqueId) -> Status;
        ncclGetErrorString(status: Status) -> *const c_char;
        ncclGetLastError(comm: Comm) -> *const c_char;
        ncclCommInitRankConfig(
            comm: *mut Comm, n_ranks: c_int, id: UniqueId, rank: c_int, config: *mut Config
        ) -> Status;
        ncclCommGetAsyncError(comm: Comm, status: *mut Status) -> Status;
        ncclCommFinalize(comm: Comm) -> Status;
        ncclCommDestroy(comm: Comm) -> Status;
        ncclGroupStart() -> Status;
        ncclGroupEnd() -> Status;
        ncclAllGather(
            send: *const c_void, receive: *mut c_void, count: usize, element: c_int, comm: Comm, stream: CUstream
        ) -> Status;
        ncclBroadcast(
            send: *const c_void,
            receive: *mut c_void,
            count: usize,
            element: c_int,
            root: c_int,
            comm: Comm,
            stream: CUstream
        ) -> Status;
        ncclAllReduce(
            send: *const c_void,
            receive: *mut c_void,
            count: usize,
            element: c_int,
            operation: c_int,
            comm: Comm,
            stream: CUstream
        ) -> Status;
    }
}

impl Nccl {
    /// `unhandled system error (connection refused)`: what the status means, and what the library has last met with.
    ///
    /// # Safety
    /// `comm` is a communicator or null.
    pub unsafe fn describe(&self, status: Status, comm: Comm) -> String {
        // SAFETY: gives a text that stays, or null.
        let name = unsafe { text(self.ncclGetErrorString(status)) };
        let name = name.map_or_else(|| format!("NCCL status {}", status.0), str::to_owned);
        // SAFETY: as above, of a communicator or of none.
        let last = unsafe { text(self.ncclGetLastError(comm)) };
        match last.map(str::trim).filter(|last| !last.is_empty()) {
            Some(last) => format!("{name} ({})", last.split_whitespace().collect::<Vec<_>>().join(" ")),
            None => name,
        }
    }
}

/// The library, or why there is none of use and what to do, as the first half of a sentence.
pub fn get() -> Result<&'static Opened<Nccl>, &'static str> {
    static FOUND: OnceLock<Result<Opened<Nccl>, String>> = OnceLock::new();
    FOUND.get_or_init(open).as_ref().map_err(String::as_str)
}

/// The file that the environment names.
fn named() -> Option<String> {
    std::env::var(LIBRARY).ok().filter(|name| !name.is_empty())
}

fn open() -> Result<Opened<Nccl>, String> {
    let toolkit = Toolkit {
        // Packages have the name with a version, and most of them no other.
        names: |_| match named() {
            Some(name) => vec![name],
            None => vec!["libnccl.so.2".to_owned(), "libnccl.so".to_owned()],
        },
        functions: Nccl::of,
        version: |table: &Nccl| {
            let mut version = 0;
            // SAFETY: writes one int.
            unsafe { table.ncclGetVersion(&mut version) }.ok().ok()?;
            let version = version.unsigned_abs();
            // 21403 for 2.14.3, and up to 2.8 2804 for 2.8.4.
            Some(if version < 10_000 {
                (version / 1000, version / 100 % 10)
            } else {
                (version / 10_000, version / 100 % 100)
            })
        },
        address: |table| table.ncclGetVersion as usize,
    };
    let remedy = remedy();
    match (toolkit.open(2), named()) {
        (Some(Ok(nccl)), _) if nccl.version >= OLDEST => Ok(nccl),
        (Some(Ok(nccl)), _) => Err(format!("NCCL {nccl} is older than 2.14; {remedy}")),
        (Some(Err(why)), _) => Err(format!("{why}, so it is older than NCCL 2.14 or something else; {remedy}")),
        (None, Some(file)) => Err(format!("{LIBRARY} is {file}, which is no NCCL 2 that can be opened; {remedy}")),
        (None, None) => Err(format!("NCCL, by which GPUs exchange, is not there; {remedy}")),
    }
}

/// How to install it: its packages have the major version of CUDA in their names.
fn remedy() -> String {
    let major = driver::load().ok().and_then(|()| driver::version().ok()).map_or(12, |version| version / 1000);
    format!(
        "install it (pip install nvidia-nccl-cu{major}, then put its lib folder on LD_LIBRARY_PATH, or name the file in \
         {LIBRARY})"
    )
}
