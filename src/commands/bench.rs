//! `hbt bench`

use super::device::{Job, on_device};
use super::info;
use super::inputs::Inputs;
use super::setup::finish;
use hbt::backend::cuda::Kernels;
use hbt::backend::{Backend, Cpu, Element, Tally};
use hbt::bench::{Benchmark, BestTime, CeilingMeter, Ceilings, Measured, MemoryTaken, Op, ReportRow, Work, table_head};
use hbt::cli::BenchArgs;
use hbt::config::{Config, Precision};
use hbt::progress::say;
use hbt::{Error, Result};
use std::time::Duration;

/// Time for each benchmark and, at first, for each ceiling, without inputs and the check of the answer.
const BUDGET: Duration = Duration::from_millis(250);

/// Most bytes of size names in a message; any one operation has fewer.
const MOST_LISTED: usize = 400;

/// Measures and prints, in both precisions unless one is configured.
pub fn run(args: BenchArgs) -> Result<()> {
    check_shapes(&args)?;
    let config = finish(args.draft()?)?;
    Inputs::of(&config, args.config.config.as_deref()).refuse_trace(&args.trace)?;
    let precisions = config.precision.given().map_or(Precision::ALL.to_vec(), |one| vec![one]);
    for precision in precisions {
        let config = Config { precision: precision.into(), ..config.clone() };
        on_device(&config, BenchJob { args: &args })?;
    }
    Ok(())
}

struct BenchJob<'a> {
    args: &'a BenchArgs,
}

impl Job for BenchJob<'_> {
    type Output = ();

    fn kernels(&self) -> Result<Kernels> {
        Ok(if self.args.op.is_empty() { Kernels::All } else { Kernels::AsUsed })
    }

    /// Results are printed last, because the ceilings are the best of the whole time.
    fn run<B: Backend>(self, backend: B) -> Result<()> {
        let args = self.args;
        let benchmarks: Vec<_> = self.named(|op| op.benchmarks::<B>());
        // Memory is compared only for these; compiling each other benchmark for the counting backend would take its
        // time.
        let on_paper = self.named(|op| op.end_to_end::<Tally<B::E>>());
        let mut ceilings = match args.no_ceilings {
            true => None,
            false => {
                say(&format!("measuring what {} can do", backend.name()));
                Some(CeilingMeter::new(&backend)?)
            }
        };
        let mut best = measure(&mut ceilings, BUDGET)?;
        let mut taken = vec![None; benchmarks.len()];
        let mut last = None;
        for _ in 0..args.repeat {
            for (benchmark, taken) in benchmarks.iter().zip(&mut taken) {
                if last.replace(benchmark.op) != Some(benchmark.op) {
                    best = measure(&mut ceilings, Duration::ZERO)?;
                }
                let before = backend.memory_use()?;
                let new = benchmark.best_time(&backend, BUDGET)?;
                let after = backend.memory_use()?;
                let (time, memory) = taken.unwrap_or((new, None));
                let time = BestTime::min(time, new);
                let memory = match (memory, before.zip(after)) {
                    (None, Some((before, after))) if benchmark.op.is_end_to_end() => Some(MemoryTaken {
                        peak: after.peak - before.held,
                        planned: planned(&on_paper, benchmark)?,
                        reserved: after.reserved,
                        in_use: after.in_use,
                    }),
                    (memory, _) => memory,
                };
                *taken = Some((time, memory));
                let name = format!("{} {} {}", benchmark.op, B::E::NAME, benchmark.shape);
                say(&format!("{name}: {}", judge(best, benchmark.work, time.warm)));
            }
        }
        let mut out = String::new();
        if !args.json {
            out += &format!("{}, {}\n", info::cpu_model(), backend.name());
            out += &best.map_or(String::new(), |best| format!("ceilings: {best}\n"));
            out += &format!("{}\n", table_head());
        }
        for (benchmark, taken) in benchmarks.into_iter().zip(taken) {
            let (time, memory) = taken.expect("measured at least once");
            let judge = |time| judge(best, benchmark.work, time);
            let (measured, cold) = (judge(time.warm), time.cold.map(judge));
            let row = ReportRow { op: benchmark.op, dtype: B::E::NAME, shape: benchmark.shape, measured, cold, memory };
            out += &format!("{}\n", if args.json { row.to_json() } else { row.to_string() });
        }
        crate::print(&out)
    }
}

impl BenchJob<'_> {
    /// The benchmarks that were asked for.
    fn named<B: Backend>(&self, of: impl Fn(Op) -> Vec<Benchmark<B>>) -> Vec<Benchmark<B>> {
        let all = ops(self.args).iter().flat_map(|&op| of(op));
        all.filter(|benchmark| benchmark.is_named(&self.args.shape)).collect()
    }
}

/// The operations that were asked for.
fn ops(args: &BenchArgs) -> &[Op] {
    if args.op.is_empty() { Op::ALL } else { &args.op }
}

/// Fails if no size of the operations has such a name.
fn check_shapes(args: &BenchArgs) -> Result<()> {
    let all = ops(args).iter().flat_map(|op| op.benchmarks::<Cpu<f32>>());
    let mut known = Vec::new();
    for Benchmark { shape, .. } in all {
        if !known.contains(&shape) {
            known.push(shape);
        }
    }
    let Some(unknown) = args.shape.iter().find(|name| !known.iter().any(|shape| shape.contains(*name))) else {
        return Ok(());
    };
    let (n_known, listed) = (known.len(), known.join(", "));
    let known = match listed.len() {
        ..=MOST_LISTED if n_known == 1 => format!("the only one is {listed}"),
        ..=MOST_LISTED => format!("they are {listed}"),
        _ => format!("name one operation, such as --op {}, and its sizes are listed", Op::TrainStep),
    };
    Err(Error::usage(format!("--shape: no size has {unknown:?} in its name; {known}")))
}

fn measure<B: Backend>(ceilings: &mut Option<CeilingMeter<B>>, budget: Duration) -> Result<Option<Ceilings>> {
    ceilings.as_mut().map(|ceilings| ceilings.measure(budget)).transpose()
}

fn judge(ceilings: Option<Ceilings>, work: Work, time: Duration) -> Measured {
    ceilings.map_or_else(|| Measured::alone(work, time), |ceilings| ceilings.judge(work, time))
}

/// Bytes of the buffers that a benchmark makes, from the backend that only counts.
fn planned<B: Backend, E: Element>(on_paper: &[Benchmark<Tally<E>>], of: &Benchmark<B>) -> Result<u64> {
    let benchmark = on_paper.iter().find(|benchmark| (benchmark.op, &benchmark.shape) == (of.op, &of.shape));
    let benchmark = benchmark.expect("what is end to end has benchmarks on every backend");
    // A device with enough memory for the largest blocks of scores.
    let tally = Tally::<E>::of_gpu(u64::MAX);
    let mut case = benchmark.built(&tally)?;
    case.reset()?;
    case.run()?;
    Ok(tally.memory().on_device())
}
