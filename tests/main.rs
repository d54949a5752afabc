//! The one integration-test binary. Each module checks one part of hbt from outside.

mod gemm_bf16;
