//! Tracks the updates that each row of the word embeddings has had, and carries out missed ones.

use super::OptimizerConfig;
use crate::Result;
use crate::backend::{AdamWCatchUp, Backend, Ints, Tensor, momentum_decays};

/// Most updates that any row may miss. Updating all rows this seldom costs a thousandth of updating them in every step,
/// and the history stays small enough to be sent to the device in every step.
const MOST_MISSED: usize = 1024;

/// Rows of the word embeddings that have had a gradient.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Row numbers (token ids), ascending.
    pub rows: Vec<i32>,
    /// For each of them the last update in which it had a gradient; the first update is 1.
    pub updates: Vec<i32>,
}

/// State for [`AdamWCatchUp`].
pub(super) struct WordTable<B: Backend> {
    /// `(V,)` last update in which each row had a gradient
    pub touched: Tensor<B, i32>,
    /// `(V,)` last update that is in each row
    pub current: Tensor<B, i32>,
    /// `(K + 1, 2)` decays of the moments
    decays: Tensor<B, f32>,
    /// Scalars of the updates since all rows were last caught up, and their copy on the device
    history: Vec<[f32; 3]>,
    device_history: Tensor<B, f32>,
    eps: f32,
}

impl<B: Backend> WordTable<B> {
    /// The state of `n_rows` rows before the first update.
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

    /// Records an update, given [`AdamWStep::scalars`](crate::backend::AdamWStep::scalars).
    pub fn record(&mut self, scalars: [f32; 3]) {
        self.history.push(scalars);
    }

    /// Applies the missed ones of `updates` updates to `rows` (`None`: all).
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
