//! MPI libraries, and UCX below them, take signals when they begin: hangups, bus errors, aborts (tried: MPICH 5.0.2 takes
//! SIGHUP and SIGBUS, Open MPI 5.0.11 SIGABRT and SIGFPE, too). Those that hbt has a use for are given back: a request to
//! stop, and files that are cut short while they are mapped. SIGUSR1, by which MPICH hears of processes that are gone, is
//! left to it.

#[cfg(unix)]
pub use unix::kept;

#[cfg(unix)]
mod unix {
    use libc::{SIGABRT, SIGBUS, SIGFPE, SIGHUP, SIGILL, SIGINT, SIGQUIT, SIGSEGV, SIGTERM, c_int};
    use std::mem::MaybeUninit;
    use std::ptr::{null, null_mut};

    const KEPT: [c_int; 9] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGABRT];

    /// What `f` returns, with the actions of signals as they were before.
    pub fn kept<T>(f: impl FnOnce() -> T) -> T {
        let before = KEPT.map(|signal| {
            let mut action = MaybeUninit::<libc::sigaction>::zeroed();
            // SAFETY: the system writes the action to a place of its type; nothing is changed.
            let is_known = unsafe { libc::sigaction(signal, null(), action.as_mut_ptr()) } == 0;
            (signal, action, is_known)
        });
        let answer = f();
        for (signal, action, _) in before.iter().filter(|(_, _, is_known)| *is_known) {
            // SAFETY: the action is the one that the system gave.
            unsafe { libc::sigaction(*signal, action.as_ptr(), null_mut()) };
        }
        answer
    }
}

#[cfg(not(unix))]
pub fn kept<T>(f: impl FnOnce() -> T) -> T {
    f()
}

#[cfg(all(test, unix))]
mod tests {
    use super::kept;
    use std::mem::MaybeUninit;
    use std::ptr::{null, null_mut};

    fn action() -> usize {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: the system writes the action to a place of its type.
        unsafe {
            assert_eq!(libc::sigaction(libc::SIGHUP, null(), action.as_mut_ptr()), 0);
            action.assume_init().sa_sigaction
        }
    }

    #[test]
    fn who_takes_a_signal_does_not_keep_it() {
        let before = action();
        let other = if before == libc::SIG_IGN { libc::SIG_DFL } else { libc::SIG_IGN };
        kept(|| {
            // SAFETY: an action of zeros, but for what it does.
            unsafe {
                let mut taken = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
                taken.sa_sigaction = other;
                assert_eq!(libc::sigaction(libc::SIGHUP, &taken, null_mut()), 0);
            }
            assert_eq!(action(), other);
        });
        assert_eq!(action(), before);
    }
}
