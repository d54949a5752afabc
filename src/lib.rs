//! hbt, the hybrid batch trainer.

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod backend;
mod choices;
pub mod config;
pub mod data;
pub mod error;
pub mod eval;
pub mod loss;
pub mod model;
pub mod progress;
pub mod train;

pub use error::{Error, Result};
