//! How far results may be from the f64 references, in one place, each with its reason.
//!
//! Every tolerance is relative to the largest element of its tensor, or to a scale that the check names: an f32
//! result is a sum of rounded terms, and its error has the size of the terms, not of what is left of them.

/// f32's spacing at 1; one rounding costs at most half of it.
pub const EPS: f64 = f32::EPSILON as f64;

/// Allowed on top of everything: what is smaller than this is near or below f32's smallest normal number, and may be
/// zero. `math::exp` flushes below 1.2e-38, and gradients carry that times up to 1 / temperature = 100.
pub const UNDERFLOW: f64 = 1e-35;

/// A few roundings in a row: a bias, a factor, a quotient.
pub const ELEMENTWISE: f64 = 4.0 * EPS;

/// Sums of `k` terms: roundings are independent, so they add up like a random walk.
pub fn sum(k: usize) -> f64 {
    EPS * (k as f64).sqrt().max(4.0)
}

/// LayerNorm of rows whose spread is not small against their values: mean, centring, variance, scale and shift.
pub const LAYER_NORM: f64 = 6.0 * EPS;
/// LayerNorm's backward: as forward, and the difference of three terms of one size.
pub const LAYER_NORM_GRADIENT: f64 = 8.0 * EPS;

/// GELU next to its largest result: `math::normal` ends in three roundings.
pub const GELU: f64 = 2.0 * EPS;
/// GELU element by element on [-10, inf): the bound that `math::normal` states.
pub const GELU_ELEMENT: f64 = 1e-6;
/// GELU below -10: exp(-x^2 / 2) magnifies the rounding of its argument, which is up to 87.
pub const GELU_TAIL: f64 = 87.0 * EPS;
/// GELU's slope: the cdf and x times the density, and their sum.
pub const GELU_GRADIENT: f64 = 4.0 * EPS;

/// The absolute error that `math::tanh` states, and a rounding of the bias.
pub const TANH: f64 = 3e-7 + EPS;

/// Softmax on top of its scores' own errors: `math::exp` (2e-7), the sum, the quotient.
pub const SOFTMAX: f64 = 4.0 * EPS;

/// Unit embeddings of a whole encoder of a few layers: a few dozen operations' errors, added up.
pub const EMBEDDINGS: f64 = 16.0 * EPS;
/// A parameter's gradient through a whole encoder and the loss: as the embeddings', both ways, times what the
/// temperature magnifies.
pub const ENCODER_GRADIENT: f64 = 48.0 * EPS;
/// The same sums in another grouping: chunked against unchunked, three sequences against one. Two results, each as
/// far from the truth as the two tolerances above say.
pub const REGROUPED: f64 = 1e-5;
/// A step's loss: f32 logits of size 1 / temperature.
pub const LOSS: f64 = 16.0 * EPS;
