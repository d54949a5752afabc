//! AdamW over all parameters of an encoder, with gradient clipping.

use crate::Result;
use crate::backend::{AdamW, AdamWStep, Backend, Element, Tensor};
use crate::model::{EncoderParams, Gradients, ParamSpec};

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
    /// Gradients are scaled down to this norm; 0 switches clipping off.
    pub max_grad_norm: f32,
}

/// Moments and f32 master weights.
pub struct Optimizer<B: Backend> {
    config: OptimizerConfig,
    decay: Vec<bool>,
    /// f32 masters; `None` when the working weights are f32 themselves.
    master: Option<EncoderParams<Tensor<B, f32>>>,
    m: EncoderParams<Tensor<B, f32>>,
    v: EncoderParams<Tensor<B, f32>>,
    squares: Tensor<B, f32>,
    /// Updates done so far.
    updates: u64,
}

impl<B: Backend> Optimizer<B> {
    /// Zero moments for `weights`. `master` holds their f32 values where `weights` are rounded, and must be `None` where
    /// they are not. Masters made of rounded weights would not do: each would begin in the middle of what rounds to its
    /// weight, and no weight would change before its updates add up to half a unit in the last place.
    ///
    /// # Errors
    /// When the device has no memory left.
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
            squares: Tensor::zeros(backend, &[decay.len()])?,
            decay,
            updates: 0,
        })
    }

    /// The parameters in f32, in the order of [`EncoderParams::iter`]: masters where there are any, else the weights.
    ///
    /// # Errors
    /// When a copy from the device fails.
    pub fn parameter(&self, backend: &B, weights: &EncoderParams<Tensor<B, B::E>>, index: usize) -> Result<Vec<f32>> {
        let missing = "the optimizer and the encoder have the same parameters";
        match &self.master {
            Some(master) => master.iter().nth(index).expect(missing).to_vec(backend),
            None => {
                let values = weights.iter().nth(index).expect(missing).to_vec(backend)?;
                Ok(values.into_iter().map(Element::to_f32).collect())
            }
        }
    }

    /// First and second moments, in the order of [`EncoderParams::iter`].
    pub fn moments(&self) -> [&EncoderParams<Tensor<B, f32>>; 2] {
        [&self.m, &self.v]
    }

    /// Puts back what [`Optimizer::moments`] gave after `updates` updates; `moments(which, index)` returns the first
    /// (0) or second (1) moment of a parameter.
    ///
    /// # Errors
    /// The first error of `moments`, or a length that does not fit.
    pub fn restore(
        &mut self,
        backend: &B,
        updates: u64,
        mut moments: impl FnMut(usize, usize) -> Result<Vec<f32>>,
    ) -> Result<()> {
        self.updates = updates;
        for (which, state) in [&mut self.m, &mut self.v].into_iter().enumerate() {
            for (index, tensor) in state.iter_mut().enumerate() {
                tensor.upload(backend, &moments(which, index)?)?;
            }
        }
        Ok(())
    }

    /// One update of all weights. Returns the norm of all gradients before clipping.
    ///
    /// # Errors
    /// When a copy from the device fails.
    pub fn step(
        &mut self,
        backend: &B,
        weights: &mut EncoderParams<Tensor<B, B::E>>,
        grads: &Gradients<B>,
        learning_rate: f32,
    ) -> Result<f64> {
        for (slot, grad) in grads.params.iter().enumerate() {
            backend.sum_of_squares(grad, &mut self.squares, slot)?;
        }
        self.updates += 1;
        let c = self.config;
        let step = AdamWStep {
            learning_rate,
            beta1: c.beta1,
            beta2: c.beta2,
            eps: c.eps,
            update: self.updates,
            max_grad_norm: c.max_grad_norm,
        };
        let mut masters = self.master.as_mut().map(|m| m.iter_mut());
        let moments = self.m.iter_mut().zip(self.v.iter_mut());
        for (index, ((weight, grad), (m, v))) in weights.iter_mut().zip(grads.params.iter()).zip(moments).enumerate() {
            backend.adamw(AdamW {
                weight,
                master: masters.as_mut().and_then(Iterator::next),
                grad,
                // The word table comes first.
                rows: (index == 0).then_some(&grads.word_rows),
                m,
                v,
                grad_squares: &self.squares,
                step,
                weight_decay: if self.decay[index] { c.weight_decay } else { 0.0 },
            })?;
        }
        let squares = self.squares.to_vec(backend)?;
        Ok(squares.iter().map(|&s| f64::from(s)).sum::<f64>().sqrt())
    }
}
