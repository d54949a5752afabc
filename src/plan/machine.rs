//! The machines that a run can be planned for.

use crate::Result;
use crate::backend::{Backend, Element, Gemm, Tally, Tensor};
use std::time::{Duration, Instant};

crate::choices::choices! {
    /// Machine that a run is planned for.
    Target {
        /// The machine that the plan is made on, with the configured device.
        This = "this",
        /// NVIDIA A100, 40 GB.
        A100Gb40 = "a100-40gb",
        /// NVIDIA A100, 80 GB.
        A100Gb80 = "a100-80gb",
        /// NVIDIA H100 SXM, 80 GB.
        H100Gb80 = "h100-80gb",
        /// NVIDIA H200 SXM, 141 GB.
        H200 = "h200-141gb",
        /// NVIDIA L4, 24 GB.
        L4 = "l4",
        /// NVIDIA L40S, 48 GB.
        L40s = "l40s",
        /// NVIDIA GeForce RTX 3090, 24 GB.
        Rtx3090 = "rtx3090",
        /// NVIDIA GeForce RTX 4090, 24 GB.
        Rtx4090 = "rtx4090",
    }
}

/// A machine's data for a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// Name in reports.
    pub name: String,
    /// Whether it is a GPU.
    pub is_gpu: bool,
    /// Bytes that a run can have, if known.
    pub memory: Option<u64>,
    /// Bytes of the whole memory, whoever uses them, if different: they decide the blocks in which a GPU cuts the loss.
    pub in_all: Option<u64>,
    /// Bytes that its driver takes besides a run's buffers.
    pub overhead: u64,
    /// Speed, if it was asked for.
    pub speed: Option<Speed>,
    /// Bytes/s to another of its kind beside it, if known.
    pub link: Option<f64>,
}

/// Bytes/s between two processes of a machine: a sum of 131 MB over both took 185 to 302 ms over MPICH 5.0.2 on two busy cores
/// (`src/dist/peers.rs`).
pub const LINK_OF_PROCESSES: f64 = 0.5e9;

impl Machine {
    /// The counting backend in place of this machine.
    pub fn tally<E: Element>(&self) -> Tally<E> {
        match self.is_gpu {
            true => Tally::of_gpu(self.in_all.or(self.memory).unwrap_or(u64::MAX)),
            false => Tally::new(1),
        }
    }
}

/// Best speed of a machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    /// FLOP/s of large products in the run's precision.
    pub products: f64,
    /// Bytes/s to and from memory.
    pub memory: f64,
    /// Quality of the measurement; `None` for the maker's figures.
    pub measured: Option<Measured>,
}

/// Quality of a measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Share of the time (0 to 1) that other work took meanwhile.
    pub others: f64,
}

impl Measured {
    /// Whether other work on the machine may have distorted the measurement.
    pub fn was_busy(self) -> bool {
        // An idle machine shows up to a tenth: clocks and caches differ from run to run.
        const MUCH: f64 = 0.25;
        self.others >= MUCH
    }
}

/// Data of a GPU from its maker.
struct Gpu {
    name: &'static str,
    /// Name that its driver reports.
    driver_name: &'static str,
    /// MiB, as `nvidia-smi` reports them: without the part that error correction takes from ordinary memory.
    memory: u32,
    /// GB/s
    bandwidth: f64,
    /// TFLOP/s of dense products in bf16 with sums in f32 (half of what is advertised "with sparsity"), and in f32
    /// without tensor cores: hbt does not use TF32.
    bf16: f64,
    f32: f64,
    /// GB/s to another GPU, in one direction: NVLink's or, without that, PCIe's.
    link: f64,
}

/// GB/s of PCIe 4.0 with 16 lanes, in one direction.
const PCIE: f64 = 31.5;

impl Target {
    /// Makers' figures, from:
    /// - A100: "NVIDIA A100 Tensor Core GPU" datasheet (SXM4): 312 and 19.5 TFLOP/s, 1,555 and 2,039 GB/s, NVLink of 600 GB/s
    ///   in both directions together;
    /// - H100: "NVIDIA H100 Tensor Core GPU" datasheet (SXM5): 1,979 TFLOP/s with sparsity, 67 TFLOP/s, 3.35 TB/s, NVLink of
    ///   900 GB/s;
    /// - H200: "NVIDIA H200 Tensor Core GPU" datasheet (SXM): as H100, with 4.8 TB/s;
    /// - L4 and L40S: their datasheets: 242 with sparsity, 30.3 and 300 GB/s; 733 with sparsity, 91.6 and 864 GB/s;
    /// - RTX 3090: "NVIDIA Ampere GA102 GPU Architecture", table 2: 71, 35.6, 936 GB/s;
    /// - RTX 4090: "NVIDIA Ada GPU Architecture", appendix A: 165.2, 82.6, 1,008 GB/s.
    fn gpu(self) -> Option<Gpu> {
        let gpu = |name, driver_name, memory, bandwidth, bf16, f32, link| {
            Some(Gpu { name, driver_name, memory, bandwidth, bf16, f32, link })
        };
        match self {
            Target::This => None,
            Target::A100Gb40 => gpu("NVIDIA A100 40 GB", "NVIDIA A100-SXM4-40GB", 40_960, 1555.0, 312.0, 19.5, 300.0),
            Target::A100Gb80 => gpu("NVIDIA A100 80 GB", "NVIDIA A100-SXM4-80GB", 81_920, 2039.0, 312.0, 19.5, 300.0),
            Target::H100Gb80 => gpu("NVIDIA H100 80 GB", "NVIDIA H100 80GB HBM3", 81_559, 3350.0, 989.5, 67.0, 450.0),
            Target::H200 => gpu("NVIDIA H200 141 GB", "NVIDIA H200", 143_771, 4800.0, 989.5, 67.0, 450.0),
            Target::L4 => gpu("NVIDIA L4", "NVIDIA L4", 23_034, 300.0, 121.0, 30.3, PCIE),
            Target::L40s => gpu("NVIDIA L40S", "NVIDIA L40S", 46_068, 864.0, 366.5, 91.6, PCIE),
            Target::Rtx3090 => gpu("NVIDIA RTX 3090", "NVIDIA GeForce RTX 3090", 24_576, 936.0, 71.0, 35.6, PCIE),
            Target::Rtx4090 => gpu("NVIDIA RTX 4090", "NVIDIA GeForce RTX 4090", 24_564, 1008.0, 165.2, 82.6, PCIE),
        }
    }

    /// The machine, for runs in f32 or bf16; `None` for the one that the plan is made on.
    pub fn machine(self, is_f32: bool) -> Option<Machine> {
        let Gpu { name, memory, bandwidth, bf16, f32, link, .. } = self.gpu()?;
        let products = 1e12 * if is_f32 { f32 } else { bf16 };
        Some(Machine {
            name: name.to_owned(),
            is_gpu: true,
            memory: Some((f64::from(memory) * DRIVER_LEAVES * f64::from(1 << 20)) as u64),
            in_all: None,
            overhead: CONTEXT_BYTES + WORKSPACE_BYTES,
            speed: Some(Speed { products, memory: 1e9 * bandwidth, measured: None }),
            link: Some(1e9 * link),
        })
    }

    /// The target whose maker's figures hold for the GPU with this driver `name`, if there is one. Figures do not hold
    /// for other models with similar names: laptop, smaller and larger editions, a part of a GPU (MIG).
    pub fn of_name(name: &str) -> Option<Target> {
        Target::ALL.iter().copied().find(|target| target.gpu().is_some_and(|gpu| gpu.driver_name == name))
    }

    /// All names, for help.
    pub fn names() -> String {
        Target::ALL.iter().map(Target::to_string).collect::<Vec<_>>().join(", ")
    }
}

/// Share of that memory that the driver leaves: `cudaMemGetInfo` reports 97.9 % (L4) to 99 % (A100) of it.
const DRIVER_LEAVES: f64 = 0.98;
/// Bytes that a process on a GPU takes before it asks for memory: context, and the code of kernels and libraries. An
/// estimate.
const CONTEXT_BYTES: u64 = 600 << 20;
/// Bytes of the workspaces of products and of partial sums, 32 MiB each, and of unused parts of slabs. An estimate.
pub const WORKSPACE_BYTES: u64 = 96 << 20;

/// Work of a measurement: a product of a step's shape, `(m, k) (k, n)`, and a copy of some rows of [`ROW`] elements.
struct Work {
    product: [usize; 3],
    rows: usize,
}

/// Work for processors: so little at a time that most of it ends before the system gives the processor to other work:
/// about two milliseconds of a time slice of three or more.
const FOR_PROCESSORS: Work = Work { product: [512, 1536, 384], rows: 1 << 8 };
/// Work for GPUs, which do one thing after another and are fastest at large ones.
const FOR_GPUS: Work = Work { product: [4096, 1536, 384], rows: COPIED_ROWS };
/// Rows of the copy's target, and elements of a row: 128 MiB, more than most caches hold.
const COPIED_ROWS: usize = 1 << 12;
const ROW: usize = 1 << 13;
/// Most time for the whole measurement.
const BUDGET: Duration = Duration::from_millis(400);

impl Speed {
    /// Multiplies and copies in turn for an instant, and takes the best of each, because other work only makes it
    /// slower.
    ///
    /// # Errors
    /// If the device has no memory left.
    pub fn measure<B: Backend>(backend: &B, is_gpu: bool) -> Result<Self> {
        let matrix = |rows: usize, columns: usize| {
            let values: Vec<B::E> = (0..rows * columns).map(|i| B::E::from_f32((i % 17) as f32 - 8.0)).collect();
            Tensor::<B, B::E>::from_slice(backend, &values, &[rows, columns])
        };
        let Work { product: [m, n, k], rows } = if is_gpu { FOR_GPUS } else { FOR_PROCESSORS };
        let (a, b, mut out) = (matrix(m, k)?, matrix(n, k)?, Tensor::zeros(backend, &[m, n])?);
        let from = Tensor::<B, f32>::zeros(backend, &[rows, ROW])?;
        let mut to = Tensor::zeros(backend, &[COPIED_ROWS, ROW])?;
        let mut product = || {
            let (trans_a, trans_b, bias, accumulate) = (false, true, None, false);
            backend.gemm(Gemm { a: &a, trans_a, b: &b, trans_b, bias, out: &mut out, accumulate })
        };
        // The first run of each is a warm-up.
        product()?;
        let (mut products, mut copies) = (Vec::new(), Vec::new());
        let start = Instant::now();
        while start.elapsed() < BUDGET {
            products.push(backend.time(&mut product)?.as_secs_f64());
            // To another place each time, because memory that was just written may still be in a cache.
            let at = copies.len() * rows % COPIED_ROWS;
            copies.push(backend.time(&mut || backend.paste_rows(&from, &mut to, at))?.as_secs_f64());
        }
        let flops = 2.0 * (m * n * k) as f64;
        let bytes = (2 * from.len() * size_of::<f32>()) as f64;
        Ok(Speed {
            products: flops / best(&products),
            memory: bytes / best(&copies),
            measured: Some(Measured { others: others(&products) }),
        })
    }
}

fn best(seconds: &[f64]) -> f64 {
    seconds.iter().copied().fold(f64::INFINITY, f64::min)
}

/// Share of the time of equal runs that other work took: all time beyond that of the best run.
fn others(seconds: &[f64]) -> f64 {
    1.0 - best(seconds) * seconds.len() as f64 / seconds.iter().sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_hold_for_the_very_gpu() {
        for (name, target) in [
            ("NVIDIA A100-SXM4-40GB", Some(Target::A100Gb40)),
            ("NVIDIA A100-SXM4-80GB", Some(Target::A100Gb80)),
            ("NVIDIA H100 80GB HBM3", Some(Target::H100Gb80)),
            ("NVIDIA H200", Some(Target::H200)),
            ("NVIDIA L4", Some(Target::L4)),
            ("NVIDIA L40S", Some(Target::L40s)),
            ("NVIDIA GeForce RTX 3090", Some(Target::Rtx3090)),
            ("NVIDIA GeForce RTX 4090", Some(Target::Rtx4090)),
            ("NVIDIA A100 80GB PCIe", None),
            ("NVIDIA A100-SXM4-80GB MIG 3g.40gb", None),
            ("NVIDIA H100 PCIe", None),
            ("NVIDIA H100 NVL", None),
            ("NVIDIA GH200 480GB", None),
            ("NVIDIA L40", None),
            ("NVIDIA GeForce RTX 3090 Ti", None),
            ("NVIDIA GeForce RTX 4090 D", None),
            ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ] {
            assert_eq!(Target::of_name(name), target, "{name}");
        }
    }

    /// Runs of 2 ms, alone and beside work that takes the processor for 4 ms at a time.
    #[test]
    fn what_others_took_is_the_time_that_was_lost() {
        let alone = [2.00e-3, 2.1e-3, 2.05e-3, 2.2e-3, 2.0e-3, 2.1e-3];
        assert!((0.0..0.1).contains(&others(&alone)), "{}", others(&alone));
        assert!(!Measured { others: others(&alone) }.was_busy());
        for (waits, share) in [([0, 1, 0, 1, 0, 1], 0.5), ([1, 2, 1, 2, 1, 0], 0.7), ([0, 0, 0, 0, 0, 1], 0.25)] {
            let beside: Vec<f64> = waits.iter().map(|&n| 2e-3 + 4e-3 * f64::from(n)).collect();
            assert_eq!(best(&beside), 2e-3, "some run was not interrupted");
            assert!((others(&beside) - share).abs() < 1e-9, "{waits:?}: {}", others(&beside));
            assert!(Measured { others: others(&beside) }.was_busy());
        }
    }

    /// Total memory as `torch.cuda` reports it, in GiB: A100 79.15, H100 79.10, L4 22.03, RTX 4090 23.64.
    #[test]
    fn memory_is_what_runs_can_have() {
        for (target, gib) in
            [(Target::A100Gb80, 79.15), (Target::H100Gb80, 79.10), (Target::L4, 22.03), (Target::Rtx4090, 23.64)]
        {
            let memory = target.machine(false).unwrap().memory.unwrap() as f64 / f64::from(1 << 30);
            assert!((0.985..1.002).contains(&(memory / gib)), "{target}: {memory}");
        }
        assert_eq!(Target::This.machine(true), None);
    }
}
