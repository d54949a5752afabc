//! Ranges kept in memory, and the file that Perfetto and `chrome://tracing` load: Google's trace event format.

use super::Label;
use serde_json::json;
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

/// Most ranges that a thread keeps, 150 MB. A long run reaches it, but its first steps are representative.
const MOST_RANGES: usize = 1 << 21;

/// Zero of all times.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);
/// All threads that have had a range.
static THREADS: Mutex<Vec<Arc<Thread>>> = Mutex::new(Vec::new());
/// Number of ranges beyond [`MOST_RANGES`].
static LEFT_OUT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static THREAD: Arc<Thread> = Thread::register();
}

/// A thread's ranges. No other thread reads them before the trace is written, so the lock is free.
struct Thread {
    /// Number of the thread, 1 for the first to have a range.
    id: usize,
    name: String,
    /// Ranges in the order of their beginnings.
    ranges: Mutex<Vec<Recorded>>,
}

/// One range, in nanoseconds since [`EPOCH`].
struct Recorded {
    label: Label,
    begin: u64,
    /// End of the range; `None` while it is open.
    end: Option<u64>,
}

impl Thread {
    fn register() -> Arc<Self> {
        let mut threads = lock(&THREADS);
        let id = threads.len() + 1;
        let name = thread::current().name().map_or_else(|| format!("worker {id}"), str::to_owned);
        let thread = Arc::new(Thread { id, name, ranges: Mutex::default() });
        threads.push(thread.clone());
        thread
    }
}

/// Takes the lock, even if a thread panicked inside it: such a thread leaves consistent data here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> u64 {
    EPOCH.elapsed().as_nanos() as u64
}

/// Sets the zero of times to now.
pub(super) fn start() {
    LazyLock::force(&EPOCH);
}

/// Records the beginning of a range; returns its index, unless the memory for ranges is full.
pub(super) fn begin(label: Label) -> Option<usize> {
    THREAD.with(|thread| {
        let mut ranges = lock(&thread.ranges);
        let index = ranges.len();
        if index == MOST_RANGES {
            LEFT_OUT.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        ranges.push(Recorded { label, begin: now(), end: None });
        Some(index)
    })
}

/// Records the end of the range that `begin` put at `index`.
pub(super) fn end(index: usize) {
    THREAD.with(|thread| lock(&thread.ranges)[index].end = Some(now()));
}

/// Summary of a written trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Number of ranges in the file.
    pub n_ranges: usize,
    /// Number of ranges for which there was no memory.
    pub left_out: usize,
}

/// Writes all recorded ranges as one JSON object. Open ranges end now.
///
/// # Errors
/// Those of `out`.
pub fn write_chrome_trace(out: &mut impl Write) -> io::Result<Written> {
    let pid = std::process::id();
    let program = concat!("hbt ", env!("CARGO_PKG_VERSION"));
    let mut written = Written { n_ranges: 0, left_out: LEFT_OUT.load(Ordering::Relaxed) };
    let about = json!({"program": program, "ranges_left_out": written.left_out});
    writeln!(out, r#"{{"displayTimeUnit":"ms","otherData":{about},"traceEvents":["#)?;
    let named = |what: &str, tid: usize, name: &str| {
        let args = json!({"name": name});
        json!({"ph": "M", "pid": pid, "tid": tid, "name": what, "args": args})
    };
    write!(out, "{}", named("process_name", 0, program))?;
    for thread in lock(&THREADS).iter() {
        write!(out, ",\n{}", named("thread_name", thread.id, &thread.name))?;
        let ranges = lock(&thread.ranges);
        let now = now();
        for Recorded { label, begin, end } in ranges.iter() {
            let duration = Micros(end.unwrap_or(now) - begin);
            let (tid, kind, ts) = (thread.id, label.kind.name(), Micros(*begin));
            write!(
                out,
                ",\n{{\"ph\":\"X\",\"pid\":{pid},\"tid\":{tid},\"ts\":{ts},\"dur\":{duration},\"cat\":\"{kind}\",\
                 \"name\":\"{label}\",\"args\":{{"
            )?;
            let tokens = label.n_tokens.map(|n| ("tokens", n as u64));
            let args = label.number.map(|number| (label.name, number)).into_iter().chain(tokens);
            for (i, (name, value)) in args.enumerate() {
                write!(out, "{}\"{name}\":{value}", if i == 0 { "" } else { "," })?;
            }
            write!(out, "}}}}")?;
        }
        written.n_ranges += ranges.len();
    }
    writeln!(out, "\n]}}")?;
    Ok(written)
}

/// Nanoseconds, displayed as microseconds with all digits, so that ranges nest in the file as they did.
struct Micros(u64);

impl std::fmt::Display for Micros {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}
