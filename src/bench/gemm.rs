//! Matrix products of a training step of multilingual-E5-small at 2,600 tokens, and large square ones.

use super::inputs::{tensor, within};
use super::{Benchmark, Case, Op, Work};
use crate::Result;
use crate::backend::{Backend, Element, Gemm, Tensor};

/// Tokens in a chunk.
const TOKENS: usize = 2600;
/// (inputs, outputs) of the linear layers: query, key and value; attention output; the feed-forward network's two.
const LAYERS: [(usize, usize); 4] = [(384, 1152), (384, 384), (384, 1536), (1536, 384)];
/// Number of elements checked.
const SAMPLES: usize = 1000;

/// Which of the factors is transposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProductKind {
    /// `x w^T`: forward.
    Nt,
    /// `d_out w`: the gradient of the input.
    Nn,
    /// `d_out^T x`, with an f32 result: the gradient of the weight.
    Tn,
}

/// A product `(m, k) (k, n)`.
#[derive(Clone, Copy)]
pub struct Shape {
    pub kind: ProductKind,
    pub m: usize,
    pub n: usize,
    pub k: usize,
}

pub fn benchmarks<B: Backend>(parts: usize) -> Vec<Benchmark<B>> {
    let tokens = TOKENS / parts;
    let mut shapes = Vec::new();
    for (inputs, outputs) in LAYERS {
        shapes.push(Shape { kind: ProductKind::Nt, m: tokens, n: outputs, k: inputs });
        shapes.push(Shape { kind: ProductKind::Nn, m: tokens, n: inputs, k: outputs });
        shapes.push(Shape { kind: ProductKind::Tn, m: outputs, n: inputs, k: tokens });
    }
    shapes.extend([ProductKind::Nt, ProductKind::Nn, ProductKind::Tn].map(|kind| Shape {
        kind,
        m: 4096,
        n: 4096,
        k: 4096,
    }));
    let benchmark = |shape: Shape| {
        Benchmark::new(Op::Gemm, shape.name(), shape.work::<B::E>(), move |b: &B| Ok(Box::new(shape.case(b)?)))
    };
    shapes.into_iter().map(benchmark).collect()
}

impl Shape {
    fn name(&self) -> String {
        let kind = match self.kind {
            ProductKind::Nt => "nt",
            ProductKind::Nn => "nn",
            ProductKind::Tn => "tn",
        };
        format!("{kind}/{}x{}x{}", self.m, self.n, self.k)
    }

    /// Work with factors of type `E`.
    pub fn work<E: Element>(&self) -> Work {
        let Shape { kind, m, n, k } = *self;
        let out = if kind == ProductKind::Tn { size_of::<f32>() } else { size_of::<E>() };
        let bytes = (m * k + k * n) * size_of::<E>() + m * n * out;
        Work { flops: 2 * (m * n * k) as u64, bytes: bytes as u64, tokens: 0 }
    }

    pub fn case<'a, B: Backend>(&self, backend: &'a B) -> Result<Product<'a, B>> {
        let Shape { kind, m, n, k } = *self;
        let a = if kind == ProductKind::Tn { [k, m] } else { [m, k] };
        let b = if kind == ProductKind::Nt { [n, k] } else { [k, n] };
        let (out, out_f32) = if kind == ProductKind::Tn { ([0, n], [m, n]) } else { ([m, n], [0, n]) };
        Ok(Product {
            backend,
            shape: *self,
            a: tensor(backend, &a, 1.0, 1)?,
            b: tensor(backend, &b, 1.0, 2)?,
            out: Tensor::zeros(backend, &out)?,
            out_f32: Tensor::zeros(backend, &out_f32)?,
        })
    }
}

pub struct Product<'a, B: Backend> {
    backend: &'a B,
    shape: Shape,
    a: Tensor<B, B::E>,
    b: Tensor<B, B::E>,
    /// The result of `Nt` and `Nn`.
    out: Tensor<B, B::E>,
    /// The result of `Tn`.
    out_f32: Tensor<B, f32>,
}

impl<B: Backend> Case for Product<'_, B> {
    fn run(&mut self) -> Result<()> {
        let (a, b, bias, accumulate) = (&self.a, &self.b, None, false);
        let (trans_a, trans_b) = (self.shape.kind == ProductKind::Tn, self.shape.kind == ProductKind::Nt);
        if trans_a {
            self.backend.gemm_f32(Gemm { a, trans_a, b, trans_b, bias, out: &mut self.out_f32, accumulate })
        } else {
            self.backend.gemm(Gemm { a, trans_a, b, trans_b, bias, out: &mut self.out, accumulate })
        }
    }

    fn check(&mut self) -> Result<()> {
        self.run()?;
        let Shape { kind, m, n, k } = self.shape;
        let (a, b) = (self.a.to_vec(self.backend)?, self.b.to_vec(self.backend)?);
        let (out, out_f32) = (self.out.to_vec(self.backend)?, self.out_f32.to_vec(self.backend)?);
        for sample in 0..SAMPLES {
            let (i, j) = (sample * 7919 % m, sample * 104_729 % n);
            let term = |l: usize| {
                let a = if kind == ProductKind::Tn { a[l * m + i] } else { a[i * k + l] };
                let b = if kind == ProductKind::Nt { b[j * k + l] } else { b[l * n + j] };
                f64::from(a.to_f32()) * f64::from(b.to_f32())
            };
            let (sum, size) = (0..k).map(term).fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()));
            let is_f32 = B::E::IS_F32 || kind == ProductKind::Tn;
            let got = if kind == ProductKind::Tn { out_f32[i * n + j] } else { out[i * n + j].to_f32() };
            let bound = 1e-6 * size + if is_f32 { 0.0 } else { sum.abs() / 256.0 };
            within(&format!("element ({i}, {j})"), f64::from(got), sum, bound)?;
        }
        Ok(())
    }
}
