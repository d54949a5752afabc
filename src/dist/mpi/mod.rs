//! MPI, which processes on CPUs exchange by: found and opened at run time (`find.rs`), so that nothing of it is needed to
//! build hbt, and one program runs on MPICH, Intel MPI, Cray's, Open MPI and whatever has the interface of MPI 5.0.
//!
//! About ten functions are called, on bytes (`table.rs`). No sum is taken by MPI: [`peers`](super::peers) says why.
//!
//! A process that ends without [`Wire::finish`], by a signal or with any status, takes the others along: the `mpirun` of
//! MPICH 5.0.2 kills them at once, that of Open MPI 5.0.11 ends them within a second or so. For one that is stopped they wait
//! for ever. Who is to say which it was is [`Watch`](super::Watch); of MPICH's `mpirun` it has the time for that only with
//! `-disable-auto-cleanup`.

#![allow(unsafe_code)]

mod find;
mod signals;
mod table;

pub use find::LIBRARY;

use super::wire::Wire;
use super::{Launcher, Place};
use crate::{Error, Result};
use find::{Found, Surroundings};
use std::fmt;
use table::{Code, Parts};

/// All processes of a run, as MPI knows them.
pub struct Mpi {
    found: Found,
    rank: usize,
    size: usize,
}

/// `MPICH Version: 5.0.2, libmpi.so.12`
impl fmt::Display for Mpi {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}, {}", self.found.calls.version(), self.found.path.display())
    }
}

impl Mpi {
    /// Opens the library and begins: returns when all processes of the world have come.
    ///
    /// # Errors
    /// If there is no library, if it is not the one of the launcher, or if it cannot be used from more than one thread.
    pub fn open(place: &Place) -> Result<Self> {
        let Place { rank, size, launcher, .. } = *place;
        if let Launcher::Torchrun | Launcher::Own = launcher {
            let message = format!("{launcher} starts no MPI: on CPUs start the processes with mpirun, or srun --mpi");
            return Err(Error::other(message));
        }
        let mpi = Mpi { found: find::open(launcher, &Surroundings::current())?, rank, size };
        let has_threads = mpi.check("MPI_Init_thread", signals::kept(|| mpi.found.calls.init()))?;
        let (as_rank, of) = mpi.check("MPI_Comm_rank", mpi.found.calls.rank_and_size())?;
        if (as_rank, of) != (rank, size) {
            return Err(Error::other(format!(
                "{launcher} calls this process rank {rank} of {size}, but MPI ({mpi}) rank {as_rank} of {of}: the library is \
                 not the launcher's; start with the mpirun of that library, or name the other library in {LIBRARY}"
            )));
        }
        if !has_threads {
            return Err(Error::other(format!(
                "MPI ({mpi}) was built for programs of one thread; use one that was built with threads"
            )));
        }
        Ok(mpi)
    }

    /// The answer, or the error that the library's text of `code` says.
    fn check<T>(&self, function: &str, answer: std::result::Result<T, Code>) -> Result<T> {
        answer.map_err(|code| {
            let text = self.found.calls.error_text(code);
            let text: Vec<&str> = text.split_whitespace().collect();
            Error::other(format!("{function} failed: {}; see what the other processes say", text.join(" ")))
        })
    }

    /// Parts of a buffer of `len` bytes, one for each rank.
    fn parts(&self, lens: &[usize], len: usize) -> Parts {
        assert_eq!(lens.len(), self.size, "mpi: a part for each rank");
        Parts::of(lens, len)
    }
}

impl Wire for Mpi {
    fn all_to_all(
        &mut self,
        send: &[u8],
        send_lens: &[usize],
        received: &mut [u8],
        received_lens: &[usize],
    ) -> Result<()> {
        let (parts, of) = (self.parts(send_lens, send.len()), self.parts(received_lens, received.len()));
        self.check("MPI_Alltoallv", self.found.calls.all_to_all(send, &parts, received, &of))
    }

    fn all_gather(&mut self, mine: &[u8], received: &mut [u8], lens: &[usize]) -> Result<()> {
        let parts = self.parts(lens, received.len());
        assert_eq!(mine.len(), lens[self.rank], "mpi: the length of this rank's part");
        self.check("MPI_Allgatherv", self.found.calls.all_gather(mine, received, &parts))
    }

    fn broadcast(&mut self, root: usize, bytes: &mut [u8]) -> Result<()> {
        assert!(root < self.size, "mpi: rank {root} of {}", self.size);
        self.check("MPI_Bcast", self.found.calls.broadcast(root, bytes))
    }

    fn barrier(&mut self) -> Result<()> {
        self.check("MPI_Barrier", self.found.calls.barrier())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.check("MPI_Finalize", self.found.calls.finalize())
    }

    fn abort(&mut self, status: i32) -> ! {
        self.found.calls.abort(status);
        // It does not return, says the standard.
        std::process::exit(status)
    }
}
