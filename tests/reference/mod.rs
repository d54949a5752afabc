//! The f64 reference of `src/reference/`, its derivatives, and the encoder made of it.

pub mod difference;
pub mod encoder;
mod gradients;

pub use hbt::reference::*;
