//! The subcommands: what each puts together from the library.

pub mod bench;
pub mod compare;
mod compare_runs;
pub mod completions;
pub mod config;
mod data;
mod device;
pub mod encode;
pub mod eval;
mod evaluations;
pub mod info;
mod inputs;
pub mod mine;
mod model;
mod output;
pub mod plan;
pub mod prepare;
pub mod ranks;
pub mod report;
mod resume;
mod setup;
mod tasks;
mod texts;
pub mod trace;
pub mod train;
