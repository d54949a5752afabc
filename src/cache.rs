//! Where hbt keeps what it can make again: tokens, the built-in model and data, compiled kernels.

use crate::{Error, Result};
use std::env;
use std::path::PathBuf;

/// `$HBT_CACHE`, else `$XDG_CACHE_HOME/hbt`, else `~/.cache/hbt`.
///
/// # Errors
/// None of the three is set.
pub fn cache_dir() -> Result<PathBuf> {
    let dir = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    dir("HBT_CACHE")
        .or_else(|| dir("XDG_CACHE_HOME").filter(|path| path.is_absolute()).map(|path| path.join("hbt")))
        .or_else(|| dir("HOME").map(|path| path.join(".cache").join("hbt")))
        .ok_or_else(|| Error::other("no directory for caches: set HBT_CACHE to one that can be written"))
}
