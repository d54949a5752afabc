//! Weights for a model that is trained from scratch.

use super::{EncoderParams, Init, ParamSpec};
use crate::Result;
use crate::random::{GOLDEN, mix};
use rayon::prelude::*;
use std::f64::consts::TAU;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Draws every parameter as its [`Init`] says and hands it to `f`, one at a time.
///
/// A value depends on the seed, the parameter's name and the value's place alone: the same seed gives the same bytes
/// on the same machine, whatever the number of threads.
///
/// # Errors
/// The first error of `f`.
pub fn random_init<T>(
    specs: &EncoderParams<ParamSpec>,
    seed: u64,
    mut f: impl FnMut(&ParamSpec, Vec<f32>) -> Result<T>,
) -> Result<EncoderParams<T>> {
    specs.try_map(|spec| f(spec, initial_values(spec, seed)))
}

fn initial_values(spec: &ParamSpec, seed: u64) -> Vec<f32> {
    match spec.init {
        Init::Zeros => vec![0.0; spec.len()],
        Init::Ones => vec![1.0; spec.len()],
        Init::Normal { std, zero_row } => {
            let mut values = normal(spec.len(), f64::from(std), xxh3_64_with_seed(spec.name.as_bytes(), seed));
            if let Some(row) = zero_row {
                let row_len = spec.len() / spec.shape[0];
                values[row * row_len..][..row_len].fill(0.0);
            }
            values
        }
    }
}

/// Values 2i and 2i + 1 are a Box-Muller pair made of the hashes of two counters.
fn normal(len: usize, std: f64, key: u64) -> Vec<f32> {
    let mut values = vec![0.0; len];
    values.par_chunks_mut(2).enumerate().for_each(|(i, pair)| {
        let counter = 2 * i as u64;
        let radius = std * (-2.0 * uniform(key, counter).ln()).sqrt();
        let (sin, cos) = (TAU * uniform(key, counter + 1)).sin_cos();
        for (value, direction) in pair.iter_mut().zip([cos, sin]) {
            *value = (radius * direction) as f32;
        }
    });
    values
}

/// In (0, 1], so that its logarithm is finite.
fn uniform(key: u64, counter: u64) -> f64 {
    let bits = mix(key.wrapping_add(counter.wrapping_mul(GOLDEN)));
    ((bits >> 11) + 1) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix64_gives_the_published_sequence() {
        // The first outputs of Vigna's splitmix64.c for the state 1234567.
        let expected = [6457827717110365317u64, 3203168211198807973, 9817491932198370423, 4593380528125082431];
        for (i, &value) in expected.iter().enumerate() {
            let state = 1234567u64.wrapping_add((i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
            assert_eq!(mix(state), value);
        }
    }

    #[test]
    fn normal_values_have_the_moments_and_tails_of_a_normal_distribution() {
        let n = 200_000;
        let values: Vec<f64> = normal(n, 0.02, 7).into_iter().map(|x| f64::from(x) / 0.02).collect();
        let moment = |k: i32| values.iter().map(|x| x.powi(k)).sum::<f64>() / n as f64;
        // Standard errors of these means: sqrt(var(x^k) / n) = 0.0022, 0.0032, 0.0087, 0.022.
        for (k, expected, tolerance) in [(1, 0.0, 0.01), (2, 1.0, 0.015), (3, 0.0, 0.04), (4, 3.0, 0.1)] {
            assert!((moment(k) - expected).abs() < tolerance, "moment {k}: {}", moment(k));
        }
        // P(|x| > 2) = 0.0455 for a normal distribution.
        let beyond = values.iter().filter(|x| x.abs() > 2.0).count() as f64 / n as f64;
        assert!((beyond - 0.0455).abs() < 0.0025, "{beyond}");
        // Pairs and neighbours are independent.
        let lag = values.windows(2).map(|w| w[0] * w[1]).sum::<f64>() / n as f64;
        assert!(lag.abs() < 0.01, "{lag}");
    }
}
