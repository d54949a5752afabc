//! Random inputs, batches and tensors, for checks that do not know their backend.

use crate::tolerance::{Alike, UNDERFLOW, stored};
use hbt::backend::{Backend, Dropout, Element, HostPairing, Ints, PackedBatch, PackedHost, Segments, Tensor};
use hbt::loss::LossConfig;
use hbt::model::{Keep, ModelConfig, Packer, Sequences};

pub use crate::tolerance::rounded;

/// xorshift64*: enough for test inputs, and nothing that the code under test uses.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// In (0, 1).
    pub fn uniform(&mut self) -> f64 {
        ((self.next() >> 12) as f64 + 0.5) / (1u64 << 52) as f64
    }

    /// In `0..n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.uniform() * n as f64) as usize
    }

    /// Standard normal, by Box and Muller.
    pub fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    pub fn normals(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| self.normal()).collect()
    }

    /// Normal values with this standard deviation that `T` holds exactly, so that the reference sees what the device sees.
    pub fn values<T: Element>(&mut self, n: usize, std: f64) -> Vec<f64> {
        (0..n).map(|_| rounded::<T>(std * self.normal())).collect()
    }
}

/// A tensor of values that `T` holds exactly.
pub fn tensor<B: Backend, T: Element>(backend: &B, values: &[f64], shape: &[usize]) -> Tensor<B, T> {
    let values: Vec<T> = values.iter().map(|&v| T::from_f32(v as f32)).collect();
    Tensor::from_slice(backend, &values, shape).unwrap()
}

/// A one-dimensional tensor.
pub fn vector<B: Backend, T: Element>(backend: &B, values: &[f64]) -> Tensor<B, T> {
    tensor(backend, values, &[values.len()])
}

pub fn ints<B: Backend>(backend: &B, values: &[i32]) -> Tensor<B, i32> {
    Tensor::from_slice(backend, values, &[values.len()]).unwrap()
}

/// A result to be: all NaN, so that an element that is read before it is written, or never written, shows.
pub fn poisoned<B: Backend, T: Element>(backend: &B, shape: &[usize]) -> Tensor<B, T> {
    Tensor::from_slice(backend, &vec![T::from_f32(f32::NAN); shape.iter().product()], shape).unwrap()
}

/// A host copy.
pub fn read<B: Backend, T: Element>(backend: &B, x: &Tensor<B, T>) -> Vec<f64> {
    x.to_vec(backend).unwrap().into_iter().map(|v| f64::from(v.to_f32())).collect()
}

/// Values that an accumulating operation added to `start`.
pub fn added<B: Backend>(backend: &B, x: &Tensor<B, f32>, start: &[f64]) -> Vec<f64> {
    read(backend, x).iter().zip(start).map(|(x, s)| x - s).collect()
}

/// Panics unless every |got - expected| is at most `tolerance` times the largest |expected|.
#[track_caller]
pub fn assert_close(what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_stored::<f32>(what, got, expected, tolerance);
}

/// Panics unless every |got - expected| is at most `tolerance * scale`.
#[track_caller]
pub fn assert_close_on_scale(what: &str, got: &[f64], expected: &[f64], tolerance: f64, scale: f64) {
    assert_stored_on_scale::<f32>(what, got, expected, tolerance, scale);
}

/// [`assert_close`] for a result that is stored as a `T`.
#[track_caller]
pub fn assert_stored<T: Element>(what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    let largest = expected.iter().fold(0.0f64, |a, e| a.max(e.abs()));
    assert_stored_on_scale::<T>(what, got, expected, tolerance, largest);
}

/// [`assert_close_on_scale`] for a result that is stored as a `T`.
#[track_caller]
pub fn assert_stored_on_scale<T: Element>(what: &str, got: &[f64], expected: &[f64], tolerance: f64, scale: f64) {
    assert_stored_each::<T>(what, got, expected, |_| tolerance * scale);
}

/// Panics unless every result, stored as a `T`, was computed to within `computed` of its index.
#[track_caller]
pub fn assert_stored_each<T: Element>(what: &str, got: &[f64], expected: &[f64], computed: impl Fn(usize) -> f64) {
    assert_eq!(got.len(), expected.len(), "{what}: length");
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        let error = (g - e).abs();
        let allowed = stored::<T>(*e, computed(i)) + UNDERFLOW;
        // Turned round so that NaN fails.
        assert!(error <= allowed, "{what}, element {i}: {g:e} for {e:e}, off by {error:e}, allowed {allowed:e}");
    }
}

/// Panics unless two vectors, of which at least one was computed in bf16, point the same way and are as long.
#[track_caller]
pub fn assert_alike<T: Copy + Into<f64>>(what: &str, got: &[T], expected: &[T], (least, norm): Alike) {
    assert_eq!(got.len(), expected.len(), "{what}: length");
    let dot = |a: &[T], b: &[T]| a.iter().zip(b).map(|(&a, &b)| a.into() * b.into()).sum::<f64>();
    let (a, b) = (dot(got, got).sqrt(), dot(expected, expected).sqrt());
    let (cosine, quotient) = (dot(got, expected) / (a * b), a / b);
    assert!(cosine > least, "{what}: cosine {cosine}");
    assert!((quotient - 1.0).abs() < norm, "{what}: {quotient} times as long");
}

/// A shape that has gone wrong in one program or another.
pub struct Case {
    pub name: &'static str,
    /// Tokens of each sequence.
    pub lens: Vec<usize>,
    pub hidden: usize,
    pub n_heads: usize,
}

impl Case {
    pub fn n_tokens(&self) -> usize {
        self.lens.iter().sum()
    }
}

/// The one table of shapes. Rows are processed in blocks of 64 and vectors of 16, so sizes lie around those.
pub fn cases() -> Vec<Case> {
    let case = |name, lens: &[usize], hidden, n_heads| Case { name, lens: lens.to_vec(), hidden, n_heads };
    vec![
        case("one token, hidden 1", &[1], 1, 1),
        case("head size 1", &[3, 1, 5], 7, 7),
        case("odd sizes", &[13, 1, 2, 64, 31], 33, 3),
        case("head size 32", &[1, 63, 1, 2], 96, 3),
        case("head size 64, one row above a block", &[65], 64, 1),
        case("head size 128", &[5, 9], 384, 3),
        case("one long sequence among short ones", &[2, 700, 1, 3], 8, 2),
    ]
}

/// More sequences than a side of a grid has blocks. It takes a stand-in for a device long, so it runs in one order of threads.
pub fn huge_batch() -> Case {
    Case { name: "70,000 sequences of one token", lens: vec![1; 70_000], hidden: 3, n_heads: 1 }
}

/// Widths around those at which a device cuts a row otherwise (vectors, 256 columns a warp's step, 1,024 in registers), for
/// operations that treat each row by itself. There are more rows than a block has. From 4 on: two columns are normalized to
/// 1 and -1 whatever they are, and a gradient that is 0 but for eps has no digits to compare.
pub fn widths() -> impl Iterator<Item = Case> {
    [4, 8, 32, 40, 128, 256, 258, 384, 512, 768, 1024, 1026].into_iter().map(|hidden| {
        let name = format!("20 rows of {hidden}").leak();
        Case { name, lens: vec![17, 3], hidden, n_heads: 1 }
    })
}

/// A packed batch on the host.
pub struct Batch {
    pub ids: Vec<i32>,
    pub positions: Vec<i32>,
    pub cu_seqlens: Vec<i32>,
    pub global_rows: Vec<i32>,
}

/// Rows of the word table that batches draw from: few enough that ids repeat.
pub const VOCAB: usize = 11;

impl Batch {
    /// A chunk from the middle of a larger batch: its global rows do not start at 0.
    pub fn new(lens: &[usize], random: &mut Random) -> Self {
        let n_tokens: usize = lens.iter().sum();
        let mut cu_seqlens = vec![0];
        for &len in lens {
            cu_seqlens.push(cu_seqlens[cu_seqlens.len() - 1] + len as i32);
        }
        Batch {
            ids: (0..n_tokens).map(|_| random.below(VOCAB) as i32).collect(),
            positions: lens.iter().flat_map(|&len| 0..len as i32).collect(),
            cu_seqlens,
            global_rows: (0..n_tokens as i32).map(|i| i + 1000).collect(),
        }
    }

    /// On the device, in one chunk.
    pub fn packed<B: Backend>(&self, backend: &B) -> PackedBatch<B> {
        let mut host = PackedHost::default();
        host.begin(None);
        let cu_seqlens: Vec<i32> = self.cu_seqlens.iter().map(|at| at + self.global_rows[0]).collect();
        host.push_chunk(&self.ids, &cu_seqlens, &cu_seqlens[..self.n_seqs()], 0);
        let mut batch = PackedBatch::new(backend).unwrap();
        batch.upload(backend, &host).unwrap();
        batch
    }

    pub fn n_seqs(&self) -> usize {
        self.cu_seqlens.len() - 1
    }

    /// `(T, hidden)` factors of a dropout that follows or precedes a LayerNorm.
    pub fn row_mask(&self, dropout: Option<Dropout>, hidden: usize) -> Vec<f64> {
        self.global_rows.iter().flat_map(|&row| factors(dropout, row, 0, hidden)).collect()
    }

    /// The attention's factors: for each (token, head), one a key.
    pub fn attention_mask(&self, dropout: Option<Dropout>, n_heads: usize) -> Vec<Vec<f64>> {
        let mut mask = Vec::new();
        for bounds in self.cu_seqlens.windows(2) {
            for token in bounds[0]..bounds[1] {
                for head in 0..n_heads {
                    let n_keys = (bounds[1] - bounds[0]) as usize;
                    mask.push(factors(dropout, self.global_rows[token as usize], head as u32, n_keys));
                }
            }
        }
        mask
    }
}

/// Sequences on the device, in chunks of at most `chunk_tokens` tokens, ready to be propagated back.
pub fn pack<B: Backend>(
    backend: &B,
    config: &ModelConfig,
    sequences: Sequences,
    chunk_tokens: usize,
) -> PackedBatch<B> {
    let mut batch = PackedBatch::new(backend).unwrap();
    batch.upload(backend, Packer::new(config, chunk_tokens, Keep::Everything).pack(sequences).unwrap()).unwrap();
    batch
}

/// [`pack`] for a loss.
pub fn pack_pairs<B: Backend>(
    backend: &B,
    config: &ModelConfig,
    sequences: Sequences,
    chunk_tokens: usize,
    pairing: &HostPairing,
) -> PackedBatch<B> {
    let mut batch = PackedBatch::new(backend).unwrap();
    let mut packer = Packer::new(config, chunk_tokens, Keep::Everything);
    batch.upload(backend, packer.pack_pairs(sequences, pairing).unwrap()).unwrap();
    batch
}

/// The usual loss.
pub fn loss_config(temperature: f32, symmetric: bool) -> LossConfig {
    LossConfig { symmetric, ..LossConfig::new(temperature) }
}

/// Results that were read back.
pub fn receive<B: Backend>(backend: &B, results: &mut B::Readback) -> Vec<f32> {
    let mut values = Vec::new();
    backend.receive(results, &mut values).unwrap();
    values
}

/// The mask alone is taken from the code under test; its statistics and known answers have tests in philox.rs.
pub fn factors(dropout: Option<Dropout>, row: i32, head: u32, n: usize) -> Vec<f64> {
    let mut factors = vec![1.0; n];
    if let Some(dropout) = dropout {
        dropout.factors(row, head, &mut factors);
    }
    factors.into_iter().map(f64::from).collect()
}

/// No dropout, and a strong one, so that every sequence loses something.
pub fn dropouts() -> [Option<Dropout>; 2] {
    [None, Some(Dropout { p: 0.3, seed: 0x1234_5678_9ABC, step: 9, site: 6 })]
}

/// Segments on the host: tokens by the row they add to.
pub struct HostSegments {
    pub order: Vec<i32>,
    pub starts: Vec<i32>,
    pub rows: Vec<i32>,
}

impl HostSegments {
    /// Token `t` adds to row `row_of[t]`; segments come in the order of `rows`, of which some may have no token.
    pub fn new(row_of: &[i32], rows: &[i32]) -> Self {
        let (mut order, mut starts) = (Vec::new(), vec![0]);
        for row in rows {
            order.extend((0..row_of.len()).filter(|&t| row_of[t] == *row).map(|t| t as i32));
            starts.push(order.len() as i32);
        }
        HostSegments { order, starts, rows: rows.to_vec() }
    }

    pub fn on<B: Backend>(&self, backend: &B) -> DeviceSegments<B> {
        DeviceSegments([&self.order, &self.starts, &self.rows].map(|list| ints(backend, list)))
    }
}

/// [`HostSegments`] on a device.
pub struct DeviceSegments<B: Backend>([Tensor<B, i32>; 3]);

impl<B: Backend> DeviceSegments<B> {
    pub fn get(&self) -> Segments<'_, B> {
        let [order, starts, rows] = self.0.each_ref().map(Ints::all);
        Segments::new(order, starts, rows)
    }
}
