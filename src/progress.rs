//! What a command says while it works, on standard error: bars on a terminal, lines everywhere, nothing when quiet.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

static QUIET: AtomicBool = AtomicBool::new(false);

/// Says nothing from now on.
pub fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// One line, unless quiet.
pub fn say(text: &str) {
    if !QUIET.load(Ordering::Relaxed) {
        say_always(text);
    }
}

/// One line, also when quiet. Work goes on when nobody reads it any more (`hbt train 2>&1 | head`).
pub fn say_always(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A bar of `total` items, where there is a terminal to draw it on.
pub fn bar(total: u64, template: &str) -> Option<ProgressBar> {
    let shown = io::stderr().is_terminal() && !QUIET.load(Ordering::Relaxed);
    let style = ProgressStyle::with_template(template).expect("templates are part of the program");
    shown.then(|| ProgressBar::new(total).with_style(style))
}

/// A bar for work that is counted in items, such as tokenizing; in the end one line everywhere.
pub struct Counter {
    bar: Option<ProgressBar>,
    what: &'static str,
    start: Instant,
}

impl Counter {
    /// `what` (a past participle) is being done to `total` items.
    pub fn new(what: &'static str, total: u64) -> Self {
        let bar = bar(total, "{prefix} {bar:24} {pos}/{len}  {eta} left").map(|bar| bar.with_prefix(what));
        Counter { bar, what, start: Instant::now() }
    }

    /// `done` of `total` items are behind it.
    pub fn set(&self, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        }
    }

    /// Replaces the bar by one line: what was done to what, and in how many seconds.
    pub fn finish(&self, detail: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        say(&format!("{} {detail} in {:.1} s", self.what, self.start.elapsed().as_secs_f64()));
    }
}
