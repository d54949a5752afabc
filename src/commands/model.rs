//! The configured model.

use hbt::backend::cuda::{Kernels, Workload};
use hbt::cache::cache_dir;
use hbt::config::Config;
use hbt::model_dir::{ModelDir, hub};
use hbt::{Result, embedded};

/// As a directory on this machine.
pub fn model_dir(config: &Config) -> Result<ModelDir> {
    ModelDir::open(match &config.model {
        Some(model) => hub::resolve(model)?,
        None => embedded::model(&cache_dir()?)?,
    })
}

/// What reports call it.
pub fn model_name(config: &Config) -> String {
    config.model.clone().unwrap_or_else(|| "built-in".to_owned())
}

/// The kernels that a model takes on a GPU.
pub fn kernels_of(dir: &ModelDir, trains: bool) -> Kernels {
    Kernels::Of(Workload { head_size: dir.config.head_size(), width: dir.config.hidden_size, trains })
}
