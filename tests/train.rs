//! `hbt train` from end to end, through the binary, on tiny models and data.

#[cfg(unix)]
mod apart;
mod checkpoint;
mod determinism;
mod distillation;
mod embedded;
mod evaluations;
mod kill;
mod negatives;
mod optimizer;
mod options;
mod others;
#[cfg(unix)]
pub mod ranks;
pub mod resume;
mod run_directory;
#[cfg(unix)]
mod signals;
mod trace;
