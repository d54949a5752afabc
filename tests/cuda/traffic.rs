//! Bytes, sectors and tensor-core operations of kernels at the shapes of training, as the stand-in counts them, against the
//! least that the shape allows. `cargo test --release cuda::traffic -- --nocapture` prints the README's table.

use crate::device::{self, StandIn};
use crate::simt::driver::Counters;
use half::bf16;
use hbt::backend::{Backend, Cuda};
use hbt::bench::Op;

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

/// Every benchmark of `op` in bf16.
#[track_caller]
fn check(op: Op) {
    let cuda: Cuda<bf16> = device::cuda().next().unwrap();
    for benchmark in op.benchmarks::<Cuda<bf16>>() {
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
    check(Op::Attention);
}

#[test]
fn layer_norm() {
    check(Op::ResidualLayerNorm);
}

#[test]
fn gelu() {
    check(Op::BiasGelu);
}

#[test]
fn adamw() {
    check(Op::AdamW);
}
