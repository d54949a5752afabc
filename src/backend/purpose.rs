//! What memory is asked for, so that the error that there is none left can name it and what to lower.

use std::cell::Cell;

/// A part of what a run holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// The model.
    Weights,
    /// Master weights and moments.
    Optimizer,
    /// Gradients of the parameters.
    Gradients,
    /// What a chunk keeps on its way through the model.
    Activations,
    /// Embeddings of a batch, and their gradients.
    Cache,
    /// Rows of scores.
    Loss,
    /// The integers of batches.
    Batches,
    /// Anything else.
    #[default]
    Other,
}

thread_local! {
    static PURPOSE: Cell<Purpose> = const { Cell::new(Purpose::Other) };
}

impl Purpose {
    /// Runs `work`; memory that it asks for on this thread is for this purpose, unless it says otherwise itself.
    pub fn during<T>(self, work: impl FnOnce() -> T) -> T {
        /// Also when `work` panics.
        struct Restore(Purpose);
        impl Drop for Restore {
            fn drop(&mut self) {
                PURPOSE.set(self.0);
            }
        }
        let _restore = Restore(PURPOSE.replace(self));
        work()
    }

    /// What memory that is asked for on this thread is for at present.
    pub(super) fn current() -> Self {
        PURPOSE.get()
    }

    /// The error that `bytes` are not to be had; `state` says how much there is, or is empty.
    pub(super) fn refused(bytes: usize, state: &str) -> crate::Error {
        let (what, remedy) = match PURPOSE.get() {
            Purpose::Weights => ("the model's weights", "take a smaller model, or precision = \"bf16\""),
            Purpose::Optimizer => ("the optimizer's state", "take a smaller model"),
            Purpose::Gradients => ("the gradients", "take a smaller model"),
            Purpose::Activations => ("the activations of a chunk", "lower chunk_tokens"),
            Purpose::Cache => ("the embeddings of a batch", "lower batch_size or negatives_per_query"),
            Purpose::Loss => ("the scores of a batch", "lower batch_size or negatives_per_query"),
            Purpose::Batches => ("the tokens of batches", "lower batch_size"),
            Purpose::Other => ("a buffer", "lower chunk_tokens or batch_size"),
        };
        let mib = bytes.div_ceil(1 << 20);
        crate::Error::other(format!("out of memory: {mib} MiB for {what} are not to be had{state}; {remedy}"))
    }
}
