//! Where the time goes: ranges for step, phase, layer and operation, named as in the code.
//!
//! A range begins where its guard is made and ends where it is dropped, so the ranges of a thread nest:
//!
//! ```text
//! step 12
//!   forward                  feed, forward, loss, backward, optimizer; evaluate, tokenize, search, save
//!     embedding_forward
//!     layer 0
//!       gemm                 every operation of the backend, by its method's name
//!       attention_forward
//! ```
//!
//! There are two sinks. [`write_chrome_trace`] writes what was [recorded](record) as a file for Perfetto or
//! `chrome://tracing`. A profiler that starts hbt (`nsys`, `ncu --nvtx`) is told of every range as it begins and ends
//! ([`connect_profiler`]); on a GPU it shows beside each range the kernels that were launched in it. With neither, a range
//! costs one relaxed load and a branch that is never taken.

mod chrome;
mod nvtx;

pub use chrome::write_chrome_trace;

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU8, Ordering};

/// Bit of each sink.
const CHROME: u8 = 1;
const NVTX: u8 = 2;

/// The sinks that exist.
static SINKS: AtomicU8 = AtomicU8::new(0);
/// The sinks that a new range goes to: all of them, or none while ranges are [switched off](set_active).
static ACTIVE: AtomicU8 = AtomicU8::new(0);

/// Keeps all ranges from now on in memory, for [`write_chrome_trace`].
pub fn record() {
    chrome::start();
    add(CHROME);
}

/// From now on reports all ranges to the profiler that started this process, if one did. Profilers give their library
/// in the environment variable `NVTX_INJECTION64_PATH`.
///
/// # Errors
/// If the profiler's library cannot be used.
pub fn connect_profiler() -> crate::Result<()> {
    if nvtx::connect()? {
        add(NVTX);
    }
    Ok(())
}

fn add(sink: u8) {
    ACTIVE.store(SINKS.fetch_or(sink, Ordering::Relaxed) | sink, Ordering::Relaxed);
}

/// Whether [active](set_active) ranges go anywhere.
pub fn has_sink() -> bool {
    SINKS.load(Ordering::Relaxed) != 0
}

/// Switches new ranges off or on, in all threads. Open ranges are not affected.
pub fn set_active(on: bool) {
    let sinks = if on { SINKS.load(Ordering::Relaxed) } else { 0 };
    ACTIVE.store(sinks, Ordering::Relaxed);
}

/// Level of a range; a category in the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RangeKind {
    Step,
    Phase,
    Layer,
    Op,
}

impl RangeKind {
    fn name(self) -> &'static str {
        match self {
            RangeKind::Step => "step",
            RangeKind::Phase => "phase",
            RangeKind::Layer => "layer",
            RangeKind::Op => "op",
        }
    }
}

/// Description of a range. Displayed, it is the range's name.
#[derive(Clone, Copy, Debug)]
struct Label {
    kind: RangeKind,
    name: &'static str,
    /// Number that completes the name, if one name stands for several things.
    number: Option<u64>,
    n_tokens: Option<usize>,
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        self.number.map_or(Ok(()), |number| write!(f, " {number}"))
    }
}

/// `step 12`: a whole step, the first being 1, on a batch of `n_tokens` tokens.
#[inline]
pub fn step(number: u64, n_tokens: usize) -> Range {
    Range::open(Label { kind: RangeKind::Step, name: "step", number: Some(number), n_tokens: Some(n_tokens) })
}

/// A part of a step, or of the work between steps.
#[inline]
pub fn phase(name: &'static str) -> Range {
    Range::open(Label { kind: RangeKind::Phase, name, number: None, n_tokens: None })
}

/// A part of a step, on `n_tokens` tokens.
#[inline]
pub fn phase_on(name: &'static str, n_tokens: usize) -> Range {
    Range::open(Label { kind: RangeKind::Phase, name, number: None, n_tokens: Some(n_tokens) })
}

/// `layer 3`: one of the encoder's layers, the first being 0.
#[inline]
pub fn layer(index: usize) -> Range {
    Range::open(Label { kind: RangeKind::Layer, name: "layer", number: Some(index as u64), n_tokens: None })
}

/// An operation of the backend.
#[inline]
pub fn op(name: &'static str) -> Range {
    Range::open(Label { kind: RangeKind::Op, name, number: None, n_tokens: None })
}

/// An open range. Ends when it is dropped, on the thread that began it.
#[must_use = "a range ends where its guard is dropped"]
pub struct Range {
    /// The sinks that its beginning was reported to.
    sinks: u8,
    /// Index in the thread's record.
    index: Option<usize>,
    _not_send: PhantomData<*const ()>,
}

impl Range {
    #[inline]
    fn open(label: Label) -> Self {
        match ACTIVE.load(Ordering::Relaxed) {
            0 => Range { sinks: 0, index: None, _not_send: PhantomData },
            sinks => Self::open_in(sinks, label),
        }
    }

    #[cold]
    fn open_in(sinks: u8, label: Label) -> Self {
        if sinks & NVTX != 0 {
            nvtx::push(&label);
        }
        // Last, so that the profiler's time counts as that of the surrounding range.
        let index = if sinks & CHROME != 0 { chrome::begin(label) } else { None };
        Range { sinks, index, _not_send: PhantomData }
    }

    #[cold]
    fn close(&self) {
        if let Some(index) = self.index {
            chrome::end(index);
        }
        if self.sinks & NVTX != 0 {
            nvtx::pop();
        }
    }
}

impl Drop for Range {
    #[inline]
    fn drop(&mut self) {
        if self.sinks != 0 {
            self.close();
        }
    }
}
