//! Bias + GELU, forward and backward.

use super::support::{
    Case, Random, added, assert_stored, assert_stored_on_scale, cases, huge_batch, poisoned, read, rounded, tensor,
    vector,
};
use crate::reference::difference::assert_gradient;
use crate::reference::gelu::bias_gelu as reference;
use crate::tolerance;
use hbt::backend::{Backend, BiasGeluBackward, BiasGeluForward, Tensor};

pub struct Inputs {
    x: Vec<f64>,
    bias: Vec<f64>,
    d_out: Vec<f64>,
    /// Initial values of the bias gradient.
    start: Vec<f64>,
}

/// Everything both passes write.
#[derive(PartialEq)]
pub struct Outputs {
    out: Vec<f64>,
    again: Vec<f64>,
    d_x: Vec<f64>,
    d_bias: Vec<f64>,
}

impl Inputs {
    pub fn new<B: Backend>(rows: usize, width: usize) -> Self {
        let mut random = Random::new(41);
        Inputs {
            x: random.values::<B::E>(rows * width, 2.0),
            bias: random.values::<B::E>(width, 0.5),
            d_out: random.values::<B::E>(rows * width, 1.0),
            start: random.values::<f32>(width, 1.0),
        }
    }

    pub fn run<B: Backend>(&self, backend: &B) -> Outputs {
        let width = self.bias.len();
        let shape = [self.x.len() / width, width];
        let (x, bias) = (tensor(backend, &self.x, &shape), vector(backend, &self.bias));
        let [mut out, mut again]: [Tensor<B, B::E>; 2] = [(); 2].map(|()| poisoned(backend, &shape));
        backend.bias_gelu_forward(BiasGeluForward { x: &x, bias: &bias, out: &mut out }).unwrap();
        let mut d = tensor(backend, &self.d_out, &shape);
        let mut d_bias = vector(backend, &self.start);
        backend
            .bias_gelu_backward(BiasGeluBackward {
                x: &x,
                bias: &bias,
                d: &mut d,
                out: &mut again,
                d_bias: &mut d_bias,
            })
            .unwrap();
        Outputs {
            out: read(backend, &out),
            again: read(backend, &again),
            d_x: read(backend, &d),
            d_bias: added(backend, &d_bias, &self.start),
        }
    }
}

pub fn bias_gelu<B: Backend>(backend: &B) {
    // Odd widths, and whole vectors: one, some, as many as a block has threads, more.
    let odd = cases().into_iter().map(|case| (case.name, case.n_tokens(), 2 * case.hidden + 1));
    let vectors = [8, 40, 512, 520, 1536].map(|width| ("vectors", 70, width));
    for (case, rows, width) in odd.chain(vectors) {
        check_case(backend, case, rows, width);
    }
}

pub fn bias_gelu_of_a_huge_batch<B: Backend>(backend: &B) {
    let Case { name, lens, hidden, .. } = huge_batch();
    check_case(backend, name, lens.len(), 2 * hidden + 1);
}

fn check_case<B: Backend>(backend: &B, case: &str, rows: usize, width: usize) {
    let inputs = Inputs::new::<B>(rows, width);
    let got = inputs.run(backend);
    let name = |part: &str| format!("bias_gelu, {case}, {rows} x {width}, {part}");
    assert_stored::<B::E>(&name("out"), &got.out, &reference(&inputs.x, &inputs.bias), tolerance::GELU);
    assert_eq!(got.out, got.again, "backward computes what forward did");
    let of_x = |x: &[f64]| reference(x, &inputs.bias);
    let of_bias = |bias: &[f64]| reference(&inputs.x, bias);
    assert_gradient::<B::E>(&name("d_x"), of_x, &inputs.x, &inputs.d_out, &got.d_x, tolerance::GELU_GRADIENT);
    let sum = tolerance::GELU_GRADIENT.max(tolerance::sum(rows));
    assert_gradient::<f32>(&name("d_bias"), of_bias, &inputs.bias, &inputs.d_out, &got.d_bias, sum);
}

/// From where GELU is the identity to where it is zero, each element by itself: no large neighbour hides an error.
pub fn bias_gelu_of_extreme_values<B: Backend>(backend: &B) {
    let mut x = vec![-1e30, -1e4, -100.0, -20.0, -13.4, -13.0, -1e-30, -0.0, 0.0, 1e-30, 1e-6, 20.0, 1e4, 1e30];
    x.extend((-128..128).map(|i| f64::from(i) / 16.0));
    // Rows of eight, as vectors have, which two more make of them.
    x.extend([3.0, -3.0]);
    x.iter_mut().for_each(|v| *v = rounded::<B::E>(*v));
    for width in [1, 8] {
        let zeros = vec![0.0; width];
        check_extreme_values(
            backend,
            Inputs { d_out: vec![1.0; x.len()], bias: zeros.clone(), start: zeros, x: x.clone() },
        );
    }
}

fn check_extreme_values<B: Backend>(backend: &B, inputs: Inputs) {
    let got = inputs.run(backend);
    let expected = reference(&inputs.x, &[0.0]);
    for (i, &x) in inputs.x.iter().enumerate() {
        let what = format!("gelu({x})");
        let tolerance = if x < -10.0 { tolerance::GELU_TAIL } else { tolerance::GELU_ELEMENT };
        assert_stored::<B::E>(&what, &got.out[i..=i], &expected[i..=i], tolerance);
        let slope = (reference(&[x + 1e-5], &[0.0])[0] - reference(&[x - 1e-5], &[0.0])[0]) / 2e-5;
        // Differences of numbers around 1e4 and above say nothing; there the slope is 1 or 0.
        let slope = if x.abs() < 1e3 { slope } else { f64::from(x > 0.0) };
        assert_stored_on_scale::<B::E>(&format!("{what}'"), &got.d_x[i..=i], &[slope], tolerance::GELU_GRADIENT, 1.0);
    }
}
