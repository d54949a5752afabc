//! The learning rate over a run: linear warm-up, then constant, linear or cosine decay.

use crate::{Error, Result};
use std::f64::consts::PI;

crate::choices::choices! {
    /// Course of the learning rate after the warm-up.
    LrSchedule {
        /// Falls linearly to 0.
        Linear = "linear",
        /// Falls to 0 along half a period of the cosine.
        Cosine = "cosine",
        /// Stays constant.
        Constant = "constant",
    }
}

/// The factor of the learning rate at every step of a run, as transformers' `get_*_schedule_with_warmup` define it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    kind: LrSchedule,
    warmup_steps: u64,
    total_steps: u64,
}

impl Schedule {
    /// The schedule of a run of `total_steps`, the first `ceil(warmup_ratio * total_steps)` of which warm up.
    ///
    /// # Errors
    /// If `warmup_ratio` is not in `0..=1`.
    pub fn new(kind: LrSchedule, warmup_ratio: f64, total_steps: u64) -> Result<Self> {
        if !(0.0..=1.0).contains(&warmup_ratio) {
            let message = format!("{warmup_ratio} is no share of the steps; set it from 0 to 1");
            return Err(Error::config("warmup_ratio", message));
        }
        let warmup_steps = (warmup_ratio * total_steps as f64).ceil() as u64;
        Ok(Schedule { kind, warmup_steps, total_steps })
    }

    /// Whether the factor is 0 at every step, so that nothing is learned.
    pub fn is_idle(&self) -> bool {
        (0..self.total_steps.min(2)).all(|step| self.factor(step) == 0.0)
    }

    /// Factor of the learning rate at `step`, the number of updates made before it.
    ///
    /// With a warm-up the first update has factor 0, as in transformers.
    pub fn factor(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return step as f64 / self.warmup_steps as f64;
        }
        let decay_steps = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        let progress = ((step - self.warmup_steps) as f64 / decay_steps as f64).min(1.0);
        match self.kind {
            LrSchedule::Constant => 1.0,
            LrSchedule::Linear => 1.0 - progress,
            LrSchedule::Cosine => 0.5 * (1.0 + (PI * progress).cos()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten learning rates, as transformers' own tests list them for a base of 10.
    fn check(kind: LrSchedule, warmup_ratio: f64, expected: [f64; 10]) {
        let schedule = Schedule::new(kind, warmup_ratio, 10).unwrap();
        for (step, expected) in (0..).zip(expected) {
            let rate = 10.0 * schedule.factor(step);
            assert!((rate - expected).abs() < 0.01, "{kind}, step {step}: {rate} for {expected}");
        }
    }

    #[test]
    fn agrees_with_the_values_in_transformers_tests() {
        check(LrSchedule::Constant, 0.0, [10.0; 10]);
        check(LrSchedule::Constant, 0.4, [0.0, 2.5, 5.0, 7.5, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0]);
        check(LrSchedule::Linear, 0.2, [0.0, 5.0, 10.0, 8.75, 7.5, 6.25, 5.0, 3.75, 2.5, 1.25]);
        check(LrSchedule::Cosine, 0.2, [0.0, 5.0, 10.0, 9.61, 8.53, 6.91, 5.0, 3.08, 1.46, 0.38]);
    }

    #[test]
    fn ends_at_zero_and_stays_there() {
        for kind in [LrSchedule::Linear, LrSchedule::Cosine] {
            let schedule = Schedule::new(kind, 0.1, 60).unwrap();
            assert!(schedule.factor(59) > 0.0);
            assert_eq!(schedule.factor(60), 0.0);
            assert_eq!(schedule.factor(1000), 0.0);
        }
    }

    #[test]
    fn warm_up_rounds_up_and_may_take_the_whole_run() {
        // ceil(0.1 * 15) = 2 steps.
        assert_eq!(Schedule::new(LrSchedule::Linear, 0.1, 15).unwrap().factor(1), 0.5);
        let all = Schedule::new(LrSchedule::Cosine, 1.0, 4).unwrap();
        assert_eq!([0, 1, 2, 3, 4, 5].map(|step| all.factor(step)), [0.0, 0.25, 0.5, 0.75, 1.0, 0.0]);
    }

    #[test]
    fn a_single_step_that_warms_up_is_idle() {
        let is_idle = |ratio, steps| Schedule::new(LrSchedule::Linear, ratio, steps).unwrap().is_idle();
        assert!(is_idle(0.1, 1) && is_idle(1.0, 1));
        assert!(!is_idle(0.0, 1) && !is_idle(0.1, 2) && !is_idle(1.0, 2));
    }

    #[test]
    fn bad_input_is_named() {
        for ratio in [-0.1, 1.1, f64::NAN] {
            let message = Schedule::new(LrSchedule::Linear, ratio, 10).unwrap_err().to_string();
            assert!(message.starts_with(&format!("warmup_ratio: {ratio} ")), "{message}");
        }
        let message = "polynomial".parse::<LrSchedule>().unwrap_err();
        assert_eq!(message, "unknown word \"polynomial\"; use one of linear, cosine, constant");
    }
}
