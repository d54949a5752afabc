//! Plain passes over memory: the norm of the gradients, and a conversion.

use super::inputs::{HIDDEN, SMALL_VOCABULARY, host, near, passes, tensor, values};
use super::{Benchmark, Case, Op};
use crate::Result;
use crate::backend::{Backend, Tensor};

/// Elements of MiniLM's word embeddings.
const ELEMENTS: usize = SMALL_VOCABULARY * HIDDEN;

pub fn sum_of_squares_benchmarks<B: Backend>() -> Vec<Benchmark<B>> {
    let work = passes::<f32>(ELEMENTS, 0);
    vec![Benchmark::new(Op::SumOfSquares, ELEMENTS.to_string(), work, |b| {
        Ok(Box::new(SumOfSquares { backend: b, x: tensor(b, &[ELEMENTS], 1.0, 1)?, out: Tensor::zeros(b, &[1])? }))
    })]
}

struct SumOfSquares<'a, B: Backend> {
    backend: &'a B,
    x: Tensor<B, f32>,
    out: Tensor<B, f32>,
}

impl<B: Backend> Case for SumOfSquares<'_, B> {
    fn run(&mut self) -> Result<()> {
        self.backend.sum_of_squares(&[&self.x], &mut self.out)
    }

    fn check(&mut self) -> Result<()> {
        self.run()?;
        let expected = host(self.backend, &self.x)?.iter().map(|x| x * x).sum();
        near::<f32>("the sum", host(self.backend, &self.out)?[0], expected, 0.0)
    }
}

pub fn cast_benchmarks<B: Backend>() -> Vec<Benchmark<B>> {
    let work = passes::<B::E>(ELEMENTS, ELEMENTS);
    vec![Benchmark::new(Op::Cast, ELEMENTS.to_string(), work, |b| {
        // Values that are no bf16 numbers, so that each has to be rounded.
        let thirds: Vec<f32> = values::<f32>(ELEMENTS, 1.0, 1).into_iter().map(|x| x / 3.0).collect();
        Ok(Box::new(Cast {
            backend: b,
            x: Tensor::from_slice(b, &thirds, &[ELEMENTS])?,
            out: Tensor::zeros(b, &[ELEMENTS])?,
        }))
    })]
}

struct Cast<'a, B: Backend> {
    backend: &'a B,
    x: Tensor<B, f32>,
    out: Tensor<B, B::E>,
}

impl<B: Backend> Case for Cast<'_, B> {
    fn run(&mut self) -> Result<()> {
        self.backend.cast(&self.x, &mut self.out)
    }

    fn check(&mut self) -> Result<()> {
        self.run()?;
        let (x, out) = (host(self.backend, &self.x)?, host(self.backend, &self.out)?);
        x.iter().zip(&out).try_for_each(|(&x, &out)| near::<B::E>("an element", out, x, 0.0))
    }
}
