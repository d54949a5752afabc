//! Embeddings of 512 texts of XQuAD-R's lengths by multilingual-E5-small, longest first, packed by a token budget.
//! Tokenization is not part of it.

use super::inputs::{HIDDEN, cu_seqlens, xquad_lengths, zipf_token_ids};
use super::model::{MULTILINGUAL_E5_SMALL, ModelShape};
use super::{Benchmark, Case, Op, Work};
use crate::backend::{Backend, Element, PackedBatch};
use crate::model::{Activations, Encoder, Keep, Packer, Reading, Sequences};
use crate::{Error, Result};
use std::ops::Range;

const MODEL: ModelShape = MULTILINGUAL_E5_SMALL;
/// Number of queries, and of passages.
const N_QUERIES: usize = 256;
/// Tokens of a packed batch.
const CHUNK_TOKENS: usize = 8192;

pub fn benchmarks<B: Backend>() -> Vec<Benchmark<B>> {
    let lengths = lengths();
    let n_tokens: usize = lengths.iter().sum();
    let work = Work { flops: MODEL.forward_flops(&lengths), tokens: n_tokens as u64, bytes: 0 };
    let shape = format!("{} {} texts", MODEL.name, lengths.len());
    vec![Benchmark::new(Op::Encode, shape, work, |b| Ok(Box::new(Encode::new(b)?)))]
}

/// Longest first, as encoding sorts them.
fn lengths() -> Vec<usize> {
    let mut lengths = xquad_lengths(N_QUERIES, N_QUERIES);
    lengths.sort_by_key(|&length| std::cmp::Reverse(length));
    lengths
}

struct Encode<'a, B: Backend> {
    backend: &'a B,
    encoder: Encoder<B>,
    activations: Activations<B>,
    reading: Reading<B, ()>,
    packer: Packer,
    batch: PackedBatch<B>,
    ids: Vec<i32>,
    cu_seqlens: Vec<i32>,
    /// `(n_seqs, H)`
    embeddings: Vec<f32>,
}

impl<'a, B: Backend> Encode<'a, B> {
    fn new(backend: &'a B) -> Result<Self> {
        let (encoder, lengths) = (MODEL.encoder(backend)?, lengths());
        Ok(Encode {
            backend,
            activations: Activations::new(backend, &encoder)?,
            reading: Reading::new(backend, lengths.len() * HIDDEN)?,
            packer: Packer::new(&encoder.config, CHUNK_TOKENS, Keep::Embeddings),
            batch: PackedBatch::new(backend)?,
            encoder,
            ids: zipf_token_ids(lengths.iter().sum(), MODEL.vocabulary, 1),
            cu_seqlens: cu_seqlens(&lengths),
            embeddings: Vec::new(),
        })
    }

    /// Adds the embeddings of the sequences `range` to `out`.
    fn encode(&mut self, range: Range<usize>, out: &mut Vec<f32>) -> Result<()> {
        let (backend, acts) = (self.backend, &mut self.activations);
        let sequences = Sequences::new(&self.ids, &self.cu_seqlens[range.start..=range.end]);
        self.batch.upload(backend, self.packer.pack(sequences)?)?;
        let n_chunks = self.batch.n_chunks();
        for i in 0..n_chunks {
            self.encoder.forward(backend, self.batch.chunk(i), None, Keep::Embeddings, acts)?;
            self.reading.ask(backend, acts.embeddings(), ())?;
            while let Some(((), values)) = self.reading.next(backend, i + 1 == n_chunks)? {
                out.extend(values);
            }
        }
        Ok(())
    }
}

impl<B: Backend> Case for Encode<'_, B> {
    fn run(&mut self) -> Result<()> {
        let mut embeddings = std::mem::take(&mut self.embeddings);
        embeddings.clear();
        self.encode(0..self.cu_seqlens.len() - 1, &mut embeddings)?;
        self.embeddings = embeddings;
        Ok(())
    }

    /// Embeddings are unit vectors. A text's is the same alone and among others, and differs from that of the next
    /// text.
    fn check(&mut self) -> Result<()> {
        self.run()?;
        let cosine =
            |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum() };
        let tolerance = if B::E::IS_F32 { 1e-5 } else { 1e-3 };
        let n_seqs = self.cu_seqlens.len() - 1;
        for s in [0, 1, n_seqs / 2, n_seqs - 1] {
            let mut alone = Vec::new();
            self.encode(s..s + 1, &mut alone)?;
            let packed = |s: usize| &self.embeddings[s * HIDDEN..(s + 1) * HIDDEN];
            let (norm, same) = (cosine(packed(s), packed(s)), cosine(packed(s), &alone));
            let other = cosine(&alone, packed((s + 1) % n_seqs));
            let is_right =
                (norm - 1.0).abs() < 1e-5 && (same - 1.0).abs() < tolerance && other < 1.0 - 10.0 * tolerance;
            if !is_right {
                return Err(Error::other(format!(
                    "wrong result: text {s} has a norm of {norm}, a cosine of {same} with itself encoded alone and of \
                     {other} with the next text; please report it with what hbt info prints"
                )));
            }
        }
        Ok(())
    }
}
