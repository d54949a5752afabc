//! The contrastive loss.

mod info_nce;
mod pass;
mod report;
mod temperature;

pub use info_nce::{InfoNce, LossConfig};
pub use report::LossReport;
pub use temperature::LearnedTemperature;
