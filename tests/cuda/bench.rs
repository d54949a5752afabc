//! Benchmarks on CUDA: the answer is checked, then timed by the device's events, with warm caches and with flushed ones.

use crate::device;
use half::bf16;
use hbt::backend::cuda::CudaElement;
use hbt::backend::{Cuda, Device, Measurement};
use hbt::bench::Op;
use std::time::Duration;

/// A product, and an update of rows of a table: small enough for the stand-in, where a ceiling takes half a minute.
fn check<E: CudaElement>() {
    let cuda: Cuda<E> = device::cuda().next().unwrap();
    for (op, shape) in [(Op::Gemm, "nt/260x384x384"), (Op::AdamW, "150x384 after")] {
        let benchmark = op.benchmarks_of_part::<Cuda<E>>(10).into_iter().find(|b| b.shape.starts_with(shape)).unwrap();
        let time = benchmark.best_time(&cuda, Duration::ZERO).unwrap();
        let cold = time.cold.expect("a device whose caches can be flushed");
        for time in [time.warm, cold] {
            assert!((Duration::from_micros(1)..Duration::from_secs(60)).contains(&time), "{op} {shape}: {time:?}");
        }
    }
}

#[test]
fn in_f32() {
    check::<f32>();
}

#[test]
fn in_bf16() {
    check::<bf16>();
}

#[test]
fn memory_is_counted_with_its_peak() {
    const MIB: usize = 1 << 20;
    let cuda: Cuda<f32> = device::cuda().next().unwrap();
    let start = cuda.memory_use().unwrap().unwrap();
    let floats = |mib: usize| cuda.alloc::<f32>(mib * MIB / size_of::<f32>()).unwrap();
    let kept = floats(3);
    drop(floats(5));
    let [first, second] = [(); 2].map(|()| cuda.memory_use().unwrap().unwrap());
    for (bytes, mib) in [(first.held, 3), (first.peak, 8), (second.held, 3), (second.peak, 3)] {
        assert_eq!(bytes - start.held, (mib * MIB) as u64, "{first:?}, {second:?}");
    }
    assert!(second.reserved >= second.held && second.in_use >= second.reserved, "{second:?}");
    drop(kept);
    assert_eq!(cuda.memory_use().unwrap().unwrap().held, start.held);
}
