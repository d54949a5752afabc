//! Self-attention with 12 heads of 32: on the batch of the MiniLM step, on as many tokens in shorter sequences, and on
//! a batch of XQuAD-R's lengths.

use super::inputs::{HEADS, HIDDEN, all_near, host, packed, passes, samples, tensor, xquad_lengths};
use super::{Benchmark, Case, Op, Work};
use crate::Result;
use crate::backend::{AttentionBackward, AttentionForward, Backend, Dropout, PackedBatch, Tensor};
use crate::reference::attention::{attention, attention_gradient};
use std::ops::Range;

const HEAD_SIZE: usize = HIDDEN / HEADS;
const DROPOUT: Dropout = Dropout { p: 0.1, seed: 1, step: 1, site: 0 };
/// Number of (sequence, head) pairs checked.
const SAMPLES: usize = 6;

pub fn benchmarks<B: Backend>(parts: usize) -> Vec<Benchmark<B>> {
    let equal = |n_seqs: usize, length: usize| (format!("{}x{length}", n_seqs / parts), vec![length; n_seqs / parts]);
    let ((long_name, long), (short_name, short)) = (equal(64, 128), equal(128, 64));
    let batches = [
        (long_name.clone(), long.clone(), None),
        (short_name, short, None),
        (format!("{long_name} dropout"), long, Some(DROPOUT)),
        ("xquad-r dropout".to_owned(), xquad_lengths(32 / parts, 32 / parts), Some(DROPOUT)),
    ];
    let mut benchmarks = Vec::new();
    for (name, lengths, dropout) in batches {
        for backward in [false, true] {
            let shape = format!("{}/{name}", if backward { "backward" } else { "forward" });
            let work = work::<B>(&lengths, backward);
            let lengths = lengths.clone();
            benchmarks.push(Benchmark::new(Op::Attention, shape, work, move |b| {
                Ok(Box::new(Attention::new(b, &lengths, dropout, backward)?))
            }));
        }
    }
    benchmarks
}

/// Two products forward; five backward, because the scores are not kept. Forward reads queries, keys and values and
/// writes the result; backward reads these four and the result's gradient, and writes three gradients.
fn work<B: Backend>(lengths: &[usize], backward: bool) -> Work {
    let n_tokens: usize = lengths.iter().sum();
    let squares: usize = lengths.iter().map(|n| n * n).sum();
    let (products, tensors) = if backward { (5, 8) } else { (2, 4) };
    let flops = products * 2 * squares * HIDDEN;
    Work { flops: flops as u64, ..passes::<B::E>(tensors * n_tokens * HIDDEN, n_tokens * HEADS) }
}

struct Attention<'a, B: Backend> {
    backend: &'a B,
    dropout: Option<Dropout>,
    backward: bool,
    batch: PackedBatch<B>,
    /// `(T, 3 H)`
    qkv: Tensor<B, B::E>,
    /// `(T, heads)`
    lse: Tensor<B, f32>,
    /// `(T, H)`
    out: Tensor<B, B::E>,
    d_out: Tensor<B, B::E>,
    /// `(T, 3 H)`
    d_qkv: Tensor<B, B::E>,
    /// `(3 H,)`
    d_bias: Tensor<B, f32>,
}

impl<'a, B: Backend> Attention<'a, B> {
    fn new(backend: &'a B, lengths: &[usize], dropout: Option<Dropout>, backward: bool) -> Result<Self> {
        let n_tokens = lengths.iter().sum();
        Ok(Attention {
            backend,
            dropout,
            backward,
            batch: packed(backend, lengths, 1)?,
            // Scores of about +-3: the softmax is neither uniform nor concentrated on one key.
            qkv: tensor(backend, &[n_tokens, 3 * HIDDEN], 1.7, 1)?,
            lse: Tensor::zeros(backend, &[n_tokens, HEADS])?,
            out: Tensor::zeros(backend, &[n_tokens, HIDDEN])?,
            d_out: tensor(backend, &[n_tokens, HIDDEN], 1.0, 2)?,
            d_qkv: Tensor::zeros(backend, &[n_tokens, 3 * HIDDEN])?,
            d_bias: Tensor::zeros(backend, &[3 * HIDDEN])?,
        })
    }

    fn forward(&mut self) -> Result<()> {
        self.backend.attention_forward(AttentionForward {
            batch: self.batch.chunk(0),
            n_heads: HEADS,
            qkv: &self.qkv,
            dropout: self.dropout,
            lse: &mut self.lse,
            out: &mut self.out,
        })
    }

    fn backward(&mut self) -> Result<()> {
        self.backend.attention_backward(AttentionBackward {
            batch: self.batch.chunk(0),
            n_heads: HEADS,
            qkv: &self.qkv,
            out: &self.out,
            lse: &self.lse,
            dropout: self.dropout,
            d_out: &self.d_out,
            d_qkv: &mut self.d_qkv,
            d_bias: &mut self.d_bias,
        })
    }
}

impl<B: Backend> Attention<'_, B> {
    /// Dropout factors of a head in one sequence: for each query, one a key.
    fn mask(&self, tokens: Range<usize>, head: usize) -> Vec<Vec<f64>> {
        let of_query = |token: usize| {
            let mut factors = vec![1.0; tokens.len()];
            if let Some(dropout) = self.dropout {
                dropout.factors(token as i32, head as u32, &mut factors);
            }
            factors.into_iter().map(f64::from).collect()
        };
        tokens.clone().map(of_query).collect()
    }
}

impl<B: Backend> Case for Attention<'_, B> {
    fn run(&mut self) -> Result<()> {
        if self.backward { self.backward() } else { self.forward() }
    }

    fn check(&mut self) -> Result<()> {
        self.forward()?;
        if self.backward {
            self.backward()?;
        }
        let b = self.backend;
        let (qkv, d_out) = (host(b, &self.qkv)?, host(b, &self.d_out)?);
        let (lse, out, d_qkv) = (host(b, &self.lse)?, host(b, &self.out)?, host(b, &self.d_qkv)?);
        let cu_seqlens = self.batch.chunk(0).cu_seqlens().to_vec(b)?;
        for pair in samples((cu_seqlens.len() - 1) * HEADS, SAMPLES) {
            let (s, head) = (pair / HEADS, pair % HEADS);
            let tokens = cu_seqlens[s] as usize..cu_seqlens[s + 1] as usize;
            let part = |x: &[f64], width: usize, part: usize| -> Vec<f64> {
                let first = part * HIDDEN + head * HEAD_SIZE;
                tokens.clone().flat_map(|t| x[t * width + first..][..HEAD_SIZE].to_vec()).collect()
            };
            let parts = [0, 1, 2].map(|i| part(&qkv, 3 * HIDDEN, i));
            // Of one sequence and one head, `(n, 3 HEAD_SIZE)`.
            let rows = |i: usize| parts.iter().flat_map(move |part| &part[i * HEAD_SIZE..(i + 1) * HEAD_SIZE]).copied();
            let own: Vec<f64> = (0..tokens.len()).flat_map(rows).collect();
            let (lens, mask) = ([0, tokens.len() as i32], self.mask(tokens.clone(), head));
            if self.backward {
                let (d_out, none) = (part(&d_out, HIDDEN, 0), vec![0.0; tokens.len()]);
                let expected = attention_gradient(&own, &lens, 1, &mask, &d_out, &none).d_qkv;
                for (i, name) in ["d_q", "d_k", "d_v"].into_iter().enumerate() {
                    let d =
                        expected.chunks_exact(3 * HEAD_SIZE).flat_map(|row| &row[i * HEAD_SIZE..(i + 1) * HEAD_SIZE]);
                    all_near::<B::E>(name, &part(&d_qkv, 3 * HIDDEN, i), d.copied())?;
                }
            } else {
                let expected = attention(&own, &lens, 1, HEAD_SIZE, &mask);
                all_near::<B::E>("out", &part(&out, HIDDEN, 0), expected.out)?;
                let lse: Vec<f64> = tokens.clone().map(|t| lse[t * HEADS + head]).collect();
                all_near::<f32>("lse", &lse, expected.lse)?;
            }
        }
        Ok(())
    }
}
