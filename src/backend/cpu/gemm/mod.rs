//! Matrix multiplication, with kernels of our own for f32 and for bf16.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod blocked;
mod f32;
#[cfg(target_arch = "x86_64")]
mod pack;
mod portable;
mod small;

pub use small::SmallProduct;

use super::element::{CpuElement, Matrix, Start};
use super::instructions::Instructions;
use super::{Cpu, Value};
use crate::backend::{Element, Gemm};
use half::bf16;

pub fn gemm<E: CpuElement>(args: Gemm<Cpu<E>, E>) {
    args.check();
    let start = match args.bias {
        Some(bias) => Start::Bias(bias.as_slice()),
        None => accumulated(args.accumulate),
    };
    let (a, b) = operands(&args);
    E::gemm(args.out.as_mut_slice(), start, a, b);
}

pub fn gemm_f32<E: CpuElement>(args: Gemm<Cpu<E>, f32>) {
    args.check();
    assert!(args.bias.is_none(), "gemm_f32 takes no bias");
    let (a, b) = operands(&args);
    E::gemm_f32(args.out.as_mut_slice(), accumulated(args.accumulate), a, b);
}

fn operands<'a, E: CpuElement, C: Value>(args: &Gemm<'a, Cpu<E>, C>) -> (Matrix<'a, E>, Matrix<'a, E>) {
    let a = Matrix::new(args.a.as_slice(), args.a.rows(), args.a.row_len(), args.trans_a);
    let b = Matrix::new(args.b.as_slice(), args.b.rows(), args.b.row_len(), args.trans_b);
    (a, b)
}

fn accumulated<'a, T>(accumulate: bool) -> Start<'a, T> {
    if accumulate { Start::Out } else { Start::Zero }
}

/// Panics on sizes that do not fit.
fn check<E, C>(out: &[C], start: Start<C>, a: &Matrix<E>, b: &Matrix<E>) {
    assert_eq!(a.columns, b.rows, "gemm: inner sizes");
    assert_eq!(out.len(), a.rows * b.columns, "gemm: size of the result");
    assert!(a.fits() && b.fits(), "gemm: an operand reaches past its slice");
    if let Start::Bias(bias) = start {
        assert_eq!(bias.len(), b.columns, "gemm: length of the bias");
    }
}

impl CpuElement for f32 {
    fn gemm(out: &mut [f32], start: Start<f32>, a: Matrix<f32>, b: Matrix<f32>) {
        f32::multiply(out, start, a, b);
    }

    fn gemm_f32(out: &mut [f32], start: Start<f32>, a: Matrix<f32>, b: Matrix<f32>) {
        f32::multiply(out, start, a, b);
    }
}

impl CpuElement for bf16 {
    fn gemm(out: &mut [bf16], start: Start<bf16>, a: Matrix<bf16>, b: Matrix<bf16>) {
        multiply_bf16(out, start, a, b);
    }

    fn gemm_f32(out: &mut [f32], start: Start<f32>, a: Matrix<bf16>, b: Matrix<bf16>) {
        multiply_bf16(out, start, a, b);
    }
}

/// `out = start + a b` by the fastest way that this processor has.
fn multiply_bf16<C: Element>(out: &mut [C], start: Start<C>, a: Matrix<bf16>, b: Matrix<bf16>) {
    #[cfg(target_arch = "x86_64")]
    if has_fast_bf16() {
        return avx512::multiply(out, start, a, b);
    }
    portable::multiply(out, start, a, b);
}

/// Whether bf16 products run on instructions made for them. [`Instructions::fastest`] includes these only where they
/// are twice as fast as f32.
pub fn has_fast_bf16() -> bool {
    Instructions::chosen() == Instructions::Avx512Bf16
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use pulp::Arch;
    use pulp::x86::{V3, V4};

    const TRANSPOSITIONS: [(bool, bool); 4] = [(false, true), (false, false), (true, false), (true, true)];

    fn values(len: usize, seed: u32) -> Vec<bf16> {
        let hash = |i: usize| (i as u32).wrapping_add(seed).wrapping_mul(0x9e37_79b9).rotate_left(13) >> 8;
        (0..len).map(|i| bf16::from_f32(hash(i) as f32 / (1 << 23) as f32 - 1.0)).collect()
    }

    /// Every instruction set that this processor has, at sizes around the kernels' 6 and 8 rows, 16 and 48 columns, and
    /// blocks of 256 and spans of 1024 of `k`.
    #[test]
    fn f32_products_of_every_instruction_set() {
        let sets = [Some(Arch::Scalar), V3::try_new().map(Arch::V3), V4::try_new().map(Arch::V4)];
        for (m, n, k) in [(1, 1, 1), (5, 16, 3), (9, 49, 260), (70, 17, 31), (13, 20, 1300), (3, 2, 0), (0, 4, 4)] {
            for (trans_a, trans_b) in TRANSPOSITIONS {
                let wide = |x: Vec<bf16>| -> Vec<f32> { x.into_iter().map(|v| v.to_f32() * 1.001).collect() };
                let (x, y, bias) = (wide(values(m * k, 1)), wide(values(k * n, 2)), wide(values(n, 3)));
                let a = if trans_a { Matrix::new(&x, k, m, true) } else { Matrix::new(&x, m, k, false) };
                let b = if trans_b { Matrix::new(&y, n, k, true) } else { Matrix::new(&y, k, n, false) };
                let before = wide(values(m * n, 4));
                for start in [Start::Zero, Start::Out, Start::Bias(&bias[..])] {
                    let of = |arch| {
                        // Values to be overwritten are NaN.
                        let mut out = if matches!(start, Start::Out) { before.clone() } else { vec![f32::NAN; m * n] };
                        f32::multiply_with(arch, &mut out, start, a, b);
                        out
                    };
                    let results: Vec<Vec<f32>> = sets.into_iter().flatten().map(of).collect();
                    for (i, row) in results.iter().flat_map(|out| out.chunks_exact(n).enumerate()) {
                        for (j, &got) in row.iter().enumerate() {
                            let started = match start {
                                Start::Zero => 0.0,
                                Start::Out => f64::from(before[i * n + j]),
                                Start::Bias(bias) => f64::from(bias[j]),
                            };
                            let at = |l| f64::from(x[if trans_a { l * m + i } else { i * k + l }]);
                            let bt = |l| f64::from(y[if trans_b { j * k + l } else { l * n + j }]);
                            let exact = (0..k).fold(started, |sum, l| sum + at(l) * bt(l));
                            let error = (f64::from(got) - exact).abs();
                            assert!(error <= 1e-6 * (k + 1) as f64, "({m}, {n}, {k}) [{i}, {j}]: {got} for {exact}");
                        }
                    }
                    // The instruction sets with fused multiply-adds: AVX2 and AVX-512.
                    let fused = &results[1..];
                    assert!(fused.windows(2).all(|two| two[0] == two[1]), "({m}, {n}, {k}): instruction sets differ");
                }
            }
        }
    }

    /// The fallback gives the results of the instruction, up to the rounding of f32 sums.
    #[test]
    fn portable_agrees_with_avx512() {
        if !avx512::available() {
            eprintln!("skipped: no AVX512-BF16 on this processor");
            return;
        }
        for (m, n, k) in [(1, 1, 1), (7, 33, 129), (64, 97, 31), (130, 50, 514), (3, 2, 0), (0, 4, 4)] {
            for (trans_a, trans_b) in TRANSPOSITIONS {
                let (x, y, bias) = (values(m * k, 1), values(k * n, 2), values(n, 3));
                let a = if trans_a { Matrix::new(&x, k, m, true) } else { Matrix::new(&x, m, k, false) };
                let b = if trans_b { Matrix::new(&y, n, k, true) } else { Matrix::new(&y, k, n, false) };
                let before: Vec<f32> = values(m * n, 4).iter().map(|v| v.to_f32()).collect();
                for start in [Start::Zero, Start::Out] {
                    let (mut ours, mut theirs) = (before.clone(), before.clone());
                    avx512::multiply(&mut ours, start, a, b);
                    portable::multiply(&mut theirs, start, a, b);
                    for (o, t) in ours.iter().zip(&theirs) {
                        assert!((o - t).abs() <= 1e-6 * k as f32, "({m}, {n}, {k}): {o} and {t}");
                    }
                }
                for start in [Start::Zero, Start::Out, Start::Bias(&bias[..])] {
                    let (mut ours, mut theirs) = (values(m * n, 5), values(m * n, 5));
                    avx512::multiply(&mut ours, start, a, b);
                    portable::multiply(&mut theirs, start, a, b);
                    for (o, t) in ours.iter().map(|v| v.to_f32()).zip(theirs.iter().map(|v| v.to_f32())) {
                        // Sums that differ in their last bits may round to neighbours.
                        assert!((o - t).abs() <= 1e-6 * k as f32 + t.abs() / 128.0, "({m}, {n}, {k}): {o} and {t}");
                    }
                }
            }
        }
    }
}
