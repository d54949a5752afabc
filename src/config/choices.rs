//! Types of keys that hold one of a few words.

pub use crate::backend::{Pooling, Precision};
pub use crate::choices::Auto;
pub use crate::data::formats::{DataFormat, PassageUnit, Split};
pub use crate::data::sampler::{BatchMode, DatasetBatches, DatasetSampling, LangSampling};
pub use crate::eval::Metric;
pub use crate::train::schedule::LrSchedule;

crate::choices::choices! {
    /// Where the encoder runs.
    Device {
        /// The CPU.
        Cpu = "cpu",
        /// The first CUDA GPU.
        Cuda = "cuda",
    }

    /// The benchmark that `hbt train` and `hbt eval` run.
    EvalTask {
        /// `xquad-r` for SQuAD-layout data, `parallel` for parallel JSON Lines.
        Auto = "auto",
        /// Sentence retrieval over SQuAD-layout files, as LAReQA defines it.
        XquadR = "xquad-r",
        /// The same three settings over parallel JSON Lines.
        Parallel = "parallel",
        /// No evaluation.
        None = "none",
    }
}
