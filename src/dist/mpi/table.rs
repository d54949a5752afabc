//! The functions of MPI that are called, in a library that is there already.
//!
//! MPI fixed for 30 years what its functions are called and not what their arguments are: a communicator is an `int` in
//! MPICH and an address in Open MPI, so that a program works only with the library that it was compiled for. There are
//! three such interfaces today, and their functions have the same shapes but for the handles, which [`Table`] is generic
//! over. All that is sent is bytes, so that three handles are all that is used:
//!
//! | | MPICH (Intel MPI, Cray, MVAPICH) | Open MPI | the standard's, since MPI 5.0 |
//! |---|---|---|---|
//! | library | `libmpi.so.12` | `libmpi.so.40` | `libmpi_abi.so.1` (MPICH 5.0.0: `.0`) |
//! | a handle is | an `int` | the address of a symbol | a number as an address |
//! | `MPI_COMM_WORLD` | `0x44000000` | `ompi_mpi_comm_world` | `0x101` |
//! | `MPI_BYTE` | `0x4c00010d` | `ompi_mpi_byte` | `0x247` |
//! | `MPI_ERRORS_RETURN` | `0x54000001` | `ompi_mpi_errors_return` | `0x143` |
//! | `MPI_THREAD_SERIALIZED` | 2 | 2 | 2048 |
//!
//! The numbers are those of `mpi.h` and `mpi_abi.h` of MPICH 5.0.2 (its ABI initiative has kept them since 3.1) and of
//! `mpi.h` of Open MPI 5.0.11; `MPI_SUCCESS` is 0 in all.

use libloading::Library;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;

/// Most bytes of a text: `MPI_MAX_LIBRARY_VERSION_STRING` of the library with the longest; error texts are shorter.
const MOST_TEXT: usize = 8192;

/// What a function answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub c_int);

impl Code {
    /// Of every MPI: `MPI_SUCCESS`
    pub const SUCCESS: Code = Code(0);

    fn of(code: c_int) -> Result<(), Code> {
        if Code(code) == Code::SUCCESS { Ok(()) } else { Err(Code(code)) }
    }
}

/// A handle that is an address.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Address(*mut c_void);

// SAFETY: a name of something of the library's, which is read by the library alone.
unsafe impl Send for Address {}

impl Address {
    fn of_number(number: usize) -> Self {
        Address(ptr::without_provenance_mut(number))
    }
}

/// Values that each interface has its own of.
pub struct Constants<H> {
    comm_world: H,
    byte: H,
    errors_return: H,
    thread_serialized: c_int,
}

impl Constants<c_int> {
    /// MPICH's.
    pub const MPICH: Self =
        Constants { comm_world: 0x4400_0000, byte: 0x4c00_010d, errors_return: 0x5400_0001, thread_serialized: 2 };
}

impl Constants<Address> {
    /// The standard's: appendix A of MPI 5.0, "Application Binary Interface".
    pub fn standard() -> Self {
        Constants {
            comm_world: Address::of_number(0x101),
            byte: Address::of_number(0x247),
            errors_return: Address::of_number(0x143),
            thread_serialized: 2048,
        }
    }

    /// Open MPI's. The error is the name of a symbol that is missing.
    pub fn open_mpi(library: &Library) -> Result<Self, &'static str> {
        let symbol = |name: &'static str| {
            // SAFETY: the symbol's address is taken, and nothing read from there.
            unsafe { library.get::<*mut c_void>(name) }.map(|symbol| Address(*symbol)).map_err(|_| name)
        };
        Ok(Constants {
            comm_world: symbol("ompi_mpi_comm_world")?,
            byte: symbol("ompi_mpi_byte")?,
            errors_return: symbol("ompi_mpi_errors_return")?,
            thread_serialized: 2,
        })
    }
}

macro_rules! table {
    ($($name:ident($($arg:ident: $type:ty),*);)*) => {
        /// Functions and constants of an interface whose handles are `H`.
        #[allow(non_snake_case)]
        pub struct Table<H> {
            $($name: unsafe extern "C" fn($($type),*) -> c_int,)*
            constants: Constants<H>,
        }

        impl<H: Copy> Table<H> {
            /// Looks the functions up. The error is the name of one that is missing.
            pub fn of(library: &'static Library, constants: Constants<H>) -> Result<Self, &'static str> {
                // SAFETY: the types are those of the interface that the constants are of, and the library stays open.
                unsafe {
                    Ok(Self {
                        $($name: *library.get(stringify!($name)).map_err(|_| stringify!($name))?,)*
                        constants,
                    })
                }
            }
        }
    };
}

table! {
    MPI_Init_thread(argc: *mut c_int, argv: *mut *mut *mut c_char, required: c_int, provided: *mut c_int);
    MPI_Comm_set_errhandler(comm: H, handler: H);
    MPI_Comm_rank(comm: H, rank: *mut c_int);
    MPI_Comm_size(comm: H, size: *mut c_int);
    MPI_Alltoallv(
        send: *const c_void, send_lens: *const c_int, send_starts: *const c_int, send_type: H,
        received: *mut c_void, received_lens: *const c_int, received_starts: *const c_int, received_type: H, comm: H
    );
    MPI_Allgatherv(
        mine: *const c_void, len: c_int, mine_type: H,
        received: *mut c_void, lens: *const c_int, starts: *const c_int, received_type: H, comm: H
    );
    MPI_Bcast(bytes: *mut c_void, len: c_int, of_type: H, root: c_int, comm: H);
    MPI_Barrier(comm: H);
    MPI_Finalize();
    MPI_Abort(comm: H, status: c_int);
    MPI_Error_string(code: c_int, text: *mut c_char, len: *mut c_int);
    MPI_Get_library_version(text: *mut c_char, len: *mut c_int);
}

/// Lengths of parts that lie end to end, and where each begins, as MPI wants them.
pub struct Parts {
    lens: Vec<c_int>,
    starts: Vec<c_int>,
}

impl Parts {
    /// Parts of these lengths, which together fill `len` bytes.
    ///
    /// # Panics
    /// If they do not, or are too many bytes.
    pub fn of(lens: &[usize], len: usize) -> Self {
        assert_eq!(lens.iter().sum::<usize>(), len, "mpi: parts of a buffer");
        let int = |n: usize| c_int::try_from(n).expect("mpi: a message of at most 2^31 - 1 bytes");
        let starts = lens.iter().scan(0, |start, len| Some(std::mem::replace(start, *start + len)));
        Parts { starts: starts.map(int).collect(), lens: lens.iter().copied().map(int).collect() }
    }

    fn len(&self) -> usize {
        self.lens.len()
    }
}

/// The functions, whatever their handles are. All of `MPI_COMM_WORLD`.
///
/// # Safety of the implementation
/// It is called from one thread at a time, after [`Calls::init`] and before [`Calls::finalize`], except for
/// [`Calls::version`]; the lists of [`Parts`] have one for each rank.
pub trait Calls: Send {
    /// Begins. Returns whether any thread may call, one at a time. Errors from here on are answered.
    fn init(&self) -> Result<bool, Code>;
    /// This process's number and the number of all.
    fn rank_and_size(&self) -> Result<(usize, usize), Code>;
    /// See [`Wire::all_to_all`](crate::dist::wire::Wire::all_to_all).
    fn all_to_all(&self, send: &[u8], parts: &Parts, received: &mut [u8], of: &Parts) -> Result<(), Code>;
    /// See [`Wire::all_gather`](crate::dist::wire::Wire::all_gather).
    fn all_gather(&self, mine: &[u8], received: &mut [u8], parts: &Parts) -> Result<(), Code>;
    /// See [`Wire::broadcast`](crate::dist::wire::Wire::broadcast).
    fn broadcast(&self, root: usize, bytes: &mut [u8]) -> Result<(), Code>;
    /// See [`Wire::barrier`](crate::dist::wire::Wire::barrier).
    fn barrier(&self) -> Result<(), Code>;
    /// Ends.
    fn finalize(&self) -> Result<(), Code>;
    /// Ends all processes.
    fn abort(&self, status: i32);
    /// What the library says of a code.
    fn error_text(&self, code: Code) -> String;
    /// The library's name and version, on one line. May be asked at any time.
    fn version(&self) -> String;
}

impl<H: Copy + Send> Calls for Table<H> {
    fn init(&self) -> Result<bool, Code> {
        let Constants { comm_world, errors_return, thread_serialized, .. } = self.constants;
        let mut provided = 0;
        // SAFETY: arguments of the program need not be given, and the level is written to `provided`; the handles are
        // the library's.
        unsafe {
            Code::of((self.MPI_Init_thread)(ptr::null_mut(), ptr::null_mut(), thread_serialized, &mut provided))?;
            Code::of((self.MPI_Comm_set_errhandler)(comm_world, errors_return))?;
        }
        // Levels ascend in all interfaces.
        Ok(provided >= thread_serialized)
    }

    fn rank_and_size(&self) -> Result<(usize, usize), Code> {
        let (mut rank, mut size) = (0, 0);
        // SAFETY: the handle is the library's, and the answers are written to places of their type.
        unsafe {
            Code::of((self.MPI_Comm_rank)(self.constants.comm_world, &mut rank))?;
            Code::of((self.MPI_Comm_size)(self.constants.comm_world, &mut size))?;
        }
        Ok((rank.unsigned_abs() as usize, size.unsigned_abs() as usize))
    }

    fn all_to_all(&self, send: &[u8], parts: &Parts, received: &mut [u8], of: &Parts) -> Result<(), Code> {
        assert_eq!(parts.len(), of.len(), "mpi: as many parts as ranks");
        let Constants { comm_world, byte, .. } = self.constants;
        let (into, lens, starts) = (received.as_mut_ptr().cast(), of.lens.as_ptr(), of.starts.as_ptr());
        // SAFETY: `Parts` lie within the buffers, and there is one for each rank.
        Code::of(unsafe {
            let (send_lens, send_starts) = (parts.lens.as_ptr(), parts.starts.as_ptr());
            let send = send.as_ptr().cast();
            (self.MPI_Alltoallv)(send, send_lens, send_starts, byte, into, lens, starts, byte, comm_world)
        })
    }

    fn all_gather(&self, mine: &[u8], received: &mut [u8], parts: &Parts) -> Result<(), Code> {
        let Constants { comm_world, byte, .. } = self.constants;
        let len = c_int::try_from(mine.len()).expect("mpi: a message of at most 2^31 - 1 bytes");
        let (into, lens, starts) = (received.as_mut_ptr().cast(), parts.lens.as_ptr(), parts.starts.as_ptr());
        // SAFETY: `Parts` lie within the buffer, and there is one for each rank; what is sent has `len` bytes.
        Code::of(unsafe {
            (self.MPI_Allgatherv)(mine.as_ptr().cast(), len, byte, into, lens, starts, byte, comm_world)
        })
    }

    fn broadcast(&self, root: usize, bytes: &mut [u8]) -> Result<(), Code> {
        let Constants { comm_world, byte, .. } = self.constants;
        let len = c_int::try_from(bytes.len()).expect("mpi: a message of at most 2^31 - 1 bytes");
        // SAFETY: the buffer has `len` bytes.
        Code::of(unsafe { (self.MPI_Bcast)(bytes.as_mut_ptr().cast(), len, byte, root as c_int, comm_world) })
    }

    fn barrier(&self) -> Result<(), Code> {
        // SAFETY: the handle is the library's.
        Code::of(unsafe { (self.MPI_Barrier)(self.constants.comm_world) })
    }

    fn finalize(&self) -> Result<(), Code> {
        // SAFETY: takes nothing.
        Code::of(unsafe { (self.MPI_Finalize)() })
    }

    fn abort(&self, status: i32) {
        // SAFETY: the handle is the library's.
        unsafe { (self.MPI_Abort)(self.constants.comm_world, status) };
    }

    fn error_text(&self, code: Code) -> String {
        // SAFETY: the buffer is longer than any text, and the length is written to a place of its type.
        text(|text, len| unsafe { (self.MPI_Error_string)(code.0, text, len) })
            .unwrap_or_else(|| format!("error {}", code.0))
    }

    fn version(&self) -> String {
        // SAFETY: as above.
        let version = text(|text, len| unsafe { (self.MPI_Get_library_version)(text, len) });
        // How it was built comes behind, in MPICH on lines of its own.
        let version = version.unwrap_or_default();
        let line = version.split(['\n', ',']).next().unwrap_or_default();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// The text that a function of the library writes.
fn text(write: impl FnOnce(*mut c_char, *mut c_int) -> c_int) -> Option<String> {
    let (mut bytes, mut len) = (vec![0_u8; MOST_TEXT + 1], 0);
    Code::of(write(bytes.as_mut_ptr().cast(), &mut len)).ok()?;
    let len = usize::try_from(len).ok()?.min(MOST_TEXT);
    let text = String::from_utf8_lossy(&bytes[..len]);
    Some(text.trim_end_matches('\0').to_owned())
}
