//! Runs the library's benchmarks (`hbt::bench`) under criterion, bf16 and f32 in turn.
//!
//! Criterion prints means. Before them, each benchmark prints a line of its own: the best time of runs in which the two
//! element types took turns so that both met the same neighbours, and the share of this machine's ceiling, measured
//! beside it. Criterion's throughput counts floating-point operations (Gelem/s) or bytes.

use criterion::{Bencher, BenchmarkId, Criterion, SamplingMode, Throughput};
use half::bf16;
use hbt::backend::cpu::CpuElement;
use hbt::backend::{Cpu, Element};
use hbt::bench::{Benchmark, Case, CeilingMeter, Op, Row, Work, best_of, timed};
use std::time::Duration;

/// Time spent on one of the rounds that look for the best run.
const BUDGET: Duration = Duration::from_millis(500);
/// How often the two element types take turns.
const ROUNDS: usize = 3;

/// Benchmarks `ops`, one criterion group each.
pub fn run(c: &mut Criterion, ops: impl Iterator<Item = Op>) {
    let (narrow, wide) = (Cpu::<bf16>::new(), Cpu::<f32>::new());
    let mut ceilings = None;
    for op in ops {
        let mut group = c.benchmark_group(op.to_string());
        group.sample_size(10).sampling_mode(SamplingMode::Flat);
        group.warm_up_time(Duration::from_millis(100)).measurement_time(BUDGET);
        for (bf16, f32) in op.benchmarks().into_iter().zip(op.benchmarks()) {
            // Made when criterion's filter lets the first of the two through, and before criterion looks at its clock.
            let mut pair = None;
            let mut bench = |which: usize, bencher: &mut Bencher| {
                let ceilings = ceilings.get_or_insert_with(|| (Gauge::new(&narrow), Gauge::new(&wide)));
                let pair = pair.get_or_insert_with(|| {
                    let mut cases = [bf16.checked(&narrow).unwrap(), f32.checked(&wide).unwrap()];
                    let best = best_in_turn(&mut cases);
                    println!("{}\n{}", ceilings.0.line(&bf16, best[0]), ceilings.1.line(&f32, best[1]));
                    cases
                });
                let case = &mut *pair[which];
                bencher.iter_custom(|runs| (0..runs).map(|_| timed(case).unwrap()).sum());
            };
            for (which, name, work, shape) in
                [(0, "cpu bf16", bf16.work, &bf16.shape), (1, "cpu f32", f32.work, &f32.shape)]
            {
                group.throughput(throughput(work));
                group.bench_function(BenchmarkId::new(name, shape), |bencher| bench(which, bencher));
            }
        }
        group.finish();
    }
}

fn throughput(work: Work) -> Throughput {
    if work.flops > 0 { Throughput::Elements(work.flops) } else { Throughput::Bytes(work.bytes) }
}

fn best_in_turn<'a>(cases: &mut [Box<dyn Case + 'a>; 2]) -> [Duration; 2] {
    let mut best = [Duration::MAX; 2];
    for _ in 0..ROUNDS {
        for (case, best) in cases.iter_mut().zip(&mut best) {
            *best = best_of(&mut **case, BUDGET).unwrap().min(*best);
        }
    }
    best
}

/// One element type's ceilings.
struct Gauge<'a, E: CpuElement>(CeilingMeter<'a, Cpu<E>>);

impl<'a, E: CpuElement> Gauge<'a, E> {
    fn new(backend: &'a Cpu<E>) -> Self {
        let mut meter = CeilingMeter::new(backend).unwrap();
        let threads = rayon::current_num_threads();
        println!("{}, {threads} threads, ceilings: {}", E::NAME, meter.measure(2 * BUDGET).unwrap());
        Gauge(meter)
    }

    fn line(&mut self, benchmark: &Benchmark<Cpu<E>>, time: Duration) -> Row {
        let measured = self.0.measure(Duration::ZERO).unwrap().judge(benchmark.work, time);
        Row { op: benchmark.op, dtype: <E as Element>::NAME, shape: benchmark.shape.clone(), measured }
    }
}
