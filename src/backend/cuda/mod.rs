//! The CUDA backend: kernels of kernels/ and cuBLASLt's products, all on one stream in the order of the calls. The driver
//! is loaded at run time: hbt builds and starts without one.
//!
//! Nothing here waits for the device but `download` and `receive`. No kernel uses an atomic, and how work is cut follows from its
//! shape, so the same calls on the same device give the same bytes.

#![allow(unsafe_code)]

mod adamw;
mod adamw_rows;
mod api;
mod attention;
mod device;
mod driver;
mod embedding;
mod gelu;
mod gemm;
mod images;
mod info_nce;
mod kernels;
mod launch;
mod layer_norm;
mod memory;
mod nccl;
mod partials;
mod pointers;
mod pooling;
mod probe;
mod rows;
mod tensor_list;
mod transfer;
mod workload;

pub use images::Progress;
pub use memory::DeviceBuffer;
pub use nccl::{exchange_in_rings, may_share_gpus, require_nccl};
pub use probe::{CudaDevice, CudaProbe, libraries, probe, require};
pub use workload::{Kernels, Workload};

use super::*;
use crate::{Error, Result};
use device::Device;
use driver::Event;
use pointers::Scratch;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;
use transfer::{Arrival, Pinned, Readback};

/// Bytes that are free on the GPU `ordinal`, and all that it has.
///
/// # Errors
/// When the driver does not open it.
pub fn memory(ordinal: usize) -> Result<(u64, u64)> {
    driver::Context::new(ordinal as i32)?.memory().map(|(free, all)| (free as u64, all as u64))
}

/// Checks the values of the environment variables that computing on a GPU goes by, on machines without one too.
///
/// # Errors
/// A value that one of them cannot have.
pub fn check_environment() -> Result<()> {
    wants_separate_memory()?;
    gemm::timing_is_wanted(false).map(drop)
}

/// What `HBT_CUDA_MEMORY` says.
fn wants_separate_memory() -> Result<bool> {
    Ok(variable("HBT_CUDA_MEMORY", &[("separate", true)])?.unwrap_or(false))
}

/// What the environment variable `name` says, one of these words; nothing where it is unset or empty.
fn variable<T: Copy>(name: &str, words: &[(&str, T)]) -> Result<Option<T>> {
    let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty()) else { return Ok(None) };
    if let Some((_, meaning)) = words.iter().find(|(word, _)| value == *word) {
        return Ok(Some(*meaning));
    }
    let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    Err(Error::other(format!("{name} is {value:?}: set it to {}, or unset it", words.join(" or "))))
}

/// An element type that the kernels exist for: `f32` or `bf16`.
pub trait CudaElement: Element {}
impl CudaElement for f32 {}
impl CudaElement for half::bf16 {}

/// A GPU, with element type `E`.
#[derive(Clone)]
pub struct Cuda<E> {
    device: Arc<Device>,
    marker: PhantomData<E>,
}

impl<E: CudaElement> Cuda<E> {
    /// The GPU `ordinal`, in the driver's order. The first time that a machine computes a product of a shape, it times
    /// cuBLASLt's algorithms and keeps the choice in the cache, from where every later run has it;
    /// `HBT_CUBLASLT_TUNE=off` takes what cuBLASLt's heuristic names first.
    ///
    /// # Errors
    /// No driver, no such GPU, one older than sm_80, no cuBLASLt; and those of [`check_environment`].
    pub fn new(ordinal: usize) -> Result<Self> {
        Self::open(ordinal, wants_separate_memory()?)
    }

    /// As [`Cuda::new`], with every buffer taken from the driver and nothing timed, so that a checker of memory accesses
    /// (compute-sanitizer, the tests' stand-in) sees where each one ends. The environment variable
    /// `HBT_CUDA_MEMORY=separate` does the same.
    ///
    /// # Errors
    /// As [`Cuda::new`].
    pub fn with_separate_memory(ordinal: usize) -> Result<Self> {
        Self::open(ordinal, true)
    }

    /// Makes ready the kernels that will be launched, and loads them, so that nothing of that happens in the middle
    /// of other work; `say` hears of every file that had to be compiled. To be called before anything is computed.
    ///
    /// # Errors
    /// There is no way to kernels that the driver takes.
    pub fn prepare(&self, kernels: Kernels, say: &(dyn Fn(Progress) + Sync)) -> Result<()> {
        self.device.prepare(kernels, E::IS_F32, say)
    }

    fn open(ordinal: usize, separate_memory: bool) -> Result<Self> {
        Ok(Cuda { device: Arc::new(Device::open(ordinal as i32, separate_memory)?), marker: PhantomData })
    }

    /// f32 memory for partial sums, which the next call takes back; its content is undefined.
    fn scratch(&self, len: usize) -> Result<Scratch> {
        self.device.scratch(len)
    }

    /// Shared memory that a block may have.
    fn max_shared_bytes(&self) -> usize {
        self.device.context.max_shared_bytes
    }
}

impl<E: CudaElement> super::Device for Cuda<E> {
    type E = E;
    type Buffer<T: Value> = DeviceBuffer<T>;
    type HostBlock = Pinned<i32>;
    type Arrival = Arrival;
    type Readback = Readback;

    fn name(&self) -> String {
        let (major, minor) = self.device.context.capability;
        format!("cuda ({}, {}, sm_{major}{minor})", E::NAME, self.device.context.name)
    }

    fn alloc<T: Value>(&self, len: usize) -> Result<DeviceBuffer<T>> {
        let mut buffer = DeviceBuffer::new(&self.device.arena, len)?;
        buffer.zero(&self.device.compute, len)?;
        Ok(buffer)
    }

    fn upload<T: Value>(&self, from: &[T], to: &mut DeviceBuffer<T>) -> Result<()> {
        self.upload_staged(from, to)
    }

    fn download<T: Value>(&self, from: &DeviceBuffer<T>, start: usize, to: &mut [T]) -> Result<()> {
        from.download(&self.device.compute, start, to)
    }

    fn host_block(&self, len: usize) -> Result<Pinned<i32>> {
        Pinned::new(&self.device.context, len)
    }

    fn feed(&self, from: &Pinned<i32>, len: usize, to: &mut DeviceBuffer<i32>) -> Result<Arrival> {
        self.feed_block(from, len, to)
    }

    fn await_feed(&self, arrival: Arrival) -> Result<()> {
        self.device.compute.wait(&arrival.0)
    }

    fn readback(&self, capacity: usize) -> Result<Readback> {
        Readback::new(&self.device.context, capacity)
    }

    fn read_later(&self, x: &Tensor<Self, f32>, to: &mut Readback) -> Result<()> {
        self.copy_back(x, to)
    }

    fn has_arrived(&self, from: &Readback) -> Result<bool> {
        from.has_arrived()
    }

    fn receive(&self, from: &mut Readback, to: &mut Vec<f32>) -> Result<()> {
        from.receive(to)
    }

    fn connect(&self, rank: usize, size: usize, share: Share) -> Result<()> {
        self.device.connect(rank, size, share)
    }

    fn collectives(&self) -> Option<&dyn Collectives<Self>> {
        self.device.communicator.get().map(|_| self as &dyn Collectives<Self>)
    }
}

impl<E: CudaElement> Measurement for Cuda<E> {
    fn time(&self, run: &mut dyn FnMut() -> Result<()>) -> Result<Duration> {
        let stream = &self.device.compute;
        let (start, end) = (Event::new(&stream.context, true)?, Event::new(&stream.context, true)?);
        start.record(stream)?;
        run()?;
        end.record(stream)?;
        end.synchronize()?;
        start.milliseconds_to(&end).map(|milliseconds| Duration::from_secs_f64(f64::from(milliseconds) / 1e3))
    }

    fn flush_cache(&self) -> Result<bool> {
        self.device.flush_cache().map(|()| true)
    }

    fn profiler(&self, on: bool) -> Result<bool> {
        self.device.compute.synchronize()?;
        driver::profiler(on).map(|()| true)
    }

    fn memory_use(&self) -> Result<Option<MemoryUse>> {
        self.device.arena.memory_use().map(Some)
    }
}

impl<E: CudaElement> Operations for Cuda<E> {
    const MAX_HEAD_SIZE: usize = attention::MAX_HEAD_SIZE;

    fn score_blocks(&self) -> ScoreBlocks {
        ScoreBlocks::of_gpu(self.device.memory, !E::IS_F32)
    }

    // rustfmt leaves the rows as they are.
    traced_ops! {
        zero_all(&self, xs: &mut [&mut Tensor<Self, f32>]) => rows::zero_all(self, xs)?;
        cast(&self, x: &Tensor<Self, f32>, out: &mut Tensor<Self, E>) => rows::cast(self, x, out)?;
        copy_rows(&self, x: &Tensor<Self, f32>, start: usize, out: &mut Tensor<Self, f32>) => {
            let (width, n) = (out.row_len(), out.len());
            assert!(start * width + n <= x.len(), "copy_rows: rows from {start} on of {:?}", x.shape());
            out.buffer_mut().copy(&self.device.compute, 0, x.buffer(), start * width, n)?;
        };
        paste_rows(&self, x: &Tensor<Self, f32>, out: &mut Tensor<Self, f32>, start: usize) => {
            let (width, n) = (x.row_len(), x.len());
            assert!(start * width + n <= out.len(), "paste_rows: rows from {start} on of {:?}", out.shape());
            out.buffer_mut().copy(&self.device.compute, start * width, x.buffer(), 0, n)?;
        };
        gather_rows(&self, x: &Tensor<Self, f32>, rows: Ints<Self>, out: &mut Tensor<Self, f32>) =>
            rows::gather(self, x, rows, out)?;
        gather_cast(
            &self, x: &Tensor<Self, f32>, rows: Ints<Self>, scale: Option<&Tensor<Self, f32>>, out: &mut Tensor<Self, E>
        ) => rows::gather_cast(self, x, rows, scale, out)?;
        scatter_rows(
            &self, x: &Tensor<Self, f32>, scale: Option<&Tensor<Self, f32>>, rows: Ints<Self>,
            out: &mut Tensor<Self, f32>
        ) => rows::scatter(self, x, scale, rows, out)?;
        copy_columns(&self, x: &Tensor<Self, f32>, out: &mut Tensor<Self, f32>) => rows::copy_columns(self, x, out)?;
        add_columns(&self, x: &Tensor<Self, f32>, out: &mut Tensor<Self, f32>) => rows::add_columns(self, x, out)?;
        gemm(&self, args: Gemm<Self, E>) => gemm::gemm(self, args)?;
        gemm_f32(&self, args: Gemm<Self, f32>) => gemm::gemm(self, args)?;
        embedding_forward(&self, args: EmbeddingForward<Self>) => embedding::forward(self, args)?;
        embedding_backward(&self, args: EmbeddingBackward<Self>) => embedding::backward(self, args)?;
        segment_sum(&self, args: SegmentSum<Self>) => embedding::segment_sum(self, args)?;
        residual_layer_norm_forward(&self, args: ResidualLayerNormForward<Self>) =>
            layer_norm::residual_forward(self, args)?;
        residual_layer_norm_backward(&self, args: ResidualLayerNormBackward<Self>) =>
            layer_norm::residual_backward(self, args)?;
        bias_gelu_forward(&self, args: BiasGeluForward<Self>) => gelu::forward(self, args)?;
        bias_gelu_backward(&self, args: BiasGeluBackward<Self>) => gelu::backward(self, args)?;
        attention_forward(&self, args: AttentionForward<Self>) => attention::forward(self, args)?;
        attention_backward(&self, args: AttentionBackward<Self>) => attention::backward(self, args)?;
        pool_forward(&self, args: PoolForward<Self>) => pooling::forward(self, args)?;
        pool_backward(&self, args: PoolBackward<Self>) => pooling::backward(self, args)?;
        info_nce_rows(&self, args: InfoNceRows<Self>) => info_nce::rows(self, args)?;
        info_nce_exps(&self, args: InfoNceExps<Self>) => info_nce::exps(self, args)?;
        info_nce_columns(&self, args: InfoNceColumns<Self>) => info_nce::columns(self, args)?;
        adamw(&self, args: AdamW<Self>) => adamw::step(self, args)?;
        adamw_rows(&self, args: AdamWRows<Self>) => adamw_rows::step(self, args)?;
        adamw_catch_up(&self, args: AdamWCatchUp<Self>) => adamw_rows::catch_up(self, args)?;
        bias_tanh_forward(&self, x: &mut Tensor<Self, f32>, bias: &Tensor<Self, E>) =>
            pooling::bias_tanh_forward(self, x, bias)?;
        bias_tanh_backward(&self, y: &Tensor<Self, f32>, d: &mut Tensor<Self, f32>, d_bias: &mut Tensor<Self, f32>) =>
            pooling::bias_tanh_backward(self, y, d, d_bias)?;
        l2_normalize_forward(
            &self, x: &Tensor<Self, f32>, out: &mut Tensor<Self, f32>, inv_norm: &mut Tensor<Self, f32>
        ) => pooling::l2_normalize_forward(self, x, out, inv_norm)?;
        l2_normalize_backward(&self, y: &Tensor<Self, f32>, inv_norm: &Tensor<Self, f32>, d: &mut Tensor<Self, f32>) =>
            pooling::l2_normalize_backward(self, y, inv_norm, d)?;
        sum_of_squares(&self, xs: &[&Tensor<Self, f32>], out: &mut Tensor<Self, f32>) =>
            adamw::sum_of_squares(self, xs, out)?;
    }
}
