//! `hbt info`: facts for a bug report.

use std::fs;

use super::device::{auto_precision, resolve};
use super::setup::start_threads;
use hbt::Result;
use hbt::backend::cpu::Instructions;
use hbt::backend::cuda::{self, CudaProbe, probe};
use hbt::config::Auto;
use hbt::dist::launch::Mpirun;
use hbt::dist::{Launcher, Place};
use hbt::memory::{self, gib};

/// Prints version, processor, memory and devices, one aligned line each.
pub fn run() -> Result<()> {
    start_threads(None)?;
    let mut lines = vec![
        (
            "hbt",
            format!(
                "{} ({} build)",
                env!("CARGO_PKG_VERSION"),
                if cfg!(debug_assertions) { "debug" } else { "release" }
            ),
        ),
        ("target", target()),
        ("system", system()),
        ("cpu", cpu_model()),
        ("cpu features", cpu_features()),
        ("instructions", instructions()),
        ("threads", threads()),
        ("memory", memory()),
    ];
    let device = resolve(Auto::Auto);
    let (precision, why) = auto_precision(device);
    lines.push(("device", format!("auto is {device}")));
    lines.push(("precision", format!("auto is {precision}: {why}")));
    let usable = cuda::require(0);
    match probe() {
        CudaProbe::NoDriver => lines.push(("cuda", "no CUDA driver found".to_owned())),
        CudaProbe::Refused(reason) => lines.push(("cuda", format!("the driver refused to work: {reason}"))),
        CudaProbe::Driver { version: (major, minor), devices } => {
            lines.push(("cuda", format!("driver for CUDA {major}.{minor} and older, {} device(s)", devices.len())));
            for (ordinal, gpu) in devices.iter().enumerate() {
                let (sm_major, sm_minor) = gpu.capability;
                let memory = gib(gpu.memory);
                lines.push(("gpu", format!("{ordinal}: {}, {memory}, sm_{sm_major}{sm_minor}", gpu.name)));
            }
            if let Err(why) = &usable {
                lines.push(("gpu", format!("cannot be used: {why}")));
            }
        }
    }
    lines.push(("mpi", mpi()));
    lines.push(("launcher", launcher()));
    lines.extend(cuda::libraries(usable.is_ok().then_some(0)));
    let report: String = lines.iter().map(|(name, value)| format!("{name:<13} {value}\n")).collect();
    crate::print(&report)
}

/// What `hbt train --devices` would start processes with.
fn mpi() -> String {
    match Mpirun::find() {
        Ok(mpirun) => mpirun.program().display().to_string(),
        Err(_) => "no mpiexec found; several processes need one (pip install mpich)".to_owned(),
    }
}

/// Who has started this process, and how many.
fn launcher() -> String {
    match Place::current() {
        Ok(Place { size: 1, launcher: Launcher::Alone, .. }) => "none: one process".to_owned(),
        Ok(Place { rank, size, launcher, .. }) => format!("{launcher}: rank {rank} of {size}"),
        Err(error) => format!("cannot be told: {error}"),
    }
}

fn target() -> String {
    let environment = if cfg!(target_env = "gnu") {
        "-gnu"
    } else if cfg!(target_env = "musl") {
        "-musl"
    } else if cfg!(target_env = "msvc") {
        "-msvc"
    } else {
        ""
    };
    format!("{}-{}{environment}", std::env::consts::ARCH, std::env::consts::OS)
}

fn system() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let distribution = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let distribution = value_of(&distribution, "PRETTY_NAME", '=').unwrap_or_default();
    match (kernel.trim(), distribution.trim_matches('"')) {
        ("", "") => std::env::consts::OS.to_owned(),
        (kernel, "") => format!("{} {kernel}", std::env::consts::OS),
        (kernel, distribution) => format!("{distribution}, {} {kernel}", std::env::consts::OS),
    }
}

/// Name of the processor, as the system gives it.
pub fn cpu_model() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    value_of(&cpuinfo, "model name", ':').unwrap_or("unknown").to_owned()
}

/// The instruction sets that the CPU kernels look for and this processor has.
#[cfg(target_arch = "x86_64")]
fn cpu_features() -> String {
    let features = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512_bf16", is_x86_feature_detected!("avx512bf16")),
    ];
    let with = |wanted| {
        let names: Vec<_> = features.iter().filter(|(_, found)| *found == wanted).map(|(name, _)| *name).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(" ") }
    };
    format!("{} (missing: {})", with(true), with(false))
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_features() -> String {
    "those of the target".to_owned()
}

/// The instruction sets that hbt computes with.
fn instructions() -> String {
    let (chosen, fastest) = (Instructions::chosen(), Instructions::fastest());
    if chosen == fastest {
        format!("{chosen}, this processor's fastest (HBT_CPU picks others)")
    } else {
        format!("{chosen}, as HBT_CPU says; this processor's fastest are {fastest}")
    }
}

fn threads() -> String {
    let available = std::thread::available_parallelism().map_or_else(|_| "unknown".to_owned(), |n| n.to_string());
    format!("{} used, {available} available", rayon::current_num_threads())
}

fn memory() -> String {
    match (memory::meminfo("MemTotal"), memory::available()) {
        (Some(total), Some(available)) => format!("{}, {} available", gib(total), gib(available)),
        _ => "unknown".to_owned(),
    }
}

/// The value of the first line that reads `name`, blanks, `separator`, value.
fn value_of<'a>(text: &'a str, name: &str, separator: char) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(separator)?;
        (key.trim() == name).then(|| value.trim())
    })
}
