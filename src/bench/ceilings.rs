//! The machine's limits, measured in the same run as the benchmarks that are compared with them.

use super::gemm::{Product, ProductKind, Shape};
use super::inputs::tensor;
use super::{Bound, Case, Measured, Work, best_of};
use crate::Result;
use crate::backend::{Backend, Tensor};
use std::time::Duration;

/// Rows and columns of the large matrices.
const GEMM_SIZE: usize = 4096;
/// Elements of the large copy: 256 MiB, more than most caches hold.
const COPY_SHAPE: [usize; 2] = [1 << 12, 1 << 14];

/// Best rates that this backend reached in two tasks whose work is beyond doubt.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ceilings {
    /// FLOP/s of a product of two 4096 x 4096 matrices in the backend's element type.
    pub gemm: f64,
    /// Bytes/s of a copy of 256 MiB, bytes read plus bytes written.
    pub copy: f64,
}

impl Ceilings {
    /// `work` done in `time`, beside the least time that these ceilings allow.
    pub fn judge(&self, work: Work, time: Duration) -> Measured {
        let (gemm, copy) = (work.flops as f64 / self.gemm, work.bytes as f64 / self.copy);
        let seconds = time.as_secs_f64();
        let bound = if gemm >= copy { Bound::Gemm } else { Bound::Copy };
        Measured { work, seconds, bound, share: Some(gemm.max(copy) / seconds) }
    }
}

/// Measures the ceilings again and again between other measurements: a machine with other work is slower at some times
/// than at others, and its ceiling is the best that it can do.
pub struct CeilingMeter<'a, B: Backend> {
    gemm: Product<'a, B>,
    gemm_work: Work,
    copy: Copy<'a, B>,
    best: Ceilings,
}

impl<'a, B: Backend> CeilingMeter<'a, B> {
    /// Allocates about 700 MiB and checks the product.
    ///
    /// # Errors
    /// When the device has no memory left, or the product is wrong.
    pub fn new(backend: &'a B) -> Result<Self> {
        let shape = Shape { kind: ProductKind::Nt, m: GEMM_SIZE, n: GEMM_SIZE, k: GEMM_SIZE };
        let copy =
            Copy { backend, from: tensor(backend, &COPY_SHAPE, 1.0, 1)?, to: Tensor::zeros(backend, &COPY_SHAPE)? };
        let mut gemm = shape.case(backend)?;
        gemm.check()?;
        Ok(CeilingMeter { gemm, gemm_work: shape.work::<B::E>(), copy, best: Ceilings::default() })
    }

    /// Measures both, for about `budget` each, and returns the best of all times so far.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn measure(&mut self, budget: Duration) -> Result<Ceilings> {
        let gemm = self.gemm_work.flops as f64 / best_of(self.copy.backend, &mut self.gemm, budget)?.as_secs_f64();
        let bytes = 2 * self.copy.from.len() * size_of::<f32>();
        let copy = bytes as f64 / best_of(self.copy.backend, &mut self.copy, budget)?.as_secs_f64();
        self.best = Ceilings { gemm: self.best.gemm.max(gemm), copy: self.best.copy.max(copy) };
        Ok(self.best)
    }
}

struct Copy<'a, B: Backend> {
    backend: &'a B,
    from: Tensor<B, f32>,
    to: Tensor<B, f32>,
}

impl<B: Backend> Case for Copy<'_, B> {
    fn run(&mut self) -> Result<()> {
        self.backend.paste_rows(&self.from, &mut self.to, 0)
    }

    fn check(&mut self) -> Result<()> {
        self.run()
    }
}
