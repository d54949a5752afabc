//! The loss of a block of scores and its gradient.

use super::support::{Random, assert_close_on_scale, ints, poisoned, read, rounded, tensor};
use crate::reference::difference::assert_gradient;
use crate::reference::info_nce::rows as reference;
use crate::tolerance;
use hbt::backend::{Backend, InfoNceRows, Ints, Tensor};

pub struct Inputs {
    pub scores: Vec<f64>,
    pub n_columns: usize,
    pub positives: Vec<i32>,
    pub inv_temperature: f32,
    pub weight: f32,
}

/// Everything the operation writes.
#[derive(PartialEq)]
pub struct Outputs {
    loss: Vec<f64>,
    cosines: Vec<f64>,
    d_scores: Vec<f64>,
}

impl Inputs {
    /// Scores like cosines. The positive of the first row is in the last column, that of the second in the first, and those
    /// of the others anywhere.
    pub fn new(rows: usize, n_columns: usize, temperature: f32) -> Self {
        let mut random = Random::new((rows + n_columns) as u64);
        Inputs {
            scores: (0..rows * n_columns).map(|_| rounded::<f32>((random.normal() * 0.4).clamp(-1.0, 1.0))).collect(),
            n_columns,
            positives: (0..rows)
                .map(|row| match row {
                    0 => n_columns - 1,
                    1 => 0,
                    _ => random.below(n_columns),
                })
                .map(|column| column as i32)
                .collect(),
            inv_temperature: 1.0 / temperature,
            weight: 1.0 / rows as f32,
        }
    }

    pub fn run<B: Backend>(&self, backend: &B) -> Outputs {
        let rows = self.positives.len();
        let shape = [rows, self.n_columns];
        let (mut loss, mut cosines) = (poisoned(backend, &[rows]), poisoned(backend, &[rows, 2]));
        let mut d_scores: Tensor<B, B::E> = poisoned(backend, &shape);
        backend
            .info_nce_rows(InfoNceRows {
                scores: &tensor(backend, &self.scores, &shape),
                positives: Ints::all(&ints(backend, &self.positives)),
                inv_temperature: self.inv_temperature,
                weight: self.weight,
                loss: &mut loss,
                cosines: &mut cosines,
                d_scores: &mut d_scores,
            })
            .unwrap();
        Outputs { loss: read(backend, &loss), cosines: read(backend, &cosines), d_scores: read(backend, &d_scores) }
    }

    /// Row by row, so that a row with a large gradient does not hide one with a small one.
    fn check<B: Backend>(&self, backend: &B, what: &str) {
        let (n, inv_t) = (self.n_columns, f64::from(self.inv_temperature));
        let got = self.run(backend);
        let expected = reference(&self.scores, n, &self.positives, inv_t);
        // A logit of size |s| / t is rounded, and so is the loss.
        let tolerance = tolerance::sum(n);
        assert_close_on_scale(&format!("info_nce, {what}, loss"), &got.loss, &expected, tolerance, 1.0 + inv_t);
        for (i, row) in self.scores.chunks(n).enumerate() {
            let positive = self.positives[i] as usize;
            let others = (row.iter().sum::<f64>() - row[positive]) / (n.max(2) - 1) as f64;
            let cosines = [row[positive], if n > 1 { others } else { 0.0 }];
            let what = |part: &str| format!("info_nce, {what}, row {i}, {part}");
            assert_close_on_scale(&what("cosines"), &got.cosines[2 * i..2 * i + 2], &cosines, tolerance, 1.0);
            let forward = |scores: &[f64]| reference(scores, n, &[positive as i32], inv_t);
            let d = &got.d_scores[i * n..(i + 1) * n];
            let gradient = tolerance::SOFTMAX + tolerance;
            assert_gradient::<B::E>(&what("d_scores"), forward, row, &[f64::from(self.weight)], d, gradient);
        }
    }
}

pub fn info_nce_rows<B: Backend>(backend: &B) {
    // Single columns and fours of them, by warps of 32 and blocks that hold 4,096, 8,192 and 16,384, and rows of several
    // times that.
    let small = [(1, 1), (1, 2), (3, 7), (2, 31), (2, 32), (5, 64), (8, 33), (2, 1000), (2, 1500)];
    let large = [(2, 4096), (2, 4097), (2, 5000), (3, 8193), (3, 16_388), (1, 65_537)];
    for (rows, columns) in small.into_iter().chain(large) {
        for temperature in [1.0, 0.05, 0.01] {
            Inputs::new(rows, columns, temperature).check(backend, &format!("{rows} x {columns}, t = {temperature}"));
        }
    }
}

/// The ends of what cosines can be at the smallest temperature: a lost row, a won row, ties.
pub fn info_nce_rows_at_the_extremes<B: Backend>(backend: &B) {
    let rows: [(&str, [f64; 4], i32); 6] = [
        ("the positive wins by far", [-1.0, 1.0, -1.0, -0.9], 1),
        ("the positive wins by a little", [0.80, 0.81, 0.7, 0.75], 1),
        ("the positive loses by far", [1.0, 0.99, -1.0, 1.0], 2),
        ("all equal", [0.5; 4], 3),
        ("all one", [1.0; 4], 0),
        ("all minus one", [-1.0; 4], 0),
    ];
    for (what, scores, positive) in rows {
        let scores = scores.map(rounded::<f32>).to_vec();
        let inputs = Inputs { scores, n_columns: 4, positives: vec![positive], inv_temperature: 100.0, weight: 1.0 };
        inputs.check(backend, what);
    }
}
