//! Softmax cross-entropy of a block of scores, and its gradient.

use super::distillation::Teacher;
use super::math::{exp, max, simd, store, sum_of, sum_of_three};
use super::{Cpu, CpuElement, scratch};
use crate::backend::{Candidates, DISTILL_STATS, InfoNceColumns, InfoNceRows, ROW_STATS, WORD_BITS};
use rayon::prelude::*;
use std::ops::Range;

/// Score of a column that is left out: its exponential is 0, and no product with that is NaN.
const LEFT_OUT: f32 = -1e30;

/// Columns in one task of the direction from passages to queries.
const STRIPE: usize = 256;

/// [`Candidates`] in host memory.
struct Mask<'a> {
    first_positive: usize,
    row_labels: &'a [i32],
    column_labels: &'a [i32],
    rejected: Option<&'a [i32]>,
    left_out: Option<&'a [i32]>,
    words_a_row: usize,
    first_passage: usize,
    skipped: Range<usize>,
    false_negative_margin: f32,
    margin: f32,
}

impl<'a> Mask<'a> {
    fn new<E: CpuElement>(c: &Candidates<'a, Cpu<E>>, margin: f32) -> Self {
        Mask {
            first_positive: c.first_positive,
            row_labels: c.row_labels.as_slice(),
            column_labels: c.column_labels.as_slice(),
            rejected: c.rejected.map(|rejected| rejected.as_slice()),
            left_out: c.left_out.map(|left_out| left_out.as_slice()),
            words_a_row: c.words_a_row(),
            first_passage: c.first_passage,
            skipped: c.skipped.clone(),
            false_negative_margin: c.false_negative_margin,
            margin,
        }
    }

    /// Temperature times the logits of `columns` of a row of `scores`.
    #[inline(always)]
    fn load(&self, row: usize, scores: &[f32], columns: Range<usize>, out: &mut [f32]) {
        let (label, positive) = (self.row_labels[row], self.first_positive + row);
        let limit = scores[positive] + self.false_negative_margin;
        for ((o, &s), &l) in out.iter_mut().zip(&scores[columns.clone()]).zip(&self.column_labels[columns.clone()]) {
            *o = if (l == label) | (s > limit) { LEFT_OUT } else { s };
        }
        let rejected = self.rejected.map_or(0..0, |ends| {
            self.first_passage + ends[2 * row] as usize..self.first_passage + ends[2 * row + 1] as usize
        });
        for Range { start, end } in [&self.skipped, &rejected] {
            let (from, to) = (start.max(&columns.start), end.min(&columns.end));
            if from < to {
                out[from - columns.start..to - columns.start].fill(LEFT_OUT);
            }
        }
        self.leave_out(row, &columns, out);
        if columns.contains(&positive) {
            out[positive - columns.start] = scores[positive] - self.margin;
        }
    }

    /// Those of `columns` whose bits are set.
    #[inline(always)]
    fn leave_out(&self, row: usize, columns: &Range<usize>, out: &mut [f32]) {
        let Some(left_out) = self.left_out else { return };
        for (i, &word) in left_out[row * self.words_a_row..][..self.words_a_row].iter().enumerate() {
            let mut bits = word as u32;
            while bits != 0 {
                let passage = i * WORD_BITS + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                // The query of a positive has its number; there is none where passages are the first columns.
                let query = Some(passage).filter(|&query| query < self.first_passage);
                for column in [Some(self.first_passage + passage), query].into_iter().flatten() {
                    if columns.contains(&column) {
                        out[column - columns.start] = LEFT_OUT;
                    }
                }
            }
        }
    }
}

pub fn rows<E: CpuElement>(mut args: InfoNceRows<Cpu<E>>) {
    args.check();
    let (n_rows, first_stats) = (args.scores.rows(), args.first_stats);
    match args.distill.take() {
        None => each_row(args, (0..n_rows).into_par_iter().map(|_| None)),
        Some(distill) => {
            let teacher = Teacher::new(&distill, args.candidates.first_passage);
            let stats = &mut distill.stats.as_mut_slice()[first_stats * DISTILL_STATS..][..n_rows * DISTILL_STATS];
            each_row(args, stats.par_chunks_exact_mut(DISTILL_STATS).map(|stats| Some((&teacher, stats))));
        }
    }
}

/// All rows; `taught` has for each of them the teacher, if there is one, and where its statistics go.
fn each_row<'t, E: CpuElement>(
    args: InfoNceRows<Cpu<E>>,
    taught: impl IndexedParallelIterator<Item = Option<(&'t Teacher<'t>, &'t mut [f32])>>,
) {
    let n = args.scores.row_len();
    let (inv_t, weight) = (args.inv_temperature, args.weight);
    let mask = Mask::new(&args.candidates, args.margin);
    let columns = args.columns.map(|columns| Columns::new(columns.as_slice()));
    let stats = &mut args.stats.as_mut_slice()[args.first_stats * ROW_STATS..][..args.scores.rows() * ROW_STATS];
    (
        args.d_scores.as_mut_slice().par_chunks_exact_mut(n),
        args.scores.as_slice().par_chunks_exact(n),
        stats.par_chunks_exact_mut(ROW_STATS),
        taught,
    )
        .into_par_iter()
        .enumerate()
        .for_each(|(r, (d_scores, scores, stats, taught))| {
            scratch::with(3 * n, |memory| {
                let (s, rest) = memory.split_at_mut(n);
                let (d, q) = rest.split_at_mut(n);
                simd(
                    #[inline(always)]
                    || {
                        mask.load(r, scores, 0..n, s);
                        let row = ScoreRow { s, positive: mask.first_positive + r, inv_t, scale: weight * inv_t };
                        stats.copy_from_slice(&row.softmax(d));
                        stats[1] += mask.margin;
                        if let Some(columns) = &columns {
                            stats[4] += row.add_columns(columns, d, q);
                        }
                        if let Some((teacher, stats)) = taught {
                            stats.copy_from_slice(&teacher.add_row(r, scores, row.positive, d));
                        }
                        store(d, d_scores);
                    },
                );
            });
        });
}

/// A row of scores, masked.
struct ScoreRow<'a> {
    s: &'a [f32],
    positive: usize,
    inv_t: f32,
    /// Factor of the gradient.
    scale: f32,
}

impl ScoreRow<'_> {
    /// The row's [`ROW_STATS`], and its gradient in `d`.
    #[inline(always)]
    fn softmax(&self, d: &mut [f32]) -> [f32; ROW_STATS] {
        let (s, positive) = (self.s, self.s[self.positive]);
        let largest = max(s);
        d.iter_mut().zip(s).for_each(|(d, &v)| *d = exp((v - largest) * self.inv_t));
        let total = sum_of(d, |v| v);
        let share = self.scale / total;
        // 1 - softmax of the positive is computed as the sum of the others: no cancellation when it is near 1.
        d[self.positive] = 0.0;
        let others = sum_of(d, |v| v);
        let d_inv_temperature = sum_of_three(d, s, s, |d, s, _| d * (s - positive)) / total;
        d.iter_mut().for_each(|d| *d *= share);
        d[self.positive] = -others * share;
        let sum = sum_of(s, |v| if v > LEFT_OUT { v } else { 0.0 }) - positive;
        let n_others = sum_of(s, |v| if v > LEFT_OUT { 1.0 } else { 0.0 }) - 1.0;
        let loss = total.ln() + (largest - positive) * self.inv_t;
        [loss, positive, sum, n_others, d_inv_temperature]
    }

    /// Adds the columns' gradient to `d`; returns the derivative by the inverse temperature. `q` is memory of the row's
    /// length.
    #[inline(always)]
    fn add_columns(&self, columns: &Columns, d: &mut [f32], q: &mut [f32]) -> f32 {
        let m = columns.largest.len();
        let (s, q, positive) = (&self.s[..m], &mut q[..m], self.positive);
        for (((q, &s), &largest), &inv_total) in q.iter_mut().zip(s).zip(columns.largest).zip(columns.inv_total) {
            *q = exp((s - largest) * self.inv_t) * inv_total;
        }
        q[positive] = -columns.others[positive];
        d.iter_mut().zip(&*q).for_each(|(d, q)| *d += q * self.scale);
        sum_of_three(q, s, s, |q, s, _| q * s)
    }
}

/// Result of [`InfoNceColumns`].
struct Columns<'a> {
    largest: &'a [f32],
    others: &'a [f32],
    inv_total: &'a [f32],
}

impl<'a> Columns<'a> {
    fn new(state: &'a [f32]) -> Self {
        let (largest, rest) = state.split_at(state.len() / 3);
        let (others, inv_total) = rest.split_at(largest.len());
        Columns { largest, others, inv_total }
    }
}

pub fn columns<E: CpuElement>(args: InfoNceColumns<Cpu<E>>) {
    args.check();
    let (n, m) = (args.scores.row_len(), args.state.row_len());
    let (scores, inv_t, is_first, is_last) =
        (args.scores.as_slice(), args.inv_temperature, args.is_first, args.is_last);
    let mask = Mask::new(&args.candidates, args.margin);
    let (largest, rest) = args.state.as_mut_slice().split_at_mut(m);
    let (others, third) = rest.split_at_mut(m);
    (
        largest.par_chunks_mut(STRIPE),
        others.par_chunks_mut(STRIPE),
        third.par_chunks_mut(STRIPE),
        args.loss.as_mut_slice().par_chunks_mut(STRIPE),
    )
        .into_par_iter()
        .enumerate()
        .for_each(|(i, (largest, others, third, loss))| {
            scratch::with(2 * largest.len(), |memory| {
                let (before, s) = memory.split_at_mut(largest.len());
                simd(
                    #[inline(always)]
                    || {
                        let mut stripe = Stripe { first: i * STRIPE, inv_t, largest, others, third };
                        if is_first {
                            stripe.largest.fill(LEFT_OUT);
                            stripe.others.fill(0.0);
                        }
                        before.copy_from_slice(stripe.largest);
                        stripe.add(&mask, scores, n, before, s);
                        if is_last {
                            stripe.finish(loss);
                        }
                    },
                );
            });
        });
}

/// The state of some columns; see [`InfoNceColumns::state`].
struct Stripe<'a> {
    first: usize,
    inv_t: f32,
    largest: &'a mut [f32],
    others: &'a mut [f32],
    third: &'a mut [f32],
}

impl Stripe<'_> {
    /// Adds all rows of `scores`, each `n` long; `before` are the maxima over the rows before, and `s` is memory for
    /// one row of the stripe.
    #[inline(always)]
    fn add(&mut self, mask: &Mask, scores: &[f32], n: usize, before: &[f32], s: &mut [f32]) {
        let columns = self.first..self.first + s.len();
        let rows = || scores.chunks_exact(n).enumerate();
        // The maxima come first: then one exponential per score is enough.
        for (row, scores) in rows() {
            mask.load(row, scores, columns.clone(), s);
            self.largest
                .iter_mut()
                .zip(&*s)
                .for_each(|(largest, &s)| *largest = if s > *largest { s } else { *largest });
        }
        for ((others, before), largest) in self.others.iter_mut().zip(before).zip(&*self.largest) {
            *others *= exp((before - largest) * self.inv_t);
        }
        for (row, scores) in rows() {
            mask.load(row, scores, columns.clone(), s);
            let positive = mask.first_positive + row;
            if columns.contains(&positive) {
                let place = positive - self.first;
                self.third[place] = std::mem::replace(&mut s[place], LEFT_OUT);
            }
            for ((others, largest), s) in self.others.iter_mut().zip(&*self.largest).zip(&*s) {
                *others += exp((s - largest) * self.inv_t);
            }
        }
    }

    /// Finishes the losses after the last row.
    #[inline(always)]
    fn finish(&mut self, loss: &mut [f32]) {
        let state = self.largest.iter().zip(&mut *self.others).zip(&mut *self.third);
        for (((largest, others), third), loss) in state.zip(loss) {
            let total = *others + exp((*third - largest) * self.inv_t);
            *loss = total.ln() + (largest - *third) * self.inv_t;
            *others /= total;
            *third = 1.0 / total;
        }
    }
}
