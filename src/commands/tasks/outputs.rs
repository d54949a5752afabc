//! The files that evaluations leave beside their result, and whether they can be written.

use super::planned::{Part, Planned};
use hbt::cli::EvalArgs;
use hbt::data::collection::DEFAULT_SUBSET;
use hbt::eval::mteb::rankings::Predictions;
use hbt::eval::vectors::file_names;
use hbt::files::NewFile;
use hbt::{Error, Result};
use std::path::{Path, PathBuf};

/// The folder of a part's embeddings below that of all: where one task in one split is all there is, they are the same.
pub fn place(tasks: &[Planned], task: &Planned, part: &Part) -> PathBuf {
    let [only] = tasks else { return Path::new(&task.name).join(&part.split) };
    let is_one = only.parts.iter().all(|other| other.split == part.split);
    if is_one { PathBuf::new() } else { Path::new(&task.name).join(&part.split) }
}

/// The TREC run of a part.
pub fn run(directory: &Path, task: &Planned, part: &Part) -> PathBuf {
    directory.join(&task.name).join(format!("{}.{}.trec", part.subset.name, part.split))
}

/// The predictions of a task.
pub fn predictions(directory: &Path, task: &Planned) -> PathBuf {
    directory.join(Predictions::file_name(&task.name))
}

/// Fails before any work where a file could not be written, or would replace one that is there without being asked to.
///
/// # Errors
/// The first of them, by its option.
pub fn check(args: &EvalArgs, tasks: &[Planned]) -> Result<()> {
    let directories = [
        ("--results", &args.results),
        ("--runs", &args.runs),
        ("--predictions", &args.predictions),
        ("--save-embeddings", &args.save_embeddings),
    ];
    for (option, directory) in directories {
        directory.as_deref().map_or(Ok(()), |directory| check_directory(option, directory))?;
    }
    if args.overwrite {
        return Ok(());
    }
    for task in tasks {
        if let Some(directory) = &args.predictions {
            refuse_file("--predictions", &predictions(directory, task))?;
        }
        for part in &task.parts {
            if let Some(directory) = &args.runs {
                refuse_file("--runs", &run(directory, task, part))?;
            }
            if let Some(directory) = &args.save_embeddings {
                let files = file_names(&directory.join(place(tasks, task, part)), &part.subset.name);
                files.iter().try_for_each(|file| refuse_file("--save-embeddings", file))?;
            }
        }
    }
    Ok(())
}

/// Fails unless files can be made in a directory, which need not be there.
fn check_directory(option: &str, directory: &Path) -> Result<()> {
    let mut there = directory.ancestors().filter(|path| path.symlink_metadata().is_ok());
    let nearest = there.next().unwrap_or(Path::new("."));
    if !nearest.is_dir() {
        let message = format!("{} is no directory; name another one", nearest.display());
        return Err(Error::config(option, message));
    }
    NewFile::check(&nearest.join(DEFAULT_SUBSET)).map_err(|error| Error::config(option, error.to_string()))
}

fn refuse_file(option: &str, path: &Path) -> Result<()> {
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    let message = format!("{} is there already; name another directory, or add --overwrite", path.display());
    Err(Error::config(option, message))
}
