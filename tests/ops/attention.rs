//! Self-attention, forward and backward.

use super::support::{
    Batch, Case, Random, added, assert_close_on_scale, assert_stored_each, cases, dropouts, huge_batch, poisoned, read,
    tensor,
};
use crate::reference::attention::{Attention, AttentionGradient, attention as reference, attention_gradient};
use crate::reference::difference::{assert_along_directions_each, assert_gradient_each};
use crate::tolerance;
use hbt::backend::{AttentionBackward, AttentionForward, Backend, Dropout, Element, Tensor};

pub struct Inputs {
    batch: Batch,
    n_heads: usize,
    hidden: usize,
    qkv: Vec<f64>,
    dropout: Option<Dropout>,
    mask: Vec<Vec<f64>>,
    d_out: Vec<f64>,
}

/// Everything both passes write.
#[derive(PartialEq)]
pub struct Outputs {
    out: Vec<f64>,
    lse: Vec<f64>,
    d_qkv: Vec<f64>,
    d_bias: Vec<f64>,
}

impl Inputs {
    /// Queries, keys and values with this standard deviation: scores have its square.
    pub fn new<B: Backend>(case: &Case, std: f64, dropout: Option<Dropout>) -> Self {
        let mut random = Random::new(51);
        let n = case.n_tokens() * case.hidden;
        let batch = Batch::new(&case.lens, &mut random);
        Inputs {
            n_heads: case.n_heads,
            hidden: case.hidden,
            qkv: random.values::<B::E>(3 * n, std),
            dropout,
            mask: batch.attention_mask(dropout, case.n_heads),
            d_out: random.values::<B::E>(n, 1.0),
            batch,
        }
    }

    pub fn run<B: Backend>(&self, backend: &B) -> Outputs {
        let (n_tokens, h) = (self.batch.ids.len(), self.hidden);
        let batch = self.batch.packed(backend);
        let qkv = tensor(backend, &self.qkv, &[n_tokens, 3 * h]);
        let mut lse = poisoned(backend, &[n_tokens, self.n_heads]);
        let mut out: Tensor<B, B::E> = poisoned(backend, &[n_tokens, h]);
        backend
            .attention_forward(AttentionForward {
                batch: batch.chunk(0),
                n_heads: self.n_heads,
                qkv: &qkv,
                dropout: self.dropout,
                lse: &mut lse,
                out: &mut out,
            })
            .unwrap();
        let start = vec![1.0; 3 * h];
        let mut d_bias = tensor(backend, &start, &[3 * h]);
        let mut d_qkv: Tensor<B, B::E> = poisoned(backend, &[n_tokens, 3 * h]);
        backend
            .attention_backward(AttentionBackward {
                batch: batch.chunk(0),
                n_heads: self.n_heads,
                qkv: &qkv,
                out: &out,
                lse: &lse,
                dropout: self.dropout,
                d_out: &tensor(backend, &self.d_out, &[n_tokens, h]),
                d_qkv: &mut d_qkv,
                d_bias: &mut d_bias,
            })
            .unwrap();
        Outputs {
            out: read(backend, &out),
            lse: read(backend, &lse),
            d_qkv: read(backend, &d_qkv),
            d_bias: added(backend, &d_bias, &start),
        }
    }

    fn check<B: Backend>(&self, backend: &B, what: &str, std: f64) {
        let name = |part: &str| format!("attention, {what}, dropout {}, {part}", self.dropout.is_some());
        let forward = |qkv: &[f64]| reference(qkv, &self.batch.cu_seqlens, self.n_heads, self.hidden, &self.mask);
        let (got, expected) = (self.run(backend), forward(&self.qkv));
        let tolerance = tolerance::SOFTMAX + self.score(std);
        let d_lse = self.d_lse(&got.out, &expected.out);
        let rounding = self.rounding(backend, &self.gradient(&d_lse));
        self.check_forward::<B>(name, &got, &expected, std, &rounding);
        let both_of = |qkv: &[f64]| {
            let both = forward(qkv);
            [both.out, both.lse].concat()
        };
        let d_both = [self.d_out.clone(), d_lse].concat();
        let more = |i: usize| rounding.d_qkv[i];
        assert_gradient_each::<B::E>(&name("d_qkv"), both_of, &self.qkv, &d_both, &got.d_qkv, tolerance, more);
        // A bias of zero in every row of qkv; its gradient is a sum over all tokens. Element by element, the references of
        // the long sequences would take most of the time of all tests.
        let of_bias = |bias: &[f64]| {
            both_of(
                &self
                    .qkv
                    .chunks(bias.len())
                    .flat_map(|row| row.iter().zip(bias).map(|(x, b)| x + b))
                    .collect::<Vec<_>>(),
            )
        };
        let zeros = vec![0.0; 3 * self.hidden];
        let (bound, more) = (self.bias_tolerance(tolerance), |i: usize| rounding.d_bias[i]);
        assert_along_directions_each::<f32>(&name("d_bias"), of_bias, &zeros, &d_both, &got.d_bias, bound, more);
    }

    /// [`Inputs::check`] that compares every element of the gradients with the written-out one.
    fn check_elements<B: Backend>(&self, backend: &B, what: &str) {
        let name = |part: &str| format!("attention, {what}, dropout {}, {part}", self.dropout.is_some());
        let expected = reference(&self.qkv, &self.batch.cu_seqlens, self.n_heads, self.hidden, &self.mask);
        let got = self.run(backend);
        let gradient = self.gradient(&self.d_lse(&got.out, &expected.out));
        let rounding = self.rounding(backend, &gradient);
        self.check_forward::<B>(name, &got, &expected, 1.0, &rounding);
        let tolerance = tolerance::SOFTMAX + self.score(1.0);
        let bound = tolerance * largest(&gradient.d_qkv);
        assert_stored_each::<B::E>(&name("d_qkv"), &got.d_qkv, &gradient.d_qkv, |i| bound + rounding.d_qkv[i]);
        let mut d_bias = vec![0.0; 3 * self.hidden];
        for row in gradient.d_qkv.chunks(d_bias.len()) {
            d_bias.iter_mut().zip(row).for_each(|(sum, d)| *sum += d);
        }
        let bound = self.bias_tolerance(tolerance) * largest(&d_bias);
        assert_stored_each::<f32>(&name("d_bias"), &got.d_bias, &d_bias, |i| bound + rounding.d_bias[i]);
    }

    fn check_forward<B: Backend>(
        &self,
        name: impl Fn(&str) -> String,
        got: &Outputs,
        expected: &Attention,
        std: f64,
        rounding: &Rounding,
    ) {
        let score = self.score(std);
        assert_close_on_scale(&name("lse"), &got.lse, &expected.lse, score, 1.0 + largest(&expected.lse));
        let bound = (tolerance::SOFTMAX + score) * largest(&expected.out);
        assert_stored_each::<B::E>(&name("out"), &got.out, &expected.out, |i| bound + rounding.out[i]);
    }

    /// Scores are sums of `head size` products; the softmax turns their absolute error into a relative one.
    fn score(&self, std: f64) -> f64 {
        tolerance::sum(self.hidden / self.n_heads) * (std * std).max(1.0)
    }

    fn bias_tolerance(&self, tolerance: f64) -> f64 {
        tolerance * (self.batch.ids.len() as f64).sqrt()
    }

    fn gradient(&self, d_lse: &[f64]) -> AttentionGradient {
        attention_gradient(&self.qkv, &self.batch.cu_seqlens, self.n_heads, &self.mask, &self.d_out, d_lse)
    }

    /// Error from the backend's rounding of the softmax and its gradient before it multiplies with them, if it rounds.
    fn rounding<B: Backend>(&self, backend: &B, gradient: &AttentionGradient) -> Rounding {
        let on_tensor_cores = !B::E::IS_F32
            && backend.name().starts_with("cuda")
            && [32, 64, 128].contains(&(self.hidden / self.n_heads));
        let each = |squares: &[f64]| -> Vec<f64> {
            squares.iter().map(|&s| if on_tensor_cores { tolerance::bf16_weights(s) } else { 0.0 }).collect()
        };
        // No weight is in two rows of a sum over the tokens.
        let mut sums = vec![0.0; 3 * self.hidden];
        for row in gradient.squares.chunks(sums.len()) {
            sums.iter_mut().zip(row).for_each(|(sum, s)| *sum += s);
        }
        Rounding { out: each(&gradient.out_squares), d_qkv: each(&gradient.squares), d_bias: each(&sums) }
    }

    /// Backward reads forward's result as it was stored. With P the softmax and e = <d_out, stored - exact> of a row, it
    /// subtracts P (<d_out, exact> + e) from the row's gradient of the scores; P being the gradient of the log-sum-exp,
    /// that is as if the log-sum-exp had the gradient -e.
    fn d_lse(&self, stored: &[f64], exact: &[f64]) -> Vec<f64> {
        let rounding: Vec<f64> = stored.iter().zip(exact).map(|(s, e)| s - e).collect();
        let rows = rounding.chunks(self.hidden / self.n_heads).zip(self.d_out.chunks(self.hidden / self.n_heads));
        rows.map(|(rounding, d_out)| -rounding.iter().zip(d_out).map(|(r, d)| r * d).sum::<f64>()).collect()
    }
}

/// Error that [`tolerance::bf16_weights`] allows each element.
struct Rounding {
    out: Vec<f64>,
    d_qkv: Vec<f64>,
    d_bias: Vec<f64>,
}

fn largest(x: &[f64]) -> f64 {
    x.iter().fold(0.0, |a: f64, v| a.max(v.abs()))
}

pub fn attention<B: Backend>(backend: &B) {
    for case in cases() {
        for dropout in dropouts() {
            Inputs::new::<B>(&case, 1.0, dropout).check(backend, case.name, 1.0);
        }
    }
}

pub fn attention_of_a_huge_batch<B: Backend>(backend: &B) {
    let ([_, dropout], case) = (dropouts(), huge_batch());
    Inputs::new::<B>(&case, 1.0, dropout).check(backend, case.name, 1.0);
}

/// Lengths around those at which kernels change, tiles end and rows of dropout's bits do, in no order.
pub fn attention_at_seams<B: Backend>(backend: &B) {
    let lens = vec![33, 128, 1, 257, 17, 64, 15, 127, 31, 16, 129, 65, 32, 63];
    for (name, hidden, n_heads) in [("heads of 32", 64, 2), ("heads of 64", 128, 2), ("a head of 128", 128, 1)] {
        // Without dropout, which changes no tile, one size of heads.
        let kinds = dropouts().into_iter().filter(|dropout| dropout.is_some() || hidden == 64);
        for dropout in kinds {
            let case = Case { name, lens: lens.clone(), hidden, n_heads };
            Inputs::new::<B>(&case, 1.0, dropout).check_elements(backend, &format!("{name} at seams"));
        }
    }
}

/// More blocks than leave sums of their own for the bias gradient.
pub fn attention_of_many_short_sequences<B: Backend>(backend: &B) {
    let lens = (0..2100).map(|i| i % 3 + 1).collect();
    let case = Case { name: "2,100 short sequences", lens, hidden: 32, n_heads: 1 };
    for dropout in dropouts() {
        Inputs::new::<B>(&case, 1.0, dropout).check_elements(backend, case.name);
    }
}

/// Scores in the hundreds: one key takes all, and nothing may overflow.
pub fn attention_with_extreme_scores<B: Backend>(backend: &B) {
    let case = Case { name: "extreme scores", lens: vec![3, 70, 1], hidden: 32, n_heads: 2 };
    for dropout in dropouts() {
        Inputs::new::<B>(&case, 12.0, dropout).check(backend, case.name, 12.0);
    }
}
