//! How far results may be from the f64 references, in one place, each with its reason.
//!
//! Every tolerance is relative to the largest element of its tensor, or to a scale that the check names: an f32
//! result is a sum of rounded terms, and its error has the size of the terms, not of what is left of them.
//!
//! All operations compute in f32, whatever the working type: a result in bf16 is rounded once, when it is stored. Its
//! tolerance is f32's, and on top of it what [`stored`] says for one element and [`stored_sum`] for a sum of them.

use hbt::backend::Element;

/// f32's spacing at 1; one rounding costs at most half of it.
pub const EPS: f64 = f32::EPSILON as f64;

/// Allowed on top of everything: what is smaller than this is near or below f32's smallest normal number, and may be
/// zero. `math::exp` flushes below 1.2e-38, and gradients carry that times up to 1 / temperature = 100.
pub const UNDERFLOW: f64 = 1e-35;

/// How far a result may be from `exact` that is computed to within `computed` of it and then stored as a `T`.
///
/// f32's rounding is part of the tolerances below. In bf16: as far as the exact value, rounded, is, and twice `computed`,
/// once for the value that is rounded, once because it may be that much farther from the nearest bf16.
pub fn stored<T: Element>(exact: f64, computed: f64) -> f64 {
    if T::IS_F32 { computed } else { (rounded::<T>(exact) - exact).abs() + 2.0 * computed }
}

/// How far `sum_i weights[i] x[i]` may be off because each `x[i]` was stored as a `T`, if the weights are random: each
/// element is off by up to half its own spacing, evenly spread, and 4 standard deviations of the sum are enough.
pub fn stored_sum<T: Element>(x: &[f64], weights: &[f64]) -> f64 {
    if T::IS_F32 {
        return 0.0;
    }
    // Eight bits are kept, the leading one included.
    let half_spacing = |x: f64| if x == 0.0 { 0.0 } else { 2f64.powi(x.abs().log2().floor() as i32 - 8) };
    let squares = x.iter().zip(weights).map(|(x, w)| (w * half_spacing(*x)).powi(2)).sum::<f64>();
    4.0 * (squares / 3.0).sqrt()
}

/// How far `sum_i w[i] x[i]` may be off because tensor cores take bf16, so that each weight `w[i]`, computed in f32, is
/// rounded to bf16 before the product: by up to half a spacing, which is 2^-8 of it or less, evenly spread. `squares` is
/// `sum_i (w[i] x[i])^2`; as in [`stored_sum`], 4 standard deviations are enough. The products and their sum are f32.
///
/// In the fused attention these weights are the softmax and its gradient: neither is ever stored, so nothing but the tensor
/// cores rounds them. The CPU keeps them in f32, as do the CUDA kernels for head sizes that tensor cores are not used for.
pub fn bf16_weights(squares: f64) -> f64 {
    4.0 * (squares / 3.0).sqrt() / 256.0
}

/// `x` as `T` holds it.
pub fn rounded<T: Element>(x: f64) -> f64 {
    f64::from(T::from_f32(x as f32).to_f32())
}

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

/// Against what PyTorch computes in f64, relative to the largest value of each tensor; PyTorch in f32 comes within 3e-6.
pub const PYTORCH: f64 = 1e-5;
/// Losses and gradient norms of ten steps. The loss falls to 0.01, which is the probability of a wrong passage: off,
/// relatively, by as much as logits are, absolutely, and those by [`EMBEDDINGS`] / temperature. PyTorch in f32, and our CPU
/// with its work cut in other ways, are off by up to 8e-6.
pub const PYTORCH_STEPS: f64 = EMBEDDINGS / 0.05;

// A whole encoder in bf16. Its activations are rounded some 17 times a layer on the way there and back, each time by
// 0.17 % of themselves on average, which makes 1 % after two layers; where a gradient's terms cancel, and where a tensor is
// small, that is a few times as much. PyTorch, on the fixtures that gradients are compared with here, is as far from its
// own f64 results: cosines of single tensors down to 0.995 and norms off by up to 2.2 % with all of the model in bf16,
// 0.9992 and 1.6 % in autocast, which rounds about half of what we do; we come to 0.9988 and 2.0 %.

/// How alike two vectors have to be: their least cosine, and how far the quotient of their norms may be from 1.
pub type Alike = (f64, f64);

/// The gradient of one parameter. All of a model's are off by a common factor, which is most of the difference in norm:
/// the loss's slope in the logits changes by [`BF16_COSINE`] / temperature, and is stored rounded: [`BF16_SCORES`].
pub const BF16_GRADIENT: Alike = (0.998, 0.04 + BF16_SCORES);
/// The gradients of all parameters as one vector.
pub const BF16_GRADIENTS: Alike = (0.999, 0.01);
/// Embeddings have length 1 to f32's precision.
pub const BF16_EMBEDDINGS: Alike = (0.9999, 8.0 * EPS);
/// The cosine of two embeddings. Either is off by a vector of length 1.4 %, says the line above, of which a share of
/// 1 / sqrt(24) or less points towards the other. Times 1 / temperature: a loss.
pub const BF16_COSINE: f64 = 0.004;
/// Loss of the fixtures, relative.
pub const BF16_LOSS: f64 = 0.01;
/// Losses and gradient norms of ten steps, each of which begins where the rounded ones before it led.
pub const BF16_STEPS: f64 = 0.03;
/// An embedding's gradient, relative to its largest element: a sum over the scores' gradients, which are stored rounded.
pub const BF16_SCORES: f64 = 1.0 / 256.0;

#[test]
fn a_bf16_has_to_be_the_nearest_one() {
    type T = half::bf16;
    let allows = |got: f64, exact: f64, computed| (got - exact).abs() <= stored::<T>(exact, computed);
    // 1 and 1 + 2^-7 are neighbours.
    let (below, above) = (1.0, 1.0 + 1.0 / 128.0);
    assert!(allows(above, 1.005, 1e-6) && !allows(below, 1.005, 1e-6));
    assert!(!allows(above, 1.003, 1e-6) && allows(below, 1.003, 1e-6));
    let tie = 1.0 + 1.0 / 256.0;
    assert!(allows(above, tie - 1e-6, 1e-6) && allows(below, tie + 1e-6, 1e-6));
    // Half a spacing: 2^-8 from 1 to 2, 2^-7 from 2 to 4.
    for (x, weights, spacings) in [([1.99, 0.0, 0.0], [3.0, 1.0, 1.0], 9.0), ([1.5, -2.0, 0.0], [1.0; 3], 1.0 + 4.0)] {
        let sigma = stored_sum::<T>(&x, &weights) / 4.0;
        assert!((sigma * sigma * 3.0 * 65536.0 - spacings).abs() < 1e-9);
    }
}
