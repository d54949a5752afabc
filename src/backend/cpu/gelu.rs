//! Bias + erf-GELU in one pass, forward and backward.

use super::math::{normal, simd};
use super::rows::{add_sums, block};
use super::{Cpu, CpuElement};
use crate::backend::{BiasGeluBackward, BiasGeluForward, Element};
use rayon::prelude::*;

#[inline(always)]
fn forward_row<E: Element>(x: &[E], bias: &[E], out: &mut [E]) {
    for ((o, x), b) in out.iter_mut().zip(x).zip(bias) {
        let v = x.to_f32() + b.to_f32();
        *o = E::from_f32(v * normal(v).0);
    }
}

#[inline(always)]
fn backward_row<E: Element>(x: &[E], bias: &[E], d: &mut [E], out: &mut [E], d_bias: &mut [f32]) {
    for ((((x, b), d), o), d_bias) in x.iter().zip(bias).zip(d).zip(out).zip(d_bias) {
        let v = x.to_f32() + b.to_f32();
        let (cdf, density) = normal(v);
        *o = E::from_f32(v * cdf);
        let g = d.to_f32() * (cdf + v * density);
        *d = E::from_f32(g);
        *d_bias += g;
    }
}

pub fn forward<E: CpuElement>(args: BiasGeluForward<Cpu<E>>) {
    let ((rows, n), bias) = (args.check(), args.bias.as_slice());
    let span = block(rows) * n;
    (args.out.as_mut_slice().par_chunks_mut(span), args.x.as_slice().par_chunks(span)).into_par_iter().for_each(
        |(out, x)| {
            simd(
                #[inline(always)]
                || {
                    for (out, x) in out.chunks_exact_mut(n).zip(x.chunks_exact(n)) {
                        forward_row(x, bias, out);
                    }
                },
            );
        },
    );
}

pub fn backward<E: CpuElement>(args: BiasGeluBackward<Cpu<E>>) {
    let ((rows, n), bias) = (args.check(), args.bias.as_slice());
    let span = block(rows) * n;
    add_sums(rows, [args.d_bias.as_mut_slice()], |partials| {
        (
            args.d.as_mut_slice().par_chunks_mut(span),
            args.out.as_mut_slice().par_chunks_mut(span),
            args.x.as_slice().par_chunks(span),
            partials.par_chunks_mut(n),
        )
            .into_par_iter()
            .for_each(|(d, out, x, d_bias)| {
                simd(
                    #[inline(always)]
                    || {
                        d_bias.fill(0.0);
                        for ((d, out), x) in d.chunks_exact_mut(n).zip(out.chunks_exact_mut(n)).zip(x.chunks_exact(n)) {
                            backward_row(x, bias, d, out, d_bias);
                        }
                    },
                );
            });
    });
}
