//! The CPU backend: rayon over row blocks, vector instructions chosen at run time.
//!
//! Work is cut by the shape alone, never by the number of threads, so any number of threads gives the same bytes.

mod adamw;
mod adamw_rows;
mod attention;
mod distillation;
mod element;
mod embedding;
mod gelu;
mod gemm;
mod info_nce;
mod instructions;
mod layer_norm;
pub mod math;
mod pooling;
mod rows;
mod scratch;
mod split;

pub use element::CpuElement;
pub use gemm::has_fast_bf16;
pub use instructions::Instructions;

use super::ops::{check_columns, check_shapes};
use super::*;
use crate::Result;
use crate::error::counted;
use rayon::prelude::*;
use std::time::{Duration, Instant};

/// The processor, with element type `E`. Runs on rayon's current thread pool.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu<E>(std::marker::PhantomData<E>);

impl<E> Cpu<E> {
    /// The processor.
    pub fn new() -> Self {
        Cpu(std::marker::PhantomData)
    }
}

impl<E: CpuElement, T: Value> Tensor<Cpu<E>, T> {
    /// The elements in use.
    pub fn as_slice(&self) -> &[T] {
        &self.buffer()[..self.len()]
    }

    /// The elements in use, to write to.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        let n = self.len();
        &mut self.buffer_mut()[..n]
    }
}

impl<'a, E: CpuElement> Ints<'a, Cpu<E>> {
    /// The integers themselves.
    pub fn as_slice(self) -> &'a [i32] {
        &self.buffer()[self.start()..self.start() + self.len()]
    }
}

impl<E: CpuElement> Device for Cpu<E> {
    type E = E;
    type Buffer<T: Value> = Vec<T>;
    type HostBlock = Vec<i32>;
    type Arrival = ();
    type Readback = Vec<f32>;

    fn name(&self) -> String {
        format!("cpu ({}, {})", E::NAME, counted(rayon::current_num_threads() as u64, "thread"))
    }

    // As `host_block` and `readback`: under its own name in backtraces, by which tests tell the uses of memory apart.
    #[inline(never)]
    fn alloc<T: Value>(&self, len: usize) -> Result<Vec<T>> {
        // Zeroed by the system page by page when it is first written to: most rows of the word table's moments never are.
        bytemuck::allocation::try_zeroed_vec(len).map_err(|()| Purpose::refused(len * size_of::<T>(), ""))
    }

    fn upload<T: Value>(&self, from: &[T], to: &mut Vec<T>) -> Result<()> {
        to[..from.len()].copy_from_slice(from);
        Ok(())
    }

    fn download<T: Value>(&self, from: &Vec<T>, start: usize, to: &mut [T]) -> Result<()> {
        to.copy_from_slice(&from[start..start + to.len()]);
        Ok(())
    }

    fn in_place<'a, T: Value>(&self, of: &'a Vec<T>) -> Option<&'a [T]> {
        Some(of)
    }

    #[inline(never)]
    fn host_block(&self, len: usize) -> Result<Vec<i32>> {
        // Written otherwise than `alloc`: of two alike the compiler makes one function.
        let mut block = Vec::new();
        block.try_reserve_exact(len).map_err(|_| Purpose::refused(len * size_of::<i32>(), ""))?;
        block.resize(len, 0);
        Ok(block)
    }

    fn feed(&self, from: &Vec<i32>, len: usize, to: &mut Vec<i32>) -> Result<()> {
        self.upload(&from[..len], to)
    }

    fn await_feed(&self, (): ()) -> Result<()> {
        Ok(())
    }

    #[inline(never)]
    fn readback(&self, capacity: usize) -> Result<Vec<f32>> {
        Ok(Vec::with_capacity(capacity))
    }

    fn read_later(&self, x: &Tensor<Self, f32>, to: &mut Vec<f32>) -> Result<()> {
        assert!(to.len() + x.len() <= to.capacity(), "read_later: {} values more than there is room for", x.len());
        to.extend_from_slice(x.as_slice());
        Ok(())
    }

    fn has_arrived(&self, _: &Vec<f32>) -> Result<bool> {
        Ok(true)
    }

    fn receive(&self, from: &mut Vec<f32>, to: &mut Vec<f32>) -> Result<()> {
        to.clear();
        to.append(from);
        Ok(())
    }
}

impl<E: CpuElement> Measurement for Cpu<E> {
    fn time(&self, run: &mut dyn FnMut() -> Result<()>) -> Result<Duration> {
        let start = Instant::now();
        run()?;
        Ok(start.elapsed())
    }

    fn flush_cache(&self) -> Result<bool> {
        Ok(false)
    }
}

impl<E: CpuElement> Operations for Cpu<E> {
    const MAX_HEAD_SIZE: usize = usize::MAX;

    fn score_blocks(&self) -> ScoreBlocks {
        ScoreBlocks::of_cpu()
    }

    fn info_nce_exps(&self, _: InfoNceExps<Self>) -> Result<()> {
        unreachable!("info_nce_exps: a processor's score blocks are not fused")
    }

    // rustfmt leaves the rows as they are.
    traced_ops! {
        zero_all(&self, xs: &mut [&mut Tensor<Self, f32>]) => xs.iter_mut().for_each(|x| rows::zero(x.as_mut_slice()));
        cast(&self, x: &Tensor<Self, f32>, out: &mut Tensor<Self, E>) => {
            assert_eq!(x.len(), out.len(), "cast: lengths");
            rows::cast(x.as_slice(), out.as_mut_slice());
        };
        copy_rows(&self, x: &Tensor<Self, f32>, start: usize, out: &mut Tensor<Self, f32>) => {
            let (w, n) = (out.row_len(), out.len());
            rows::copy(&x.as_slice()[start * w..start * w + n], out.as_mut_slice());
        };
        paste_rows(&self, x: &Tensor<Self, f32>, out: &mut Tensor<Self, f32>, start: usize) => {
            let (w, n) = (x.row_len(), x.len());
            rows::copy(x.as_slice(), &mut out.as_mut_slice()[start * w..start * w + n]);
        };
        gather_rows(&self, x: &Tensor<Self, f32>, rows: Ints<Self>, out: &mut Tensor<Self, f32>) => {
            check_shapes("gather_rows", &[rows.len(), x.row_len()], [&*out]);
            rows::gather(x.as_slice(), rows.as_slice(), None, x.row_len(), out.as_mut_slice());
        };
        gather_cast(
            &self, x: &Tensor<Self, f32>, rows: Ints<Self>, scale: Option<&Tensor<Self, f32>>, out: &mut Tensor<Self, E>
        ) => {
            check_shapes("gather_cast", &[rows.len(), x.row_len()], [&*out]);
            check_shapes("gather_cast", &[rows.len()], scale);
            let scale = scale.map(Tensor::as_slice);
            rows::gather(x.as_slice(), rows.as_slice(), scale, x.row_len(), out.as_mut_slice());
        };
        scatter_rows(
            &self, x: &Tensor<Self, f32>, scale: Option<&Tensor<Self, f32>>, rows: Ints<Self>,
            out: &mut Tensor<Self, f32>
        ) => {
            check_shapes("scatter_rows", &[rows.len(), out.row_len()], [x]);
            check_shapes("scatter_rows", &[rows.len()], scale);
            let width = out.row_len();
            rows::scatter(x.as_slice(), scale.map(Tensor::as_slice), rows.as_slice(), width, out.as_mut_slice());
        };
        copy_columns(&self, x: &Tensor<Self, f32>, out: &mut Tensor<Self, f32>) => {
            let (from, to) = check_columns("copy_columns", x, out);
            let rows = out.as_mut_slice().par_chunks_exact_mut(to).zip(x.as_slice().par_chunks_exact(from));
            rows.for_each(|(out, x)| out.copy_from_slice(&x[..to]));
        };
        add_columns(&self, x: &Tensor<Self, f32>, out: &mut Tensor<Self, f32>) => {
            let (to, from) = check_columns("add_columns", out, x);
            let rows = out.as_mut_slice().par_chunks_exact_mut(to).zip(x.as_slice().par_chunks_exact(from));
            rows.for_each(|(out, x)| math::add_assign(out, x));
        };
        gemm(&self, args: Gemm<Self, E>) => gemm::gemm(args);
        gemm_f32(&self, args: Gemm<Self, f32>) => gemm::gemm_f32(args);
        embedding_forward(&self, args: EmbeddingForward<Self>) => embedding::forward(args);
        embedding_backward(&self, args: EmbeddingBackward<Self>) => embedding::backward(args);
        segment_sum(&self, args: SegmentSum<Self>) => embedding::segment_sum(args);
        residual_layer_norm_forward(&self, args: ResidualLayerNormForward<Self>) => layer_norm::residual_forward(args);
        residual_layer_norm_backward(&self, args: ResidualLayerNormBackward<Self>) =>
            layer_norm::residual_backward(args);
        bias_gelu_forward(&self, args: BiasGeluForward<Self>) => gelu::forward(args);
        bias_gelu_backward(&self, args: BiasGeluBackward<Self>) => gelu::backward(args);
        attention_forward(&self, args: AttentionForward<Self>) => attention::forward(args);
        attention_backward(&self, args: AttentionBackward<Self>) => attention::backward(args);
        pool_forward(&self, args: PoolForward<Self>) => pooling::forward(args);
        pool_backward(&self, args: PoolBackward<Self>) => pooling::backward(args);
        bias_tanh_forward(&self, x: &mut Tensor<Self, f32>, bias: &Tensor<Self, E>) =>
            pooling::bias_tanh_forward(x, bias);
        bias_tanh_backward(&self, y: &Tensor<Self, f32>, d: &mut Tensor<Self, f32>, d_bias: &mut Tensor<Self, f32>) =>
            pooling::bias_tanh_backward(y, d, d_bias);
        l2_normalize_forward(
            &self, x: &Tensor<Self, f32>, out: &mut Tensor<Self, f32>, inv_norm: &mut Tensor<Self, f32>
        ) => pooling::l2_normalize_forward(x, out, inv_norm);
        l2_normalize_backward(&self, y: &Tensor<Self, f32>, inv_norm: &Tensor<Self, f32>, d: &mut Tensor<Self, f32>) =>
            pooling::l2_normalize_backward(y, inv_norm, d);
        info_nce_rows(&self, args: InfoNceRows<Self>) => info_nce::rows(args);
        info_nce_columns(&self, args: InfoNceColumns<Self>) => info_nce::columns(args);
        sum_of_squares(&self, xs: &[&Tensor<Self, f32>], out: &mut Tensor<Self, f32>) => {
            assert_eq!(xs.len(), out.len(), "sum_of_squares: sums");
            for (x, out) in xs.iter().zip(out.as_mut_slice()) {
                *out = adamw::sum_of_squares(x.as_slice()) as f32;
            }
        };
        adamw(&self, args: AdamW<Self>) => adamw::step(args);
        adamw_rows(&self, args: AdamWRows<Self>) => adamw_rows::step(args);
        adamw_catch_up(&self, args: AdamWCatchUp<Self>) => adamw_rows::catch_up(args);
    }
}
