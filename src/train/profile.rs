//! `--profile-steps`: the steps that a profiler or a trace records.

use crate::backend::Backend;
use crate::progress::say;
use crate::{Error, Result, trace};
use std::ops::Range;

/// Switches profilers and ranges on for the chosen steps, and off after them.
pub(super) struct Profiler {
    /// The chosen steps, if any.
    steps: Option<Range<u64>>,
    is_on: bool,
}

impl Profiler {
    /// A profiler for the steps `steps`, its end excluded; `remaining` are the steps that the run still has to do.
    ///
    /// # Errors
    /// If none of the chosen steps remains.
    pub fn new(steps: Option<&Range<u64>>, remaining: Range<u64>) -> Result<Self> {
        let Some(steps) = steps else { return Ok(Profiler { steps: None, is_on: false }) };
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

    /// Called before step `step`.
    pub fn before_step<B: Backend>(&mut self, backend: &B, step: u64) -> Result<()> {
        match &self.steps {
            Some(steps) if !self.is_on && steps.contains(&step) => self.switch(backend, true),
            _ => Ok(()),
        }
    }

    /// Called after step `step`.
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
