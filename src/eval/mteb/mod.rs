//! mteb's benchmarks: its tasks, and the files that it loads.

pub mod entries;
pub mod files;
pub mod folder;
pub mod languages;
pub mod prompts;
pub mod rankings;
pub mod table;
