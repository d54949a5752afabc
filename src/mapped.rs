//! Files mapped into memory for reading.
//!
//! A mapped file that another program cuts short has no bytes to give any more, and the system ends whoever reads them
//! by a signal (SIGBUS) whose default is a core dump without a word. Reading such files instead would cost as much memory
//! as they are long. So the signal is taken: where the address is in a file of [`Mapped`], there is one line that names
//! it, and the program ends as by any other error. What was saved is whole, as after a kill.

use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

/// The bytes of a file.
pub struct Mapped {
    map: Mmap,
    _watch: watch::Watch,
}

impl Mapped {
    /// Maps `file`, which messages call `path`.
    ///
    /// # Errors
    /// If the system cannot map it.
    #[allow(unsafe_code)]
    pub fn new(file: &File, path: &Path) -> io::Result<Self> {
        // SAFETY: the mapping must not change underneath. hbt writes files under a temporary name, renames them when they
        // are whole and never opens them for writing again; any bytes are valid numbers.
        let map = unsafe { Mmap::map(file) }?;
        let _watch = watch::Watch::new(&map, path);
        Ok(Mapped { map, _watch })
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

#[cfg(unix)]
#[allow(unsafe_code)]
mod watch {
    use std::ffi::{c_int, c_void};
    use std::io::IsTerminal;
    use std::mem::MaybeUninit;
    use std::path::Path;
    use std::ptr::null_mut;
    use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
    use std::sync::{Mutex, OnceLock};

    /// A range of addresses, and what is said if it cannot be read. The handler reads it without a lock.
    struct Range {
        /// 0: the place is free.
        start: AtomicUsize,
        end: AtomicUsize,
        message: AtomicPtr<u8>,
        message_len: AtomicUsize,
    }

    /// More than a run has files mapped at once; beyond that a signal is the system's affair.
    static RANGES: [Range; 256] = [const {
        Range {
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            message: AtomicPtr::new(null_mut()),
            message_len: AtomicUsize::new(0),
        }
    }; 256];
    /// Held by whoever looks for a free place.
    static PLACES: Mutex<()> = Mutex::new(());
    /// What was done with the signal before.
    static BEFORE: OnceLock<Option<libc::sigaction>> = OnceLock::new();

    /// As long as it lives, its range is known to the handler.
    pub struct Watch {
        range: Option<&'static Range>,
        /// The handler reads it.
        _message: Box<[u8]>,
    }

    impl Watch {
        pub fn new(bytes: &[u8], path: &Path) -> Self {
            // A line of progress may stand on a terminal.
            let begin = if std::io::stderr().is_terminal() { "\n" } else { "" };
            let message = format!(
                "{begin}error: {}: another program cut it short while it was in use; run the command again\n",
                path.display()
            );
            let mut message = message.into_bytes().into_boxed_slice();
            BEFORE.get_or_init(take_signal);
            let _guard = PLACES.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let range = RANGES.iter().find(|range| range.start.load(Ordering::Relaxed) == 0);
            // The empty have no address to fail at.
            let range = range.filter(|_| !bytes.is_empty());
            if let Some(range) = range {
                let start = bytes.as_ptr() as usize;
                range.end.store(start + bytes.len(), Ordering::Relaxed);
                range.message.store(message.as_mut_ptr(), Ordering::Relaxed);
                range.message_len.store(message.len(), Ordering::Relaxed);
                range.start.store(start, Ordering::Release);
            }
            Watch { range, _message: message }
        }
    }

    impl Drop for Watch {
        fn drop(&mut self) {
            if let Some(range) = self.range {
                range.start.store(0, Ordering::Release);
            }
        }
    }

    /// Sets the handler; returns what was there.
    fn take_signal() -> Option<libc::sigaction> {
        let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_bus_error;
        let mut before = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: a sigaction of zeros is one without flags and with an empty mask; both structs live through the call.
        unsafe {
            let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
            action.sa_sigaction = handler as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            let is_set = libc::sigaction(libc::SIGBUS, &action, before.as_mut_ptr()) == 0;
            is_set.then(|| before.assume_init())
        }
    }

    /// Only what a handler may do: atomic reads, `write`, `_exit` and `sigaction`.
    extern "C" fn on_bus_error(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
        // SAFETY: the system gives a valid `info`; a range's message lives until its start is 0.
        unsafe {
            let at = (*info).si_addr() as usize;
            for range in &RANGES {
                let start = range.start.load(Ordering::Acquire);
                if start != 0 && (start..range.end.load(Ordering::Relaxed)).contains(&at) {
                    let message = range.message.load(Ordering::Relaxed);
                    let _ = libc::write(2, message.cast(), range.message_len.load(Ordering::Relaxed));
                    libc::_exit(1);
                }
            }
            // Somebody else's: on return it happens again, under what was there before.
            let mut default = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
            default.sa_sigaction = libc::SIG_DFL;
            let before = BEFORE.get().and_then(Option::as_ref).unwrap_or(&default);
            libc::sigaction(libc::SIGBUS, before, null_mut());
        }
    }
}

/// Elsewhere the system keeps a mapped file from being cut short.
#[cfg(not(unix))]
mod watch {
    pub struct Watch;

    impl Watch {
        pub fn new(_: &[u8], _: &std::path::Path) -> Self {
            Watch
        }
    }
}
