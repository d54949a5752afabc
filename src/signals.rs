//! Signals of Unix. One that was ignored when hbt began stays ignored: `nohup` says so of hangups, and shells of Ctrl-C for
//! jobs in the background of a script.

use crate::{Error, Result};

/// Makes a write beyond the limit on the size of files (`ulimit -f`) an error, where by default it would end the process.
///
/// Call it at the start of a program.
pub fn let_large_writes_fail() {
    #[cfg(unix)]
    unix::ignore(rustix::process::Signal::XFSZ);
}

/// Calls `handler`, on a thread of its own, at each Ctrl-C, hangup and request to terminate, except signals that are ignored.
///
/// # Errors
/// If the system refuses it.
pub fn on_interrupt(handler: impl FnMut() + Send + 'static) -> Result<()> {
    #[cfg(unix)]
    let ignored: Vec<_> = unix::INTERRUPTS.into_iter().filter(|&signal| unix::is_ignored(signal)).collect();
    ctrlc::set_handler(handler).map_err(|e| Error::other(format!("cannot handle Ctrl-C: {e}")))?;
    // The handler has been put in the place of these, too.
    #[cfg(unix)]
    ignored.into_iter().for_each(unix::ignore);
    Ok(())
}

#[cfg(unix)]
#[allow(unsafe_code)]
mod unix {
    use rustix::process::Signal;
    use std::ffi::c_int;

    /// All signals for which `ctrlc` sets its handler.
    pub const INTERRUPTS: [Signal; 3] = [Signal::HUP, Signal::INT, Signal::TERM];

    /// Of every Unix: `SIG_IGN`
    const IGNORE: usize = 1;

    unsafe extern "C" {
        /// POSIX: `void (*signal(int sig, void (*func)(int)))(int)`. Sets what a signal does, and returns what it did.
        fn signal(signal: c_int, action: usize) -> usize;
    }

    pub fn ignore(of: Signal) {
        // SAFETY: `SIG_IGN` is an action that every signal but SIGKILL and SIGSTOP can have.
        unsafe { signal(of.as_raw(), IGNORE) };
    }

    pub fn is_ignored(of: Signal) -> bool {
        // SAFETY: the action is `SIG_IGN`, then the one that was there before.
        unsafe {
            let before = signal(of.as_raw(), IGNORE);
            before == IGNORE || {
                signal(of.as_raw(), before);
                false
            }
        }
    }
}
