//! `hbt train` from end to end, through the binary, on tiny models and data.

mod determinism;
mod embedded;
mod kill;
mod negatives;
mod optimizer;
mod options;
pub mod resume;
mod run_directory;
mod trace;
