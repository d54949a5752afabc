//! AdamW: of whole parameters, and of a table of which a step's gradient has few rows.
//!
//! # Rows without a gradient
//!
//! A step reads a few thousand rows of the word-embedding table; the gradient of all others is zero. Dense AdamW
//! changes those too: by the decay, and by the rest of their momentum. [`AdamWRows`] leaves them alone, and
//! [`AdamWCatchUp`] makes up for it when a row is next read, from two numbers a row: `touched`, the last update with a
//! gradient, and `current`, the last update that is in the weight. The moments stay those of update `touched`. Update
//! `j` of a row without a gradient is a function of them and of the weight alone,
//!
//! `w = w keep_j - rate_j (m b1^k) / (sqrt(v) sqrt(b2)^k inv_sqrt_c2_j + eps)` with `k = j - touched`,
//!
//! and updates are carried out one after another. So no bit depends on when, how often and with which other rows a row
//! is caught up: an evaluation or a save on the way leaves no trace in a run.

use super::check_shapes;
use crate::backend::{Device, Element, Ints, Tensor};

/// AdamW (Loshchilov and Hutter, arXiv 1711.05101) as PyTorch computes it:
/// `w -= lr wd w; m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; w -= lr (m / c1) / (sqrt(v / c2) + eps)`
/// with `c = 1 - b^update` and `g` scaled so that the norm of all gradients is at most `max_grad_norm`.
///
/// All parameters at once: most are so small that asking a GPU for an update would take longer than the update.
pub struct AdamW<'a, B: Device> {
    /// Parameters to update.
    pub parameters: Vec<AdamWParameter<'a, B>>,
    /// Sums of squares of all gradients, from [`sum_of_squares`](super::Operations::sum_of_squares); read on the device.
    pub grad_squares: &'a Tensor<B, f32>,
    /// Scalars of this step.
    pub step: AdamWStep,
}

/// A parameter with the inputs of its [`AdamW`] update.
pub struct AdamWParameter<'a, B: Device> {
    /// Working copy, updated.
    pub weight: &'a mut Tensor<B, B::E>,
    /// f32 master; `None` when the working copy is f32 itself.
    pub master: Option<&'a mut Tensor<B, f32>>,
    /// Same shape as the weight.
    pub grad: &'a Tensor<B, f32>,
    /// First moment.
    pub m: &'a mut Tensor<B, f32>,
    /// Second moment.
    pub v: &'a mut Tensor<B, f32>,
    /// Decay of this parameter: 0 for biases and LayerNorm.
    pub weight_decay: f32,
}

impl<B: Device> AdamW<'_, B> {
    /// Panics on mismatched shapes.
    pub fn check(&self) {
        for parameter in &self.parameters {
            let shape = parameter.weight.shape();
            check_master::<B>(shape, parameter.master.as_deref());
            check_shapes("adamw", shape, [parameter.grad, &*parameter.m, &*parameter.v]);
        }
    }
}

/// [`AdamW`] of the rows of a table `(V, H)` that have a gradient. They must be caught up to the previous update.
pub struct AdamWRows<'a, B: Device> {
    /// `(V, H)` working copy, updated.
    pub weight: &'a mut Tensor<B, B::E>,
    /// `(V, H)` f32 master; `None` when the working copy is f32 itself.
    pub master: Option<&'a mut Tensor<B, f32>>,
    /// `(n, H)`
    pub grad: &'a Tensor<B, f32>,
    /// `(n,)` for each row of `grad` its row in the table; ascending.
    pub rows: Ints<'a, B>,
    /// `(V, H)` first moment as of `touched`.
    pub m: &'a mut Tensor<B, f32>,
    /// `(V, H)` second moment as of `touched`.
    pub v: &'a mut Tensor<B, f32>,
    /// `(V,)` the last update in which each row had a gradient; 0 if it never had one.
    pub touched: &'a mut Tensor<B, i32>,
    /// `(V,)` the last update that is in each row's weight.
    pub current: &'a mut Tensor<B, i32>,
    /// Sums of squares of all gradients, as in [`AdamW`].
    pub grad_squares: &'a Tensor<B, f32>,
    /// Scalars of this step.
    pub step: AdamWStep,
    /// Decay of the table.
    pub weight_decay: f32,
}

impl<B: Device> AdamWRows<'_, B> {
    /// Panics on mismatched shapes.
    pub fn check(&self) {
        let shape = self.weight.shape();
        check_master::<B>(shape, self.master.as_deref());
        check_shapes("adamw_rows", shape, [&*self.m, &*self.v]);
        check_shapes("adamw_rows", &shape[..1], [&*self.touched, &*self.current]);
        check_shapes("adamw_rows", &[self.rows.len(), shape[1]], [self.grad]);
    }
}

/// Carries out the updates `current + 1 ..= update` of rows that had no gradient in them, by the formula above.
pub struct AdamWCatchUp<'a, B: Device> {
    /// `(V, H)` working copy, updated.
    pub weight: &'a mut Tensor<B, B::E>,
    /// `(V, H)` f32 master; `None` when the working copy is f32 itself.
    pub master: Option<&'a mut Tensor<B, f32>>,
    /// `(V, H)` first moment as of `touched`.
    pub m: &'a Tensor<B, f32>,
    /// `(V, H)` second moment as of `touched`.
    pub v: &'a Tensor<B, f32>,
    /// `(V,)` the last update in which each row had a gradient; 0 if it never had one.
    pub touched: &'a Tensor<B, i32>,
    /// `(V,)` the last update that is in each row's weight; becomes `update` in the rows caught up.
    pub current: &'a mut Tensor<B, i32>,
    /// `(n,)` ascending numbers of the rows to catch up; `None` means all.
    pub rows: Option<Ints<'a, B>>,
    /// `(N, 3)` values of [`AdamWStep::scalars`] for the last `N` updates up to and including `update`. It has to reach
    /// back to the least `current`.
    pub history: &'a Tensor<B, f32>,
    /// The update to catch up to.
    pub update: u64,
    /// `(K + 1, 2)` the values of [`momentum_decays`]. More than `K` updates after a gradient the weight only decays.
    pub decays: &'a Tensor<B, f32>,
    /// Added to the root of the second moment.
    pub eps: f32,
}

impl<B: Device> AdamWCatchUp<'_, B> {
    /// Panics on mismatched shapes.
    pub fn check(&self) {
        let shape = self.weight.shape();
        check_master::<B>(shape, self.master.as_deref());
        check_shapes("adamw_catch_up", shape, [self.m, self.v]);
        check_shapes("adamw_catch_up", &shape[..1], [self.touched, &*self.current]);
        check_shapes("adamw_catch_up", &[self.history.rows(), 3], [self.history]);
        check_shapes("adamw_catch_up", &[self.decays.rows(), 2], [self.decays]);
        assert!(self.history.rows() as u64 <= self.update, "adamw_catch_up: a history of updates that have not been");
    }
}

fn check_master<B: Device>(shape: &[usize], master: Option<&Tensor<B, f32>>) {
    assert_eq!(master.is_none(), B::E::IS_F32, "adamw: a master for rounded weights, and for no others");
    check_shapes("adamw", shape, master);
}

/// Scalars that all parameters of one AdamW step share.
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
    /// Learning rate of this step.
    pub learning_rate: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// 1-based number of this update.
    pub update: u64,
    /// Gradients are scaled down to this norm; 0 means no clipping.
    pub max_grad_norm: f32,
}

impl AdamWStep {
    /// Factors of an update: `[keep, rate, inv_sqrt_c2]`, which are `1 - lr weight_decay`, `lr / c1` and `1 /
    /// sqrt(c2)`, in this order.
    pub fn scalars(&self, weight_decay: f32) -> [f32; 3] {
        let t = self.update as f64;
        let c1 = 1.0 - f64::from(self.beta1).powf(t);
        let c2 = 1.0 - f64::from(self.beta2).powf(t);
        let rate = f64::from(self.learning_rate) / c1;
        [1.0 - self.learning_rate * weight_decay, rate as f32, (1.0 / c2.sqrt()) as f32]
    }
}

/// `[b1^k, sqrt(b2)^k]` for `k` from 0 to the last update for which a row's momentum is worth computing: all later ones
/// together would move a weight by less than `1e-12` learning rates.
///
/// At a gradient, `m = (1 - b1) sum b1^i g_i` and `v = (1 - b2) sum b2^i g_i^2`, so with `r = b1 / sqrt(b2)` Cauchy's
/// inequality gives `|m| <= C sqrt(v)`, `C = (1 - b1) / sqrt((1 - b2) (1 - r^2))`. The update `k` later is at most `lr
/// C r^k / c1`, with `c1 = 1` to rounding wherever `r^k` is this small, and all from `k` on at most `lr C r^k / (1 -
/// r)`. PyTorch's betas, 0.9 and 0.999, give `C = 7.3` and `K = 305`.
///
/// # Panics
/// Unless `b1 < sqrt(b2) < 1`: momentum would outlive the second moment and grow.
pub fn momentum_decays(beta1: f32, beta2: f32) -> Vec<[f32; 2]> {
    const LEFT_OUT: f64 = 1e-12;
    let (b1, b2) = (f64::from(beta1), f64::from(beta2));
    let r = b1 / b2.sqrt();
    assert!(0.0 <= b1 && r < 1.0 && b2 < 1.0, "betas {beta1} and {beta2} do not converge");
    let c = (1.0 - b1) / ((1.0 - b2) * (1.0 - r * r)).sqrt();
    let last = ((LEFT_OUT * (1.0 - r) / c).ln() / r.ln()).ceil().max(0.0) as i32;
    (0..=last).map(|k| [b1.powi(k) as f32, b2.sqrt().powi(k) as f32]).collect()
}
