//! Every operation of [`Operations`](crate::backend::Operations) once more, in f64 and nested loops: slow, plain, and with
//! nothing in common with the code it judges. Files are named as in `src/backend/cpu/`. Tests compare every backend with it,
//! and benchmarks samples of their results.
//!
//! Arrays are row-major `f64` slices; sizes that a slice's length does not tell are arguments. Dropout enters as a
//! mask of factors (0 or 1 / (1 - p)), so that nothing here depends on random numbers. Where there is a gradient, the tests
//! hold it to the central differences of the forward pass; the other gradients they take from these differences alone.

#![allow(missing_docs)]

pub mod adamw;
pub mod attention;
pub mod distillation;
pub mod embedding;
pub mod gelu;
pub mod gemm;
pub mod info_nce;
pub mod layer_norm;
pub mod math;
pub mod pooling;
pub mod rows;
