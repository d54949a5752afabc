//! The device and the precision of a command, and the meaning of `auto` on this machine.

use super::gpus;
use super::ranks::{first_of_machine, of_first};
use hbt::backend::cpu::{Instructions, has_fast_bf16};
use hbt::backend::cuda::{self, CudaDevice, CudaElement, Kernels, Progress};
use hbt::backend::{Backend, Cpu, Cuda};
use hbt::config::{Auto, Config, Device, Precision};
use hbt::progress::say;
use hbt::train::Ranks;
use hbt::{Error, Result};

/// The device that the setting means on this machine: `auto` is this process's GPU if hbt can compute on it.
pub fn resolve(device: Auto<Device>) -> Device {
    match device {
        Auto::Of(device) => device,
        Auto::Auto if cuda::require(gpus::ordinal()).is_ok() => Device::Cuda,
        Auto::Auto => Device::Cpu,
    }
}

/// The precision that `auto` means on `device`, and why.
pub fn auto_precision(device: Device) -> (Precision, &'static str) {
    if device == Device::Cuda {
        (Precision::Bf16, "tensor cores multiply it several times as fast as f32")
    } else if has_fast_bf16() && Instructions::fastest() == Instructions::Avx512Bf16 {
        (Precision::Bf16, "this processor multiplies it twice as fast as f32 (AVX512-BF16)")
    } else if has_fast_bf16() {
        (Precision::Bf16, "HBT_CPU asks for AVX512-BF16, at half the speed of f32 on this processor")
    } else if Instructions::of_processor() == Instructions::Avx512Bf16
        && Instructions::chosen() != Instructions::fastest()
    {
        (Precision::F32, "HBT_CPU leaves this processor's AVX512-BF16 unused, without which bf16 gains nothing")
    } else if Instructions::of_processor() == Instructions::Avx512Bf16 {
        (Precision::F32, "this processor multiplies bf16 at half the speed of f32 (AVX512-BF16)")
    } else {
        (Precision::F32, "this processor has no AVX512-BF16, without which bf16 gains nothing")
    }
}

/// Work that runs on any backend.
pub trait Job {
    /// Result of the work.
    type Output;
    /// Kernels that the work needs on a GPU.
    ///
    /// # Errors
    /// If a model directory cannot be read.
    fn kernels(&self) -> Result<Kernels>;
    /// The ranks that do it, if there are several: the first of a machine makes the kernels ready for the others.
    fn ranks(&self) -> Ranks {
        Ranks::default()
    }
    /// Does the work.
    fn run<B: Backend>(self, backend: B) -> Result<Self::Output>;
}

/// The configured precision, or the fastest on the configured device, which is reported.
pub fn precision(config: &Config) -> Precision {
    config.precision.or_else(|| {
        let (precision, why) = auto_precision(resolve(config.device));
        say(&format!("precision {precision}: {why}"));
        precision
    })
}

/// `config` with its precision resolved, by the first of all processes. A run has to save this: resumed on another machine,
/// `auto` might mean another one.
///
/// # Errors
/// A process that is gone.
pub fn settle_precision(config: Config, ranks: &Ranks) -> Result<Config> {
    let settled = of_first(ranks, || Ok(precision(&config).to_string()))?;
    let precision = settled.parse().map_err(|_| Error::config("precision", format!("is {settled} in rank 0")))?;
    Ok(Config { precision: Auto::Of(precision), ..config })
}

/// The device that the setting means here. Fails if it is a GPU that is not there, before anything is reported of a run
/// or done for it.
pub fn require_device(config: &Config) -> Result<Device> {
    let device = resolve(config.device);
    if device == Device::Cuda {
        gpu()?;
    }
    Ok(device)
}

/// Runs `job` on the configured device in the configured precision: the only place where the backend's type is chosen.
pub fn on_device<J: Job>(config: &Config, job: J) -> Result<J::Output> {
    let device = require_device(config)?;
    let is_f32 = precision(config) == Precision::F32;
    if device == Device::Cuda {
        let (kernels, ranks) = (job.kernels()?, job.ranks());
        return match is_f32 {
            true => job.run(first_of_machine(&ranks, || prepared::<f32>(kernels))?),
            false => job.run(first_of_machine(&ranks, || prepared::<half::bf16>(kernels))?),
        };
    }
    if is_f32 { job.run(Cpu::<f32>::new()) } else { job.run(Cpu::<half::bf16>::new()) }
}

/// This process's GPU with these kernels.
fn prepared<E: CudaElement>(kernels: Kernels) -> Result<Cuda<E>> {
    let cuda = Cuda::new(gpus::ordinal())?;
    cuda.prepare(kernels, &|Progress { file, done, total, time }| {
        say(&format!("compiled kernels/{file}, {done} of {total}, once, in {:.1} s", time.as_secs_f64()));
    })?;
    Ok(cuda)
}

/// The least instructions that give the same bytes, if the processor computes.
pub fn instructions_of(config: &Config, precision: Precision) -> Option<String> {
    let on_cpu = resolve(config.device) == Device::Cpu;
    on_cpu.then(|| Instructions::chosen().least_alike(precision == Precision::F32).to_string())
}

/// This process's GPU.
///
/// # Errors
/// If hbt cannot compute on it.
pub fn gpu() -> Result<CudaDevice> {
    cuda::require(gpus::ordinal()).map_err(|why| Error::config("device", format!("{why}, or set device = \"cpu\"")))
}
