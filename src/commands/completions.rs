//! `hbt completions`

use std::fs;

use clap::CommandFactory;
use hbt::cli::{Cli, CompletionsArgs};
use hbt::{Error, Result};

/// Prints what makes a shell complete hbt's options, or writes the manual pages.
pub fn run(args: CompletionsArgs) -> Result<()> {
    let mut command = Cli::command();
    if let Some(dir) = args.man {
        fs::create_dir_all(&dir).map_err(|e| Error::io("create", &dir, e))?;
        return clap_mangen::generate_to(command, &dir).map_err(|e| Error::io("write", &dir, e));
    }
    let shell = args.shell.ok_or_else(|| Error::usage("name a shell, or a directory with --man"))?;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "hbt", &mut script);
    crate::print(&String::from_utf8_lossy(&script))
}
