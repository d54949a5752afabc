//! AdamW over all parameters of an encoder, with gradient clipping.
//!
//! The word embeddings may be most of a model, and a step reads few of their rows. Only these are updated; the updates
//! that the other rows have missed are carried out by [`Optimizer::begin_step`] when a batch reads them, and by
//! [`Optimizer::catch_up`] when everything is read. The result is that of dense AdamW, and no bit depends on when that
//! happens.

pub use super::word_table::Touched;
use super::word_table::WordTable;
use crate::backend::{AdamW, AdamWParameter, AdamWRows, AdamWStep, Backend, Element, Ints, Tensor};
use crate::model::{EncoderParams, Gradients, ParamSpec};
use crate::{Result, trace};
use std::ops::Range;

/// Constants of the optimizer; the names and defaults are PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimizerConfig {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decay of matrices and tables; biases and LayerNorm have none.
    pub weight_decay: f32,
    /// Gradients are scaled down to this norm; 0 means no clipping.
    pub max_grad_norm: f32,
}

/// Moments and f32 master weights.
pub struct Optimizer<B: Backend> {
    config: OptimizerConfig,
    decay: Vec<bool>,
    /// Index of the word embeddings in [`EncoderParams::iter`].
    words: usize,
    /// f32 masters; `None` when the working weights are f32 themselves.
    master: Option<EncoderParams<Tensor<B, f32>>>,
    m: EncoderParams<Tensor<B, f32>>,
    v: EncoderParams<Tensor<B, f32>>,
    table: WordTable<B>,
    squares: Tensor<B, f32>,
    /// Number of updates done so far.
    updates: u64,
}

impl<B: Backend> Optimizer<B> {
    /// Zero moments for `weights`. `master` holds their f32 values if `weights` are rounded, and must be `None` if they
    /// are not. Masters must not be made of rounded weights: each would begin in the middle of the interval that rounds
    /// to its weight, and no weight would change before its updates add up to half a unit in the last place.
    ///
    /// # Errors
    /// If the device has no memory left.
    pub fn new(
        backend: &B,
        specs: &EncoderParams<ParamSpec>,
        weights: &EncoderParams<Tensor<B, B::E>>,
        master: Option<EncoderParams<Tensor<B, f32>>>,
        config: OptimizerConfig,
    ) -> Result<Self> {
        assert_eq!(master.is_none(), B::E::IS_F32, "optimizer: masters for rounded weights, and for no others");
        let zeros = |w: &Tensor<B, B::E>| Tensor::zeros(backend, w.shape());
        let decay: Vec<bool> = specs.iter().map(|s| s.decay).collect();
        Ok(Self {
            config,
            master,
            m: weights.try_map(zeros)?,
            v: weights.try_map(zeros)?,
            table: WordTable::new(backend, weights.embeddings.word.rows(), &config)?,
            squares: Tensor::zeros(backend, &[decay.len()])?,
            decay,
            words: specs.sparse(),
            updates: 0,
        })
    }

    /// Begins a step on a batch with these [`unique_ids`](crate::backend::PackedBatch::unique_ids): sets gradients to
    /// zero, and brings the word embeddings of the batch up to date.
    ///
    /// # Errors
    /// If the device has no memory left.
    pub fn begin_step(
        &mut self,
        backend: &B,
        weights: &mut EncoderParams<Tensor<B, B::E>>,
        grads: &mut Gradients<B>,
        ids: Ints<B>,
    ) -> Result<()> {
        let _range = trace::phase("optimizer");
        grads.reset(backend, ids.len())?;
        self.catch_up_rows(backend, weights, Some(ids))
    }

    /// Brings all word embeddings up to date. Has to be called before anything but a training step reads the weights.
    ///
    /// # Errors
    /// If the device has no memory left.
    pub fn catch_up(&mut self, backend: &B, weights: &mut EncoderParams<Tensor<B, B::E>>) -> Result<()> {
        let _range = trace::phase("optimizer");
        self.catch_up_rows(backend, weights, None)
    }

    fn catch_up_rows(
        &mut self,
        backend: &B,
        weights: &mut EncoderParams<Tensor<B, B::E>>,
        rows: Option<Ints<B>>,
    ) -> Result<()> {
        let master = self.master.as_mut().map(|master| &mut master.embeddings.word);
        let moments = [&self.m.embeddings.word, &self.v.embeddings.word];
        self.table.catch_up(backend, &mut weights.embeddings.word, master, moments, rows, self.updates)
    }

    /// A range of the elements of a parameter in f32, from its master if it has one, else from the weight. Parameters
    /// are numbered in the order of [`EncoderParams::iter`].
    ///
    /// # Errors
    /// If a copy from the device fails.
    ///
    /// # Panics
    /// If word embeddings lack updates: call [`Optimizer::catch_up`] first.
    pub fn parameter(
        &self,
        backend: &B,
        weights: &EncoderParams<Tensor<B, B::E>>,
        index: usize,
        part: Range<usize>,
    ) -> Result<Vec<f32>> {
        let missing = "the optimizer and the encoder have the same parameters";
        assert!(index != self.words || self.table.is_caught_up(), "the word embeddings have not been caught up");
        match &self.master {
            Some(master) => master.iter().nth(index).expect(missing).part_to_vec(backend, part),
            None => {
                let values = weights.iter().nth(index).expect(missing).part_to_vec(backend, part)?;
                Ok(values.into_iter().map(Element::to_f32).collect())
            }
        }
    }

    /// The rows of the word embeddings that have ever had a gradient; the moments of all others are zero.
    ///
    /// # Errors
    /// If a copy from the device fails.
    pub fn touched(&self, backend: &B) -> Result<Touched> {
        self.table.touched(backend)
    }

    /// The first (`which` = 0) or second (1) moment of a parameter, numbered in the order of [`EncoderParams::iter`];
    /// of the word embeddings only the rows `touched`, each as of its last gradient.
    ///
    /// # Errors
    /// If the device has no memory left.
    pub fn moment(&self, backend: &B, which: usize, index: usize, touched: &Touched) -> Result<Vec<f32>> {
        let state = [&self.m, &self.v][which];
        if index != self.words {
            return state.iter().nth(index).expect("a parameter's index").to_vec(backend);
        }
        let rows = Tensor::from_slice(backend, &touched.rows, &[touched.rows.len()])?;
        let mut out = Tensor::zeros(backend, &[rows.len(), state.embeddings.word.row_len()])?;
        backend.gather_rows(&state.embeddings.word, Ints::all(&rows), &mut out)?;
        out.to_vec(backend)
    }

    /// Restores the results of [`Optimizer::touched`] and [`Optimizer::moment`] after `updates` updates, for weights
    /// that had been brought up to date; `moment(which, index)` returns the first (0) or second (1) moment of a
    /// parameter.
    ///
    /// # Errors
    /// The first error of `moment`, or a length that does not fit.
    pub fn restore(
        &mut self,
        backend: &B,
        updates: u64,
        touched: &Touched,
        mut moment: impl FnMut(usize, usize) -> Result<Vec<f32>>,
    ) -> Result<()> {
        self.updates = updates;
        self.table.restore(backend, updates, touched)?;
        let rows = Tensor::from_slice(backend, &touched.rows, &[touched.rows.len()])?;
        for (which, state) in [&mut self.m, &mut self.v].into_iter().enumerate() {
            for (index, tensor) in state.iter_mut().enumerate() {
                let values = moment(which, index)?;
                if index == self.words {
                    // Writes only these rows: a page of the table that is never written to takes up no memory.
                    let values = Tensor::from_slice(backend, &values, &[rows.len(), tensor.row_len()])?;
                    backend.scatter_rows(&values, None, Ints::all(&rows), tensor)?;
                } else {
                    tensor.upload(backend, &values)?;
                }
            }
        }
        Ok(())
    }

    /// Updates all weights, given the gradients of a step that [`Optimizer::begin_step`] began with these `ids`. Starts
    /// to read the results from which [`Optimizer::grad_norm`] is computed.
    ///
    /// # Errors
    /// If a copy from the device fails.
    pub fn step(
        &mut self,
        backend: &B,
        weights: &mut EncoderParams<Tensor<B, B::E>>,
        grads: &Gradients<B>,
        ids: Ints<B>,
        learning_rate: f32,
        results: &mut B::Readback,
    ) -> Result<()> {
        let _range = trace::phase("optimizer");
        backend.sum_of_squares(&grads.params.list(), &mut self.squares)?;
        self.updates += 1;
        let OptimizerConfig { beta1, beta2, eps, weight_decay, max_grad_norm } = self.config;
        let step = AdamWStep { learning_rate, beta1, beta2, eps, update: self.updates, max_grad_norm };
        let mut masters = self.master.as_mut().map(|m| m.iter_mut());
        let moments = self.m.iter_mut().zip(self.v.iter_mut());
        let all = weights.iter_mut().zip(grads.params.iter()).zip(moments).zip(&self.decay).map(
            |(((weight, grad), (m, v)), &decays)| {
                let master = masters.as_mut().and_then(Iterator::next);
                AdamWParameter { weight, master, grad, m, v, weight_decay: if decays { weight_decay } else { 0.0 } }
            },
        );
        let mut parameters = Vec::with_capacity(self.decay.len());
        parameters.extend(all);
        let AdamWParameter { weight, master, grad, m, v, weight_decay } = parameters.remove(self.words);
        let grad_squares = &self.squares;
        backend.adamw(AdamW { parameters, grad_squares, step })?;
        let WordTable { touched, current, .. } = &mut self.table;
        backend.adamw_rows(AdamWRows {
            weight,
            master,
            grad,
            rows: ids,
            m,
            v,
            touched,
            current,
            grad_squares,
            step,
            weight_decay,
        })?;
        self.table.record(step.scalars(weight_decay));
        backend.read_later(&self.squares, results)
    }

    /// Number of results of an update.
    pub fn n_results(&self) -> usize {
        self.squares.len()
    }

    /// The norm of all gradients before clipping, from an update's results.
    ///
    /// # Panics
    /// If there are more or fewer than [`Optimizer::n_results`].
    pub fn grad_norm(&self, results: &[f32]) -> f64 {
        assert_eq!(results.len(), self.n_results(), "optimizer: number of results");
        results.iter().map(|&s| f64::from(s)).sum::<f64>().sqrt()
    }
}
