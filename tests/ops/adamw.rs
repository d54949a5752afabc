//! The optimizer's update and the sum of squares it is clipped by.

use super::support::{Random, assert_close, poisoned, read, rounded, tensor};
use crate::reference::adamw::{Parameter, adamw as reference, sum_of_squares as reference_squares};
use crate::tolerance;
use hbt::backend::cpu::CpuElement;
use hbt::backend::{AdamW, AdamWStep, Backend, Cpu, Element, Tensor};

pub fn sum_of_squares<B: Backend>(backend: &B) {
    for n in [1, 15, 257, 16_384, 16_385, 200_000] {
        let x = Random::new(71).values::<f32>(n, 3.0);
        let start = [1.0, 2.0, 3.0];
        let mut out = tensor(backend, &start, &[3]);
        backend.sum_of_squares(&tensor(backend, &x, &[n]), &mut out, 1).unwrap();
        let got = read(backend, &out);
        assert_eq!([got[0], got[2]], [1.0, 3.0], "other slots stay");
        // Terms of one sign in a tree of short sums: the error does not grow with n.
        assert_close("sum_of_squares", &got[1..2], &[reference_squares(&x)], tolerance::ELEMENTWISE);
    }
}

/// A run of updates of one parameter.
pub struct Run {
    pub rows: usize,
    pub width: usize,
    pub weight_decay: f32,
    pub max_grad_norm: f32,
}

/// Weight (or its f32 master), first and second moment.
pub type State = [Vec<f64>; 3];

const STEPS: u64 = 20;

impl Run {
    fn start(&self, random: &mut Random) -> Vec<f64> {
        random.values::<f32>(self.rows * self.width, 1.0)
    }

    fn step(&self, update: u64) -> AdamWStep {
        AdamWStep {
            // A schedule, and larger than in practice so that updates show.
            learning_rate: 0.01 / update as f32,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            update,
            max_grad_norm: self.max_grad_norm,
        }
    }

    /// The gradient of an update; every third one is small enough not to be clipped to 1.
    fn grad(&self, random: &mut Random, update: u64) -> Vec<f64> {
        let n = self.rows * self.width;
        let std = if update.is_multiple_of(3) { 0.1 / (n as f64).sqrt() } else { 0.5 };
        random.values::<f32>(n, std)
    }

    pub fn run<B: Backend>(&self, backend: &B) -> State {
        let mut random = Random::new(72);
        let shape = [self.rows, self.width];
        let start = self.start(&mut random);
        let mut weight: Tensor<B, B::E> = tensor(backend, &start, &shape);
        let mut master = (!B::E::IS_F32).then(|| tensor(backend, &start, &shape));
        let [mut m, mut v] = [(); 2].map(|()| Tensor::zeros(backend, &shape).unwrap());
        for update in 1..=STEPS {
            let grad = tensor(backend, &self.grad(&mut random, update), &shape);
            // Another parameter's share of the norm in the first slot.
            let mut grad_squares = tensor(backend, &[0.25, f64::NAN], &[2]);
            backend.sum_of_squares(&grad, &mut grad_squares, 1).unwrap();
            backend
                .adamw(AdamW {
                    weight: &mut weight,
                    master: master.as_mut(),
                    grad: &grad,
                    m: &mut m,
                    v: &mut v,
                    grad_squares: &grad_squares,
                    step: self.step(update),
                    weight_decay: self.weight_decay,
                })
                .unwrap();
        }
        [masters(backend, &weight, master.as_ref()), read(backend, &m), read(backend, &v)]
    }

    /// The same in f64.
    fn expected(&self) -> State {
        let mut random = Random::new(72);
        let weight = self.start(&mut random);
        let zeros = vec![0.0; weight.len()];
        let mut p = Parameter { weight, m: zeros.clone(), v: zeros.clone() };
        for update in 1..=STEPS {
            let grad = self.grad(&mut random, update);
            let norm = (0.25 + reference_squares(&grad)).sqrt();
            reference(&mut p, &grad, norm, self.step(update), f64::from(self.weight_decay));
        }
        [p.weight, p.m, p.v]
    }
}

/// The f32 weights, of which the working copy must be the rounding.
pub fn masters<B: Backend>(backend: &B, weight: &Tensor<B, B::E>, master: Option<&Tensor<B, f32>>) -> Vec<f64> {
    let weight = read(backend, weight);
    let Some(master) = master else { return weight };
    let master = read(backend, master);
    assert!(
        master.iter().zip(&weight).all(|(&m, &w)| rounded::<B::E>(m) == w),
        "the working copy is the rounded master"
    );
    master
}

/// Shapes around the 16,384 elements of a task and the 1,024 of a block.
pub fn runs() -> Vec<Run> {
    let shapes = [(1, 1), (1, 7), (33, 31), (70, 384), (5500, 3)];
    let with =
        |(weight_decay, max_grad_norm)| shapes.map(|(rows, width)| Run { rows, width, weight_decay, max_grad_norm });
    [(0.0, 0.0), (0.1, 1.0)].into_iter().flat_map(with).collect()
}

pub fn adamw<B: Backend>(backend: &B) {
    for run in runs() {
        let (got, expected) = (run.run(backend), run.expected());
        let (decay, clip) = (run.weight_decay, run.max_grad_norm);
        for (part, (got, expected)) in ["weight", "m", "v"].iter().zip(got.iter().zip(&expected)) {
            let what = format!("adamw, {} x {}, decay {decay}, clip {clip}, {part}", run.rows, run.width);
            assert_close(&what, got, expected, tolerance::sum(STEPS as usize));
        }
    }
}

/// The same operations in the same order, none of them fused, and a norm that f64 carries.
pub fn adamw_has_the_bits_of_the_cpu<B: Backend<E: CpuElement>>(backend: &B) {
    for run in runs() {
        assert!(run.run(backend) == run.run(&Cpu::<B::E>::new()), "{} x {}", run.rows, run.width);
    }
}

/// With a gradient norm below the limit, clipping changes no bit.
pub fn adamw_does_not_clip_small_gradients<B: Backend>(backend: &B) {
    let run = |max_grad_norm| Run { rows: 9, width: 7, weight_decay: 0.01, max_grad_norm }.run(backend);
    assert!(run(0.0) == run(1000.0));
    assert!(run(0.0) != run(1.0));
    let mut x: Tensor<B, f32> = poisoned(backend, &[1]);
    backend.sum_of_squares(&tensor(backend, &[0.0; 5], &[5]), &mut x, 0).unwrap();
    assert_eq!(read(backend, &x), [0.0]);
}
