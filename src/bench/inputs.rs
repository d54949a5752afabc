//! Random inputs and batches, and the comparison of results with expected values.

use super::Work;
use crate::backend::{Backend, Element, PackedBatch, PackedHost, Tensor};
use crate::random::{below, hash, unit};
use crate::{Error, Result};
use half::bf16;
use rayon::prelude::*;

/// Hidden size `H` of multilingual-E5-small and of MiniLM.
pub const HIDDEN: usize = 384;
/// Attention heads of both models.
pub const HEADS: usize = 12;
/// Feed-forward size `F` of both models.
pub const FEED_FORWARD: usize = 1536;
/// Size of MiniLM's vocabulary.
pub const SMALL_VOCABULARY: usize = 30_522;
/// Size of multilingual-E5-small's vocabulary.
pub const LARGE_VOCABULARY: usize = 250_037;

/// Values uniform in [-scale, scale), each a bf16 number in either element type, so that both compute the same.
pub fn values<T: Element>(len: usize, scale: f32, seed: u64) -> Vec<T> {
    let value = |i: usize| bf16::from_f32(scale * (2.0 * unit(hash(&[seed, i as u64])) - 1.0) as f32);
    (0..len).into_par_iter().map(|i| T::from_f32(value(i).to_f32())).collect()
}

/// A tensor of [`values`].
pub fn tensor<B: Backend, T: Element>(backend: &B, shape: &[usize], scale: f32, seed: u64) -> Result<Tensor<B, T>> {
    Tensor::from_slice(backend, &values(shape.iter().product(), scale, seed), shape)
}

/// Copies a tensor to the host.
pub fn host<B: Backend, T: Element>(backend: &B, x: &Tensor<B, T>) -> Result<Vec<f64>> {
    Ok(x.to_vec(backend)?.into_iter().map(|v| f64::from(v.to_f32())).collect())
}

/// Token counts of questions and of the sentences that answer them, similar to XQuAD-R's: 12 to 31 tokens with a mean
/// of 21.5, and 20 to 89 with a mean of 54.5.
pub fn xquad_lengths(n_queries: usize, n_passages: usize) -> Vec<usize> {
    let queries = (0..n_queries).map(|i| 12 + i * 7 % 20);
    queries.chain((0..n_passages).map(|i| 20 + i * 13 % 70)).collect()
}

/// Start of each sequence, and after them the number of tokens.
pub fn cu_seqlens(lengths: &[usize]) -> Vec<i32> {
    let mut starts = vec![0];
    for &length in lengths {
        starts.push(starts[starts.len() - 1] + length as i32);
    }
    starts
}

/// Random token ids, all equally likely.
pub fn token_ids(n_tokens: usize, vocabulary: usize, seed: u64) -> Vec<i32> {
    (0..n_tokens as u64).map(|i| below(hash(&[seed, i]), vocabulary as u64) as i32).collect()
}

/// Random token ids, the `r`-th with a probability of about `1 / r`, as words are distributed by Zipf's law.
pub fn zipf_token_ids(n_tokens: usize, vocabulary: usize, seed: u64) -> Vec<i32> {
    let id = |i| (vocabulary as f64).powf(unit(hash(&[seed, i]))) as i32 - 1;
    (0..n_tokens as u64).map(id).collect()
}

/// A packed batch of sequences of these lengths in one chunk, with random ids.
pub fn packed<B: Backend>(backend: &B, lengths: &[usize], vocabulary: usize) -> Result<PackedBatch<B>> {
    let ids = token_ids(lengths.iter().sum(), vocabulary, 9);
    let mut host = PackedHost::default();
    host.begin(None);
    let cu_seqlens = cu_seqlens(lengths);
    host.push_chunk(&ids, &cu_seqlens, &cu_seqlens[..lengths.len()], 0);
    let mut batch = PackedBatch::new(backend)?;
    batch.upload(backend, &host)?;
    Ok(batch)
}

/// `count` numbers below `n`, the first and the last among them, evenly spaced.
pub fn samples(n: usize, count: usize) -> impl Iterator<Item = usize> {
    let last = count.min(n).max(2) - 1;
    (0..=last).map(move |i| i * (n - 1) / last)
}

/// Fails unless `got` is within `bound` of `expected`.
pub fn within(what: &str, got: f64, expected: f64, bound: f64) -> Result<()> {
    // Written so that NaN fails.
    if (got - expected).abs() <= bound {
        return Ok(());
    }
    Err(Error::other(format!(
        "wrong result: {what} is {got:e} and should be {expected:e}; please report it with what hbt info prints"
    )))
}

/// Fails unless `got` is `expected`, up to the rounding of a result of type `T` to values as large as `scale`.
pub fn near<T: Element>(what: &str, got: f64, expected: f64, scale: f64) -> Result<()> {
    // f32: sums of a few hundred terms. bf16: one rounding to 8 bits, and as much for intermediate values.
    let tolerance = if T::IS_F32 { 2e-5 } else { 1.0 / 128.0 };
    within(what, got, expected, tolerance * expected.abs().max(scale))
}

/// [`near`] for every element; the scale is the largest expected magnitude.
pub fn all_near<T: Element>(what: &str, got: &[f64], expected: impl IntoIterator<Item = f64>) -> Result<()> {
    let expected: Vec<f64> = expected.into_iter().collect();
    assert_eq!(got.len(), expected.len(), "{what}: length");
    let scale = expected.iter().fold(0.0f64, |a, e| a.max(e.abs()));
    got.iter().zip(&expected).try_for_each(|(&got, &expected)| near::<T>(what, got, expected, scale))
}

/// Work of a pass over memory that reads or writes `working` elements of type `E` and `wide` of four bytes.
pub fn passes<E: Element>(working: usize, wide: usize) -> Work {
    Work { bytes: (working * size_of::<E>() + wide * 4) as u64, ..Work::default() }
}
