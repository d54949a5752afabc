//! Training data: reading it, tokenizing it once, and drawing hybrid batches from it. And the data of retrieval tasks.
//!
//! Knows neither backend nor model.

pub mod batch;
pub mod bounds;
pub mod catalog;
pub mod collection;
pub mod datasets;
pub mod formats;
mod guard;
pub mod loader;
pub mod prepare;
pub mod same_answer;
pub mod sampler;
pub mod shard;
pub mod tokenize;
mod union_find;
