//! Least time of a step, and its time at the usual efficiencies of kernels.

use super::machine::{Machine, Speed};
use crate::backend::tally::{Work, WorkKind};

/// Assumed speeds of operations, as shares of a machine's best.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Efficiency {
    /// Speed of products, as a share of that of large products.
    pub products: f64,
    /// Speed of attention, as a share of that of large products.
    pub attention: f64,
    /// Speed of memory access in any operation, as a share of that of memory.
    pub memory: f64,
    /// Seconds that the host takes to launch an operation.
    pub launch: f64,
    /// Speed of exchange within a machine, as a share of that of its links.
    pub link: f64,
    /// Speed of exchange between machines, as a share of that of the network.
    pub network: f64,
}

impl Efficiency {
    /// Assumed efficiencies. On GPUs: encoders train at 45 to 60 % of the tensor cores' peak (NVIDIA's BERT in MLPerf
    /// 2.0: 47 % on an A100), short attention at half of that, kernels at 80 to 90 % of memory's bandwidth, and a
    /// launch costs 3 to 5 microseconds. NCCL exchanges 370 of NVLink 4's 450 GB/s (nccl-tests, issue 212), and 46 of a port's
    /// 50 GB/s. On processors: shares from a trace of steps of multilingual-E5-small on two cores of Zen 5, relative to the same
    /// products and copies.
    pub fn of(machine: &Machine) -> Self {
        match machine.is_gpu {
            true => Efficiency { products: 0.45, attention: 0.2, memory: 0.8, launch: 4e-6, link: 0.8, network: 0.9 },
            false => Efficiency { products: 0.9, attention: 0.2, memory: 0.3, launch: 0.0, link: 1.0, network: 0.9 },
        }
    }
}

/// Work and time of a step: means over steps.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepTime {
    /// Floating-point operations in products of matrices, including those of attention and those done twice.
    pub flops: f64,
    /// Least number of bytes that all operations together read and write.
    pub bytes: f64,
    /// Number of operations.
    pub n_operations: f64,
    /// Seconds at the efficiencies assumed.
    pub seconds: f64,
}

impl StepTime {
    /// The time of a step whose operations each take the time of their arithmetic or of their memory, whichever is
    /// longer.
    pub fn new(work: &[(Work, f64)], speed: Speed, efficiency: Efficiency) -> Self {
        let mut total = StepTime::default();
        for &(Work { kind, flops, bytes }, times) in work {
            let (flops, bytes) = (flops as f64, bytes as f64);
            let share = if kind == WorkKind::Attention { efficiency.attention } else { efficiency.products };
            let arithmetic = flops / (speed.products * share);
            let memory = bytes / (speed.memory * efficiency.memory);
            total.flops += times * flops;
            total.bytes += times * bytes;
            total.n_operations += times;
            total.seconds += times * arithmetic.max(memory);
        }
        total.seconds = total.seconds.max(total.n_operations * efficiency.launch);
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_of_arithmetic_and_memory_counts_operation_by_operation() {
        let speed = Speed { products: 1e12, memory: 1e9, measured: None };
        let efficiency =
            Efficiency { products: 0.5, attention: 0.25, memory: 1.0, launch: 0.0, link: 1.0, network: 1.0 };
        let work = [
            (Work { kind: WorkKind::Product, flops: 1_000_000_000, bytes: 1000 }, 2.0),
            (Work { kind: WorkKind::Attention, flops: 1_000_000_000, bytes: 1000 }, 1.0),
            (Work { kind: WorkKind::Rows, flops: 0, bytes: 5_000_000 }, 0.5),
        ];
        let step = StepTime::new(&work, speed, efficiency);
        assert_eq!((step.flops, step.bytes, step.n_operations), (3e9, 2_503_000.0, 3.5));
        assert!((step.seconds - (2.0 * 0.002 + 0.004 + 0.5 * 0.005)).abs() < 1e-12, "{}", step.seconds);
        let slow_host = Efficiency { launch: 0.01, ..efficiency };
        assert_eq!(StepTime::new(&work, speed, slow_host).seconds, 0.035);
    }
}
