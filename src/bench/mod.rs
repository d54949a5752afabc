//! Benchmarks: every operation of a [`Backend`] at the shapes of training, a whole training step, and encoding.
//!
//! A [`Benchmark`] is defined once, and both `cargo bench` and `hbt bench` run it. Each checks its answer before it is
//! timed. The time is the best of several runs: on a machine with other work the best shows the speed of the code, and
//! the mean the load of the machine.
//!
//! # The share of the ceiling
//!
//! The machine's limits are measured in the same run ([`Ceilings`]): a large matrix product in the same element type,
//! and a large copy. A benchmark's [`Work`] is the floating-point operations of its matrix products and the bytes that
//! it has to read and write if each is touched once. The larger of the two times that the ceilings allow for this work
//! is the least time, and [`Measured::share`] is that least time over the measured one. Other arithmetic (exponentials
//! of a softmax, random numbers of a dropout) is not counted, so it lowers the share; data that stays in the
//! processor's caches from run to run can raise it above 1.

mod adamw;
mod attention;
mod ceilings;
mod embedding;
mod encode;
mod gelu;
mod gemm;
mod info_nce;
mod inputs;
mod l2_normalize;
mod layer_norm;
mod loss;
mod model;
mod passes;
mod pooling;
mod report;
mod train_step;

pub use ceilings::{CeilingMeter, Ceilings};
pub use report::{ReportRow, table_head};

use crate::backend::Backend;
use crate::{Error, Result};
use std::time::{Duration, Instant};

crate::choices::choices! {
    /// The subject of a benchmark: an operation in both directions, or something end to end.
    Op {
        /// Matrix products.
        Gemm = "gemm",
        /// Self-attention.
        Attention = "attention",
        /// Bias, dropout, residual and LayerNorm.
        ResidualLayerNorm = "residual_layer_norm",
        /// Bias and GELU.
        BiasGelu = "bias_gelu",
        /// Embedding tables, LayerNorm and dropout.
        Embedding = "embedding",
        /// Gradient of an embedding table.
        SegmentSum = "segment_sum",
        /// Pooling of token vectors to one vector a sequence.
        Pooling = "pooling",
        /// Normalization to unit vectors.
        L2Normalize = "l2_normalize",
        /// The loss of a block of scores.
        InfoNceRows = "info_nce_rows",
        /// The whole loss of large batches.
        InfoNce = "info_nce",
        /// The optimizer's update.
        AdamW = "adamw",
        /// The norm of the gradients.
        SumOfSquares = "sum_of_squares",
        /// Conversion from f32 to the working type.
        Cast = "cast",
        /// A whole step: forward, loss, backward, update.
        TrainStep = "train_step",
        /// Embeddings of token sequences.
        Encode = "encode",
    }
}

impl Op {
    /// All benchmarks of this operation, including those that are not [usual](Benchmark::is_usual). None is built yet.
    pub fn benchmarks<B: Backend>(self) -> Vec<Benchmark<B>> {
        self.benchmarks_of_part(1)
    }

    /// The same on a `parts`-th of the sequences, tokens or rows, where a size can be chosen: for what is counted and not
    /// timed, of which a large batch shows no more than a small one.
    pub fn benchmarks_of_part<B: Backend>(self, parts: usize) -> Vec<Benchmark<B>> {
        match self {
            Op::Gemm => gemm::benchmarks(parts),
            Op::Attention => attention::benchmarks(parts),
            Op::ResidualLayerNorm => layer_norm::benchmarks(parts),
            Op::BiasGelu => gelu::benchmarks(parts),
            Op::Embedding => embedding::benchmarks(),
            Op::SegmentSum => embedding::segment_sum_benchmarks(),
            Op::Pooling => pooling::benchmarks(),
            Op::L2Normalize => l2_normalize::benchmarks(),
            Op::InfoNceRows => info_nce::benchmarks(),
            Op::AdamW => adamw::benchmarks(parts),
            Op::SumOfSquares => passes::sum_of_squares_benchmarks(),
            Op::Cast => passes::cast_benchmarks(),
            Op::InfoNce | Op::TrainStep | Op::Encode => self.end_to_end(),
        }
    }

    /// The benchmarks of a combination of many operations; empty for a single operation.
    pub fn end_to_end<B: Backend>(self) -> Vec<Benchmark<B>> {
        match self {
            Op::InfoNce => loss::benchmarks(),
            Op::TrainStep => train_step::benchmarks(),
            Op::Encode => encode::benchmarks(),
            _ => Vec::new(),
        }
    }

    /// Whether this is a combination of many operations.
    pub fn is_end_to_end(self) -> bool {
        matches!(self, Op::TrainStep | Op::Encode | Op::InfoNce)
    }
}

/// Least work of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Floating-point operations of its matrix products, a multiplication and an addition being two.
    pub flops: u64,
    /// Bytes read and bytes written, each element of each tensor once; 0 if only arithmetic is counted.
    pub bytes: u64,
    /// Tokens, if a run handles whole texts; else 0.
    pub tokens: u64,
}

/// Inputs and results of a benchmark in memory.
pub trait Case {
    /// Restores the inputs that the last run changed. Not timed.
    ///
    /// # Errors
    /// If a copy to the device fails.
    fn reset(&mut self) -> Result<()> {
        Ok(())
    }

    /// The timed part.
    ///
    /// # Errors
    /// If the device has no memory left.
    fn run(&mut self) -> Result<()>;

    /// Runs, and compares the result with something independent: usually sampled elements in f64 loops.
    ///
    /// # Errors
    /// If the result is wrong, naming the expected one.
    fn check(&mut self) -> Result<()>;
}

/// Constructor of a benchmark's inputs.
type Build<B> = dyn for<'a> Fn(&'a B) -> Result<Box<dyn Case + 'a>>;

/// One operation at one shape.
pub struct Benchmark<B: Backend> {
    /// Operation that is measured.
    pub op: Op,
    /// Direction or transposition and sizes, such as `nt/2600x1152x384`.
    pub shape: String,
    /// Least work of one run.
    pub work: Work,
    /// Whether it runs when no shape is named: not if it takes minutes on a processor.
    pub is_usual: bool,
    build: Box<Build<B>>,
}

impl<B: Backend> Benchmark<B> {
    fn new(
        op: Op,
        shape: impl Into<String>,
        work: Work,
        build: impl for<'a> Fn(&'a B) -> Result<Box<dyn Case + 'a>> + 'static,
    ) -> Self {
        Benchmark { op, shape: shape.into(), work, is_usual: true, build: Box::new(build) }
    }

    fn only_when_named(self) -> Self {
        Benchmark { is_usual: false, ..self }
    }

    /// Whether `names` ask for it: by a part of its shape, or, if there are no names, by being usual.
    pub fn is_named(&self, names: &[String]) -> bool {
        if names.is_empty() { self.is_usual } else { names.iter().any(|name| self.shape.contains(name.as_str())) }
    }

    /// Allocates the inputs, without a check.
    ///
    /// # Errors
    /// If the device has no memory left.
    pub fn built<'a>(&self, backend: &'a B) -> Result<Box<dyn Case + 'a>> {
        (self.build)(backend)
    }

    /// Allocates the inputs and checks the answer.
    ///
    /// # Errors
    /// When the device has no memory left, or the answer is wrong.
    pub fn checked<'a>(&self, backend: &'a B) -> Result<Box<dyn Case + 'a>> {
        let mut case = self.built(backend)?;
        case.check().map_err(|e| Error::other(format!("{} {}: {e}", self.op, self.shape)))?;
        Ok(case)
    }

    /// Builds, checks and times, spending about `budget` on the timing, or twice that where caches can be flushed.
    ///
    /// # Errors
    /// Those of [`Benchmark::checked`].
    pub fn best_time(&self, backend: &B, budget: Duration) -> Result<BestTime> {
        let mut case = self.checked(backend)?;
        let warm = best_of(backend, &mut *case, budget)?;
        let cold = if self.op.is_end_to_end() { None } else { best_cold(backend, &mut *case, budget)? };
        Ok(BestTime { warm, cold })
    }
}

/// Times of the shortest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BestTime {
    /// Runs one after another, so that data that fits the device's caches stays there.
    pub warm: Duration,
    /// Runs that each follow a flush of the caches, if the device can do that.
    pub cold: Option<Duration>,
}

impl BestTime {
    /// The shorter of the two times, warm and cold.
    pub fn min(self, other: Self) -> Self {
        let cold = self.cold.into_iter().chain(other.cold).min();
        BestTime { warm: self.warm.min(other.warm), cold }
    }
}

/// The shortest of as many runs as fit into `budget`, at least one.
///
/// # Errors
/// Those of the case.
pub fn best_of<B: Backend>(backend: &B, case: &mut dyn Case, budget: Duration) -> Result<Duration> {
    let (begin, mut best, mut runs) = (Instant::now(), Duration::MAX, 0);
    while runs == 0 || begin.elapsed() < budget {
        best = best.min(timed(backend, case)?);
        runs += 1;
    }
    Ok(best)
}

/// [`best_of`] with flushed caches before each run; `None` if the device cannot do that.
fn best_cold<B: Backend>(backend: &B, case: &mut dyn Case, budget: Duration) -> Result<Option<Duration>> {
    let (begin, mut best) = (Instant::now(), None);
    while best.is_none() || begin.elapsed() < budget {
        case.reset()?;
        if !backend.flush_cache()? {
            return Ok(None);
        }
        let time = backend.time(&mut || case.run())?;
        best = Some(best.map_or(time, |best: Duration| best.min(time)));
    }
    Ok(best)
}

/// One run.
///
/// # Errors
/// Those of the case.
pub fn timed<B: Backend>(backend: &B, case: &mut dyn Case) -> Result<Duration> {
    case.reset()?;
    backend.time(&mut || case.run())
}

/// The ceiling that allows the longer time for the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The large matrix product.
    Gemm,
    /// The large copy.
    Copy,
}

/// Speed of a benchmark.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Work of a run.
    pub work: Work,
    /// Best time of a run.
    pub seconds: f64,
    /// The ceiling that [`Measured::share`] refers to.
    pub bound: Bound,
    /// Least time that the ceilings allow over the measured time, if ceilings were measured.
    pub share: Option<f64>,
}

impl Measured {
    /// `work` done in `time`, without known ceilings.
    pub fn alone(work: Work, time: Duration) -> Self {
        let bound = if work.flops > 0 { Bound::Gemm } else { Bound::Copy };
        Measured { work, seconds: time.as_secs_f64(), bound, share: None }
    }
}

/// Memory of a device that a benchmark took, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryTaken {
    /// Most bytes that its buffers held at a time, including workspaces of the backend that it was the first to need.
    pub peak: u64,
    /// Bytes of its buffers as `hbt plan` counts them.
    pub planned: u64,
    /// Bytes that the process has reserved on the device for buffers of any kind.
    pub reserved: u64,
    /// Bytes in use on the device, by any process: `reserved`, contexts and the code of kernels.
    pub in_use: u64,
}
