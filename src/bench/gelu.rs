//! Bias and GELU of the feed-forward network over the MiniLM step's 8,192 tokens.

use super::inputs::{FEED_FORWARD, host, near, passes, samples, tensor, values};
use super::{Benchmark, Case, Op};
use crate::Result;
use crate::backend::{Backend, BiasGeluBackward, BiasGeluForward, Tensor};
use crate::reference::gelu::{bias_gelu, gelu_slope};

const N_TOKENS: usize = 8192;
/// Number of elements, and of columns of the bias's gradient, checked.
const SAMPLES: usize = 20;

pub fn benchmarks<B: Backend>(parts: usize) -> Vec<Benchmark<B>> {
    let n_tokens = N_TOKENS / parts;
    let n = n_tokens * FEED_FORWARD;
    let forward = passes::<B::E>(2 * n + FEED_FORWARD, 0);
    // Input and gradient in, gradient and GELU out.
    let backward = passes::<B::E>(4 * n + FEED_FORWARD, 2 * FEED_FORWARD);
    vec![
        Benchmark::new(Op::BiasGelu, format!("forward/{n_tokens}x{FEED_FORWARD}"), forward, move |b| {
            Ok(Box::new(BiasGelu::new(b, n_tokens, false)?))
        }),
        Benchmark::new(Op::BiasGelu, format!("backward/{n_tokens}x{FEED_FORWARD}"), backward, move |b| {
            Ok(Box::new(BiasGelu::new(b, n_tokens, true)?))
        }),
    ]
}

struct BiasGelu<'a, B: Backend> {
    backend: &'a B,
    backward: bool,
    /// `(T, F)`
    x: Tensor<B, B::E>,
    /// `(F,)`
    bias: Tensor<B, B::E>,
    /// `(T, F)`
    out: Tensor<B, B::E>,
    /// Value of `d` before a run.
    d_out: Vec<B::E>,
    /// `(T, F)` gradient of the result, then of `x`.
    d: Tensor<B, B::E>,
    /// `(F,)`
    d_bias: Tensor<B, f32>,
}

impl<'a, B: Backend> BiasGelu<'a, B> {
    fn new(backend: &'a B, n_tokens: usize, backward: bool) -> Result<Self> {
        let n_gradients = if backward { n_tokens } else { 0 };
        Ok(BiasGelu {
            backend,
            backward,
            x: tensor(backend, &[n_tokens, FEED_FORWARD], 3.0, 1)?,
            bias: tensor(backend, &[FEED_FORWARD], 1.0, 2)?,
            out: Tensor::zeros(backend, &[n_tokens, FEED_FORWARD])?,
            d_out: values(n_gradients * FEED_FORWARD, 1.0, 3),
            d: Tensor::zeros(backend, &[n_gradients, FEED_FORWARD])?,
            d_bias: Tensor::zeros(backend, &[FEED_FORWARD])?,
        })
    }
}

impl<B: Backend> Case for BiasGelu<'_, B> {
    fn reset(&mut self) -> Result<()> {
        self.d.upload(self.backend, &self.d_out)
    }

    fn run(&mut self) -> Result<()> {
        let (x, bias, out) = (&self.x, &self.bias, &mut self.out);
        if self.backward {
            let (d, d_bias) = (&mut self.d, &mut self.d_bias);
            self.backend.bias_gelu_backward(BiasGeluBackward { x, bias, d, out, d_bias })
        } else {
            self.backend.bias_gelu_forward(BiasGeluForward { x, bias, out })
        }
    }

    fn check(&mut self) -> Result<()> {
        self.reset()?;
        let b = self.backend;
        b.zero_all(&mut [&mut self.d_bias])?;
        let d_out = host(b, &self.d)?;
        self.run()?;
        let (x, bias, out) = (host(b, &self.x)?, host(b, &self.bias)?, host(b, &self.out)?);
        let (d, d_bias) = (host(b, &self.d)?, host(b, &self.d_bias)?);
        for i in samples(x.len(), 50 * SAMPLES) {
            let bias = bias[i % FEED_FORWARD];
            near::<B::E>("gelu", out[i], bias_gelu(&x[i..=i], &[bias])[0], 1.0)?;
            if self.backward {
                near::<B::E>("d_x", d[i], d_out[i] * gelu_slope(x[i] + bias), 1.0)?;
            }
        }
        if self.backward {
            for j in samples(FEED_FORWARD, SAMPLES) {
                let terms = (0..x.len() / FEED_FORWARD).map(|row| d[row * FEED_FORWARD + j]);
                let (sum, squares) = terms.fold((0.0, 0.0), |(sum, squares), t| (sum + t, squares + t * t));
                near::<B::E>("d_bias", d_bias[j], sum, f64::sqrt(squares))?;
            }
        }
        Ok(())
    }
}
