//! AdamW of a table whose gradient has few rows, against dense AdamW.

use super::adamw::masters;
use super::support::{Random, assert_close, ints, read, tensor};
use crate::reference::adamw::{Parameter, adamw as reference, sum_of_squares};
use crate::tolerance;
use hbt::backend::{AdamW, AdamWCatchUp, AdamWRows, AdamWStep, Backend, Element, Ints, Tensor, momentum_decays};

/// Rows for several tasks of 16, of more than one block of 64 elements.
const ROWS: usize = 75;
const WIDTH: usize = 67;
const STEPS: u64 = 500;
const WEIGHT_DECAY: f32 = 0.01;

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
fn gradient(update: u64) -> (Vec<i32>, Vec<f64>) {
    let mut random = Random::new(90 + update);
    let rows: Vec<i32> = (0..ROWS).filter(|&row| is_touched(row, update, &mut random)).map(|row| row as i32).collect();
    let std = if update.is_multiple_of(3) { 0.5 / ((rows.len() * WIDTH) as f64).sqrt() } else { 0.5 };
    let values = random.values::<f32>(rows.len() * WIDTH, std);
    (rows, values)
}

fn dense((rows, values): &(Vec<i32>, Vec<f64>)) -> Vec<f64> {
    let mut dense = vec![0.0; ROWS * WIDTH];
    for (&row, values) in rows.iter().zip(values.chunks(WIDTH)) {
        dense[row as usize * WIDTH..][..WIDTH].copy_from_slice(values);
    }
    dense
}

fn start() -> Vec<f64> {
    Random::new(89).values::<f32>(ROWS * WIDTH, 0.5)
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
    fn new(backend: &'a B) -> Self {
        let shape = [ROWS, WIDTH];
        let decays = momentum_decays(0.9, 0.999);
        Table {
            backend,
            weight: tensor(backend, &start(), &shape),
            master: (!B::E::IS_F32).then(|| tensor(backend, &start(), &shape)),
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

    fn update(&mut self, update: u64) {
        let backend = self.backend;
        let (rows, grad) = gradient(update);
        self.catch_up(Some(&rows), update - 1);
        let grad = tensor(backend, &grad, &[rows.len(), WIDTH]);
        let mut grad_squares = tensor(backend, &[0.0], &[1]);
        backend.sum_of_squares(&grad, &mut grad_squares, 0).unwrap();
        backend
            .adamw_rows(AdamWRows {
                weight: &mut self.weight,
                master: self.master.as_mut(),
                grad: &grad,
                rows: Ints::all(&ints(backend, &rows)),
                m: &mut self.m,
                v: &mut self.v,
                touched: &mut self.touched,
                current: &mut self.current,
                grad_squares: &grad_squares,
                step: step(update),
                weight_decay: WEIGHT_DECAY,
            })
            .unwrap();
        self.history.push(step(update).scalars(WEIGHT_DECAY));
    }
}

pub fn run<B: Backend>(backend: &B, catch_up: CatchUp) -> State {
    let mut table = Table::new(backend);
    let mut random = Random::new(if let CatchUp::AtRandom(seed) = catch_up { seed } else { 1 });
    for update in 1..=STEPS {
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
    table.catch_up(None, STEPS);
    assert_eq!(table.current.to_vec(backend).unwrap(), [STEPS as i32; ROWS]);
    State {
        weight: masters(backend, &table.weight, table.master.as_ref()),
        m: read(backend, &table.m),
        v: read(backend, &table.v),
        touched: table.touched.to_vec(backend).unwrap(),
    }
}

/// Dense AdamW in f64.
fn expected() -> Parameter {
    let zeros = vec![0.0; ROWS * WIDTH];
    let mut p = Parameter { weight: start(), m: zeros.clone(), v: zeros };
    for update in 1..=STEPS {
        let grad = gradient(update);
        reference(&mut p, &dense(&grad), sum_of_squares(&grad.1).sqrt(), step(update), f64::from(WEIGHT_DECAY));
    }
    p
}

/// Dense AdamW on the backend.
fn run_dense<B: Backend>(backend: &B) -> Vec<f64> {
    let Table { mut weight, mut master, mut m, mut v, .. } = Table::new(backend);
    for update in 1..=STEPS {
        let grad = tensor(backend, &dense(&gradient(update)), &[ROWS, WIDTH]);
        let mut grad_squares = tensor(backend, &[0.0], &[1]);
        backend.sum_of_squares(&grad, &mut grad_squares, 0).unwrap();
        backend
            .adamw(AdamW {
                weight: &mut weight,
                master: master.as_mut(),
                grad: &grad,
                m: &mut m,
                v: &mut v,
                grad_squares: &grad_squares,
                step: step(update),
                weight_decay: WEIGHT_DECAY,
            })
            .unwrap();
    }
    masters(backend, &weight, master.as_ref())
}

pub fn adamw_rows_equal_dense_adamw<B: Backend>(backend: &B) {
    let (got, expected) = (run(backend, CatchUp::Late), expected());
    let kinds: Vec<usize> = (0..ROWS).filter(|&row| got.touched[row] < STEPS as i32 - 40).map(|row| row % 5).collect();
    assert!([1, 3].iter().all(|kind| kinds.contains(kind)), "rows of every kind end without a gradient: {kinds:?}");
    let tolerance = tolerance::sum(STEPS as usize);
    assert_close("weight", &got.weight, &expected.weight, tolerance);
    // The moments are those of the row's last gradient.
    let since = |element: usize| STEPS as i32 - got.touched[element / WIDTH];
    let decayed = |x: &[f64], beta: f32| -> Vec<f64> {
        (0..).zip(x).map(|(i, x)| if *x == 0.0 { 0.0 } else { x * f64::from(beta).powi(since(i)) }).collect()
    };
    assert_close("m", &decayed(&got.m, 0.9), &expected.m, tolerance);
    assert_close("v", &decayed(&got.v, 0.999), &expected.v, tolerance);

    let dense = run_dense(backend);
    assert_close("weight, against f32", &got.weight, &dense, tolerance);
    let rows = || got.weight.chunks(WIDTH).zip(dense.chunks(WIDTH)).zip(&got.touched);
    assert_eq!(rows().filter(|(_, touched)| **touched == 0).count(), ROWS / 5);
    assert!(rows().all(|((got, dense), touched)| *touched > 0 || got == dense), "decay alone is the same to the bit");
}

pub fn adamw_catch_up_at_any_time<B: Backend>(backend: &B) {
    let late = run(backend, CatchUp::Late);
    for other in [CatchUp::Always, CatchUp::AtRandom(2), CatchUp::AtRandom(3)] {
        assert!(run(backend, other) == late, "{other:?} gives other bits");
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
