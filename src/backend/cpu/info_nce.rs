//! Softmax cross-entropy of a block of scores, and its gradient, in one pass.

use super::math::{exp, max, simd, sum_of};
use super::{Cpu, CpuElement, scratch};
use crate::backend::{Element, InfoNceRows};
use rayon::prelude::*;

pub fn rows<E: CpuElement>(args: InfoNceRows<Cpu<E>>) {
    args.check();
    let n = args.scores.row_len();
    let (inv_t, weight) = (args.inv_temperature, args.weight);
    (
        args.d_scores.as_mut_slice().par_chunks_exact_mut(n),
        args.scores.as_slice().par_chunks_exact(n),
        args.positives.as_slice().par_iter(),
        args.loss.as_mut_slice().par_iter_mut(),
        args.cosines.as_mut_slice().par_chunks_exact_mut(2),
    )
        .into_par_iter()
        .for_each(|(d_scores, scores, &positive, loss, cosines)| {
            scratch::with(n, |p| {
                simd(
                    #[inline(always)]
                    || {
                        let row = Row { scores, positive: positive as usize, inv_t, weight };
                        *loss = row.loss(p, d_scores);
                        let (cosine, sum) = (scores[row.positive], sum_of(scores, |v| v));
                        cosines[0] = cosine;
                        cosines[1] = if n > 1 { (sum - cosine) / (n - 1) as f32 } else { 0.0 };
                    },
                );
            });
        });
}

struct Row<'a> {
    scores: &'a [f32],
    positive: usize,
    inv_t: f32,
    weight: f32,
}

impl Row<'_> {
    /// The loss, and its gradient in `d_scores`; `p` is memory of the row's length.
    #[inline(always)]
    fn loss<E: Element>(&self, p: &mut [f32], d_scores: &mut [E]) -> f32 {
        let largest = max(self.scores);
        p.iter_mut().zip(self.scores).for_each(|(p, &v)| *p = exp((v - largest) * self.inv_t));
        let total = sum_of(p, |v| v);
        let share = self.weight * self.inv_t / total;
        // 1 - softmax of the positive as the sum of the others: no cancellation when it is near 1.
        p[self.positive] = 0.0;
        let others = sum_of(p, |v| v);
        for (d, &v) in d_scores.iter_mut().zip(&*p) {
            *d = E::from_f32(v * share);
        }
        d_scores[self.positive] = E::from_f32(-others * share);
        total.ln() + (largest - self.scores[self.positive]) * self.inv_t
    }
}
