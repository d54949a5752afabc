//! The optimizer's update and the sum of squares it is clipped by.

use super::support::{Random, assert_close, poisoned, read, rounded, tensor};
use crate::reference::adamw::{Parameter, adamw as reference, sum_of_squares as reference_squares};
use crate::tolerance;
use hbt::backend::cpu::CpuElement;
use hbt::backend::{AdamW, AdamWParameter, AdamWStep, Backend, Cpu, Element, Tensor};

pub fn sum_of_squares<B: Backend>(backend: &B) {
    // One by one, and all together in a list that is longer than a launch takes.
    let lens = [0, 1, 15, 257, 16_384, 16_385, 200_000];
    let inputs: Vec<Vec<f64>> =
        lens.iter().chain(&[33; 500]).map(|&n| Random::new(n as u64).values::<f32>(n, 3.0)).collect();
    let expected: Vec<f64> = inputs.iter().map(|x| reference_squares(x)).collect();
    let tensors: Vec<Tensor<B, f32>> = inputs.iter().map(|x| tensor(backend, x, &[x.len()])).collect();
    let all: Vec<&Tensor<B, f32>> = tensors.iter().rev().collect();
    let sums = |xs: &[&Tensor<B, f32>]| {
        let mut out = poisoned(backend, &[xs.len()]);
        backend.sum_of_squares(xs, &mut out).unwrap();
        read(backend, &out)
    };
    let mut got = sums(&all);
    got.reverse();
    // Terms of one sign in a tree of short sums: the error does not grow with n.
    assert_close("sum_of_squares", &got, &expected, tolerance::ELEMENTWISE);
    for (x, &got) in tensors.iter().zip(&got).take(lens.len()) {
        assert_eq!(sums(&[x]), [got], "{} elements, alone and among others", x.len());
    }
    assert!(sums(&[]).is_empty());
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

const STEPS: u64 = 8;

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
            // Another parameter's share of the norm comes first.
            let mut grad_squares = poisoned(backend, &[2]);
            backend.sum_of_squares(&[&tensor(backend, &[0.5], &[1]), &grad], &mut grad_squares).unwrap();
            let (weight, master, grad, m, v) = (&mut weight, master.as_mut(), &grad, &mut m, &mut v);
            let parameter = AdamWParameter { weight, master, grad, m, v, weight_decay: self.weight_decay };
            let (parameters, step) = (vec![parameter], self.step(update));
            backend.adamw(AdamW { parameters, grad_squares: &grad_squares, step }).unwrap();
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

/// A parameter among many, as many as take several launches, gets the bits that it gets alone.
pub fn adamw_of_many_parameters<B: Backend>(backend: &B) {
    const SHAPES: [[usize; 2]; 5] = [[1, 1], [0, 4], [33, 31], [70, 64], [1, 7]];
    let shapes = || (0..160).map(|i| SHAPES[i % SHAPES.len()]);
    let weight_decay = |i: usize| if i.is_multiple_of(3) { 0.0 } else { 0.1 * i as f32 };
    let grads: Vec<Tensor<B, f32>> = (0..)
        .zip(shapes())
        .map(|(i, shape)| tensor(backend, &Random::new(i).values::<f32>(shape[0] * shape[1], 1.0), &shape))
        .collect();
    let mut grad_squares = poisoned(backend, &[grads.len()]);
    backend.sum_of_squares(&grads.iter().collect::<Vec<_>>(), &mut grad_squares).unwrap();
    let step = Run { rows: 1, width: 1, weight_decay: 0.0, max_grad_norm: 1.0 }.step(1);
    let run = |at_once: usize| -> Vec<Vec<f64>> {
        let mut state: Vec<_> = (0..)
            .zip(shapes())
            .map(|(i, shape)| {
                let start = Random::new(1000 + i).values::<f32>(shape[0] * shape[1], 1.0);
                let weight: Tensor<B, B::E> = tensor(backend, &start, &shape);
                let master: Option<Tensor<B, f32>> = (!B::E::IS_F32).then(|| tensor(backend, &start, &shape));
                let [m, v] = [(); 2].map(|()| Tensor::<B, f32>::zeros(backend, &shape).unwrap());
                (weight, master, m, v)
            })
            .collect();
        for (part, state) in state.chunks_mut(at_once).enumerate() {
            let parameters = (part * at_once..).zip(state).map(|(i, (weight, master, m, v))| AdamWParameter {
                weight,
                master: master.as_mut(),
                grad: &grads[i],
                m,
                v,
                weight_decay: weight_decay(i),
            });
            let parameters = parameters.collect();
            backend.adamw(AdamW { parameters, grad_squares: &grad_squares, step }).unwrap();
        }
        let read_all = |(weight, master, m, v): &(_, Option<_>, _, _)| {
            [masters(backend, weight, master.as_ref()), read(backend, m), read(backend, v)].concat()
        };
        state.iter().map(read_all).collect()
    };
    let alone = run(1);
    assert!(alone.iter().zip(shapes()).all(|(state, shape)| state.len() == 3 * shape[0] * shape[1]));
    assert!(run(160) == alone);
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
    backend.sum_of_squares(&[&tensor(backend, &[0.0; 5], &[5])], &mut x).unwrap();
    assert_eq!(read(backend, &x), [0.0]);
}
