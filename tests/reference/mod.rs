//! Every operation of `hbt::backend::Backend` once more, in f64 and nested loops: slow, plain, and with nothing in
//! common with the code it judges. Files are named as in `src/backend/cpu/`.
//!
//! Arrays are row-major `f64` slices; sizes that a slice's length does not tell are arguments. Dropout enters as a
//! mask of factors (0 or 1 / (1 - p)), so that nothing here depends on random numbers. There is no backward pass:
//! [`difference`] differentiates the forward ones.

pub mod adamw;
pub mod attention;
pub mod difference;
pub mod embedding;
pub mod encoder;
pub mod gelu;
pub mod gemm;
pub mod info_nce;
pub mod layer_norm;
pub mod math;
pub mod pooling;
pub mod rows;
