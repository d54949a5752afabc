//! Row arithmetic that the compiler can put into vector registers.
//!
//! Functions here are branch-free and `inline(always)`: called inside [`simd`], they are compiled once for every
//! instruction set that the processor may have. Multiplications and additions are never contracted, so the
//! instruction set does not change a result.

use super::instructions::arch;
use crate::backend::Element;

/// Runs `f` compiled for the [instructions](super::Instructions) that this process uses. `f` has to be a
/// closure marked `#[inline(always)]`: one that is not inlined stays compiled for the baseline.
#[inline(always)]
pub fn simd<R>(f: impl FnOnce() -> R) -> R {
    arch().dispatch(f)
}

/// Lanes of one AVX-512 register of f32, whatever the processor. A sum has this many accumulators, so that all
/// processors group it alike, and rows of small matrices are padded to a multiple of it.
pub const LANES: usize = 16;

/// Reduces all lanes to one, by halves.
#[inline(always)]
fn fold(mut acc: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            acc[i] = join(acc[i], acc[i + width]);
        }
        width /= 2;
    }
    acc[0]
}

#[inline(always)]
fn sum(acc: [f32; LANES]) -> f32 {
    fold(acc, |a, b| a + b)
}

/// `sum_i f(x_i)`
#[inline(always)]
pub fn sum_of<E: Element>(x: &[E], f: impl Fn(f32) -> f32) -> f32 {
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut acc = [0.0; LANES];
    for c in chunks {
        for l in 0..LANES {
            acc[l] += f(c[l].to_f32());
        }
    }
    for (a, &v) in acc.iter_mut().zip(rest) {
        *a += f(v.to_f32());
    }
    sum(acc)
}

/// `sum_i f(x_i, y_i, w_i)`
#[inline(always)]
pub fn sum_of_three<E: Element>(x: &[E], y: &[E], w: &[E], f: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let ((cx, rx), (cy, ry), (cw, rw)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>(), w.as_chunks::<LANES>());
    let mut acc = [0.0; LANES];
    for ((x, y), w) in cx.iter().zip(cy).zip(cw) {
        for l in 0..LANES {
            acc[l] += f(x[l].to_f32(), y[l].to_f32(), w[l].to_f32());
        }
    }
    for (((a, x), y), w) in acc.iter_mut().zip(rx).zip(ry).zip(rw) {
        *a += f(x.to_f32(), y.to_f32(), w.to_f32());
    }
    sum(acc)
}

/// `sum_i a_i b_i`
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((ca, ra), (cb, rb)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut acc = [0.0; LANES];
    for (x, y) in ca.iter().zip(cb) {
        for l in 0..LANES {
            acc[l] += x[l] * y[l];
        }
    }
    for ((s, &x), &y) in acc.iter_mut().zip(ra).zip(rb) {
        *s += x * y;
    }
    sum(acc)
}

/// The largest value; negative infinity for an empty row.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    let (chunks, rest) = x.as_chunks::<LANES>();
    // The comparison of the processor's maximum instruction.
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut acc = [f32::NEG_INFINITY; LANES];
    for c in chunks {
        for l in 0..LANES {
            acc[l] = larger(acc[l], c[l]);
        }
    }
    for (a, &v) in acc.iter_mut().zip(rest) {
        *a = larger(*a, v);
    }
    fold(acc, larger)
}

/// `out = x` widened.
#[inline(always)]
pub fn load<E: Element>(x: &[E], out: &mut [f32]) {
    for (o, v) in out.iter_mut().zip(x) {
        *o = v.to_f32();
    }
}

/// `out = x` rounded.
#[inline(always)]
pub fn store<E: Element>(x: &[f32], out: &mut [E]) {
    for (o, &v) in out.iter_mut().zip(x) {
        *o = E::from_f32(v);
    }
}

/// `a += b`
#[inline(always)]
pub fn add_assign(a: &mut [f32], b: &[f32]) {
    for (x, &y) in a.iter_mut().zip(b) {
        *x += y;
    }
}

/// `a += b` widened.
#[inline(always)]
pub fn add_widened<E: Element>(a: &mut [f32], b: &[E]) {
    for (x, y) in a.iter_mut().zip(b) {
        *x += y.to_f32();
    }
}

/// e^x with a relative error below 2e-7; 0 below -87.3, and finite at its largest above 88.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2, and the Taylor polynomial of degree 7 for e^r.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Adding and subtracting 1.5 * 2^23 rounds to an integer without an instruction for it.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = if x > 88.0 { 88.0 } else { x };
    let clamped = if clamped < -87.3 { -87.3 } else { clamped };
    let rounded = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = clamped - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p * r + c;
    }
    // n is in the lowest bits of `rounded`. A cast would be as exact, but compilers do not vectorise its saturation.
    let scale = f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.3 { 0.0 } else { p * scale }
}

/// The normal distribution's cdf and density at `x`, the two parts of GELU and its derivative.
///
/// For z >= 0: cdf(-z) = exp(-z^2 / 2) R(z) / 2 with R(z) = erfcx(z / sqrt 2), here a polynomial in 1 / (1 + 0.3 z)
/// fitted for the least relative error (6e-8 on [0, 13.5]). In f32 the relative error of both is below
/// 7e-7 + 6e-8 x^2 / 2, the second term being the rounding of x^2 in the exponent: the negative tail keeps its digits.
#[inline(always)]
pub fn normal(x: f32) -> (f32, f32) {
    const R: [f32; 9] = [
        1.370_695_7e-5,
        0.238_986_1,
        0.243_764_28,
        0.189_665_26,
        0.284_371_88,
        -0.152_001_93,
        0.456_437_17,
        -0.337_905_23,
        0.076_668_814,
    ];
    let z = x.abs();
    let t = 1.0 / (1.0 + 0.3 * z);
    let mut r = R[8];
    for i in (0..8).rev() {
        r = r * t + R[i];
    }
    let bell = exp(-0.5 * x * x);
    let tail = 0.5 * bell * r;
    let cdf = if x < 0.0 { tail } else { 1.0 - tail };
    (cdf, bell * 0.398_942_3)
}

/// tanh through [`exp`], with an absolute error below 3e-7.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let e = exp(-2.0 * x.abs());
    let t = (1.0 - e) / (1.0 + e);
    if x < 0.0 { -t } else { t }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(from: f64, to: f64) -> impl Iterator<Item = f32> {
        (0..=200_000).map(move |i| (from + (to - from) * f64::from(i) / 200_000.0) as f32)
    }

    #[test]
    fn exp_keeps_its_bound() {
        for x in grid(-87.0, 88.0) {
            let exact = f64::from(x).exp();
            assert!(((f64::from(exp(x)) - exact) / exact).abs() < 2e-7, "exp({x})");
        }
        assert_eq!(exp(-88.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn tanh_keeps_its_bound() {
        for x in grid(-12.0, 12.0) {
            assert!((f64::from(tanh(x)) - f64::from(x).tanh()).abs() < 3e-7, "tanh({x})");
        }
    }

    /// The reference is the cdf by Simpson's rule from -20: slow, but independent of the polynomial.
    #[test]
    fn normal_keeps_its_bound() {
        let density = |x: f64| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let h = 1.0 / 4096.0;
        let mut cdf = 0.0;
        let mut x = -20.0f64;
        while x < 10.0 {
            cdf += h / 6.0 * (density(x) + 4.0 * density(x + h / 2.0) + density(x + h));
            x += h;
            if x >= -10.0 {
                let (c, d) = normal(x as f32);
                let bound = 7e-7 + 6e-8 * x * x / 2.0;
                assert!(((f64::from(c) - cdf) / cdf).abs() < bound, "cdf({x}): {c} for {cdf}");
                assert!(((f64::from(d) - density(x)) / density(x)).abs() < bound, "density({x})");
            }
        }
    }

    #[test]
    fn sums_of_every_length() {
        for n in 0..70 {
            let x: Vec<f32> = (0..n).map(|i| (i % 7) as f32 - 3.0).collect();
            assert_eq!(sum_of(&x, |v| v), x.iter().sum::<f32>());
            assert_eq!(dot(&x, &x), x.iter().map(|v| v * v).sum::<f32>());
            assert_eq!(max(&x), x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
