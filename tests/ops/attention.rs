//! Self-attention, forward and backward.

use super::support::{
    Batch, Case, Random, added, assert_close_on_scale, assert_stored, cases, dropouts, poisoned, read, tensor,
};
use crate::reference::attention::attention as reference;
use crate::reference::difference::{assert_along_directions, assert_gradient};
use crate::tolerance;
use hbt::backend::{AttentionBackward, AttentionForward, Backend, Dropout, Tensor};

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
        // Scores are sums of `head size` products; the softmax turns their absolute error into a relative one.
        let head_size = self.hidden / self.n_heads;
        let score = tolerance::sum(head_size) * (std * std).max(1.0);
        assert_close_on_scale(&name("lse"), &got.lse, &expected.lse, score, 1.0 + largest(&expected.lse));
        assert_stored::<B::E>(&name("out"), &got.out, &expected.out, tolerance::SOFTMAX + score);
        let both_of = |qkv: &[f64]| {
            let both = forward(qkv);
            [both.out, both.lse].concat()
        };
        let d_both = [self.d_out.clone(), self.d_lse(&got.out, &expected.out)].concat();
        assert_gradient::<B::E>(&name("d_qkv"), both_of, &self.qkv, &d_both, &got.d_qkv, tolerance::SOFTMAX + score);
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
        let n_tokens = self.batch.ids.len();
        let bound = (tolerance::SOFTMAX + score) * (n_tokens as f64).sqrt();
        let zeros = vec![0.0; 3 * self.hidden];
        assert_along_directions::<f32>(&name("d_bias"), of_bias, &zeros, &d_both, &got.d_bias, bound);
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

/// Scores in the hundreds: one key takes all, and nothing may overflow.
pub fn attention_with_extreme_scores<B: Backend>(backend: &B) {
    let case = Case { name: "extreme scores", lens: vec![3, 70, 1], hidden: 32, n_heads: 2 };
    for dropout in dropouts() {
        Inputs::new::<B>(&case, 12.0, dropout).check(backend, case.name, 12.0);
    }
}
