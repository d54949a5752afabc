//! Libraries that panic on files that are not as they expect.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

/// Calls `f`, in which a panic is an error. The crates tokenizers and parquet take much of what a file says for granted,
/// and panic where it does not hold ("no entry found for key"). That is a fault of the file, not of hbt. What a panic
/// leaves behind must not be used: of a tokenizer that failed to load or a file that failed to be read, nothing is;
/// encoding changes nothing in a tokenizer but caches.
pub(super) fn guarded<T>(f: impl FnOnce() -> std::result::Result<T, String>) -> std::result::Result<T, String> {
    thread_local!(static IS_SILENT: Cell<bool> = const { Cell::new(false) });
    static HOOK: Once = Once::new();
    // The hook is the whole process's, so it stays, and is silent only for panics that are caught here.
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !IS_SILENT.get() {
                usual(info)
            }
        }));
    });
    let was_silent = IS_SILENT.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(f));
    IS_SILENT.set(was_silent);
    result.unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panics");
        Err(message.lines().next().unwrap_or_default().to_owned())
    })
}
