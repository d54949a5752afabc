//! Derivatives of a reference by central differences, and the comparison of a gradient with them.

use crate::ops::support::Random;
use crate::tolerance::{UNDERFLOW, stored, stored_sum};
use hbt::backend::Element;

/// Rounding costs 1e-16 / STEP, the third derivative's share STEP^2: both stay far below f32's precision.
const STEP: f64 = 1e-6;

/// `d/dt <cotangent, f(x + t direction)>` at t = 0. The difference is taken output by output before it is summed, so
/// that large sums do not swallow it.
pub fn directional(f: impl Fn(&[f64]) -> Vec<f64>, x: &[f64], direction: &[f64], cotangent: &[f64]) -> f64 {
    let at = |t: f64| f(&x.iter().zip(direction).map(|(x, u)| x + t * u).collect::<Vec<_>>());
    let (above, below) = (at(STEP), at(-STEP));
    assert_eq!(above.len(), cotangent.len(), "the cotangent has the size of the result");
    above.iter().zip(&below).zip(cotangent).map(|((a, b), c)| c * (a - b)).sum::<f64>() / (2.0 * STEP)
}

/// Checks `got`, the gradient of `<cotangent, f(x)>` at `x`, along two random directions and at single elements: at
/// all of them where there are few. Errors count relative to the gradient's largest element, but for the rounding that
/// storing each element as a `T` takes.
#[track_caller]
pub fn assert_gradient<T: Element>(
    what: &str,
    f: impl Fn(&[f64]) -> Vec<f64>,
    x: &[f64],
    cotangent: &[f64],
    got: &[f64],
    tolerance: f64,
) {
    assert_gradient_each::<T>(what, f, x, cotangent, got, tolerance, |_| 0.0);
}

/// [`assert_gradient`] that allows each element an additional error, which `more` gives for its index.
#[track_caller]
pub fn assert_gradient_each<T: Element>(
    what: &str,
    f: impl Fn(&[f64]) -> Vec<f64>,
    x: &[f64],
    cotangent: &[f64],
    got: &[f64],
    tolerance: f64,
    more: impl Fn(usize) -> f64,
) {
    assert_along_directions_each::<T>(what, &f, x, cotangent, got, tolerance, &more);
    let largest = largest(got);
    let mut random = Random::new(x.len() as u64);
    for i in some_of(x.len(), &mut random) {
        let mut direction = vec![0.0; x.len()];
        direction[i] = 1.0;
        let expected = directional(&f, x, &direction, cotangent);
        assert_within(
            &format!("{what}, element {i}"),
            got[i],
            expected,
            stored::<T>(expected, tolerance * largest + more(i)),
        );
    }
}

/// The part of [`assert_gradient`] that costs four calls of `f` whatever the size of `x`.
#[track_caller]
pub fn assert_along_directions<T: Element>(
    what: &str,
    f: impl Fn(&[f64]) -> Vec<f64>,
    x: &[f64],
    cotangent: &[f64],
    got: &[f64],
    tolerance: f64,
) {
    assert_along_directions_each::<T>(what, f, x, cotangent, got, tolerance, |_| 0.0);
}

/// The same part of [`assert_gradient_each`].
#[track_caller]
pub fn assert_along_directions_each<T: Element>(
    what: &str,
    f: impl Fn(&[f64]) -> Vec<f64>,
    x: &[f64],
    cotangent: &[f64],
    got: &[f64],
    tolerance: f64,
    more: impl Fn(usize) -> f64,
) {
    assert_eq!(got.len(), x.len(), "{what}: size of the gradient");
    assert!(got.iter().all(|g| g.is_finite()), "{what}: not finite");
    let mut random = Random::new(x.len() as u64 + 1);
    for _ in 0..2 {
        let direction = random.normals(x.len());
        let expected = directional(&f, x, &direction, cotangent);
        let along = got.iter().zip(&direction).map(|(g, u)| g * u).sum::<f64>();
        let length = direction.iter().map(|u| u * u).sum::<f64>().sqrt();
        // Independent errors of single elements add up like the direction's length.
        let more = direction.iter().enumerate().map(|(i, u)| (u * more(i)).powi(2)).sum::<f64>().sqrt();
        let allowed = tolerance * largest(got) * length + stored_sum::<T>(got, &direction) + more;
        assert_within(&format!("{what}, along a direction"), along, expected, allowed);
    }
}

fn largest(x: &[f64]) -> f64 {
    x.iter().fold(0.0, |a, v| a.max(v.abs()))
}

#[track_caller]
fn assert_within(what: &str, got: f64, expected: f64, tolerance: f64) {
    let error = (got - expected).abs();
    // Turned round so that NaN fails.
    assert!(
        error <= tolerance + UNDERFLOW,
        "{what}: {got:e} for {expected:e}, off by {error:e}, allowed {tolerance:e}"
    );
}

/// All of `0..n` where that is cheap, else the ends and a few between.
fn some_of(n: usize, random: &mut Random) -> Vec<usize> {
    match n {
        0..=64 => (0..n).collect(),
        65..=10_000 => [0, n - 1].into_iter().chain((0..4).map(|_| random.below(n))).collect(),
        _ => vec![n - 1, random.below(n)],
    }
}

#[test]
fn a_known_gradient_passes_and_a_wrong_one_does_not() {
    let f = |x: &[f64]| vec![x[0] * x[1], x[1].sin()];
    let x = [2.0, 0.5];
    let right = [3.0 * 0.5, 3.0 * 2.0 - 0.5f64.cos()];
    assert_gradient::<f32>("right", f, &x, &[3.0, -1.0], &right, 1e-8);
    let caught = |wrong: [f64; 2]| {
        std::panic::catch_unwind(|| assert_gradient::<f32>("wrong", f, &x, &[3.0, -1.0], &wrong, 1e-8)).is_err()
    };
    assert!(caught([right[0], right[1] + 1e-6]) && caught([f64::NAN, right[1]]));
}
