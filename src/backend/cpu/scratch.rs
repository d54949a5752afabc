//! Working memory of operations: taken from the calling thread's list and put back, so that it is allocated in the
//! first steps of a training run and never again. Without it, freed large blocks go back to the system, which has to
//! clear every page again: 5 to 16 % of a step before this module.

use std::cell::Cell;

thread_local! {
    /// Buffers that no call of this thread holds at present.
    static FREE: Cell<Vec<Vec<f32>>> = const { Cell::new(Vec::new()) };
}

/// Runs `f` on `len` values of unspecified content: the last user's are still there.
///
/// Calls may be nested. This happens when a thread that waits for others takes up a task of another operation: a held
/// buffer is not in the list, so the task gets memory of its own.
pub fn with<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = change(Vec::pop).unwrap_or_default();
    if buffer.len() < len {
        // The old values need not be copied to the new place.
        buffer.clear();
        buffer.resize(len, 0.0);
    }
    let result = f(&mut buffer[..len]);
    change(|free| free.push(buffer));
    result
}

fn change<R>(f: impl FnOnce(&mut Vec<Vec<f32>>) -> R) -> R {
    let mut free = FREE.take();
    let result = f(&mut free);
    FREE.set(free);
    result
}

#[cfg(test)]
mod tests {
    use super::with;

    #[test]
    fn nested_calls_share_nothing_and_later_calls_find_the_memory_again() {
        let places = |n: usize| {
            with(n, |outer| {
                outer.fill(1.0);
                with(n, |inner| inner.fill(2.0));
                assert!(outer.iter().all(|&v| v == 1.0));
                outer.as_ptr() as usize
            })
        };
        places(1000);
        let first = places(1000);
        places(10);
        // The two buffers alternate: the inner one is on top of the list when the outer one is put back last.
        assert_eq!(first, places(1000));
    }
}
