//! AdamW of a table whose gradient has few rows, against dense AdamW.

use super::adamw::masters;
use super::support::{Random, assert_close, ints, read, tensor};
use crate::reference::adamw::{Parameter, adamw as reference, sum_of_squares};
use crate::tolerance;
use hbt::backend::cpu::CpuElement;
use hbt::backend::{
    AdamW, AdamWCatchUp, AdamWParameter, AdamWRows, AdamWStep, Backend, Cpu, Element, Ints, Tensor, momentum_decays,
};

/// Rows for several tasks of 16.
const ROWS: usize = 75;
/// The whole schedule.
const STEPS: u64 = 500;
const WEIGHT_DECAY: f32 = 0.01;

/// The width of a table and how many updates it gets.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    width: usize,
    steps: u64,
}

/// Rows of more than one block of 64 elements, and updates until momentum has died out.
pub const USUAL: Size = Size { width: 67, steps: STEPS };
/// Rows with and without vectors, shorter and longer than a warp, and updates enough for two turns of it.
const OTHERS: [Size; 5] = [other(1), other(3), other(8), other(384), other(1025)];

const fn other(width: usize) -> Size {
    Size { width, steps: 64 }
}

/// A warm-up that starts at 0, then a decay, as in training.
fn step(update: u64) -> AdamWStep {
    let (at, warmup) = (update as f32 - 1.0, 50.0);
    let factor = if at < warmup { at / warmup } else { 1.0 - (at - warmup) / (STEPS as f32 - warmup) };
    AdamWStep { learning_rate: 3e-3 * factor, beta1: 0.9, beta2: 0.999, eps: 1e-8, update, max_grad_norm: 1.0 }
}

/// Whether a row has a gradient in an update.
fn is_touched(row: usize, update: u64, random: &mut Random) -> bool {
    let chance = random.uniform();
    match row % 5 {
        0 => true,
        1 => false,
        2 => chance < 0.2,
        3 => chance < 0.01,
        // Nothing for longer than momentum is computed.
        _ => !(20..460).contains(&update) && chance < 0.1,
    }
}

/// The rows with a gradient, and it; every third one is small enough not to be clipped.
fn gradient(width: usize, update: u64) -> (Vec<i32>, Vec<f64>) {
    let mut random = Random::new(90 + update);
    let rows: Vec<i32> = (0..ROWS).filter(|&row| is_touched(row, update, &mut random)).map(|row| row as i32).collect();
    let std = if update.is_multiple_of(3) { 0.5 / ((rows.len() * width) as f64).sqrt() } else { 0.5 };
    let values = random.values::<f32>(rows.len() * width, std);
    (rows, values)
}

fn dense(width: usize, (rows, values): &(Vec<i32>, Vec<f64>)) -> Vec<f64> {
    let mut dense = vec![0.0; ROWS * width];
    for (&row, values) in rows.iter().zip(values.chunks(width)) {
        dense[row as usize * width..][..width].copy_from_slice(values);
    }
    dense
}

fn start(width: usize) -> Vec<f64> {
    Random::new(89).values::<f32>(ROWS * width, 0.5)
}

/// When rows are caught up besides just before they have a gradient.
#[derive(Clone, Copy, Debug)]
pub enum CatchUp {
    /// At the end.
    Late,
    /// All of them after every update.
    Always,
    /// Now and then: some of them, or all, after which the history begins anew.
    AtRandom(u64),
}

/// Weights, moments as of each row's last gradient, and that update.
#[derive(PartialEq)]
pub struct State {
    weight: Vec<f64>,
    m: Vec<f64>,
    v: Vec<f64>,
    touched: Vec<i32>,
}

struct Table<'a, B: Backend> {
    backend: &'a B,
    weight: Tensor<B, B::E>,
    master: Option<Tensor<B, f32>>,
    m: Tensor<B, f32>,
    v: Tensor<B, f32>,
    touched: Tensor<B, i32>,
    current: Tensor<B, i32>,
    history: Vec<[f32; 3]>,
    decays: Tensor<B, f32>,
}

impl<'a, B: Backend> Table<'a, B> {
    fn new(backend: &'a B, width: usize) -> Self {
        let shape = [ROWS, width];
        let decays = momentum_decays(0.9, 0.999);
        Table {
            backend,
            weight: tensor(backend, &start(width), &shape),
            master: (!B::E::IS_F32).then(|| tensor(backend, &start(width), &shape)),
            m: Tensor::zeros(backend, &shape).unwrap(),
            v: Tensor::zeros(backend, &shape).unwrap(),
            touched: ints(backend, &[0; ROWS]),
            current: ints(backend, &[0; ROWS]),
            history: Vec::new(),
            decays: Tensor::from_slice(backend, decays.as_flattened(), &[decays.len(), 2]).unwrap(),
        }
    }

    fn catch_up(&mut self, rows: Option<&[i32]>, update: u64) {
        let backend = self.backend;
        let history = Tensor::from_slice(backend, self.history.as_flattened(), &[self.history.len(), 3]).unwrap();
        let rows = rows.map(|rows| ints(backend, rows));
        backend
            .adamw_catch_up(AdamWCatchUp {
                weight: &mut self.weight,
                master: self.master.as_mut(),
                m: &self.m,
                v: &self.v,
                touched: &self.touched,
                current: &mut self.current,
                rows: rows.as_ref().map(Ints::all),
                history: &history,
                update,
                decays: &self.decays,
                eps: step(update).eps,
            })
            .unwrap();
        if rows.is_none() {
            self.history.clear();
        }
    }

    /// An update as in training.
    fn update(&mut self, update: u64) {
        let (rows, grad) = gradient(self.weight.row_len(), update);
        self.catch_up(Some(&rows), update - 1);
        self.update_rows(update, &rows, &grad);
        self.history.push(step(update).scalars(WEIGHT_DECAY));
    }

    fn update_rows(&mut self, update: u64, rows: &[i32], grad: &[f64]) {
        let backend = self.backend;
        let grad = tensor(backend, grad, &[rows.len(), self.weight.row_len()]);
        self.backend
            .adamw_rows(AdamWRows {
                weight: &mut self.weight,
                master: self.master.as_mut(),
                grad: &grad,
                rows: Ints::all(&ints(backend, rows)),
                m: &mut self.m,
                v: &mut self.v,
                touched: &mut self.touched,
                current: &mut self.current,
                grad_squares: &squares(backend, &grad),
                step: step(update),
                weight_decay: WEIGHT_DECAY,
            })
            .unwrap();
    }

    /// Dense AdamW.
    fn update_all(&mut self, update: u64, grad: &[f64]) {
        let grad = tensor(self.backend, grad, self.weight.shape());
        let parameter = AdamWParameter {
            weight: &mut self.weight,
            master: self.master.as_mut(),
            grad: &grad,
            m: &mut self.m,
            v: &mut self.v,
            weight_decay: WEIGHT_DECAY,
        };
        let grad_squares = &squares(self.backend, &grad);
        self.backend.adamw(AdamW { parameters: vec![parameter], grad_squares, step: step(update) }).unwrap();
    }

    fn state(&self) -> State {
        State {
            weight: masters(self.backend, &self.weight, self.master.as_ref()),
            m: read(self.backend, &self.m),
            v: read(self.backend, &self.v),
            touched: self.touched.to_vec(self.backend).unwrap(),
        }
    }
}

fn squares<B: Backend>(backend: &B, grad: &Tensor<B, f32>) -> Tensor<B, f32> {
    let mut squares = tensor(backend, &[0.0], &[1]);
    backend.sum_of_squares(&[grad], &mut squares).unwrap();
    squares
}

pub fn run<B: Backend>(backend: &B, size: Size, catch_up: CatchUp) -> State {
    let mut table = Table::new(backend, size.width);
    let mut random = Random::new(if let CatchUp::AtRandom(seed) = catch_up { seed } else { 1 });
    for update in 1..=size.steps {
        table.update(update);
        let chance = random.uniform();
        match catch_up {
            CatchUp::Always => table.catch_up(None, update),
            CatchUp::AtRandom(_) if chance < 0.02 => table.catch_up(None, update),
            CatchUp::AtRandom(_) if chance < 0.2 => {
                let rows: Vec<i32> = (0..ROWS as i32).filter(|_| random.uniform() < 0.3).collect();
                table.catch_up(Some(&rows), update);
            }
            _ => {}
        }
    }
    table.catch_up(None, size.steps);
    assert_eq!(table.current.to_vec(backend).unwrap(), [size.steps as i32; ROWS]);
    table.state()
}

/// Dense AdamW in f64.
fn expected(size: Size) -> Parameter {
    let zeros = vec![0.0; ROWS * size.width];
    let mut p = Parameter { weight: start(size.width), m: zeros.clone(), v: zeros };
    for update in 1..=size.steps {
        let grad = gradient(size.width, update);
        reference(
            &mut p,
            &dense(size.width, &grad),
            sum_of_squares(&grad.1).sqrt(),
            step(update),
            f64::from(WEIGHT_DECAY),
        );
    }
    p
}

/// Dense AdamW on the backend.
fn run_dense<B: Backend>(backend: &B, size: Size) -> Vec<f64> {
    let mut table = Table::new(backend, size.width);
    for update in 1..=size.steps {
        table.update_all(update, &dense(size.width, &gradient(size.width, update)));
    }
    table.state().weight
}

pub fn adamw_rows_equal_dense_adamw<B: Backend>(backend: &B) {
    for size in OTHERS.into_iter().chain([USUAL]) {
        let (got, expected) = (run(backend, size, CatchUp::Late), expected(size));
        let Size { width, steps } = size;
        let ended = |&row: &usize| got.touched[row] < steps as i32 - 40;
        let kinds: Vec<usize> = (0..ROWS).filter(ended).map(|row| row % 5).collect();
        assert!([1, 3].iter().all(|kind| kinds.contains(kind)), "rows of every kind end without a gradient: {kinds:?}");
        let tolerance = tolerance::sum(steps as usize);
        assert_close(&format!("weight, {size:?}"), &got.weight, &expected.weight, tolerance);
        // The moments are those of the row's last gradient.
        let since = |element: usize| steps as i32 - got.touched[element / width];
        let decayed = |x: &[f64], beta: f32| -> Vec<f64> {
            (0..).zip(x).map(|(i, x)| if *x == 0.0 { 0.0 } else { x * f64::from(beta).powi(since(i)) }).collect()
        };
        assert_close(&format!("m, {size:?}"), &decayed(&got.m, 0.9), &expected.m, tolerance);
        assert_close(&format!("v, {size:?}"), &decayed(&got.v, 0.999), &expected.v, tolerance);

        // As much again, for nothing new where rows are wide.
        if width > USUAL.width {
            continue;
        }
        let dense = run_dense(backend, size);
        assert_close(&format!("weight, against f32, {size:?}"), &got.weight, &dense, tolerance);
        let rows = || got.weight.chunks(width).zip(dense.chunks(width)).zip(&got.touched);
        assert!(rows().filter(|(_, touched)| **touched == 0).count() >= ROWS / 5);
        assert!(
            rows().all(|((got, dense), touched)| *touched > 0 || got == dense),
            "decay alone is the same to the bit"
        );
    }
}

/// Rows that all have a gradient are a dense parameter.
pub fn adamw_of_all_rows_has_the_bits_of_adamw<B: Backend>(backend: &B) {
    for Size { width, .. } in OTHERS {
        let rows: Vec<i32> = (0..ROWS as i32).collect();
        let (mut table, mut other) = (Table::new(backend, width), Table::new(backend, width));
        for update in 1..=5 {
            let grad = Random::new(update).values::<f32>(ROWS * width, 0.5);
            table.update_rows(update, &rows, &grad);
            other.update_all(update, &grad);
        }
        let (state, other) = (table.state(), other.state());
        assert!((state.weight, state.m, state.v) == (other.weight, other.m, other.v), "width {width}");
    }
}

pub fn adamw_rows_has_the_bits_of_the_cpu<B: Backend<E: CpuElement>>(backend: &B) {
    for size in OTHERS.into_iter().chain([USUAL]) {
        let run_on_cpu = run(&Cpu::<B::E>::new(), size, CatchUp::Late);
        assert!(run(backend, size, CatchUp::Late) == run_on_cpu, "{size:?}");
    }
}

pub fn adamw_catch_up_at_any_time<B: Backend>(backend: &B) {
    let (always, at_random) = (CatchUp::Always, CatchUp::AtRandom(2));
    for (size, others) in [(USUAL, &[at_random][..]), (OTHERS[2], &[always, at_random])] {
        let late = run(backend, size, CatchUp::Late);
        for &other in others {
            assert!(run(backend, size, other) == late, "{other:?} gives other bits, {size:?}");
        }
    }
}

/// The bound of the documentation, by following the worst row: gradients whose first moment is largest against the root
/// of the second (Cauchy's inequality is an equality there), then none.
#[test]
fn momentum_is_left_out_when_it_is_nothing() {
    let (b1, b2) = (f64::from(0.9f32), f64::from(0.999f32));
    let decays = momentum_decays(0.9, 0.999);
    assert_eq!(decays.len(), 306);
    assert_eq!(decays[..2], [[1.0, 1.0], [0.9, 0.999f64.sqrt() as f32]]);
    let (mut m, mut v) = (0.0, 0.0);
    // g_i of i updates ago in proportion to (b1 / b2)^i.
    for i in (0..2000).rev() {
        let g = (b1 / b2).powi(i);
        (m, v) = (b1 * m + (1.0 - b1) * g, b2 * v + (1.0 - b2) * g * g);
    }
    let moved = |from: i32| -> f64 { (from..from + 2000).map(|k| m * b1.powi(k) / (v * b2.powi(k)).sqrt()).sum() };
    let last = decays.len() as i32 - 1;
    assert!(moved(last + 1) < 1e-12, "{:e} learning rates are left out", moved(last + 1));
    assert!(moved(last - 2) > 1e-12, "the bound is tight");
}
