//! The one integration-test binary. Each module checks one part of hbt from outside.

mod data;
mod gemm_bf16;
mod model_io;
mod sampler;
