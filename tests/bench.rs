//! Benchmarks: what they count as work against numbers worked out by hand, and how a share is made of it.

use half::bf16;
use hbt::backend::Cpu;
use hbt::backend::cpu::CpuElement;
use hbt::bench::{Bound, Ceilings, Measured, Op, Work};
use std::time::Duration;

fn work<E: CpuElement>(op: Op, shape: &str) -> Work {
    let found = op.benchmarks::<Cpu<E>>().into_iter().find(|b| b.shape.starts_with(shape));
    found.unwrap_or_else(|| panic!("{op} has no {shape}")).work
}

fn both(op: Op, shape: &str) -> [(u64, u64); 2] {
    [work::<f32>(op, shape), work::<bf16>(op, shape)].map(|w| (w.flops, w.bytes))
}

#[test]
fn gemm_counts_two_operations_a_term() {
    // 2 * 2600 * 1152 * 384; (2600 * 384 + 1152 * 384 + 2600 * 1152) elements.
    let (flops, elements) = (2_300_313_600, 998_400 + 442_368 + 2_995_200);
    assert_eq!(both(Op::Gemm, "nt/2600x1152x384"), [(flops, 4 * elements), (flops, 2 * elements)]);
    // The gradient of a weight is f32 in either precision.
    assert_eq!(work::<bf16>(Op::Gemm, "tn/1152x384x2600").bytes, 2 * (2_995_200 + 998_400) + 4 * 442_368);
}

#[test]
fn attention_counts_two_products_forward_and_five_backward() {
    // A product is 2 * 128 * 128 * 32 in each of 64 sequences and 12 heads.
    let product = 805_306_368;
    // 8192 * 384 elements a tensor, and 8192 * 12 log-sum-exps.
    let (tensor, lse) = (3_145_728, 98_304);
    assert_eq!(both(Op::Attention, "forward/64x128"), [4, 2].map(|size| (2 * product, size * 4 * tensor + 4 * lse)));
    assert_eq!(both(Op::Attention, "backward/64x128"), [4, 2].map(|size| (5 * product, size * 8 * tensor + 4 * lse)));
}

#[test]
fn passes_count_what_is_read_and_written() {
    let tensor = 3_145_728;
    // x, residual, sum, out; weight, bias, branch bias; mean, rstd.
    let layer_norm = [4, 2].map(|size| (0, size * (4 * tensor + 3 * 384) + 4 * 2 * 8192));
    assert_eq!(both(Op::ResidualLayerNorm, "forward/8192x384"), layer_norm);
    let gelu = [4, 2].map(|size| (0, size * (4 * 4 * tensor + 1536) + 4 * 2 * 1536));
    assert_eq!(both(Op::BiasGelu, "backward/8192x1536"), gelu);
    // w, m, v read and written, g read; in bf16 the weight is written beside its master.
    let n = 30_522 * 384;
    assert_eq!(both(Op::AdamW, "30522x384"), [(0, 28 * n), (0, 30 * n)]);
    assert_eq!(both(Op::Cast, ""), [(0, 8 * n), (0, 6 * n)]);
}

#[test]
fn a_training_step_counts_six_operations_a_weight_and_token() {
    // 6 layers of 4 * 384^2 + 2 * 384 * 1536 weights; 12 L S H for the attention: 67.2 million a token.
    let a_token = 6 * 10_616_832 + 12 * 6 * 128 * 384;
    let step = work::<f32>(Op::TrainStep, "minilm-l6");
    assert_eq!(step, Work { flops: 8192 * a_token, bytes: 0, tokens: 8192 });
    assert!((a_token as f64 / 67.2e6 - 1.0).abs() < 1e-3);
    // 256 questions and 256 sentences; a forward pass alone is a third of a step, 12 layers are twice as many.
    let encode = work::<bf16>(Op::Encode, "multilingual-e5-small 512 texts");
    let lengths = (0..256u64).map(|i| 12 + i * 7 % 20).chain((0..256).map(|i| 20 + i * 13 % 70));
    let (tokens, squares) = lengths.fold((0, 0), |(n, squares), length| (n + length, squares + length * length));
    assert_eq!(encode, Work { flops: 4 * 10_616_832 * tokens + 12 * 4 * 384 * squares, bytes: 0, tokens });
}

/// 12 and 24 layers; hidden sizes 768 and 1024, and four times as much between; texts of 128 tokens.
#[test]
fn shapes_that_gpus_train_count_as_much() {
    for (name, layers, hidden, tokens) in
        [("xlm-r-base 64", 12, 768, 8192), ("xlm-r-large 64", 24, 1024, 8192), ("xlm-r-base 256", 12, 768, 32_768)]
    {
        let a_token = layers * (6 * 12 * hidden * hidden + 12 * 128 * hidden);
        assert_eq!(work::<bf16>(Op::TrainStep, name), Work { flops: tokens * a_token, bytes: 0, tokens }, "{name}");
    }
    // Three products; a fourth where the columns' softmax needs all scores first.
    let product = 2 * 65_536u64.pow(2) * 768;
    assert_eq!(work::<bf16>(Op::InfoNce, "one way/65536x65536x768").flops, 3 * product);
    assert_eq!(work::<bf16>(Op::InfoNce, "symmetric/16384x16384x768").flops, 4 * product / 16);
}

#[test]
fn what_takes_minutes_is_measured_only_when_it_is_named() {
    let named = |op: Op, names: &[&str]| -> Vec<String> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let all = op.benchmarks::<Cpu<f32>>().into_iter();
        all.filter(|benchmark| benchmark.is_named(&names)).map(|benchmark| benchmark.shape).collect()
    };
    assert_eq!(named(Op::TrainStep, &[]), ["minilm-l6 64 texts", "multilingual-e5-small 64 texts"]);
    let both = ["xlm-r-large 64 texts", "xlm-r-large 64 texts dropout"];
    assert_eq!(named(Op::TrainStep, &["xlm-r-large 64"]), both);
    assert_eq!(named(Op::TrainStep, &["minilm-l6 64"]), ["minilm-l6 64 texts", "minilm-l6 64 texts dropout"]);
    assert!(named(Op::InfoNce, &[]).iter().all(|shape| shape.ends_with("x384") && !shape.contains("65536")));
    assert_eq!(named(Op::InfoNce, &["65536x768", "64x64"]).len(), 3);
}

#[test]
fn the_share_is_of_the_ceiling_that_allows_the_longer_time() {
    let ceilings = Ceilings { gemm: 400e9, copy: 50e9 };
    let second = Duration::from_secs(1);
    let arithmetic = ceilings.judge(Work { flops: 100_000_000_000, bytes: 5_000_000_000, tokens: 0 }, second);
    assert_eq!((arithmetic.bound, arithmetic.share, arithmetic.rate()), (Bound::Gemm, Some(0.25), 100.0));
    let memory = ceilings.judge(Work { flops: 10_000_000_000, bytes: 5_000_000_000, tokens: 700 }, 2 * second);
    assert_eq!((memory.bound, memory.share, memory.rate()), (Bound::Copy, Some(0.05), 2.5));
    let alone = Measured::alone(Work { flops: 0, bytes: 5_000_000_000, tokens: 0 }, second);
    assert_eq!((alone.bound, alone.share, alone.rate()), (Bound::Copy, None, 5.0));
    assert_eq!((memory.tokens_per_second(), arithmetic.tokens_per_second()), (Some(350.0), None));
}

#[test]
fn every_operation_has_a_benchmark_of_its_own_name() {
    for op in Op::ALL {
        let benchmarks = op.benchmarks::<Cpu<f32>>();
        assert!(!benchmarks.is_empty() && benchmarks.iter().all(|b| b.op == *op), "{op}");
    }
}
