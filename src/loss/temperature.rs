//! A temperature that is trained with the model.

/// Largest inverse temperature: that of CLIP (Radford et al., arXiv 2103.00020, section 2.5), where larger ones made
/// training unstable.
const LARGEST_INVERSE: f64 = 100.0;

/// The logarithm of the inverse temperature, updated by Adam without weight decay. It is one number, so it is kept on
/// the host.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LearnedTemperature {
    log_inverse: f64,
    /// Moments of Adam
    m: f64,
    v: f64,
    updates: i32,
}

impl LearnedTemperature {
    /// Starts with `temperature`.
    pub fn new(temperature: f64) -> Self {
        LearnedTemperature { log_inverse: -temperature.ln(), m: 0.0, v: 0.0, updates: 0 }
    }

    /// The divisor of the cosines.
    pub fn temperature(&self) -> f64 {
        (-self.log_inverse).exp()
    }

    /// One update, given the derivative of the loss by the inverse temperature.
    pub fn step(&mut self, d_inv_temperature: f64, learning_rate: f64) {
        const BETA1: f64 = 0.9;
        const BETA2: f64 = 0.999;
        let d = d_inv_temperature * self.log_inverse.exp();
        self.updates += 1;
        self.m = BETA1 * self.m + (1.0 - BETA1) * d;
        self.v = BETA2 * self.v + (1.0 - BETA2) * d * d;
        let (m, v) = (self.m / (1.0 - BETA1.powi(self.updates)), self.v / (1.0 - BETA2.powi(self.updates)));
        // A temperature that was set below the bound keeps its value until its gradient raises it.
        let most = LARGEST_INVERSE.ln().max(self.log_inverse);
        self.log_inverse = (self.log_inverse - learning_rate * m / (v.sqrt() + 1e-8)).min(most);
    }

    /// Whether it can be that of a run after `step` steps.
    pub fn is_of(&self, step: u64) -> bool {
        let is_usable = (self.temperature() as f32).is_normal() && self.m.is_finite() && self.v.is_finite();
        is_usable && self.v >= 0.0 && u64::try_from(self.updates).is_ok_and(|updates| updates <= step)
    }

    /// The whole state, exactly, for a checkpoint.
    pub fn to_bits(self) -> [u64; 4] {
        [self.log_inverse.to_bits(), self.m.to_bits(), self.v.to_bits(), self.updates as u64]
    }

    /// The state that [`LearnedTemperature::to_bits`] returned.
    pub fn from_bits([log_inverse, m, v, updates]: [u64; 4]) -> Self {
        let [log_inverse, m, v] = [log_inverse, m, v].map(f64::from_bits);
        LearnedTemperature { log_inverse, m, v, updates: updates as i32 }
    }
}
