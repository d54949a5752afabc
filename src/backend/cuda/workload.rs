//! What a run computes with, as far as its kernels depend on it: which files of kernels/ it needs, and which instances of
//! their templates. NVRTC takes seconds for all that a file holds, and a run needs a fraction of it.

use super::attention;

/// A run's shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Columns of an attention head.
    pub head_size: usize,
    /// The hidden size.
    pub width: usize,
    /// Whether there is a backward pass and an optimizer.
    pub trains: bool,
}

/// What is known of the kernels that a program will launch, before it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernels {
    /// Those of a run.
    Of(Workload),
    /// It may be any.
    All,
    /// It will be few, and no time is lost if they are compiled when they are used.
    AsUsed,
}

/// The instances that a file is compiled with, as definitions for the compiler; none means all.
pub(super) type Instances = Vec<String>;

impl Workload {
    /// Which instances a run in f32 or bf16 launches; kernels/common.cuh says what the names mean.
    pub(super) fn instances(&self, is_f32: bool) -> Instances {
        let bits = if is_f32 { 32 } else { 16 };
        let (head, width) = (self.head_size, self.width);
        [("TYPE", bits), ("HEAD", head), ("WIDTH", width)].map(|(name, value)| format!("-DHBT_{name}={value}")).into()
    }

    /// Whether such a run launches kernels of that file.
    pub(super) fn needs(&self, file: &str, is_f32: bool) -> bool {
        let tensor_cores = !is_f32 && attention::has_tensor_cores(self.head_size);
        match file {
            "attention_any" => !tensor_cores,
            "attention_forward" => tensor_cores,
            "attention_backward_long" => tensor_cores && self.trains,
            "adamw" | "adamw_rows" | "attention_backward" | "info_nce" => self.trains,
            // In f32 the loss writes its scores.
            "info_nce_exps" => self.trains && !is_f32,
            // Few runs have a teacher: it is compiled when it is used.
            "info_nce_taught" => false,
            _ => true,
        }
    }
}
