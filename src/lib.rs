//! hbt, the hybrid batch trainer: fine-tunes multilingual text encoders into dense retrievers that work within one
//! language, across languages, and in a pool of all languages.
//!
//! # One training step
//!
//! [`data::sampler`] draws, as a pure function of the seed and the step, which groups of parallel texts the step
//! trains on and in which languages: all in one language with probability alpha, every query and its passage in two
//! different languages otherwise (Elmahdy et al., arXiv 2408.10536). [`data::batch`] looks the texts' tokens up in the
//! memory-mapped [`data::shard`] and packs them end to end: no padding, only the places where sequences begin.
//!
//! [`train::GradCache`] cuts the packed batch, longest texts first, into chunks of a bounded number of tokens.
//! [`model::Encoder`] turns each chunk into unit vectors; [`loss::InfoNce`] compares every query with every passage of the
//! whole batch that does not say the same, block by block of rows, and gives the gradient at each vector; then every chunk
//! but those that were kept is run once more and propagated back, its dropout masks drawn from a
//! counter and therefore the same. Each layer's backward stands beside its forward and is written by hand.
//! [`train::Optimizer`] takes one AdamW step; word embeddings that the batch does not read get theirs when they are next
//! read. Memory is set by the chunk, not by the batch.
//!
//! Before the first step, on the way and after the last, [`eval`] embeds a benchmark and ranks all its passages for
//! every query. The run directory ([`train::checkpoint`]) holds a model that sentence-transformers loads as it is and,
//! until the run is complete, all it takes to go on from there to the same bytes.
//!
//! # Modules
//!
//! | module | knows |
//! |---|---|
//! | [`cli`], [`config`] | what was typed, and what it resolves to |
//! | [`data`] | formats, tokens, batches; neither model nor backend |
//! | [`backend`] | about thirty fused operations, and the devices that carry them out |
//! | [`model`], [`loss`] | the network and the loss, in terms of a [`backend::Backend`] |
//! | [`eval`] | encoding, search, metrics, reports |
//! | [`mod@mine`] | hard negatives, found with a model and the exact search |
//! | [`train`] | the loop, GradCache, optimizer, schedule, checkpoints |
//! | [`plan`] | what a run will take, before it begins |
//! | [`mod@bench`] | every operation, a training step and encoding beside what the machine can do |
//! | [`embedded`], [`progress`], [`info`], [`cache`], [`memory`] | the built-in model and data; what is said on the way; `hbt info`; where caches are; the system's memory |
//! | [`trace`] | ranges for step, phase, layer and operation, for whoever profiles; known to all, knows nobody |
//!
//! # Who may import whom
//!
//! Left may import right, never back: `commands -> cli -> config`; `commands -> plan, bench, train, eval, mine`;
//! `plan -> train, eval, model, data`; `bench -> train, loss, model`; `train -> eval, loss, model, data`; `mine -> eval, data, backend`; `eval -> model, data`;
//! `loss, model -> backend`. `train` and `eval::encode` read a [`config::Config`]; `cli` and `config` borrow from the
//! others only the enums that their options and keys choose from. `data`,
//! `eval::metrics` and `train::schedule` know neither backend nor model. The backends' types are named only in
//! `commands`, tests and benches, but for the one that only counts, which is `plan`'s. Unsafe code is allowed in `backend`, where files are mapped into memory, where
//! `memory` asks the C library, and where `trace` meets a profiler.

#![deny(unsafe_code)]
#![warn(missing_docs)]

mod ahead;
pub mod backend;
pub mod bench;
pub mod cache;
mod choices;
pub mod cli;
pub mod config;
pub mod data;
pub mod embedded;
pub mod error;
pub mod eval;
pub mod files;
pub mod loss;
pub mod memory;
pub mod mine;
pub mod model;
pub mod plan;
pub mod progress;
mod random;
pub mod trace;
pub mod train;

pub use error::{Error, Result};
