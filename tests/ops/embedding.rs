//! The embedding: tables, LayerNorm and dropout, and the way back to the tables' gradients.

use super::support::{
    Batch, Case, HostSegments, Random, VOCAB, added, assert_close, assert_close_on_scale, assert_stored, cases,
    dropouts, huge_batch, poisoned, read, rounded, tensor, vector, widths,
};
use crate::reference::difference::assert_gradient;
use crate::reference::embedding::{Embedding, normalized, sum};
use crate::reference::rows::segment_sum;
use crate::tolerance;
use hbt::backend::{Backend, Dropout, EmbeddingBackward, EmbeddingForward, SegmentSum, Tensor};

pub struct Inputs {
    batch: Batch,
    args: Embedding,
    dropout: Option<Dropout>,
    d_out: Vec<f64>,
    /// Initial values of the LayerNorm's gradients.
    start: Vec<f64>,
    /// Tokens by id, by position and by type.
    segments: [HostSegments; 3],
}

/// Everything both passes write, and the tables' gradients that follow from `d_sum`.
#[derive(PartialEq)]
pub struct Outputs {
    sum: Vec<f64>,
    mean: Vec<f64>,
    rstd: Vec<f64>,
    out: Vec<f64>,
    d_sum: Vec<f64>,
    d_weight: Vec<f64>,
    d_bias: Vec<f64>,
    d_tables: [Vec<f64>; 3],
}

impl Inputs {
    pub fn new<B: Backend>(case: &Case, dropout: Option<Dropout>) -> Self {
        let mut random = Random::new(31);
        let h = case.hidden;
        let batch = Batch::new(&case.lens, &mut random);
        let n_positions = case.lens.iter().copied().max().unwrap();
        // A ramp along each row, so that even three elements have a variance to divide by.
        let ramp = |i: usize| 4.0 * (i % h) as f64 / h as f64;
        let word = (0..VOCAB * h).map(|i| rounded::<B::E>(0.3 * random.normal() + ramp(i))).collect();
        let args = Embedding {
            ids: batch.ids.clone(),
            positions: batch.positions.clone(),
            word,
            position: random.values::<B::E>(n_positions * h, 0.3),
            token_type: random.values::<B::E>(2 * h, 0.3),
            weight: random.values::<B::E>(h, 1.0),
            bias: random.values::<B::E>(h, 1.0),
            eps: f64::from(1e-12f32),
            mask: batch.row_mask(dropout, h),
        };
        let all = |n: usize| (0..n as i32).collect::<Vec<_>>();
        let segments = [
            HostSegments::new(&batch.ids, &all(VOCAB)),
            HostSegments::new(&batch.positions, &all(n_positions)),
            HostSegments::new(&vec![0; batch.ids.len()], &[0]),
        ];
        let (d_out, start) = (random.values::<B::E>(case.n_tokens() * h, 1.0), random.values::<f32>(h, 1.0));
        Inputs { batch, args, dropout, d_out, start, segments }
    }

    pub fn run<B: Backend>(&self, backend: &B) -> Outputs {
        let h = self.start.len();
        let n_tokens = self.args.ids.len();
        let batch = self.batch.packed(backend);
        let weight = vector(backend, &self.args.weight);
        let table = |values: &[f64]| tensor(backend, values, &[values.len() / h, h]);
        let [mut sum, mut out, mut d_sum]: [Tensor<B, B::E>; 3] = [(); 3].map(|()| poisoned(backend, &[n_tokens, h]));
        let [mut mean, mut rstd] = [(); 2].map(|()| poisoned(backend, &[n_tokens]));
        backend
            .embedding_forward(EmbeddingForward {
                batch: batch.chunk(0),
                word: &table(&self.args.word),
                position: &table(&self.args.position),
                token_type: &table(&self.args.token_type),
                weight: &weight,
                bias: &vector(backend, &self.args.bias),
                eps: self.args.eps as f32,
                dropout: self.dropout,
                sum: &mut sum,
                mean: &mut mean,
                rstd: &mut rstd,
                out: &mut out,
            })
            .unwrap();
        let [mut d_weight, mut d_bias] = [(); 2].map(|()| vector(backend, &self.start));
        backend
            .embedding_backward(EmbeddingBackward {
                batch: batch.chunk(0),
                d_out: &tensor(backend, &self.d_out, &[n_tokens, h]),
                sum: &sum,
                mean: &mean,
                rstd: &rstd,
                weight: &weight,
                dropout: self.dropout,
                d_sum: &mut d_sum,
                d_weight: &mut d_weight,
                d_bias: &mut d_bias,
            })
            .unwrap();
        let args = &self.args;
        let d_tables = [(&args.word, 0), (&args.position, 1), (&args.token_type, 2)].map(|(table, i)| {
            let mut out = Tensor::zeros(backend, &[table.len() / h, h]).unwrap();
            let segments = &self.segments[i].on(backend);
            backend.segment_sum(SegmentSum { x: &d_sum, segments: segments.get(), out: &mut out }).unwrap();
            read(backend, &out)
        });
        Outputs {
            sum: read(backend, &sum),
            mean: read(backend, &mean),
            rstd: read(backend, &rstd),
            out: read(backend, &out),
            d_sum: read(backend, &d_sum),
            d_weight: added(backend, &d_weight, &self.start),
            d_bias: added(backend, &d_bias, &self.start),
            d_tables,
        }
    }
}

/// The sum is judged by itself, then all that follows from it as it was stored: LayerNorm, its gradients, the tables'.
fn check_case<B: Backend>(backend: &B, case: &Case, dropout: Option<Dropout>) {
    let inputs = Inputs::new::<B>(case, dropout);
    let got = inputs.run(backend);
    let name = |part: &str| format!("embedding, {}, dropout {}, {part}", case.name, dropout.is_some());
    assert_stored::<B::E>(&name("sum"), &got.sum, &sum(&inputs.args), tolerance::ELEMENTWISE);
    let expected = normalized(got.sum.clone(), &inputs.args);
    let largest = expected.sum.iter().fold(0.0f64, |a, v| a.max(v.abs()));
    assert_close_on_scale(&name("mean"), &got.mean, &expected.mean, tolerance::ELEMENTWISE, largest);
    assert_close(&name("rstd"), &got.rstd, &expected.rstd, tolerance::LAYER_NORM);
    assert_stored::<B::E>(&name("out"), &got.out, &expected.out, tolerance::LAYER_NORM);

    let (args, d_out) = (&inputs.args, &inputs.d_out);
    let of_sum = |sum: &[f64]| normalized(sum.to_vec(), args).out;
    assert_gradient::<B::E>(&name("d_sum"), of_sum, &got.sum, d_out, &got.d_sum, tolerance::LAYER_NORM_GRADIENT);
    let of_weight =
        |weight: &[f64]| normalized(got.sum.clone(), &Embedding { weight: weight.to_vec(), ..args.clone() }).out;
    let of_bias = |bias: &[f64]| normalized(got.sum.clone(), &Embedding { bias: bias.to_vec(), ..args.clone() }).out;
    let sum_of_tokens = tolerance::sum(case.n_tokens());
    let tolerance = tolerance::LAYER_NORM_GRADIENT.max(sum_of_tokens);
    assert_gradient::<f32>(&name("d_weight"), of_weight, &args.weight, d_out, &got.d_weight, tolerance);
    assert_gradient::<f32>(&name("d_bias"), of_bias, &args.bias, d_out, &got.d_bias, tolerance);
    for ((got_table, segments), part) in
        got.d_tables.iter().zip(&inputs.segments).zip(["word", "position", "token_type"])
    {
        let HostSegments { order, starts, rows } = segments;
        let zeros = vec![0.0; got_table.len()];
        let expected = segment_sum(&got.d_sum, case.hidden, order, starts, rows, &zeros);
        assert_close(&name(&format!("d_{part}")), got_table, &expected, sum_of_tokens);
    }
}

pub fn embedding<B: Backend>(backend: &B) {
    for case in cases().into_iter().chain(widths()) {
        for dropout in dropouts() {
            check_case(backend, &case, dropout);
        }
    }
}

pub fn embedding_of_a_huge_batch<B: Backend>(backend: &B) {
    let [_, dropout] = dropouts();
    check_case(backend, &huge_batch(), dropout);
}
