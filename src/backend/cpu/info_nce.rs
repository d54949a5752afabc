//! Softmax cross-entropy of a block of scores, and its gradient, in one pass.

use super::math::{exp, max, simd, sum_of};
use super::{Cpu, CpuElement};
use crate::backend::InfoNceRows;
use rayon::prelude::*;

pub fn rows<E: CpuElement>(args: InfoNceRows<Cpu<E>>) {
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
            let positive = positive as usize;
            simd(
                #[inline(always)]
                || {
                    let mut p: Vec<f32> = scores.to_vec();
                    let largest = max(scores);
                    p.iter_mut().for_each(|v| *v = exp((*v - largest) * inv_t));
                    let total = sum_of(&p, |v| v);
                    *loss = total.ln() + (largest - scores[positive]) * inv_t;
                    let share = weight * inv_t / total;
                    // 1 - softmax of the positive as the sum of the others: no cancellation when it is near 1.
                    p[positive] = 0.0;
                    let others = sum_of(&p, |v| v);
                    for (d, &v) in d_scores.iter_mut().zip(&p) {
                        *d = E::from_f32(v * share);
                    }
                    d_scores[positive] = E::from_f32(-others * share);
                    let sum = sum_of(scores, |v| v);
                    cosines[0] = scores[positive];
                    cosines[1] = if n > 1 { (sum - scores[positive]) / (n - 1) as f32 } else { 0.0 };
                },
            );
        });
}
