//! Keys that hold one of a few words.

pub use crate::backend::Pooling;
pub use crate::choices::Auto;
pub use crate::data::formats::{DataFormat, PassageUnit, Split};
pub use crate::data::sampler::{BatchMode, DatasetBatches, DatasetSampling, LangSampling};
pub use crate::eval::FigureKey;
pub use crate::eval::tasks::Task;
pub use crate::train::schedule::LrSchedule;

/// A number, or the one that suits the machine: the plan of a run finds it before the run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// As the plan finds it.
    Auto,
    /// This one.
    Of(usize),
}

impl Amount {
    /// The number, where it is one.
    pub fn or(self, otherwise: usize) -> usize {
        match self {
            Amount::Auto => otherwise,
            Amount::Of(number) => number,
        }
    }
}

impl From<usize> for Amount {
    fn from(number: usize) -> Self {
        Amount::Of(number)
    }
}

crate::choices::choices! {
    /// Where the encoder runs.
    Device {
        /// The first CUDA GPU if hbt can compute on it, else the CPU.
        Auto = "auto",
        /// The CPU.
        Cpu = "cpu",
        /// The first CUDA GPU.
        Cuda = "cuda",
    }

    /// Number type of activations and of the weights' working copy.
    Precision {
        /// The fastest on the device: `bf16` on a GPU and where the processor has instructions for it, else `f32`.
        Auto = "auto",
        /// 32-bit floats.
        F32 = "f32",
        /// 16-bit brain floats.
        Bf16 = "bf16",
    }
}
