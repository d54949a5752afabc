//! The optimizer's update of MiniLM's word embeddings: of all rows, as of any other parameter, and of the rows that a
//! step reads, after the updates that they have missed.

use super::inputs::{HIDDEN, SMALL_VOCABULARY, host, near, passes, samples, tensor, within};
use super::{Benchmark, Case, Op};
use crate::Result;
use crate::backend::{
    AdamW, AdamWCatchUp, AdamWParameter, AdamWRows, AdamWStep, Backend, Element, Ints, Tensor, momentum_decays,
};
use crate::reference::adamw::{Parameter, adamw};

/// Number of elements checked.
const SAMPLES: usize = 1000;
const DECAY: f32 = 0.1;
/// Rows with a gradient: about as many as a step has different tokens.
const SPARSE_ROWS: usize = 1500;
/// Updates that those rows have missed.
const MISSED: u64 = 60;
const STEP: AdamWStep =
    AdamWStep { learning_rate: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, update: 1, max_grad_norm: 0.0 };

pub fn benchmarks<B: Backend>(parts: usize) -> Vec<Benchmark<B>> {
    let (vocabulary, sparse_rows) = (SMALL_VOCABULARY / parts, SPARSE_ROWS / parts);
    let n = vocabulary * HIDDEN;
    // Parameter, gradient and two moments in; parameter and moments out. A rounded weight is written beside its master.
    let work = if B::E::IS_F32 { passes::<B::E>(0, 7 * n) } else { passes::<B::E>(n, 7 * n) };
    let dense = format!("{vocabulary}x{HIDDEN}");
    let sparse = format!("{sparse_rows}x{HIDDEN} after {MISSED} updates");
    let n = sparse_rows * HIDDEN;
    // Caught up: parameter and moments in, parameter out. Updated: as above.
    let sparse_work = if B::E::IS_F32 { passes::<B::E>(0, 11 * n) } else { passes::<B::E>(2 * n, 11 * n) };
    vec![
        Benchmark::new(Op::AdamW, dense, work, move |b| Ok(Box::new(Dense::new(b, vocabulary)?))),
        Benchmark::new(Op::AdamW, sparse, sparse_work, move |b| Ok(Box::new(Sparse::new(b, vocabulary, sparse_rows)?))),
    ]
}

struct Dense<'a, B: Backend> {
    backend: &'a B,
    weight: Tensor<B, B::E>,
    master: Option<Tensor<B, f32>>,
    grad: Tensor<B, f32>,
    m: Tensor<B, f32>,
    v: Tensor<B, f32>,
    grad_squares: Tensor<B, f32>,
}

impl<'a, B: Backend> Dense<'a, B> {
    fn new(backend: &'a B, vocabulary: usize) -> Result<Self> {
        let shape = [vocabulary, HIDDEN];
        let master = (!B::E::IS_F32).then(|| tensor(backend, &shape, 0.05, 1)).transpose()?;
        Ok(Dense {
            backend,
            weight: tensor(backend, &shape, 0.05, 1)?,
            master,
            grad: tensor(backend, &shape, 0.5, 2)?,
            m: Tensor::zeros(backend, &shape)?,
            v: Tensor::zeros(backend, &shape)?,
            grad_squares: Tensor::zeros(backend, &[1])?,
        })
    }
}

impl<B: Backend> Case for Dense<'_, B> {
    fn run(&mut self) -> Result<()> {
        let table = AdamWParameter {
            weight: &mut self.weight,
            master: self.master.as_mut(),
            grad: &self.grad,
            m: &mut self.m,
            v: &mut self.v,
            weight_decay: DECAY,
        };
        self.backend.adamw(AdamW { parameters: vec![table], grad_squares: &self.grad_squares, step: STEP })
    }

    /// The first update, from moments of zero.
    fn check(&mut self) -> Result<()> {
        let b = self.backend;
        let (before, grad) = (host(b, &self.weight)?, host(b, &self.grad)?);
        self.run()?;
        let (weight, m, v) = (host(b, &self.weight)?, host(b, &self.m)?, host(b, &self.v)?);
        let master = self.master.as_ref().map(|master| host(b, master)).transpose()?;
        for i in samples(before.len(), SAMPLES) {
            let mut expected = Parameter { weight: vec![before[i]], m: vec![0.0], v: vec![0.0] };
            adamw(&mut expected, &grad[i..=i], 0.0, STEP, f64::from(DECAY));
            near::<B::E>("weight", weight[i], expected.weight[0], 1e-3)?;
            if let Some(master) = &master {
                near::<f32>("master", master[i], expected.weight[0], 1e-3)?;
            }
            near::<f32>("m", m[i], expected.m[0], 1e-9)?;
            // 1 - beta2 loses some of its digits in f32.
            within("v", v[i], expected.v[0], 1e-4 * expected.v[0])?;
        }
        Ok(())
    }
}

/// Rows that had their last gradient in update 1, miss [`MISSED`] updates and have a gradient in the next.
struct Sparse<'a, B: Backend> {
    table: Dense<'a, B>,
    rows: Tensor<B, i32>,
    touched: Tensor<B, i32>,
    current: Tensor<B, i32>,
    history: Tensor<B, f32>,
    decays: Tensor<B, f32>,
}

impl<'a, B: Backend> Sparse<'a, B> {
    fn new(backend: &'a B, vocabulary: usize, n_rows: usize) -> Result<Self> {
        let mut table = Dense::new(backend, vocabulary)?;
        table.grad = tensor(backend, &[n_rows, HIDDEN], 0.5, 2)?;
        table.m = tensor(backend, &[vocabulary, HIDDEN], 0.1, 3)?;
        let v: Vec<f32> = host(backend, &table.m)?.iter().map(|m| (m * m + 1e-3) as f32).collect();
        table.v.upload(backend, &v)?;
        let rows: Vec<i32> = (0..n_rows).map(|i| (i * vocabulary / n_rows) as i32).collect();
        let history: Vec<f32> = (2..=1 + MISSED).flat_map(|update| at(update).scalars(DECAY)).collect();
        let decays = momentum_decays(STEP.beta1, STEP.beta2).concat();
        Ok(Sparse {
            rows: Tensor::from_slice(backend, &rows, &[n_rows])?,
            touched: Tensor::zeros(backend, &[vocabulary])?,
            current: Tensor::zeros(backend, &[vocabulary])?,
            history: Tensor::from_slice(backend, &history, &[MISSED as usize, 3])?,
            decays: Tensor::from_slice(backend, &decays, &[decays.len() / 2, 2])?,
            table,
        })
    }
}

/// [`STEP`] as the update number `update`.
fn at(update: u64) -> AdamWStep {
    AdamWStep { update, ..STEP }
}

impl<B: Backend> Case for Sparse<'_, B> {
    fn reset(&mut self) -> Result<()> {
        let first = vec![1; self.touched.len()];
        self.touched.upload(self.table.backend, &first)?;
        self.current.upload(self.table.backend, &first)
    }

    fn run(&mut self) -> Result<()> {
        let Dense { backend, weight, master, grad, m, v, grad_squares } = &mut self.table;
        backend.adamw_catch_up(AdamWCatchUp {
            weight: &mut *weight,
            master: master.as_mut(),
            m: &*m,
            v: &*v,
            touched: &self.touched,
            current: &mut self.current,
            rows: Some(Ints::all(&self.rows)),
            history: &self.history,
            update: 1 + MISSED,
            decays: &self.decays,
            eps: STEP.eps,
        })?;
        backend.adamw_rows(AdamWRows {
            weight,
            master: master.as_mut(),
            grad,
            rows: Ints::all(&self.rows),
            m,
            v,
            touched: &mut self.touched,
            current: &mut self.current,
            grad_squares,
            step: at(2 + MISSED),
            weight_decay: DECAY,
        })
    }

    /// Dense AdamW, update by update.
    fn check(&mut self) -> Result<()> {
        self.reset()?;
        let b = self.table.backend;
        let before = [host(b, &self.table.weight)?, host(b, &self.table.m)?, host(b, &self.table.v)?];
        let grad = host(b, &self.table.grad)?;
        self.run()?;
        let after = [host(b, &self.table.weight)?, host(b, &self.table.m)?, host(b, &self.table.v)?];
        let rows = self.rows.to_vec(b)?;
        for i in samples(grad.len(), SAMPLES) {
            let place = rows[i / HIDDEN] as usize * HIDDEN + i % HIDDEN;
            let [weight, m, v] = [0, 1, 2].map(|which: usize| vec![before[which][place]]);
            let mut expected = Parameter { weight, m, v };
            for update in 2..=2 + MISSED {
                let g = if update == 2 + MISSED { grad[i] } else { 0.0 };
                adamw(&mut expected, &[g], 0.0, at(update), f64::from(DECAY));
            }
            near::<B::E>("weight", after[0][place], expected.weight[0], 1.0)?;
            near::<f32>("m", after[1][place], expected.m[0], 1.0)?;
            near::<f32>("v", after[2][place], expected.v[0], 1.0)?;
        }
        Ok(())
    }
}
