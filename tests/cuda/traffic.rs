//! Bytes, sectors and tensor-core operations of kernels at the shapes of training, as the stand-in counts them, against the
//! least that the shape allows. `cargo test --release cuda::traffic::at_full_size -- --ignored --nocapture` prints the table
//! of docs/gpu.md.

use crate::device::{self, StandIn};
use crate::ops::support::{Random, ints};
use crate::simt::driver::Counters;
use half::bf16;
use hbt::backend::{Cuda, Device, Ints, Measurement, Operations, Pairing, Tensor};
use hbt::bench::Op;
use hbt::loss::{InfoNce, LossConfig};
use std::ffi::{CString, c_char};

/// Multiplications and additions of one `mma.sync.m16n8k16`.
const MMA: u64 = 2 * 16 * 8 * 16;

/// What the kernels that ran on this thread have done since this was last asked.
fn take_counters() -> Option<Counters> {
    let stand_in = StandIn::get();
    // SAFETY: its type in tests/simt/registry.cpp.
    let take = unsafe { stand_in.function::<unsafe extern "C" fn(*mut Counters)>("simt_take_thread_counters") }?;
    let mut counters = Counters::default();
    // SAFETY: writes one set of counters.
    unsafe { take(&mut counters) };
    Some(counters)
}

/// How many times the least bytes a kernel may ask for, every lane's request counted, whatever a cache would spare.
fn most(shape: &str) -> f64 {
    if shape.contains("xquad") || shape.contains("updates") {
        // Lengths of all kinds leave tiles half empty; a row that catches up reads a line of the history for each update.
        1.6
    } else {
        1.15
    }
}

/// Bytes of the sectors that memory moves, each instruction of a warp by itself.
const SECTOR: u64 = 32;

/// How many times the least bytes the sectors may hold that the instructions touch. A row's log-sum-exp, mean or number has
/// most of a sector to itself; everything else comes in whole ones, so a vector's store that is taken apart shows.
fn most_sectors(shape: &str) -> f64 {
    most(shape) + 0.05
}

/// The benchmarks of `op` in bf16 that have `name` in their shape's, on a `parts`-th of the rows: each asks for as much as
/// the next.
#[track_caller]
fn check(op: Op, name: &str, parts: usize) {
    let cuda: Cuda<bf16> = device::cuda().next().unwrap();
    for benchmark in op.benchmarks_of_part::<Cuda<bf16>>(parts).into_iter().filter(|b| b.shape.contains(name)) {
        let mut case = benchmark.checked(&cuda).unwrap();
        case.reset().unwrap();
        cuda.time(&mut || Ok(())).unwrap();
        if take_counters().is_none() {
            return println!("traffic: a real GPU counts nothing by itself; run these tests on the stand-in");
        }
        cuda.time(&mut || case.run()).unwrap();
        let counters = take_counters().unwrap();
        let (bytes, least) = (counters.global_read + counters.global_written, benchmark.work.bytes);
        let share = bytes as f64 / least as f64;
        let products = match benchmark.work.flops {
            0 => String::new(),
            flops => format!("{:.2}", (counters.mma * MMA) as f64 / flops as f64),
        };
        let [mib, least_mib] = [bytes, least].map(|bytes| bytes as f64 / f64::from(1 << 20));
        let moved = (counters.load_sectors + counters.store_sectors) * SECTOR;
        let sectors = moved as f64 / least as f64;
        let (name, shape) = (benchmark.op, &benchmark.shape);
        println!("| {name} {shape} | {least_mib:.1} | {mib:.1} | {share:.3} | {sectors:.3} | {products} |");
        // Lengths of all kinds leave tiles half empty, and dropout reads each row's number.
        assert!((1.0..most(shape)).contains(&share), "{name} {shape}: {share} times the least bytes");
        assert!(sectors < most_sectors(shape), "{name} {shape}: sectors of {sectors} times the least bytes");
    }
}

#[test]
fn attention() {
    check(Op::Attention, "", 16);
}

#[test]
fn layer_norm() {
    check(Op::ResidualLayerNorm, "forward", 8);
    // Blocks leave sums of their own, which few rows do not outweigh.
    check(Op::ResidualLayerNorm, "backward", 1);
}

#[test]
fn gelu() {
    check(Op::BiasGelu, "", 8);
}

#[test]
fn adamw() {
    check(Op::AdamW, "", 10);
}

/// By hand: prints the table of the documentation.
#[test]
#[ignore = "takes minutes"]
fn at_full_size() {
    for op in [Op::Attention, Op::ResidualLayerNorm, Op::BiasGelu, Op::AdamW] {
        check(op, "", 1);
    }
}

/// What kernels and products of the loss ask for: of `n_queries` queries and as many positives and `n_negatives` hard
/// negatives a query, `d` dimensions, in blocks of `rows` rows at most. Prints each kernel's share.
fn loss_bytes([n_queries, n_negatives, d]: [usize; 3], symmetric: bool, rows: usize) -> Option<u64> {
    let cuda: Cuda<bf16> = device::cuda().next().unwrap();
    let n_seqs = n_queries * (2 + n_negatives);
    let values: Vec<f32> = Random::new(4).values::<f32>(1 << 16, 1.0).into_iter().map(|x| x as f32).collect();
    let values: Vec<f32> = values.into_iter().cycle().take(n_seqs * d).collect();
    let mut x = Tensor::from_slice(&cuda, &values, &[n_seqs, d]).unwrap();
    let (mut unit, mut norm) = (Tensor::zeros(&cuda, &[n_seqs, d]).unwrap(), Tensor::zeros(&cuda, &[n_seqs]).unwrap());
    cuda.l2_normalize_forward(&x, &mut unit, &mut norm).unwrap();
    let numbers = |of: &dyn Fn(usize) -> usize| ints(&cuda, &(0..n_seqs).map(|seq| of(seq) as i32).collect::<Vec<_>>());
    let places = numbers(&|seq| seq);
    let labels = numbers(&|seq| if seq < 2 * n_queries { seq % n_queries } else { seq });
    let rejected = ints(&cuda, &vec![0; 2 * n_queries]);
    let [places, labels, rejected] = [&places, &labels, &rejected].map(Ints::all);
    let pairing = Pairing { n_queries, places, labels, rejected, left_out: None };
    let config = LossConfig { symmetric, ..LossConfig::new(0.02) };
    let mut loss = InfoNce::new(&cuda, d, config).unwrap().with_rows_per_chunk(rows);
    loss.reserve(&cuda, n_queries, n_seqs - n_queries).unwrap();
    let mut results = cuda.readback(loss.n_results(n_queries)).unwrap();
    // Products of a shape that is new are tried in several ways first.
    loss.forward_backward(&cuda, &unit, pairing, &mut x, &mut results).unwrap();
    cuda.receive(&mut results, &mut Vec::new()).unwrap();
    let stand_in = StandIn::get();
    // SAFETY: their types in tests/simt/registry.cpp.
    let (of_kernel, reset) = unsafe {
        (
            stand_in.function::<unsafe extern "C" fn(*const c_char, *mut Counters) -> i32>("simt_counters")?,
            stand_in.function::<unsafe extern "C" fn()>("simt_reset_counters")?,
        )
    };
    cuda.time(&mut || Ok(())).unwrap();
    take_counters();
    // SAFETY: takes nothing.
    unsafe { reset() };
    cuda.time(&mut || loss.forward_backward(&cuda, &unit, pairing, &mut x, &mut results)).unwrap();
    let all = take_counters()?;
    println!("{n_queries} queries, {n_negatives} hard negatives each, {d} dimensions, symmetric: {symmetric}");
    for name in KERNELS {
        let (kernel, mut counters) = (CString::new(name).unwrap(), Counters::default());
        // SAFETY: writes one set of counters.
        if unsafe { of_kernel(kernel.as_ptr(), &mut counters) } != 0 {
            let mb = |bytes: u64| bytes as f64 / 1e6;
            let (read, written) = (mb(counters.global_read), mb(counters.global_written));
            println!("| {name} | {} | {read:.1} | {written:.1} | {:.1} |", counters.launches, read + written);
        }
    }
    let bytes = all.global_read + all.global_written;
    println!("| all | | | | {:.1} |", bytes as f64 / 1e6);
    Some(bytes)
}

/// What the loss may launch.
const KERNELS: [&str; 13] = [
    "cuMemsetD8Async",
    "gather_rows_bf16",
    "info_nce_shift",
    "info_nce_exps",
    "info_nce_finish",
    "info_nce_columns",
    "info_nce_rows_256_bf16",
    "info_nce_rows_1024_bf16",
    "info_nce_both_256_bf16",
    "info_nce_both_1024_bf16",
    "cublasLtMatmul",
    "scatter_rows",
    "copies",
];

/// What the usual loss of `q` queries and `n` passages asks for in one block of rows, kernel by kernel, where every lane's
/// request counts, and of the products each operand once. `q` is a multiple of 128, and `n` and `d` are of 256.
fn formula(q: u64, n: u64, d: u64) -> [(&'static str, u64); 7] {
    let (tiles, across, lanes) = (q / 128 * (n / 256), n / 256, 32 * 4);
    let (row, short_row, exps) = (4 * d, 2 * d, 2 * q * n);
    [
        // The vectors of both sides, and the queries' again, each times a number of its own.
        ("gather_rows_bf16", (2 * q + n) * (row + short_row + lanes) + q * lanes),
        // Both vectors; the shift and the cosine.
        ("info_nce_shift", q * (2 * short_row + 8)),
        // Rows' masks, columns' labels and sums of every tile; the exponentials. Operands are a product's, see below.
        ("info_nce_exps", tiles * (128 * (4 + 8 + 8 + 16) + 256 * 4) + exps),
        ("info_nce_finish", q * (across * 16 + 8 + 16 + 4 + 2)),
        // The scores' operands; exponentials, vectors and gradients of both sides.
        ("products", (q + n) * short_row + 2 * exps + (q + n) * (short_row + row)),
        ("scatter_rows", (q + n) * (2 * row + lanes) + q * lanes),
        ("copies", q * 5 * 4),
    ]
}

/// What tiles of info_nce_exps ask for of operands, and those operands once.
fn operands(q: u64, n: u64, d: u64) -> (u64, u64) {
    (q / 128 * (n / 256) * (128 + 256) * 2 * d, (q + n) * 2 * d)
}

/// By arithmetic, what kernels and products of commit 680cb34 asked for at 16,384 queries x 768, without and with one hard
/// negative a query: blocks of 1,024 rows, whose scores are written once and read once and a half or twice, with a label
/// each, and each of which adds to the gradient of all candidates.
const BEFORE: [u64; 2] = [8_834_121_728, 18_460_049_408];

#[test]
fn the_loss_asks_for_less_than_a_third_of_what_it_did() {
    for (q, n_negatives, d) in [(256, 0, 256), (128, 1, 512), (384, 1, 256)] {
        let Some(counted) = loss_bytes([q, n_negatives, d], false, usize::MAX) else { return };
        let [q, n, d] = [q, q * (1 + n_negatives), d].map(|x| x as u64);
        let (asked, once) = operands(q, n, d);
        let expected: u64 = formula(q, n, d).iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(counted - asked + once, expected, "{q} x {n} x {d}: {:?}", formula(q, n, d));
    }
    for (n, before) in [16_384, 32_768].into_iter().zip(BEFORE) {
        let parts = formula(16_384, n, 768);
        let (all, least) = (parts.iter().map(|(_, bytes)| bytes).sum::<u64>(), 2 * (16_384 + n) * 768 * 4);
        for (name, bytes) in parts.into_iter().chain([("all", all), ("at least", least), ("before", before)]) {
            println!("| 16,384 x {n} x 768 | {name} | {:.1} MB |", bytes as f64 / 1e6);
        }
        assert!(3 * all <= before, "16,384 x {n} x 768: {all} bytes of {before}");
    }
}

/// By hand, with `SIMT_PRODUCTS=count` and `SIMT_MEMORY=17179869184`: prints the table of the documentation.
#[test]
#[ignore = "takes minutes"]
fn the_loss_at_its_full_size() {
    for n_negatives in [0, 1] {
        for symmetric in [false, true] {
            loss_bytes([16_384, n_negatives, 768], symmetric, usize::MAX);
        }
    }
}
