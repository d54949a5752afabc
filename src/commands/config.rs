//! `hbt config`

use std::path::Path;

use super::setup::{warned, with_presets};
use hbt::Result;
use hbt::cli::ConfigCommandArgs;
use hbt::config::{Config, KEYS};

/// Prints the configuration that was typed as a file to start from, or how it differs from another.
pub fn run(args: ConfigCommandArgs) -> Result<()> {
    let draft = args.run.draft()?;
    let general = draft.clone().finish()?;
    let config = warned(with_presets(draft.clone())?.finish()?);
    match args.diff {
        Some(path) => crate::print(&differences(&config, &path)?),
        None => crate::print(&config.to_start_from(|key| draft.is_given(key.name), &general)),
    }
}

/// Every key whose value in the run at `path`, or in that file, is another, with both values.
fn differences(config: &Config, path: &Path) -> Result<String> {
    let file = if path.is_dir() { path.join(Config::FILE_NAME) } else { path.to_owned() };
    let other = Config::load(&file)?;
    let mut text = String::new();
    for key in KEYS {
        let (here, there) = (key.value_of(config), key.value_of(&other));
        if here != there {
            text += &format!("{} = {here}  # {there} in {}\n", key.name, file.display());
        }
    }
    Ok(text)
}
