//! bf16 products against an f64 loop over the same rounded inputs: every transposition, sizes at and around the edges
//! of blocks, what is added, both types of result; and the same bits from any number of threads.

use half::bf16;
use hbt::backend::{Cpu, Gemm, Operations, Tensor, Value};

type B = Cpu<bf16>;

/// Around the kernel's 8 rows, 16 to 48 columns and pairs of `k`, a tile's 64 rows and 384 columns, and a block of 512.
const SIZES: [usize; 12] = [1, 2, 3, 7, 16, 31, 33, 47, 64, 97, 129, 387];
/// Sums in f32 of `k` products stay within a few roundings of the sum of their magnitudes.
const F32_SUMS: f64 = 1e-6;
/// Half a unit in the last place of a bf16.
const BF16_ROUNDING: f64 = 1.0 / 256.0;

/// Uniform in [-1, 1), rounded to bf16.
fn random(len: usize, seed: u64) -> Vec<bf16> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| bf16::from_f32(next())).collect()
}

#[derive(Clone, Copy, Debug)]
struct Case {
    m: usize,
    n: usize,
    k: usize,
    trans_a: bool,
    trans_b: bool,
}

impl Case {
    fn operands(&self) -> (Vec<bf16>, Vec<bf16>) {
        (random(self.m * self.k, 1 + self.k as u64), random(self.k * self.n, 2 + self.n as u64))
    }

    /// `a b`, and the sum of the magnitudes of its terms.
    fn product(&self, a: &[bf16], b: &[bf16]) -> Vec<(f64, f64)> {
        let Case { m, n, k, trans_a, trans_b } = *self;
        let wide = |x: &[bf16]| -> Vec<f64> { x.iter().map(|v| v.to_f64()).collect() };
        let (a, b) = (wide(a), wide(b));
        let at = |i: usize, l: usize| if trans_a { a[l * m + i] } else { a[i * k + l] };
        let bt = |l: usize, j: usize| if trans_b { b[j * k + l] } else { b[l * n + j] };
        let cell = |i: usize, j: usize| {
            (0..k).fold((0.0, 0.0), |(sum, size), l| (sum + at(i, l) * bt(l, j), size + (at(i, l) * bt(l, j)).abs()))
        };
        (0..m * n).map(|e| cell(e / n, e % n)).collect()
    }

    fn tensors(&self, a: &[bf16], b: &[bf16]) -> (Tensor<B, bf16>, Tensor<B, bf16>) {
        let Case { m, n, k, trans_a, trans_b } = *self;
        let (a_shape, b_shape) = (if trans_a { [k, m] } else { [m, k] }, if trans_b { [n, k] } else { [k, n] });
        (Tensor::from_slice(&B::new(), a, &a_shape).unwrap(), Tensor::from_slice(&B::new(), b, &b_shape).unwrap())
    }

    /// Runs one product on `before`; `f` is [`Backend::gemm`] or [`Backend::gemm_f32`].
    fn run<C: Value>(
        &self,
        (a, b): (&Tensor<B, bf16>, &Tensor<B, bf16>),
        bias: Option<&Tensor<B, bf16>>,
        before: &[C],
        accumulate: bool,
        f: impl Fn(Gemm<B, C>),
    ) -> Vec<C> {
        let mut out = Tensor::from_slice(&B::new(), before, &[self.m, self.n]).unwrap();
        f(Gemm { a, trans_a: self.trans_a, b, trans_b: self.trans_b, bias, out: &mut out, accumulate });
        out.to_vec(&B::new()).unwrap()
    }
}

fn gemm(args: Gemm<B, bf16>) {
    B::new().gemm(args).unwrap();
}

fn gemm_f32(args: Gemm<B, f32>) {
    B::new().gemm_f32(args).unwrap();
}

/// `got` is `start + product`, up to f32 sums and `rounding` of the result.
fn assert_close(
    case: Case,
    what: &str,
    got: &[f64],
    start: impl Fn(usize) -> f64,
    product: &[(f64, f64)],
    rounding: f64,
) {
    assert_eq!(got.len(), product.len());
    for (e, (&got, &(sum, size))) in got.iter().zip(product).enumerate() {
        let expected = sum + start(e);
        let slack = F32_SUMS * (size + start(e).abs());
        let bound = slack + rounding * (expected.abs() + slack);
        assert!((got - expected).abs() <= bound, "{what} {case:?}, element {e}: {got} for {expected}, bound {bound:e}");
    }
}

fn check(case: Case) {
    let (a, b) = case.operands();
    let product = case.product(&a, &b);
    let (ta, tb) = case.tensors(&a, &b);
    let operands = (&ta, &tb);
    let n = case.n;
    let before = random(case.m * n, 3);
    let before_f32: Vec<f32> = before.iter().map(|v| v.to_f32() * 1.001).collect();
    let bias = random(n, 4);
    let bias_tensor = Tensor::from_slice(&B::new(), &bias, &[n]).unwrap();

    let wide = |x: Vec<bf16>| -> Vec<f64> { x.into_iter().map(f64::from).collect() };
    let wide_f32 = |x: Vec<f32>| -> Vec<f64> { x.into_iter().map(f64::from).collect() };
    // Values to be overwritten are NaN.
    let nan = vec![bf16::NAN; before.len()];
    let got = wide(case.run(operands, None, &nan, false, gemm));
    assert_close(case, "bf16", &got, |_| 0.0, &product, BF16_ROUNDING);
    let got = wide(case.run(operands, None, &before, true, gemm));
    assert_close(case, "bf16 +=", &got, |e| before[e].to_f64(), &product, BF16_ROUNDING);
    let got = wide(case.run(operands, Some(&bias_tensor), &nan, false, gemm));
    assert_close(case, "bf16 + bias", &got, |e| bias[e % n].to_f64(), &product, BF16_ROUNDING);
    let got = wide_f32(case.run(operands, None, &vec![f32::NAN; before.len()], false, gemm_f32));
    assert_close(case, "f32", &got, |_| 0.0, &product, 0.0);
    let got = wide_f32(case.run(operands, None, &before_f32, true, gemm_f32));
    assert_close(case, "f32 +=", &got, |e| f64::from(before_f32[e]), &product, 0.0);
}

fn every_layout(m: usize, n: usize, k: usize) {
    for (trans_a, trans_b) in [(false, true), (false, false), (true, false), (true, true)] {
        check(Case { m, n, k, trans_a, trans_b });
    }
}

/// Every size in every place, the other two going through the table at strides of their own.
#[test]
fn every_size_in_every_place() {
    let pick = |i: usize| SIZES[i % SIZES.len()];
    for i in 0..SIZES.len() {
        for (j, l) in [(i + 3, 5 * i + 2), (5 * i + 1, i + 7)] {
            // `k` gives way where `m` and `n` are large, so that the f64 loop stays short.
            let (m, n, k) = (pick(i), pick(j), pick(l));
            every_layout(m, n, k.min(2_000_000 / (m * n)));
        }
    }
}

#[test]
fn several_blocks_of_k() {
    for k in [512, 513, 1026, 2600] {
        every_layout(17, 50, k);
    }
}

#[test]
fn several_tiles() {
    every_layout(150, 800, 10);
    every_layout(70, 400, 1030);
}

#[test]
fn nothing_to_sum() {
    every_layout(3, 5, 0);
    every_layout(0, 5, 3);
    every_layout(3, 0, 5);
}

/// (1 + 2^-8) + 2^-8 is a bf16, but either part of the sum that is rounded by itself is lost: 2^-7 follows 1.
#[test]
fn the_result_is_rounded_once() {
    let case = Case { m: 1, n: 1, k: 2, trans_a: false, trans_b: true };
    let half = bf16::from_f32(2.0f32.powi(-8));
    let (a, b) = case.tensors(&[bf16::ONE, half], &[bf16::ONE, bf16::ONE]);
    let got = case.run((&a, &b), None, &[half], true, gemm);
    assert_eq!(got[0].to_f32(), 1.0 + 2.0f32.powi(-7));
    let bias = Tensor::from_slice(&B::new(), &[half], &[1]).unwrap();
    let got = case.run((&a, &b), Some(&bias), &[bf16::ZERO], false, gemm);
    assert_eq!(got[0].to_f32(), 1.0 + 2.0f32.powi(-7));
}

#[test]
fn what_is_not_finite_stays_so_and_spreads_no_further() {
    let (m, n, k) = (9, 49, 35);
    for trans_a in [false, true] {
        let case = Case { m, n, k, trans_a, trans_b: false };
        let (mut a, b) = (vec![bf16::ONE; m * k], vec![bf16::ONE; k * n]);
        // Element (4, k - 1) of a: next to the padding of an odd k.
        a[if trans_a { (k - 1) * m + 4 } else { 4 * k + k - 1 }] = bf16::INFINITY;
        let (a, b) = case.tensors(&a, &b);
        let got = case.run((&a, &b), None, &vec![bf16::ZERO; m * n], false, gemm);
        for (e, v) in got.iter().enumerate() {
            assert_eq!(v.to_f32(), if e / n == 4 { f32::INFINITY } else { k as f32 }, "element {e}");
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    for (trans_a, trans_b) in [(false, true), (false, false), (true, false)] {
        let case = Case { m: 203, n: 200, k: 602, trans_a, trans_b };
        let (a, b) = case.operands();
        let (a, b) = case.tensors(&a, &b);
        let zero = vec![0.0; case.m * case.n];
        let run = |threads| pool(threads).install(|| case.run((&a, &b), None, &zero, false, gemm_f32));
        let one: Vec<u32> = run(1).into_iter().map(f32::to_bits).collect();
        for threads in [2, 3, 7] {
            let many: Vec<u32> = run(threads).into_iter().map(f32::to_bits).collect();
            assert!(one == many, "{case:?} with {threads} threads");
        }
    }
}
