//! Retrieval evaluation against hand-computed numbers, naive references and pytrec_eval.

mod compare;
mod encode;
mod metrics;
mod mteb;
mod ranks;
mod report;
mod search;
mod tasks;

/// A reproducible stream of 31-bit numbers.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// Uniform in `0..n`.
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Uniform in [0, 1).
    fn unit(&mut self) -> f64 {
        self.next() as f64 / (1u64 << 31) as f64
    }
}
