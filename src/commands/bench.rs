//! `hbt bench`

use super::{Job, finish, on_device};
use hbt::backend::{Backend, Element};
use hbt::bench::{Benchmark, BestTime, CeilingMeter, Op, Row, table_head};
use hbt::cli::BenchArgs;
use hbt::config::{Config, Precision};
use hbt::progress::say;
use hbt::{Result, info};
use std::time::Duration;

/// Time for each benchmark and, at first, for each ceiling; inputs and the check of the answer not counted.
const BUDGET: Duration = Duration::from_millis(250);

/// Measures and prints, in both precisions unless one is configured.
pub fn run(args: BenchArgs) -> Result<()> {
    let config = finish(args.draft()?)?;
    let precisions = match config.precision {
        Precision::Auto => vec![Precision::F32, Precision::Bf16],
        one => vec![one],
    };
    let usual = Op::usual();
    let ops = if args.op.is_empty() { &usual } else { &args.op };
    for precision in precisions {
        let config = Config { precision, ..config.clone() };
        on_device(&config, BenchJob { ops, repeat: args.repeat, json: args.json })?;
    }
    Ok(())
}

struct BenchJob<'a> {
    ops: &'a [Op],
    repeat: u32,
    json: bool,
}

impl Job for BenchJob<'_> {
    type Output = ();

    /// Results come last, because the ceilings are the best of the whole time.
    fn run<B: Backend>(self, backend: B) -> Result<()> {
        say(&format!("measuring what {} can do", backend.name()));
        let mut ceilings = CeilingMeter::new(&backend)?;
        let mut best = ceilings.measure(BUDGET)?;
        let benchmarks: Vec<Benchmark<B>> = self.ops.iter().flat_map(|op| op.benchmarks()).collect();
        let mut times = vec![None; benchmarks.len()];
        let mut last = None;
        for _ in 0..self.repeat {
            for (benchmark, time) in benchmarks.iter().zip(&mut times) {
                if last.replace(benchmark.op) != Some(benchmark.op) {
                    best = ceilings.measure(Duration::ZERO)?;
                }
                let new = benchmark.best_time(&backend, BUDGET)?;
                let time = time.insert(time.map_or(new, |old: BestTime| old.min(new)));
                let name = format!("{} {} {}", benchmark.op, B::E::NAME, benchmark.shape);
                say(&format!("{name}: {}", best.judge(benchmark.work, time.warm)));
            }
        }
        let mut out = match self.json {
            true => String::new(),
            false => format!("{}, {}\nceilings: {best}\n{}\n", info::cpu_model(), backend.name(), table_head()),
        };
        for (benchmark, &time) in benchmarks.into_iter().zip(&times) {
            let time = time.expect("measured at least once");
            let judge = |time| best.judge(benchmark.work, time);
            let (measured, cold) = (judge(time.warm), time.cold.map(judge));
            let row = Row { op: benchmark.op, dtype: B::E::NAME, shape: benchmark.shape, measured, cold };
            out += &format!("{}\n", if self.json { row.to_json() } else { row.to_string() });
        }
        crate::print(&out)
    }
}
