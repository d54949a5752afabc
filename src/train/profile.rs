//! `--profile-steps`: which steps a profiler, or a trace, is to see.

use crate::backend::Backend;
use crate::progress::say;
use crate::{Error, Result, trace};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// Steps `A..B`: from A to the one before B, the first being 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileSteps(Range<u64>);

impl FromStr for ProfileSteps {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let parse = || {
            let (first, end) = text.split_once("..")?;
            Some(first.parse().ok()?..end.parse().ok()?)
        };
        let steps: Range<u64> =
            parse().ok_or("write it as A..B, two numbers of steps: 10..13 for steps 10, 11 and 12")?;
        match steps {
            Range { start: 0, .. } => Err("the first step is 1".to_owned()),
            steps if steps.is_empty() => Err(format!("holds no step: B has to be above {}", steps.start)),
            steps => Ok(ProfileSteps(steps)),
        }
    }
}

impl fmt::Display for ProfileSteps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.0.start, self.0.end)
    }
}

/// Switches profilers and ranges on for the chosen steps, and off after them.
pub(super) struct Profiler {
    /// `None` where nobody chose.
    steps: Option<Range<u64>>,
    is_on: bool,
}

impl Profiler {
    /// `remaining` are the steps that the run has before it.
    ///
    /// # Errors
    /// When the run has none of the chosen steps before it.
    pub fn new(steps: Option<&ProfileSteps>, remaining: Range<u64>) -> Result<Self> {
        let Some(ProfileSteps(steps)) = steps else { return Ok(Profiler { steps: None, is_on: false }) };
        let present = steps.start.max(remaining.start)..steps.end.min(remaining.end);
        if present.is_empty() {
            let message = match remaining.is_empty() {
                true => "has no effect: the run has no step before it; take it away".to_owned(),
                false => format!("names none of the steps to come, {} to {}", remaining.start, remaining.end - 1),
            };
            return Err(Error::config("--profile-steps", message));
        }
        Ok(Profiler { steps: Some(present), is_on: false })
    }

    /// Before step `step`.
    pub fn before_step<B: Backend>(&mut self, backend: &B, step: u64) -> Result<()> {
        match &self.steps {
            Some(steps) if !self.is_on && steps.contains(&step) => self.switch(backend, true),
            _ => Ok(()),
        }
    }

    /// After step `step`.
    pub fn after_step<B: Backend>(&mut self, backend: &B, step: u64) -> Result<()> {
        match &self.steps {
            Some(steps) if self.is_on && !steps.contains(&(step + 1)) => self.switch(backend, false),
            _ => Ok(()),
        }
    }

    fn switch<B: Backend>(&mut self, backend: &B, on: bool) -> Result<()> {
        self.is_on = on;
        trace::set_active(on);
        let has_profiler = backend.profiler(on)?;
        if on && !has_profiler && !trace::has_sink() {
            say("nothing to profile with on this device: add --trace FILE to see these steps");
        }
        Ok(())
    }
}
