//! Pooling, the dense layer's tanh and the normalisation.

use super::support::{
    Batch, Case, Random, added, assert_close, assert_close_on_scale, cases, huge_batch, poisoned, read, tensor, vector,
};
use crate::reference::difference::assert_gradient;
use crate::{reference, tolerance};
use hbt::backend::{Backend, PoolBackward, PoolForward, Pooling, Tensor};

/// (result, gradient of the tokens)
pub fn run_pool<B: Backend>(
    backend: &B,
    batch: &Batch,
    pooling: Pooling,
    x: &[f64],
    d_out: &[f64],
) -> (Vec<f64>, Vec<f64>) {
    let (n_seqs, n_tokens) = (batch.n_seqs(), batch.ids.len());
    let h = x.len() / n_tokens;
    let packed = batch.packed(backend);
    let mut out = poisoned(backend, &[n_seqs, h]);
    let x = &tensor(backend, x, &[n_tokens, h]);
    backend.pool_forward(PoolForward { batch: packed.chunk(0), pooling, x, out: &mut out }).unwrap();
    let mut d_x: Tensor<B, B::E> = poisoned(backend, &[n_tokens, h]);
    let d_out = &tensor(backend, d_out, &[n_seqs, h]);
    backend.pool_backward(PoolBackward { batch: packed.chunk(0), pooling, d_out, d_x: &mut d_x }).unwrap();
    (read(backend, &out), read(backend, &d_x))
}

pub fn pool<B: Backend>(backend: &B) {
    cases().iter().for_each(|case| check_case(backend, case));
}

pub fn pool_of_a_huge_batch<B: Backend>(backend: &B) {
    check_case(backend, &huge_batch());
}

fn check_case<B: Backend>(backend: &B, case: &Case) {
    for pooling in [Pooling::Cls, Pooling::Mean] {
        let mut random = Random::new(61);
        let batch = Batch::new(&case.lens, &mut random);
        let x = random.values::<B::E>(case.n_tokens() * case.hidden, 1.0);
        let d_out = random.values::<f32>(case.lens.len() * case.hidden, 1.0);
        let (out, d_x) = run_pool(backend, &batch, pooling, &x, &d_out);
        let forward = |x: &[f64]| reference::pooling::pool(x, &batch.cu_seqlens, case.hidden, pooling);
        let longest = case.lens.iter().copied().max().unwrap();
        let name = |part: &str| format!("pool {pooling:?}, {}, {part}", case.name);
        assert_close(&name("out"), &out, &forward(&x), tolerance::sum(longest));
        assert_gradient::<B::E>(&name("d_x"), forward, &x, &d_out, &d_x, tolerance::ELEMENTWISE);
    }
}

/// Sums of a sequence are grouped by its own length, so the sequences beside it change no bit.
pub fn pool_is_the_same_in_any_company<B: Backend>(backend: &B) {
    for hidden in [1, 3, 8, 40] {
        let lens = [32, 5, 1, 33];
        let n_tokens: usize = lens.iter().sum();
        let mut random = Random::new(64);
        let x = random.values::<B::E>(n_tokens * hidden, 1.0);
        let d_out = random.values::<f32>(lens.len() * hidden, 1.0);
        let batch = Batch::new(&lens, &mut random);
        let all = run_pool(backend, &batch, Pooling::Mean, &x, &d_out);
        let mut start = 0;
        for (i, len) in lens.into_iter().enumerate() {
            let batch = Batch::new(&[len], &mut random);
            let tokens = start * hidden..(start + len) * hidden;
            let sequence = i * hidden..(i + 1) * hidden;
            let alone = run_pool(backend, &batch, Pooling::Mean, &x[tokens.clone()], &d_out[sequence.clone()]);
            assert_eq!(alone.0, all.0[sequence], "out, {len} tokens of size {hidden}");
            assert_eq!(alone.1, all.1[tokens], "d_x, {len} tokens of size {hidden}");
            start += len;
        }
    }
}

/// (result, gradient of the input, gradient of the bias)
pub fn run_bias_tanh<B: Backend>(backend: &B, x: &[f64], bias: &[f64], d_out: &[f64], start: &[f64]) -> [Vec<f64>; 3] {
    let shape = [x.len() / bias.len(), bias.len()];
    let mut y = tensor(backend, x, &shape);
    backend.bias_tanh_forward(&mut y, &vector(backend, bias)).unwrap();
    let mut d = tensor(backend, d_out, &shape);
    let mut d_bias = vector(backend, start);
    backend.bias_tanh_backward(&y, &mut d, &mut d_bias).unwrap();
    [read(backend, &y), read(backend, &d), added(backend, &d_bias, start)]
}

pub fn bias_tanh<B: Backend>(backend: &B) {
    let narrow = [(1, 1, 1.0), (3, 7, 0.01), (33, 8, 1.0), (65, 33, 1.0), (130, 96, 5.0), (70_000, 2, 1.0)];
    for (rows, width, std) in narrow.into_iter().chain([(2, 1025, 1.0), (3, 1028, 1.0)]) {
        let mut random = Random::new(62);
        let (x, bias) = (random.values::<f32>(rows * width, std), random.values::<B::E>(width, 0.5 * std));
        let (d_out, start) = (random.values::<f32>(rows * width, 1.0), random.values::<f32>(width, 1.0));
        let [y, d, d_bias] = run_bias_tanh(backend, &x, &bias, &d_out, &start);
        let name = |part: &str| format!("bias_tanh, {rows} x {width}, {part}");
        let expected = reference::pooling::bias_tanh(&x, &bias);
        assert_close_on_scale(&name("out"), &y, &expected, tolerance::TANH, 1.0);
        let of_x = |x: &[f64]| reference::pooling::bias_tanh(x, &bias);
        let of_bias = |bias: &[f64]| reference::pooling::bias_tanh(&x, bias);
        assert_gradient::<f32>(&name("d_x"), of_x, &x, &d_out, &d, 2.0 * tolerance::TANH);
        let sum = tolerance::sum(rows).max(2.0 * tolerance::TANH);
        assert_gradient::<f32>(&name("d_bias"), of_bias, &bias, &d_out, &d_bias, sum);
    }
}

/// (result, inverse norms, gradient)
pub fn run_l2_normalize<B: Backend>(backend: &B, x: &[f64], width: usize, d_out: &[f64]) -> [Vec<f64>; 3] {
    let shape = [x.len() / width, width];
    let (mut y, mut inv_norm) = (poisoned(backend, &shape), poisoned(backend, &shape[..1]));
    backend.l2_normalize_forward(&tensor(backend, x, &shape), &mut y, &mut inv_norm).unwrap();
    let mut d = tensor(backend, d_out, &shape);
    backend.l2_normalize_backward(&y, &inv_norm, &mut d).unwrap();
    [read(backend, &y), read(backend, &inv_norm), read(backend, &d)]
}

pub fn l2_normalize<B: Backend>(backend: &B) {
    let narrow = [(1, 7, 1.0), (3, 8, 1.0), (1, 384, 1e-4), (65, 33, 1e4), (70_000, 3, 1.0)];
    // Above the 1,024 that a warp holds.
    for (rows, width, std) in narrow.into_iter().chain([(2, 1025, 1.0), (9, 1028, 1.0), (1, 3072, 1.0)]) {
        let mut random = Random::new(63);
        let (x, d_out) = (random.values::<f32>(rows * width, std), random.values::<f32>(rows * width, 1.0));
        let [y, inv_norm, d] = run_l2_normalize(backend, &x, width, &d_out);
        let norms: Vec<f64> = x.chunks(width).map(|row| 1.0 / row.iter().map(|v| v * v).sum::<f64>().sqrt()).collect();
        let name = |part: &str| format!("l2_normalize, {rows} x {width}, {part}");
        assert_close(&name("inv_norm"), &inv_norm, &norms, tolerance::ELEMENTWISE);
        assert_close(&name("out"), &y, &reference::pooling::l2_normalize(&x, width), tolerance::ELEMENTWISE);
        // In units of the input's size, so that the difference step fits.
        let scaled = |u: &[f64]| {
            let x: Vec<f64> = u.iter().map(|v| v * std).collect();
            reference::pooling::l2_normalize(&x, width)
        };
        let u: Vec<f64> = x.iter().map(|v| v / std).collect();
        let d: Vec<f64> = d.iter().map(|v| v * std).collect();
        assert_gradient::<f32>(&name("d_x"), scaled, &u, &d_out, &d, 2.0 * tolerance::ELEMENTWISE);
    }
}

/// Vectors too short to be normalized: zero stays zero, and the gradient stays finite.
pub fn l2_normalize_of_short_vectors<B: Backend>(backend: &B) {
    let x = [0.0, 0.0, 0.0, 3e-13, 0.0, -4e-13];
    let [y, inv_norm, d] = run_l2_normalize(backend, &x, 3, &[1.0, -2.0, 3.0, 0.0, 1.0, 0.0]);
    assert_close("short vectors", &y, &[0.0, 0.0, 0.0, 0.3, 0.0, -0.4], tolerance::ELEMENTWISE);
    assert_close("short vectors, inv_norm", &inv_norm, &[1e12, 1e12], tolerance::ELEMENTWISE);
    assert_close("short vectors, gradient", &d, &[1e12, -2e12, 3e12, 0.0, 1e12, 0.0], tolerance::ELEMENTWISE);
}
