//! `hbt completions`

use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use hbt::cli::{Cli, CompletionsArgs};
use hbt::files::write_file_atomic;
use hbt::{Error, Result};

/// Prints what makes a shell complete hbt's options, or writes the manual pages.
pub fn run(args: CompletionsArgs) -> Result<()> {
    let mut command = Cli::command();
    if let Some(dir) = args.man {
        fs::create_dir_all(&dir).map_err(|e| Error::io("create", &dir, e))?;
        refuse_foreign(&command, &dir)?;
        // As clap_mangen::generate_to does, but no page is there in part.
        command = command.disable_help_subcommand(true);
        command.build();
        return write_pages(&command, &dir);
    }
    let shell = args.shell.ok_or_else(|| Error::usage("name a shell, or a directory with --man"))?;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "hbt", &mut script);
    crate::print(&String::from_utf8_lossy(&script))
}

/// The page of a command, and of all below it.
fn write_pages(command: &Command, dir: &Path) -> Result<()> {
    command.get_subcommands().filter(|below| !below.is_hide_set()).try_for_each(|below| write_pages(below, dir))?;
    let man = Man::new(command.clone());
    let (path, mut page) = (dir.join(man.get_filename()), Vec::new());
    man.render(&mut page).map_err(|e| Error::io("write", &path, e))?;
    write_file_atomic(&path, &page)
}

/// Fails if a page would replace a file that is no page of hbt's.
fn refuse_foreign(command: &Command, dir: &Path) -> Result<()> {
    let pages = command.get_subcommands().map(|of| format!("hbt-{}.1", of.get_name())).chain(["hbt.1".to_owned()]);
    for path in pages.map(|page| dir.join(page)) {
        let is_own = |page: Vec<u8>| page.windows(MARK.len()).any(|part| part == MARK);
        if path.exists() && !fs::read(&path).is_ok_and(is_own) {
            return Err(Error::file(path, "is there already, and is no page of hbt's; name another directory"));
        }
    }
    Ok(())
}

/// The title in each page.
const MARK: &[u8] = b".TH hbt";
