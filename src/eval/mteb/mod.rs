//! mteb's benchmarks: its tasks, and the files that it loads.

pub mod languages;
pub mod table;
