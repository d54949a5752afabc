//! The CPU backend: rayon over row blocks, vector instructions chosen at run time.
//!
//! Work is cut by the shape alone, never by the number of threads, so any number of threads gives the same bytes.

mod adamw;
mod adamw_rows;
mod attention;
mod element;
mod embedding;
mod gelu;
mod gemm;
mod info_nce;
mod layer_norm;
pub mod math;
mod pooling;
mod rows;
mod scratch;
mod split;

pub use element::CpuElement;
pub use gemm::has_fast_bf16;

use super::*;
use std::time::Instant;

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

impl<E: CpuElement> Backend for Cpu<E> {
    type E = E;
    type Buffer<T: Value> = Vec<T>;

    fn name(&self) -> String {
        format!("cpu ({}, {} threads)", E::NAME, rayon::current_num_threads())
    }

    fn time(&self, run: &mut dyn FnMut() -> Result<()>) -> Result<Duration> {
        let start = Instant::now();
        run()?;
        Ok(start.elapsed())
    }

    fn flush_cache(&self) -> Result<bool> {
        Ok(false)
    }

    fn alloc<T: Value>(&self, len: usize) -> Result<Vec<T>> {
        // Zeroed by the system page by page when it is first written to: most rows of the word table's moments never are.
        bytemuck::allocation::try_zeroed_vec(len).map_err(|()| {
            let mib = (len * size_of::<T>()) >> 20;
            crate::Error::other(format!("out of memory: {mib} MiB are not to be had; lower chunk_tokens or batch_size"))
        })
    }

    fn upload<T: Value>(&self, from: &[T], to: &mut Vec<T>) -> Result<()> {
        to[..from.len()].copy_from_slice(from);
        Ok(())
    }

    fn download<T: Value>(&self, from: &Vec<T>, start: usize, to: &mut [T]) -> Result<()> {
        to.copy_from_slice(&from[start..start + to.len()]);
        Ok(())
    }

    fn zero<T: Value>(&self, x: &mut Tensor<Self, T>) -> Result<()> {
        rows::zero(x.as_mut_slice());
        Ok(())
    }

    fn cast(&self, x: &Tensor<Self, f32>, out: &mut Tensor<Self, E>) -> Result<()> {
        assert_eq!(x.len(), out.len(), "cast: lengths");
        rows::cast(x.as_slice(), out.as_mut_slice());
        Ok(())
    }

    fn copy_rows(&self, x: &Tensor<Self, f32>, start: usize, out: &mut Tensor<Self, f32>) -> Result<()> {
        let (w, n) = (out.row_len(), out.len());
        rows::copy(&x.as_slice()[start * w..start * w + n], out.as_mut_slice());
        Ok(())
    }

    fn paste_rows(&self, x: &Tensor<Self, f32>, out: &mut Tensor<Self, f32>, start: usize) -> Result<()> {
        let (w, n) = (x.row_len(), x.len());
        rows::copy(x.as_slice(), &mut out.as_mut_slice()[start * w..start * w + n]);
        Ok(())
    }

    fn gather_rows(&self, x: &Tensor<Self, f32>, rows: &Tensor<Self, i32>, out: &mut Tensor<Self, f32>) -> Result<()> {
        let w = x.row_len();
        assert_eq!(out.shape(), [rows.len(), w], "gather_rows: shape of the result");
        let (x, rows) = (x.as_slice(), rows.as_slice());
        out.as_mut_slice()
            .chunks_exact_mut(w)
            .zip(rows)
            .for_each(|(out, &row)| out.copy_from_slice(&x[row as usize * w..][..w]));
        Ok(())
    }

    fn scatter_rows(&self, x: &Tensor<Self, f32>, rows: &Tensor<Self, i32>, out: &mut Tensor<Self, f32>) -> Result<()> {
        let w = out.row_len();
        assert_eq!(x.shape(), [rows.len(), w], "scatter_rows: shape of the input");
        let out = out.as_mut_slice();
        for (x, &row) in x.as_slice().chunks_exact(w).zip(rows.as_slice()) {
            out[row as usize * w..][..w].copy_from_slice(x);
        }
        Ok(())
    }

    fn gemm(&self, args: Gemm<Self, E>) -> Result<()> {
        gemm::gemm(args);
        Ok(())
    }

    fn gemm_f32(&self, args: Gemm<Self, f32>) -> Result<()> {
        gemm::gemm_f32(args);
        Ok(())
    }

    fn embedding_forward(&self, args: EmbeddingForward<Self>) -> Result<()> {
        embedding::forward(args);
        Ok(())
    }

    fn embedding_backward(&self, args: EmbeddingBackward<Self>) -> Result<()> {
        embedding::backward(args);
        Ok(())
    }

    fn segment_sum(&self, args: SegmentSum<Self>) -> Result<()> {
        embedding::segment_sum(args);
        Ok(())
    }

    fn residual_layer_norm_forward(&self, args: ResidualLayerNormForward<Self>) -> Result<()> {
        layer_norm::residual_forward(args);
        Ok(())
    }

    fn residual_layer_norm_backward(&self, args: ResidualLayerNormBackward<Self>) -> Result<()> {
        layer_norm::residual_backward(args);
        Ok(())
    }

    fn bias_gelu_forward(&self, args: BiasGeluForward<Self>) -> Result<()> {
        gelu::forward(args);
        Ok(())
    }

    fn bias_gelu_backward(&self, args: BiasGeluBackward<Self>) -> Result<()> {
        gelu::backward(args);
        Ok(())
    }

    fn attention_forward(&self, args: AttentionForward<Self>) -> Result<()> {
        attention::forward(args);
        Ok(())
    }

    fn attention_backward(&self, args: AttentionBackward<Self>) -> Result<()> {
        attention::backward(args);
        Ok(())
    }

    fn pool_forward(&self, args: PoolForward<Self>) -> Result<()> {
        pooling::forward(args);
        Ok(())
    }

    fn pool_backward(&self, args: PoolBackward<Self>) -> Result<()> {
        pooling::backward(args);
        Ok(())
    }

    fn bias_tanh_forward(&self, x: &mut Tensor<Self, f32>, bias: &Tensor<Self, E>) -> Result<()> {
        pooling::bias_tanh_forward(x, bias);
        Ok(())
    }

    fn bias_tanh_backward(
        &self,
        y: &Tensor<Self, f32>,
        d: &mut Tensor<Self, f32>,
        d_bias: &mut Tensor<Self, f32>,
    ) -> Result<()> {
        pooling::bias_tanh_backward(y, d, d_bias);
        Ok(())
    }

    fn l2_normalize_forward(
        &self,
        x: &Tensor<Self, f32>,
        out: &mut Tensor<Self, f32>,
        inv_norm: &mut Tensor<Self, f32>,
    ) -> Result<()> {
        pooling::l2_normalize_forward(x, out, inv_norm);
        Ok(())
    }

    fn l2_normalize_backward(
        &self,
        y: &Tensor<Self, f32>,
        inv_norm: &Tensor<Self, f32>,
        d: &mut Tensor<Self, f32>,
    ) -> Result<()> {
        pooling::l2_normalize_backward(y, inv_norm, d);
        Ok(())
    }

    fn info_nce_rows(&self, args: InfoNceRows<Self>) -> Result<()> {
        info_nce::rows(args);
        Ok(())
    }

    fn sum_of_squares(&self, x: &Tensor<Self, f32>, out: &mut Tensor<Self, f32>, slot: usize) -> Result<()> {
        out.as_mut_slice()[slot] = adamw::sum_of_squares(x.as_slice()) as f32;
        Ok(())
    }

    fn adamw(&self, args: AdamW<Self>) -> Result<()> {
        adamw::step(args);
        Ok(())
    }

    fn adamw_rows(&self, args: AdamWRows<Self>) -> Result<()> {
        adamw_rows::step(args);
        Ok(())
    }

    fn adamw_catch_up(&self, args: AdamWCatchUp<Self>) -> Result<()> {
        adamw_rows::catch_up(args);
        Ok(())
    }
}
