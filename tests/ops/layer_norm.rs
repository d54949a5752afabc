//! Residual + LayerNorm, forward and backward.

use super::support::{
    Batch, Case, Random, added, assert_close, assert_close_on_scale, assert_stored, cases, dropouts, huge_batch,
    poisoned, read, rounded, tensor, vector, widths,
};
use crate::reference::difference::assert_gradient;
use crate::reference::layer_norm::{Residual, residual_layer_norm as reference};
use crate::tolerance;
use hbt::backend::{Backend, Dropout, Element, ResidualLayerNormBackward, ResidualLayerNormForward, Tensor};

pub struct Inputs {
    batch: Batch,
    args: Residual,
    dropout: Option<Dropout>,
    d_out: Vec<f64>,
    /// Initial values of the parameters' gradients.
    start: Vec<f64>,
}

/// Everything both passes write.
#[derive(PartialEq)]
pub struct Outputs {
    sum: Vec<f64>,
    mean: Vec<f64>,
    rstd: Vec<f64>,
    out: Vec<f64>,
    d_residual: Vec<f64>,
    d_x: Vec<f64>,
    d_branch_bias: Vec<f64>,
    d_weight: Vec<f64>,
    d_bias: Vec<f64>,
}

impl Inputs {
    pub fn new<B: Backend>(case: &Case, dropout: Option<Dropout>) -> Self {
        let mut random = Random::new(21);
        let (n, h) = (case.n_tokens() * case.hidden, case.hidden);
        let batch = Batch::new(&case.lens, &mut random);
        let mask = batch.row_mask(dropout, h);
        // A ramp along each row, steeper than the noise, so that no row of three elements has a tiny variance, which
        // would magnify the sum's rounding.
        let ramp = |i: usize| 6.0 * (i % h) as f64 / h as f64;
        let residual = (0..n).map(|i| rounded::<B::E>(0.2 * random.normal() + ramp(i))).collect();
        let args = Residual {
            x: random.values::<B::E>(n, 0.2),
            branch_bias: random.values::<B::E>(h, 0.3),
            residual,
            weight: random.values::<B::E>(h, 1.0),
            bias: random.values::<B::E>(h, 1.0),
            eps: f64::from(1e-5f32),
            mask,
        };
        Inputs { batch, args, dropout, d_out: random.values::<B::E>(n, 1.0), start: random.values::<f32>(h, 1.0) }
    }

    pub fn run<B: Backend>(&self, backend: &B) -> Outputs {
        let h = self.start.len();
        let n_tokens = self.batch.ids.len();
        let shape = [n_tokens, h];
        let batch = self.batch.packed(backend);
        let weight = vector(backend, &self.args.weight);
        let mut sum = tensor(backend, &self.args.x, &shape);
        let mut out: Tensor<B, B::E> = poisoned(backend, &shape);
        let [mut mean, mut rstd] = [(); 2].map(|()| poisoned(backend, &[n_tokens]));
        backend
            .residual_layer_norm_forward(ResidualLayerNormForward {
                batch: batch.chunk(0),
                x: &mut sum,
                branch_bias: &vector(backend, &self.args.branch_bias),
                residual: &tensor(backend, &self.args.residual, &shape),
                weight: &weight,
                bias: &vector(backend, &self.args.bias),
                eps: self.args.eps as f32,
                dropout: self.dropout,
                mean: &mut mean,
                rstd: &mut rstd,
                out: &mut out,
            })
            .unwrap();
        let [mut d_residual, mut d_x]: [Tensor<B, B::E>; 2] = [(); 2].map(|()| poisoned(backend, &shape));
        let [mut d_branch_bias, mut d_weight, mut d_bias] = [(); 3].map(|()| vector(backend, &self.start));
        backend
            .residual_layer_norm_backward(ResidualLayerNormBackward {
                batch: batch.chunk(0),
                d_out: &tensor(backend, &self.d_out, &shape),
                sum: &sum,
                mean: &mean,
                rstd: &rstd,
                weight: &weight,
                dropout: self.dropout,
                d_residual: &mut d_residual,
                d_x: &mut d_x,
                d_branch_bias: &mut d_branch_bias,
                d_weight: &mut d_weight,
                d_bias: &mut d_bias,
            })
            .unwrap();
        Outputs {
            sum: read(backend, &sum),
            mean: read(backend, &mean),
            rstd: read(backend, &rstd),
            out: read(backend, &out),
            d_residual: read(backend, &d_residual),
            d_x: read(backend, &d_x),
            d_branch_bias: added(backend, &d_branch_bias, &self.start),
            d_weight: added(backend, &d_weight, &self.start),
            d_bias: added(backend, &d_bias, &self.start),
        }
    }

    /// The inputs of LayerNorm: the sum as it was stored, with the residual making up for its rounding.
    fn with_stored_sum(mut self, stored: &[f64]) -> Self {
        let exact = reference(&self.args).sum;
        for ((residual, stored), exact) in self.args.residual.iter_mut().zip(stored).zip(exact) {
            *residual += stored - exact;
        }
        self
    }

    /// The reference's result as a function of one of its inputs.
    fn forward(&self, set: impl Fn(&mut Residual, Vec<f64>)) -> impl Fn(&[f64]) -> Vec<f64> {
        move |x| {
            let mut args = self.args.clone();
            set(&mut args, x.to_vec());
            reference(&args).out
        }
    }
}

fn check_case<B: Backend>(backend: &B, case: &Case, dropout: Option<Dropout>) {
    let inputs = Inputs::new::<B>(case, dropout);
    let got = inputs.run(backend);
    let name = |part: &str| format!("residual_layer_norm, {}, dropout {}, {part}", case.name, dropout.is_some());
    assert_stored::<B::E>(&name("sum"), &got.sum, &reference(&inputs.args).sum, tolerance::ELEMENTWISE);
    let inputs = inputs.with_stored_sum(&got.sum);
    let expected = reference(&inputs.args);
    let largest = expected.sum.iter().fold(0.0f64, |a, v| a.max(v.abs()));
    assert_close_on_scale(&name("mean"), &got.mean, &expected.mean, tolerance::ELEMENTWISE, largest);
    assert_close(&name("rstd"), &got.rstd, &expected.rstd, tolerance::LAYER_NORM);
    assert_stored::<B::E>(&name("out"), &got.out, &expected.out, tolerance::LAYER_NORM);

    let args = &inputs.args;
    let rows = |part: &str, f: &dyn Fn(&[f64]) -> Vec<f64>, x: &[f64], got: &[f64]| {
        assert_gradient::<B::E>(&name(part), f, x, &inputs.d_out, got, tolerance::LAYER_NORM_GRADIENT);
    };
    rows("d_residual", &inputs.forward(|a, v| a.residual = v), &args.residual, &got.d_residual);
    rows("d_x", &inputs.forward(|a, v| a.x = v), &args.x, &got.d_x);
    let columns = |part: &str, f: &dyn Fn(&[f64]) -> Vec<f64>, x: &[f64], got: &[f64]| {
        let tolerance = tolerance::LAYER_NORM_GRADIENT.max(tolerance::sum(case.n_tokens()));
        assert_gradient::<f32>(&name(part), f, x, &inputs.d_out, got, tolerance);
    };
    columns("d_branch_bias", &inputs.forward(|a, v| a.branch_bias = v), &args.branch_bias, &got.d_branch_bias);
    columns("d_weight", &inputs.forward(|a, v| a.weight = v), &args.weight, &got.d_weight);
    columns("d_bias", &inputs.forward(|a, v| a.bias = v), &args.bias, &got.d_bias);
}

pub fn residual_layer_norm<B: Backend>(backend: &B) {
    for case in cases().into_iter().chain(widths()) {
        for dropout in dropouts() {
            check_case(backend, &case, dropout);
        }
    }
}

pub fn residual_layer_norm_of_a_huge_batch<B: Backend>(backend: &B) {
    let [_, dropout] = dropouts();
    check_case(backend, &huge_batch(), dropout);
}

/// Rows far from zero with a small spread: a variance computed as E[x^2] - E[x]^2 would be noise here.
pub fn residual_layer_norm_of_nearly_constant_rows<B: Backend>(backend: &B) {
    let case = Case { name: "nearly constant rows", lens: vec![70], hidden: 96, n_heads: 1 };
    let mut inputs = Inputs::new::<B>(&case, None);
    let mut random = Random::new(22);
    // Next to 100, bf16 has a value every 1/2.
    let spread = if B::E::IS_F32 { 0.01 } else { 1.0 };
    inputs.args.residual = (0..70 * 96).map(|_| rounded::<B::E>(100.0 + spread * random.normal())).collect();
    inputs.args.x.fill(0.0);
    inputs.args.branch_bias.fill(0.0);
    let (got, expected) = (inputs.run(backend), reference(&inputs.args));
    // The mean is rounded at 100: an error in units of the spread, which enters the variance squared.
    let mean = tolerance::EPS * 100.0 / spread;
    assert_stored::<B::E>("nearly constant rows, out", &got.out, &expected.out, mean);
    assert_close("nearly constant rows, rstd", &got.rstd, &expected.rstd, tolerance::LAYER_NORM + mean * mean);
}
