//! Messages of a command while it works, on standard error: bars on a terminal, lines everywhere else, nothing if
//! quiet.

use crate::error::printable;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

static QUIET: AtomicBool = AtomicBool::new(false);

/// Switches messages off, except those of [`say_always`].
pub fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// Prints one line, unless quiet.
pub fn say(text: &str) {
    if !QUIET.load(Ordering::Relaxed) {
        say_always(text);
    }
}

/// Prints one line, even if quiet. A closed pipe (`hbt train 2>&1 | head`) does not stop the work.
pub fn say_always(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", printable(text));
}

/// A bar of `total` items, if standard error is a terminal.
pub fn bar(total: u64, template: &str) -> Option<ProgressBar> {
    let shown = io::stderr().is_terminal() && !QUIET.load(Ordering::Relaxed);
    let style = ProgressStyle::with_template(template).expect("templates are part of the program");
    shown.then(|| ProgressBar::new(total).with_style(style))
}

/// A bar for work that is counted in items, such as tokenizing; at the end one line, on a terminal or not.
pub struct Counter {
    bar: Option<ProgressBar>,
    what: &'static str,
    start: Instant,
}

impl Counter {
    /// A counter of `total` items; `what` is a past participle that says what is done to them.
    pub fn new(what: &'static str, total: u64) -> Self {
        let bar = bar(total, "{prefix} {bar:16} {pos}/{len} {eta} left").map(|bar| bar.with_prefix(what));
        Counter { bar, what, start: Instant::now() }
    }

    /// Shows that `done` of `total` items are done.
    pub fn set(&self, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        }
    }

    /// Replaces the bar by one line: the work, `detail`, and the seconds that it took.
    pub fn finish(&self, detail: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        say(&format!("{} {detail} in {:.1} s", self.what, self.start.elapsed().as_secs_f64()));
    }
}
