//! `hbt config`

use super::setup::{warned, with_presets};
use hbt::Result;
use hbt::cli::RunArgs;

/// Prints the configuration that was typed as a file to start from.
pub fn run(args: RunArgs) -> Result<()> {
    let draft = args.draft()?;
    let general = draft.clone().finish()?;
    let config = warned(with_presets(draft.clone())?.finish()?);
    crate::print(&config.to_start_from(|key| draft.is_given(key.name), &general))
}
