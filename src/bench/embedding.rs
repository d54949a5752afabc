//! The embedding block over the MiniLM step's 8,192 tokens with multilingual-E5-small's embeddings, and their gradient.

use super::inputs::{HIDDEN, LARGE_VOCABULARY, all_near, host, packed, passes, samples, tensor, zipf_token_ids};
use super::layer_norm::check_norm_gradients;
use super::{Benchmark, Case, Op};
use crate::Result;
use crate::backend::{
    Backend, Element, EmbeddingBackward, EmbeddingForward, Ints, PackedBatch, SegmentSum, Segments, Tensor,
};
use crate::reference::layer_norm::{layer_norm, layer_norm_gradient};
use std::collections::BTreeMap;

const LENGTHS: [usize; 64] = [128; 64];
const N_TOKENS: usize = 64 * 128;
const MAX_POSITIONS: usize = 512;
const EPS: f32 = 1e-12;
/// Number of rows checked.
const SAMPLES: usize = 40;

pub fn benchmarks<B: Backend>() -> Vec<Benchmark<B>> {
    let statistics = 2 * N_TOKENS;
    // Word rows in, sum and result out, with three indices a token; rows of positions and of the type stay in the
    // cache.
    let forward = passes::<B::E>(3 * N_TOKENS * HIDDEN, statistics + 3 * N_TOKENS);
    let backward = passes::<B::E>(3 * N_TOKENS * HIDDEN, statistics + 4 * HIDDEN);
    vec![
        Benchmark::new(Op::Embedding, format!("forward/{N_TOKENS}x{HIDDEN}"), forward, |b| {
            Ok(Box::new(Embedding::new(b, false)?))
        }),
        Benchmark::new(Op::Embedding, format!("backward/{N_TOKENS}x{HIDDEN}"), backward, |b| {
            Ok(Box::new(Embedding::new(b, true)?))
        }),
    ]
}

struct Embedding<'a, B: Backend> {
    backend: &'a B,
    backward: bool,
    batch: PackedBatch<B>,
    /// Tables, `H` wide.
    word: Tensor<B, B::E>,
    position: Tensor<B, B::E>,
    token_type: Tensor<B, B::E>,
    /// `(H,)`
    weight: Tensor<B, B::E>,
    bias: Tensor<B, B::E>,
    /// `(T, H)`
    sum: Tensor<B, B::E>,
    out: Tensor<B, B::E>,
    /// `(T,)`
    mean: Tensor<B, f32>,
    rstd: Tensor<B, f32>,
    /// `(T, H)`
    d_out: Tensor<B, B::E>,
    d_sum: Tensor<B, B::E>,
    /// `(H,)`
    d_weight: Tensor<B, f32>,
    d_bias: Tensor<B, f32>,
}

impl<'a, B: Backend> Embedding<'a, B> {
    fn new(backend: &'a B, backward: bool) -> Result<Self> {
        let shape = [N_TOKENS, HIDDEN];
        let vector = || Tensor::zeros(backend, &[HIDDEN]);
        Ok(Embedding {
            backend,
            backward,
            batch: packed(backend, &LENGTHS, LARGE_VOCABULARY)?,
            word: tensor(backend, &[LARGE_VOCABULARY, HIDDEN], 1.0, 1)?,
            position: tensor(backend, &[MAX_POSITIONS, HIDDEN], 1.0, 2)?,
            token_type: tensor(backend, &[2, HIDDEN], 1.0, 3)?,
            weight: tensor(backend, &[HIDDEN], 1.5, 4)?,
            bias: tensor(backend, &[HIDDEN], 0.5, 5)?,
            sum: Tensor::zeros(backend, &shape)?,
            out: Tensor::zeros(backend, &shape)?,
            mean: Tensor::zeros(backend, &[N_TOKENS])?,
            rstd: Tensor::zeros(backend, &[N_TOKENS])?,
            d_out: tensor(backend, &shape, 1.0, 6)?,
            d_sum: Tensor::zeros(backend, &shape)?,
            d_weight: vector()?,
            d_bias: vector()?,
        })
    }

    fn forward(&mut self) -> Result<()> {
        self.backend.embedding_forward(EmbeddingForward {
            batch: self.batch.chunk(0),
            word: &self.word,
            position: &self.position,
            token_type: &self.token_type,
            weight: &self.weight,
            bias: &self.bias,
            eps: EPS,
            dropout: None,
            sum: &mut self.sum,
            mean: &mut self.mean,
            rstd: &mut self.rstd,
            out: &mut self.out,
        })
    }

    fn backward(&mut self) -> Result<()> {
        self.backend.embedding_backward(EmbeddingBackward {
            batch: self.batch.chunk(0),
            d_out: &self.d_out,
            sum: &self.sum,
            mean: &self.mean,
            rstd: &self.rstd,
            weight: &self.weight,
            dropout: None,
            d_sum: &mut self.d_sum,
            d_weight: &mut self.d_weight,
            d_bias: &mut self.d_bias,
        })
    }
}

impl<B: Backend> Case for Embedding<'_, B> {
    fn run(&mut self) -> Result<()> {
        if self.backward { self.backward() } else { self.forward() }
    }

    fn check(&mut self) -> Result<()> {
        let b = self.backend;
        self.forward()?;
        if self.backward {
            b.zero_all(&mut [&mut self.d_weight, &mut self.d_bias])?;
            self.backward()?;
        }
        let (weight, bias) = (host(b, &self.weight)?, host(b, &self.bias)?);
        let (sum, out) = (host(b, &self.sum)?, host(b, &self.out)?);
        let (d_out, d_sum) = (host(b, &self.d_out)?, host(b, &self.d_sum)?);
        let (word, position) = (self.word.to_vec(b)?, host(b, &self.position)?);
        let (token_type, ids, positions) = (
            host(b, &self.token_type)?,
            self.batch.chunk(0).ids().to_vec(b)?,
            self.batch.chunk(0).positions().to_vec(b)?,
        );
        for row in samples(N_TOKENS, SAMPLES) {
            let at = row * HIDDEN..(row + 1) * HIDDEN;
            if self.backward {
                let expected = layer_norm_gradient(&d_out[at.clone()], &sum[at.clone()], &weight, f64::from(EPS));
                all_near::<B::E>("d_sum", &d_sum[at], expected)?;
                continue;
            }
            let word = word[ids[row] as usize * HIDDEN..][..HIDDEN].iter().map(|&v| f64::from(v.to_f32()));
            let others = position[positions[row] as usize * HIDDEN..].iter().zip(&token_type).map(|(p, t)| p + t);
            all_near::<B::E>("sum", &sum[at.clone()], word.zip(others).map(|(w, o)| w + o))?;
            let expected = layer_norm(sum[at.clone()].to_vec(), &weight, &bias, f64::from(EPS));
            all_near::<B::E>("out", &out[at], expected.out)?;
        }
        if self.backward {
            check_norm_gradients(&host(b, &self.d_weight)?, &host(b, &self.d_bias)?, &d_out, &sum)?;
        }
        Ok(())
    }
}

pub fn segment_sum_benchmarks<B: Backend>() -> Vec<Benchmark<B>> {
    let n_rows = TokensByRow::new().0.len();
    let work = passes::<B::E>(N_TOKENS * HIDDEN, 2 * n_rows * HIDDEN + N_TOKENS + 2 * n_rows);
    let shape = format!("{N_TOKENS}x{HIDDEN} to {n_rows} rows");
    vec![Benchmark::new(Op::SegmentSum, shape, work, |b| Ok(Box::new(Segment::new(b)?)))]
}

/// The tokens of a batch by their id: some ids have hundreds of tokens, most have one.
struct TokensByRow(Vec<Vec<i32>>);

impl TokensByRow {
    fn new() -> Self {
        let mut by_id: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for (token, id) in (0..).zip(zipf_token_ids(N_TOKENS, LARGE_VOCABULARY, 1)) {
            by_id.entry(id).or_default().push(token);
        }
        TokensByRow(by_id.into_values().collect())
    }
}

struct Segment<'a, B: Backend> {
    backend: &'a B,
    rows: TokensByRow,
    /// Tokens in the order of their rows, the start of each row's tokens, and the rows.
    segments: [Tensor<B, i32>; 3],
    /// `(T, H)`
    x: Tensor<B, B::E>,
    /// `(rows, H)`
    out: Tensor<B, f32>,
}

impl<'a, B: Backend> Segment<'a, B> {
    fn new(backend: &'a B) -> Result<Self> {
        let rows = TokensByRow::new();
        let n_rows = rows.0.len();
        let ints = |values: &[i32]| Tensor::from_slice(backend, values, &[values.len()]);
        let lengths: Vec<usize> = rows.0.iter().map(Vec::len).collect();
        Ok(Segment {
            backend,
            segments: [
                ints(&rows.0.concat())?,
                ints(&super::inputs::cu_seqlens(&lengths))?,
                ints(&(0..n_rows as i32).collect::<Vec<_>>())?,
            ],
            rows,
            x: tensor(backend, &[N_TOKENS, HIDDEN], 1.0, 1)?,
            out: Tensor::zeros(backend, &[n_rows, HIDDEN])?,
        })
    }
}

impl<B: Backend> Case for Segment<'_, B> {
    fn run(&mut self) -> Result<()> {
        let [order, starts, rows] = self.segments.each_ref().map(Ints::all);
        let segments = Segments::new(order, starts, rows);
        self.backend.segment_sum(SegmentSum { x: &self.x, segments, out: &mut self.out })
    }

    fn check(&mut self) -> Result<()> {
        self.backend.zero_all(&mut [&mut self.out])?;
        self.run()?;
        let (x, out) = (host(self.backend, &self.x)?, host(self.backend, &self.out)?);
        for row in samples(self.rows.0.len(), SAMPLES) {
            let sum = |j: usize| self.rows.0[row].iter().map(|&t| x[t as usize * HIDDEN + j]).sum();
            all_near::<f32>("out", &out[row * HIDDEN..(row + 1) * HIDDEN], (0..HIDDEN).map(sum))?;
        }
        Ok(())
    }
}
