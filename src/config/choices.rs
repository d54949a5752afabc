//! Types of keys that hold one of a few words.

pub use crate::backend::{Distillation, Pooling, Precision};
pub use crate::choices::{Auto, nearest};
pub use crate::data::formats::{DataFormat, PassageUnit, Split};
pub use crate::data::sampler::{BatchMode, DatasetBatches, DatasetSampling, LangSampling};
pub use crate::eval::FigureKey;
pub use crate::eval::tasks::Task;
pub use crate::train::schedule::LrSchedule;

crate::choices::choices! {
    /// Where the encoder runs.
    Device {
        /// The CPU.
        Cpu = "cpu",
        /// The first CUDA GPU.
        Cuda = "cuda",
    }
}
