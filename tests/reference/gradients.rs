//! The gradients that the reference writes out are the derivatives of its forward passes.

use super::attention::{attention, attention_gradient};
use super::difference::assert_gradient;
use super::gelu::{bias_gelu, gelu_slope};
use super::info_nce::Block;
use super::layer_norm::{layer_norm, layer_norm_gradient};
use crate::ops::support::Random;

#[test]
fn of_attention() {
    let mut random = Random::new(5);
    let (n_heads, hidden, cu_seqlens) = (2, 6, [0, 3, 4, 8]);
    let mask: Vec<Vec<f64>> = cu_seqlens
        .windows(2)
        .flat_map(|w| vec![(w[1] - w[0]) as usize; (w[1] - w[0]) as usize * n_heads])
        .map(|n| (0..n).map(|_| 1.5 * random.below(2) as f64).collect())
        .collect();
    let (qkv, d_out, d_lse) = (random.normals(8 * 3 * hidden), random.normals(8 * hidden), random.normals(8 * n_heads));
    let both_of = |qkv: &[f64]| {
        let both = attention(qkv, &cu_seqlens, n_heads, hidden, &mask);
        [both.out, both.lse].concat()
    };
    let got = attention_gradient(&qkv, &cu_seqlens, n_heads, &mask, &d_out, &d_lse);
    let d_both = [d_out, d_lse].concat();
    assert_gradient::<f32>("attention", both_of, &qkv, &d_both, &got.d_qkv, 1e-8);
}

#[test]
fn of_layer_norm() {
    let mut random = Random::new(6);
    let (x, weight, bias, d_out) = (random.normals(7), random.normals(7), random.normals(7), random.normals(7));
    let out_of = |x: &[f64]| layer_norm(x.to_vec(), &weight, &bias, 1e-3).out;
    assert_gradient::<f32>("layer_norm", out_of, &x, &d_out, &layer_norm_gradient(&d_out, &x, &weight, 1e-3), 1e-8);
}

#[test]
fn of_gelu() {
    let x = [-9.0, -3.0, -0.75, 0.0, 0.1, 1.0, 2.5, 8.0];
    let slopes = x.map(gelu_slope);
    assert_gradient::<f32>("gelu", |x| bias_gelu(x, &[0.0]), &x, &[1.0; 8], &slopes, 1e-8);
}

#[test]
fn of_info_nce() {
    let mut random = Random::new(7);
    let left_out = (0..15).map(|i| i == 3 || i == 11).collect();
    let block = Block { n: 5, first_positive: 1, left_out, margin: 0.1, inv_temperature: 3.0 };
    let scores = random.normals(15);
    let got = block.rows_gradient(&scores);
    assert_gradient::<f32>("info_nce", |scores| block.rows(scores), &scores, &[1.0; 3], &got, 1e-8);
}
