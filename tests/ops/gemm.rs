//! Matrix multiplication in all its forms.

use super::support::{Random, assert_stored, poisoned, read, tensor, vector};
use crate::reference::gemm::{Matrix, gemm as reference};
use crate::tolerance;
use hbt::backend::{Backend, Element, Gemm, Tensor, Value};

/// `[m, n, k]`: vectors, sizes around register and block sizes, a sum longer than a cache block, and no sum at all.
pub const SHAPES: [[usize; 3]; 9] = [
    [1, 1, 1],
    [1, 7, 33],
    [33, 1, 7],
    [17, 16, 1],
    [65, 31, 96],
    [5, 3, 1500],
    [130, 96, 24],
    [64, 48, 64],
    [3, 5, 0],
];

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start {
    Overwrite,
    Accumulate,
    Bias,
}

/// Operands and what is there before.
pub struct Inputs {
    pub size: [usize; 3],
    pub transposed: [bool; 2],
    a: Vec<f64>,
    b: Vec<f64>,
    bias: Vec<f64>,
    start: Vec<f64>,
}

impl Inputs {
    pub fn new<B: Backend, C: Element>([m, n, k]: [usize; 3], transposed: [bool; 2]) -> Self {
        let mut random = Random::new((m * 10_000 + n * 100 + k) as u64);
        Inputs {
            size: [m, n, k],
            transposed,
            a: random.values::<B::E>(m * k, 1.0),
            b: random.values::<B::E>(k * n, 1.0),
            bias: random.values::<B::E>(n, 1.0),
            start: random.values::<C>(m * n, 1.0),
        }
    }

    fn shapes(&self) -> [[usize; 2]; 2] {
        let ([m, n, k], [trans_a, trans_b]) = (self.size, self.transposed);
        [if trans_a { [k, m] } else { [m, k] }, if trans_b { [n, k] } else { [k, n] }]
    }

    /// Calls `call` and returns its result.
    pub fn run<B: Backend, C: Element + Value>(
        &self,
        backend: &B,
        start: Start,
        call: impl Fn(Gemm<B, C>) -> hbt::Result<()>,
    ) -> Vec<f64> {
        let [m, n, _] = self.size;
        let [a_shape, b_shape] = self.shapes();
        let bias = vector(backend, &self.bias);
        let mut out: Tensor<B, C> = match start {
            Start::Accumulate => tensor(backend, &self.start, &[m, n]),
            _ => poisoned(backend, &[m, n]),
        };
        call(Gemm {
            a: &tensor(backend, &self.a, &a_shape),
            trans_a: self.transposed[0],
            b: &tensor(backend, &self.b, &b_shape),
            trans_b: self.transposed[1],
            bias: (start == Start::Bias).then_some(&bias),
            out: &mut out,
            accumulate: start == Start::Accumulate,
        })
        .unwrap();
        read(backend, &out)
    }

    fn check<C: Element>(&self, what: &str, got: &[f64], start: Start) {
        let ([m, n, k], [trans_a, trans_b]) = (self.size, self.transposed);
        let [a_shape, b_shape] = self.shapes();
        let a = Matrix { data: &self.a, columns: a_shape[1], transposed: trans_a };
        let b = Matrix { data: &self.b, columns: b_shape[1], transposed: trans_b };
        let before = match start {
            Start::Overwrite => vec![0.0; m * n],
            Start::Accumulate => self.start.clone(),
            Start::Bias => self.bias.repeat(m),
        };
        let what = format!("{what} {:?}, transposed {:?}, {start:?}", self.size, self.transposed);
        assert_stored::<C>(&what, got, &reference(self.size, a, b, &before), tolerance::sum(k));
    }
}

pub const TRANSPOSITIONS: [[bool; 2]; 4] = [[false, false], [false, true], [true, false], [true, true]];

pub fn gemm<B: Backend>(backend: &B) {
    for size in SHAPES {
        for transposed in TRANSPOSITIONS {
            let inputs = Inputs::new::<B, B::E>(size, transposed);
            for start in [Start::Overwrite, Start::Accumulate, Start::Bias] {
                inputs.check::<B::E>("gemm", &inputs.run::<B, B::E>(backend, start, |args| backend.gemm(args)), start);
            }
        }
    }
}

pub fn gemm_f32<B: Backend>(backend: &B) {
    for size in SHAPES {
        for transposed in TRANSPOSITIONS {
            let inputs = Inputs::new::<B, f32>(size, transposed);
            for start in [Start::Overwrite, Start::Accumulate] {
                inputs.check::<f32>(
                    "gemm_f32",
                    &inputs.run::<B, f32>(backend, start, |args| backend.gemm_f32(args)),
                    start,
                );
            }
        }
    }
}
