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
//! # As a library
//!
//! A [`config::Config`] comes to plain settings for a [`model_dir::ModelDir`]; [`data::shard::TokenCache`]s make the
//! [`data::datasets::Datasets`] of a run; [`train::run`] trains a [`retriever::Retriever`], which also embeds by itself, and
//! [`eval`] measures it. `examples/train_and_encode.rs` does all of it but the last. Modules that are public without being
//! documented here are so for hbt's own program, tests and benchmarks.
//!
//! # Modules
//!
//! | module | knows |
//! |---|---|
//! | [`cli`], [`config`] | what was typed, and the plain settings that it comes to |
//! | [`data`] | formats, tokens, batches, retrieval tasks; neither model nor backend |
//! | [`backend`] | about thirty fused operations, and the devices that carry them out |
//! | [`dist`] | several processes that train as one: who is who, and what they exchange |
//! | [`model`], [`loss`] | the network and the loss, in terms of a [`backend::Backend`] |
//! | [`retriever`] | a model with its tokenizer on a device: texts into embeddings |
//! | [`model_dir`] | directories of Hugging Face that hold a model: found on the hub, read and written |
//! | [`hub`] | the hub of Hugging Face and its cache: models and data sets, fetched once |
//! | [`eval`] | search, metrics, reports |
//! | [`mod@mine`] | hard negatives, found with a model and the exact search |
//! | [`report`] | runs and results as one page for a browser |
//! | [`train`] | the loop, GradCache, optimizer, schedule, checkpoints |
//! | [`plan`] | what a run will take, before it begins |
//! | [`mod@reference`] | every operation in f64, the plainest way, which tests and benchmarks hold the others to |
//! | [`mod@bench`] | every operation, a training step and encoding beside what the machine can do |
//! | [`embedded`], [`progress`] | the built-in model and data; what is said on the way |
//! | [`files`], [`tensor_file`], [`npy`] | files that are whole or not there; safetensors; NumPy's arrays |
//! | `metrics_file` | the lines of `metrics.jsonl`, as they are read back |
//! | [`cache`], [`memory`], `mapped`, [`signals`] | where caches are; memory, and files mapped into it; what ends a process |
//! | [`trace`] | ranges for step, phase, layer and operation, for whoever profiles; known to all, knows nobody |
//!
//! # Who may import whom
//!
//! Each module imports what its line names and all lines do (`*`), of a `module::part` nothing else of that module, and no
//! more; where a part of a module has a line, that one holds for it. What is behind `only` is theirs alone.
//! `tests/house.rs` reads these lines and holds the code to them.
//!
//! ```text
//! *: choices, error, random, trace
//! commands: backend, bench, cache, cli, config, data, dist, embedded, eval, files, hub, memory, mine, model_dir, npy, plan,
//!     progress, report, retriever, signals, train
//! cli: config, bench::Op, eval::tasks, mine::Languages, mine::Sampling, plan::Cluster, plan::Target
//! config: backend::Distillation, backend::Pooling, backend::Precision, data::formats, data::sampler, eval::FigureKey,
//!     eval::mteb::table, eval::tasks, train::schedule
//! config::resolve: backend::Pooling, config, data, loss, model_dir, plan::Open, retriever, train
//! plan: backend, data, eval, memory, model, model_dir, retriever, train
//! bench: backend, loss, model, reference, train
//! train: ahead, backend, data, dist, eval, files, loss, metrics_file, model, model_dir, progress, retriever, tensor_file
//! train::schedule:
//! mine: backend, data, dist, eval, retriever
//! eval: backend, data, dist, retriever
//! eval::retrieval: ahead, backend, data, dist, eval, retriever
//! eval::vectors: backend, data, dist, eval, npy, progress, retriever
//! eval::metrics:
//! eval::mteb::folder: eval::mteb, files, json
//! eval::mteb::rankings: eval::mteb, files
//! report: eval, metrics_file
//! retriever: backend, data, dist, memory, model, model_dir
//! loss: backend
//! model_dir: backend::Pooling, files, hub, json, model, tensor_file
//! hub: files, progress
//! model: backend, json
//! backend: cache, files
//! data: ahead, files, mapped
//! dist:
//! embedded: files
//! ahead:
//! cache:
//! choices:
//! error:
//! files:
//! json:
//! mapped:
//! memory:
//! metrics_file:
//! npy: files
//! progress:
//! random:
//! reference: backend::AdamWStep, backend::Distillation, backend::Pooling
//! signals:
//! tensor_file: files, mapped
//! trace:
//! only commands: backend::cpu, backend::cuda, backend::Cpu, backend::Cuda
//! only commands, plan: backend::tally, backend::Tally
//! ```
//!
//! So nothing of `data`, of the metrics and of the schedule knows backend or model. `cli` and `config` borrow from the others
//! only what their options and keys choose from, but for `config::resolve`, which fills in the settings of others;
//! nobody but `cli` and `commands` knows that there are keys. `backend` asks where caches are for the kernels and choices that a
//! GPU keeps there. The backends' types are named only in `commands`, tests and benches, but for the one that only counts,
//! which `plan` has too.
//!
//! Unsafe code is allowed in `backend`, where `dist` calls MPI and starts processes, where `mapped` maps files into memory,
//! where `memory` and `signals` ask the C library, and where `trace` meets a profiler.

#![deny(unsafe_code)]
#![warn(missing_docs)]

mod ahead;
pub mod backend;
#[doc(hidden)]
pub mod bench;
pub mod cache;
mod choices;
#[doc(hidden)]
pub mod cli;
pub mod config;
pub mod data;
#[doc(hidden)]
pub mod dist;
pub mod embedded;
pub mod error;
pub mod eval;
#[doc(hidden)]
pub mod files;
pub mod hub;
mod json;
pub mod loss;
mod mapped;
#[doc(hidden)]
pub mod memory;
mod metrics_file;
pub mod mine;
pub mod model;
pub mod model_dir;
#[doc(hidden)]
pub mod npy;
#[doc(hidden)]
pub mod plan;
#[doc(hidden)]
pub mod progress;
mod random;
#[doc(hidden)]
pub mod reference;
pub mod report;
pub mod retriever;
#[doc(hidden)]
pub mod signals;
#[doc(hidden)]
pub mod tensor_file;
#[doc(hidden)]
pub mod trace;
pub mod train;

pub use error::{Error, Result};
