//! Which updates the rows of the word-embedding table have had, and what it takes to carry out the others.

use super::OptimizerConfig;
use crate::Result;
use crate::backend::{AdamWCatchUp, Backend, Ints, Tensor, momentum_decays};

/// Most updates that any row may lack. Going through all rows this often costs a thousandth of what it would in every
/// step, and the history stays small enough to be sent to the device in every step.
const MOST_MISSED: usize = 1024;

/// Rows of the word table that have had a gradient.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Their numbers, ascending.
    pub rows: Vec<i32>,
    /// The last update in which each of them had one; the first update is 1.
    pub updates: Vec<i32>,
}

/// See [`AdamWCatchUp`].
pub(super) struct WordTable<B: Backend> {
    /// `(V,)`
    pub touched: Tensor<B, i32>,
    /// `(V,)`
    pub current: Tensor<B, i32>,
    /// `(K + 1, 2)`
    decays: Tensor<B, f32>,
    /// Scalars of the updates since all rows were last caught up, and their copy on the device
    history: Vec<[f32; 3]>,
    device_history: Tensor<B, f32>,
    eps: f32,
}

impl<B: Backend> WordTable<B> {
    /// `n_rows` rows before the first update.
    pub fn new(backend: &B, n_rows: usize, config: &OptimizerConfig) -> Result<Self> {
        let decays = momentum_decays(config.beta1, config.beta2);
        Ok(Self {
            touched: Tensor::zeros(backend, &[n_rows])?,
            current: Tensor::zeros(backend, &[n_rows])?,
            decays: Tensor::from_slice(backend, decays.as_flattened(), &[decays.len(), 2])?,
            history: Vec::with_capacity(MOST_MISSED),
            device_history: Tensor::zeros(backend, &[MOST_MISSED, 3])?,
            eps: config.eps,
        })
    }

    /// Whether every row has all updates.
    pub fn is_caught_up(&self) -> bool {
        self.history.is_empty()
    }

    /// Notes an update, given [`AdamWStep::scalars`](crate::backend::AdamWStep::scalars).
    pub fn record(&mut self, scalars: [f32; 3]) {
        self.history.push(scalars);
    }

    /// Brings `rows` (`None`: all) up to the latest of `updates` updates.
    pub fn catch_up(
        &mut self,
        backend: &B,
        weight: &mut Tensor<B, B::E>,
        master: Option<&mut Tensor<B, f32>>,
        [m, v]: [&Tensor<B, f32>; 2],
        rows: Option<Ints<B>>,
        update: u64,
    ) -> Result<()> {
        if self.is_caught_up() {
            return Ok(());
        }
        let rows = rows.filter(|_| self.history.len() < MOST_MISSED);
        self.device_history.assign(backend, self.history.as_flattened())?;
        backend.adamw_catch_up(AdamWCatchUp {
            weight,
            master,
            m,
            v,
            touched: &self.touched,
            current: &mut self.current,
            rows,
            history: &self.device_history,
            update,
            decays: &self.decays,
            eps: self.eps,
        })?;
        if rows.is_none() {
            self.history.clear();
        }
        Ok(())
    }

    /// The rows that have had a gradient.
    pub fn touched(&self, backend: &B) -> Result<Touched> {
        let touched = self.touched.to_vec(backend)?;
        let rows: Vec<i32> = (0..).zip(&touched).filter(|(_, update)| **update > 0).map(|(row, _)| row).collect();
        let updates = rows.iter().map(|&row| touched[row as usize]).collect();
        Ok(Touched { rows, updates })
    }

    /// The state after `updates` updates that all rows have had.
    pub fn restore(&mut self, backend: &B, updates: u64, touched: &Touched) -> Result<()> {
        let mut last = vec![0; self.touched.len()];
        for (&row, &update) in touched.rows.iter().zip(&touched.updates) {
            last[row as usize] = update;
        }
        self.touched.upload(backend, &last)?;
        self.current.upload(backend, &vec![updates as i32; last.len()])?;
        self.history.clear();
        Ok(())
    }
}
