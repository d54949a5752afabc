//! The training loss: InfoNCE over in-batch and hard negatives.

mod info_nce;

pub use info_nce::{InfoNce, LossReport};
