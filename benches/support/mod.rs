//! Runs the library's benchmarks (`hbt::bench`) under criterion, bf16 and f32 in turn, on the processor and, where there
//! is one that hbt can compute on, on the first GPU.
//!
//! Criterion prints means. Before them, each benchmark prints a line of its own: the best time of runs in which the two
//! element types took turns so that both met the same neighbours, and the share of this device's ceiling, measured
//! beside it; on a GPU also with its caches flushed. Criterion's throughput counts floating-point operations (Gelem/s) or
//! bytes. `HBT_BENCH_DEVICE` (cpu or cuda) leaves the other device out.

use criterion::{Bencher, BenchmarkId, Criterion, SamplingMode, Throughput};
use half::bf16;
use hbt::backend::{Backend, Cpu, Cuda, Element, cuda};
use hbt::bench::{Benchmark, BestTime, CeilingMeter, Op, ReportRow, Work, timed};
use std::time::Duration;

/// Time spent on one of the rounds that look for the best run.
const BUDGET: Duration = Duration::from_millis(500);
/// How often the two element types take turns.
const ROUNDS: usize = 3;

/// Benchmarks `ops`, one criterion group each.
pub fn run(c: &mut Criterion, ops: impl Iterator<Item = Op> + Clone) {
    let wanted = std::env::var("HBT_BENCH_DEVICE").unwrap_or_default();
    if wanted != "cuda" {
        run_on(c, ops.clone(), "cpu", &Cpu::<bf16>::new(), &Cpu::<f32>::new());
    }
    match cuda::require(0) {
        Ok(_) if wanted != "cpu" => {
            run_on(c, ops, "cuda", &Cuda::<bf16>::new(0).unwrap(), &Cuda::<f32>::new(0).unwrap())
        }
        Err(why) if wanted == "cuda" => panic!("{why}"),
        _ => {}
    }
}

fn run_on<N, W>(c: &mut Criterion, ops: impl Iterator<Item = Op>, device: &str, narrow: &N, wide: &W)
where
    N: Backend<E = bf16>,
    W: Backend<E = f32>,
{
    let mut gauges = None;
    for op in ops {
        let mut group = c.benchmark_group(op.to_string());
        group.sample_size(10).sampling_mode(SamplingMode::Flat);
        group.warm_up_time(Duration::from_millis(100)).measurement_time(BUDGET);
        let pairs = op.benchmarks::<N>().into_iter().zip(op.benchmarks::<W>());
        for (bf16, f32) in pairs.filter(|(bf16, _)| bf16.is_usual) {
            // Made when criterion's filter lets the first of the two through, and before criterion looks at its clock.
            let mut pair = None;
            let mut bench = |which: usize, bencher: &mut Bencher| {
                let gauges = gauges.get_or_insert_with(|| (Gauge::new(narrow), Gauge::new(wide)));
                let pair = pair.get_or_insert_with(|| {
                    print_best((narrow, &bf16), (wide, &f32), gauges);
                    (bf16.checked(narrow).unwrap(), f32.checked(wide).unwrap())
                });
                bencher.iter_custom(|runs| {
                    let time = |_| match which {
                        0 => timed(narrow, &mut *pair.0).unwrap(),
                        _ => timed(wide, &mut *pair.1).unwrap(),
                    };
                    (0..runs).map(time).sum()
                });
            };
            for (which, name, work, shape) in [(0, "bf16", bf16.work, &bf16.shape), (1, "f32", f32.work, &f32.shape)] {
                group.throughput(throughput(work));
                let id = BenchmarkId::new(format!("{device} {name}"), shape);
                group.bench_function(id, |bencher| bench(which, bencher));
            }
        }
        group.finish();
    }
}

fn throughput(work: Work) -> Throughput {
    if work.flops > 0 { Throughput::Elements(work.flops) } else { Throughput::Bytes(work.bytes) }
}

/// Prints the best of runs in which the two types take turns.
fn print_best<N: Backend, W: Backend>(
    narrow: (&N, &Benchmark<N>),
    wide: (&W, &Benchmark<W>),
    gauges: &mut (Gauge<N>, Gauge<W>),
) {
    let round = || (narrow.1.best_time(narrow.0, BUDGET).unwrap(), wide.1.best_time(wide.0, BUDGET).unwrap());
    let best = (1..ROUNDS).map(|_| round()).fold(round(), |best, new| (best.0.min(new.0), best.1.min(new.1)));
    println!("{}\n{}", gauges.0.line(narrow.1, best.0), gauges.1.line(wide.1, best.1));
}

/// One element type's ceilings.
struct Gauge<'a, B: Backend>(CeilingMeter<'a, B>);

impl<'a, B: Backend> Gauge<'a, B> {
    fn new(backend: &'a B) -> Self {
        let mut meter = CeilingMeter::new(backend).unwrap();
        println!("{}, ceilings: {}", backend.name(), meter.measure(2 * BUDGET).unwrap());
        Gauge(meter)
    }

    fn line(&mut self, benchmark: &Benchmark<B>, time: BestTime) -> ReportRow {
        let ceilings = self.0.measure(Duration::ZERO).unwrap();
        let judge = |time| ceilings.judge(benchmark.work, time);
        let (measured, cold) = (judge(time.warm), time.cold.map(judge));
        ReportRow {
            op: benchmark.op,
            dtype: <B::E as Element>::NAME,
            shape: benchmark.shape.clone(),
            measured,
            cold,
            memory: None,
        }
    }
}
