//! AdamW of some rows of a table, and the updates that the other rows have missed.

use super::adamw::Scalars;
use super::math::{load, simd, store};
use super::split::{RowsMut, Task, for_rows};
use super::{Cpu, CpuElement};
use crate::backend::{AdamWCatchUp, AdamWRows};

/// Rows in one task.
const ROWS: usize = 16;
/// Elements whose missed updates are carried out at a time: as many as fit into registers.
const BLOCK: usize = 64;

/// Row numbers by which a table may be cut: strictly ascending.
fn ascending(rows: &[i32]) -> &[i32] {
    assert!(rows.is_sorted_by(|a, b| a < b), "adamw: rows are not in ascending order");
    rows
}

pub fn step<E: CpuElement>(args: AdamWRows<Cpu<E>>) {
    args.check();
    let scalars = Scalars::new(&args.step, args.weight_decay, args.grad_squares.as_slice());
    let [beta1, beta2] = [args.step.beta1, args.step.beta2].map(f64::from);
    let update = args.step.update as i32;
    let width = args.weight.row_len();
    let (rows, grad) = (ascending(args.rows.as_slice()), args.grad.as_slice());
    let moments = (RowsMut::new(args.m.as_mut_slice(), width), RowsMut::new(args.v.as_mut_slice(), width));
    let counters = (RowsMut::new(args.touched.as_mut_slice(), 1), RowsMut::new(args.current.as_mut_slice(), 1));
    let state =
        (weights(args.weight.as_mut_slice(), args.master.map(|w| w.as_mut_slice()), width), (moments, counters));
    for_rows(
        rows.len(),
        ROWS,
        |i| rows[i] as usize,
        state,
        |Task { items, first_row, state }| {
            let ((mut weight, mut master), ((mut m, mut v), (touched, current))) = state;
            simd(
                #[inline(always)]
                || {
                    for i in items {
                        let row = rows[i] as usize - first_row;
                        assert_eq!(current.values[row], update - 1, "adamw_rows: row {} was not caught up", rows[i]);
                        let since = update - touched.values[row];
                        (touched.values[row], current.values[row]) = (update, update);
                        // The decays of the updates without a gradient and of this one.
                        let mut scalars = scalars;
                        scalars.moment_decays = [beta1.powi(since) as f32, beta2.powi(since) as f32];
                        let master = master.as_mut().map(|master| master.row(row));
                        scalars.update(weight.row(row), master, &grad[i * width..][..width], m.row(row), v.row(row));
                    }
                },
            );
        },
    );
}

/// The working copy, and the masters if there are any.
fn weights<'a, E>(weight: &'a mut [E], master: Option<&'a mut [f32]>, width: usize) -> Weights<'a, E> {
    (RowsMut::new(weight, width), master.map(|master| RowsMut::new(master, width)))
}

type Weights<'a, E> = (RowsMut<'a, E>, Option<RowsMut<'a, f32>>);

pub fn catch_up<E: CpuElement>(args: AdamWCatchUp<Cpu<E>>) {
    args.check();
    let width = args.weight.row_len();
    let n_rows = args.weight.rows();
    let replay = Replay::new(&args);
    let current = RowsMut::new(args.current.as_mut_slice(), 1);
    let state = (weights(args.weight.as_mut_slice(), args.master.map(|w| w.as_mut_slice()), width), current);
    match args.rows.map(|rows| ascending(rows.as_slice())) {
        Some(rows) => catch_up_rows(&replay, rows.len(), |i| rows[i] as usize, state),
        None => catch_up_rows(&replay, n_rows, |i| i, state),
    }
}

fn catch_up_rows<E: CpuElement>(
    replay: &Replay,
    n: usize,
    row: impl Fn(usize) -> usize + Sync,
    state: (Weights<E>, RowsMut<i32>),
) {
    for_rows(n, ROWS, &row, state, |Task { items, first_row, state }| {
        let ((mut weight, mut master), current) = state;
        simd(
            #[inline(always)]
            || {
                for i in items {
                    let (row, local) = (row(i), row(i) - first_row);
                    let master = master.as_mut().map(|master| master.row(local));
                    replay.row(row, current.values[local], weight.row(local), master);
                    current.values[local] = replay.update;
                }
            },
        );
    });
}

/// Updates without a gradient.
struct Replay<'a> {
    /// History of the updates `first..=update`.
    history: &'a [[f32; 3]],
    first: i32,
    update: i32,
    /// The last update with weight decay; later ones change a weight by its momentum alone.
    last_decay: i32,
    decays: &'a [[f32; 2]],
    eps: f32,
    m: &'a [f32],
    v: &'a [f32],
    touched: &'a [i32],
}

impl<'a> Replay<'a> {
    fn new<E: CpuElement>(args: &AdamWCatchUp<'a, Cpu<E>>) -> Self {
        let history = args.history.as_slice().as_chunks().0;
        let update = args.update as i32;
        let first = update - history.len() as i32 + 1;
        Replay {
            history,
            first,
            update,
            last_decay: first - 1 + history.iter().rposition(|[keep, ..]| *keep != 1.0).map_or(0, |at| at as i32 + 1),
            decays: args.decays.as_slice().as_chunks().0,
            eps: args.eps,
            m: args.m.as_slice(),
            v: args.v.as_slice(),
            touched: args.touched.as_slice(),
        }
    }

    /// Brings one row from the update `current` to the present one.
    #[inline(always)]
    fn row<E: CpuElement>(&self, row: usize, current: i32, weight: &mut [E], mut master: Option<&mut [f32]>) {
        assert!(current + 1 >= self.first, "adamw_catch_up: row {row} is older than the history");
        let touched = self.touched[row];
        let reach = if touched == 0 { 0 } else { touched + self.decays.len() as i32 - 1 };
        // The last update with momentum, and the last that changes the weight.
        let moved = reach.clamp(current, self.update);
        let last = self.last_decay.max(moved);
        if last == current {
            return;
        }
        let at = row * weight.len();
        for (i, weight) in weight.chunks_mut(BLOCK).enumerate() {
            let n = weight.len();
            let mut w = [0.0; BLOCK];
            match &master {
                Some(master) => w[..n].copy_from_slice(&master[i * BLOCK..][..n]),
                None => load(weight, &mut w),
            }
            if moved > current {
                let (mut m, mut root) = ([0.0; BLOCK], [0.0; BLOCK]);
                m[..n].copy_from_slice(&self.m[at + i * BLOCK..][..n]);
                root[..n].copy_from_slice(&self.v[at + i * BLOCK..][..n]);
                root = root.map(f32::sqrt);
                for j in current + 1..=moved {
                    let [keep, rate, inv_sqrt_c2] = self.history[(j - self.first) as usize];
                    let [m_left, root_left] = self.decays[(j - touched) as usize];
                    let (rate, root_scale) = (rate * m_left, root_left * inv_sqrt_c2);
                    for l in 0..BLOCK {
                        w[l] = w[l] * keep - rate * m[l] / (root[l] * root_scale + self.eps);
                    }
                }
            }
            for j in moved + 1..=last {
                let [keep, ..] = self.history[(j - self.first) as usize];
                for w in &mut w {
                    *w *= keep;
                }
            }
            if let Some(master) = &mut master {
                master[i * BLOCK..][..n].copy_from_slice(&w[..n]);
            }
            store(&w[..n], weight);
        }
    }
}
