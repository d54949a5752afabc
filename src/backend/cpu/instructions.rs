//! The vector instructions that the CPU backend uses: the processor's fastest, or those that `HBT_CPU` names.

use crate::{Error, Result};
use std::env;
use std::sync::LazyLock;

crate::choices::choices! {
    /// A set of vector instructions; each contains those before it.
    Instructions {
        /// Instructions that every processor of the target has.
        Baseline = "baseline",
        /// 256 bits: AVX2 and FMA.
        Avx2 = "avx2",
        /// 512 bits: AVX-512 F, BW, CD, DQ and VL.
        Avx512 = "avx512",
        /// AVX-512 and products of bf16.
        Avx512Bf16 = "avx512_bf16",
    }
}

/// Environment variable that names the set to use.
const VARIABLE: &str = "HBT_CPU";

static CHOSEN: LazyLock<std::result::Result<Instructions, String>> = LazyLock::new(|| {
    let most = Instructions::of_processor();
    match env::var(VARIABLE) {
        Ok(word) if !word.is_empty() => {
            let wanted: Instructions = word.parse().map_err(|why| format!("{VARIABLE}: {why}"))?;
            if wanted as u8 <= most as u8 {
                return Ok(wanted);
            }
            Err(format!(
                "{VARIABLE}={wanted}: this processor has no more than {most}; use that, or leave {VARIABLE} unset"
            ))
        }
        Err(env::VarError::NotUnicode(_)) => Err(format!("{VARIABLE}: not a word; use one of {}", words())),
        _ => Ok(Instructions::fastest()),
    }
});

fn words() -> String {
    Instructions::ALL.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl Instructions {
    /// The largest set that this processor has.
    #[cfg(target_arch = "x86_64")]
    pub fn of_processor() -> Self {
        let has_bf16 = is_x86_feature_detected!("avx512bf16");
        match (pulp::x86::V3::try_new(), pulp::x86::V4::try_new()) {
            (_, Some(_)) if has_bf16 => Instructions::Avx512Bf16,
            (_, Some(_)) => Instructions::Avx512,
            (Some(_), None) => Instructions::Avx2,
            (None, None) => Instructions::Baseline,
        }
    }

    /// The largest set that this processor has.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn of_processor() -> Self {
        Instructions::Baseline
    }

    /// The fastest set of this processor: the largest, except for Intel's bf16. Sapphire Rapids begins one vector of
    /// bf16 products every other cycle and two of f32 multiply-adds every cycle (measured: 83 and 166 GFLOP/s a core),
    /// and leaves bf16 to AMX. AMD's processors multiply bf16 twice as fast as f32.
    pub fn fastest() -> Self {
        match Self::of_processor() {
            Instructions::Avx512Bf16 if is_intel() => Instructions::Avx512,
            all => all,
        }
    }

    /// The set that this process uses.
    ///
    /// # Errors
    /// If `HBT_CPU` is no such word, or names a set that this processor does not have.
    pub fn check() -> Result<Self> {
        CHOSEN.clone().map_err(Error::other)
    }

    /// The set of [`Instructions::check`]; the fastest of this processor if that is an error.
    #[inline]
    pub fn chosen() -> Self {
        CHOSEN.as_ref().copied().unwrap_or_else(|_| Self::fastest())
    }

    /// The smallest set that gives a run the same bytes: the baseline has no fused multiply-add, AVX2 and AVX-512 add
    /// in the same order, and bf16 products round differently on instructions of their own.
    pub fn least_alike(self, is_f32: bool) -> Self {
        match self {
            Instructions::Avx512 => Instructions::Avx2,
            Instructions::Avx512Bf16 if is_f32 => Instructions::Avx2,
            instructions => instructions,
        }
    }
}

/// Whether Intel made this processor.
// The oldest compiler that serves calls `__cpuid` unsafe.
#[allow(unsafe_code, unused_unsafe)]
fn is_intel() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        // The maker's name stands in three registers, in the order b, d, c. SAFETY: every processor of this target has
        // the instruction.
        let maker = unsafe { std::arch::x86_64::__cpuid(0) };
        [maker.ebx, maker.edx, maker.ecx].map(u32::to_le_bytes).as_flattened() == b"GenuineIntel"
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// The instantiation of vector code that [`Instructions::chosen`] runs.
#[inline]
pub fn arch() -> pulp::Arch {
    static ARCH: LazyLock<pulp::Arch> = LazyLock::new(|| {
        #[cfg(target_arch = "x86_64")]
        return match (Instructions::chosen(), pulp::x86::V3::try_new()) {
            (Instructions::Avx512 | Instructions::Avx512Bf16, _) => pulp::Arch::new(),
            (Instructions::Avx2, Some(v3)) => pulp::Arch::V3(v3),
            _ => pulp::Arch::Scalar,
        };
        #[cfg(not(target_arch = "x86_64"))]
        pulp::Arch::new()
    });
    *ARCH
}
