//! What `auto` stands for on this machine.

use hbt::backend::cpu::{Instructions, has_fast_bf16};
use hbt::backend::cuda;
use hbt::config::{Device, Precision};

/// What `device` stands for on this machine: `auto` is the first GPU if hbt can compute on it.
pub fn resolve(device: Device) -> Device {
    match device {
        Device::Auto if cuda::require(0).is_ok() => Device::Cuda,
        Device::Auto => Device::Cpu,
        device => device,
    }
}

/// What `precision = auto` stands for on `device`, and why.
pub fn auto_precision(device: Device) -> (Precision, &'static str) {
    if device == Device::Cuda {
        (Precision::Bf16, "tensor cores multiply it several times as fast as f32")
    } else if has_fast_bf16() && Instructions::fastest() == Instructions::Avx512Bf16 {
        (Precision::Bf16, "this processor multiplies it twice as fast as f32 (AVX512-BF16)")
    } else if has_fast_bf16() {
        (Precision::Bf16, "HBT_CPU asks for AVX512-BF16, at half the speed of f32 on this processor")
    } else if Instructions::of_processor() == Instructions::Avx512Bf16
        && Instructions::chosen() != Instructions::fastest()
    {
        (Precision::F32, "HBT_CPU leaves this processor's AVX512-BF16 unused, without which bf16 gains nothing")
    } else if Instructions::of_processor() == Instructions::Avx512Bf16 {
        (Precision::F32, "this processor multiplies bf16 at half the speed of f32 (AVX512-BF16)")
    } else {
        (Precision::F32, "this processor has no AVX512-BF16, without which bf16 gains nothing")
    }
}
