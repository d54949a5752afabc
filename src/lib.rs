//! hbt, the hybrid batch trainer.

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod backend;
mod choices;
pub mod data;
pub mod error;
pub mod loss;
pub mod model;

pub use error::{Error, Result};
