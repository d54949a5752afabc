//! The one integration-test binary. Each module checks one part of hbt from outside.

mod allocations;
mod bench;
mod cli;
mod common;
mod config;
mod contract;
mod countdown;
mod cuda;
mod data;
mod device;
mod dist;
mod eval;
mod gemm_bf16;
#[cfg(unix)]
mod gpu_script;
mod gradients;
mod house;
mod loss;
mod mine;
mod model_io;
mod mutated;
mod npy;
mod ops;
mod plan;
mod pytorch;
mod reference;
mod sampler;
mod simt;
mod tolerance;
mod train;
