//! Bias + erf-GELU in one pass, forward and backward.

use super::layer_norm::widened;
use super::math::{add_assign, load, normal, simd, store};
use super::rows::{BLOCK, add_partials, n_blocks};
use super::{Cpu, CpuElement};
use crate::backend::{BiasGeluBackward, BiasGeluForward};
use rayon::prelude::*;

pub fn forward<E: CpuElement>(args: BiasGeluForward<Cpu<E>>) {
    let n = args.bias.len();
    let bias = widened(args.bias.as_slice());
    (args.out.as_mut_slice().par_chunks_mut(BLOCK * n), args.x.as_slice().par_chunks(BLOCK * n))
        .into_par_iter()
        .for_each(|(out, x)| {
            simd(
                #[inline(always)]
                || {
                    for (out, x) in out.chunks_exact_mut(n).zip(x.chunks_exact(n)) {
                        for ((o, v), &b) in out.iter_mut().zip(x).zip(&bias) {
                            let v = v.to_f32() + b;
                            *o = E::from_f32(v * normal(v).0);
                        }
                    }
                },
            );
        });
}

pub fn backward<E: CpuElement>(args: BiasGeluBackward<Cpu<E>>) {
    let n = args.bias.len();
    let bias = widened(args.bias.as_slice());
    let mut partials = vec![0.0; n_blocks(args.x.rows()) * n];
    (
        args.d.as_mut_slice().par_chunks_mut(BLOCK * n),
        args.out.as_mut_slice().par_chunks_mut(BLOCK * n),
        args.x.as_slice().par_chunks(BLOCK * n),
        partials.par_chunks_mut(n),
    )
        .into_par_iter()
        .for_each(|(d, out, x, partial)| {
            simd(
                #[inline(always)]
                || {
                    let mut g = vec![0.0; n];
                    for ((d, out), x) in d.chunks_exact_mut(n).zip(out.chunks_exact_mut(n)).zip(x.chunks_exact(n)) {
                        load(d, &mut g);
                        for (((g, o), v), &b) in g.iter_mut().zip(out).zip(x).zip(&bias) {
                            let v = v.to_f32() + b;
                            let (cdf, density) = normal(v);
                            *o = E::from_f32(v * cdf);
                            *g *= cdf + v * density;
                        }
                        store(&g, d);
                        add_assign(partial, &g);
                    }
                },
            );
        });
    add_partials(&partials, args.d_bias.as_mut_slice());
}
