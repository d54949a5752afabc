//! Writing files and directories so that losing the process at any instant loses nothing.
//!
//! New content is written beside its target under a temporary name (`.NAME.hbt-tmp`), synced to the disk, and then
//! takes the target's name in one step. The name is fixed, so whatever a killed run left is removed by the next save.
//! One process may write to a target at a time.

use crate::{Error, Result};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Replaces the file `path` by one that holds `bytes`: at every instant it is either the old or the new file.
///
/// # Errors
/// When the file cannot be written; `path` is then as it was.
pub fn write_file_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let temp = sibling(path, "hbt-tmp")?;
    let _guard = RemoveOnDrop(&temp);
    remove(&temp)?;
    write_file(&temp, |file| file.write_all(bytes))?;
    sync(&temp)?;
    fs::rename(&temp, path).map_err(|e| Error::io("write", path, e))?;
    sync_directory(parent(path))
}

/// Replaces the directory `target` by one that `fill` writes into the empty directory it is given.
///
/// Where the system can exchange two names (Linux, macOS), `target` is at every instant the complete old or the complete
/// new directory. Elsewhere, and on file systems that cannot, there is an instant between two renames when only
/// `.NAME.hbt-old` holds the old content: [`recover`] puts it back.
///
/// # Errors
/// Those of `fill`, and when something cannot be written; `target` is then as it was and the temporary one is gone.
pub fn replace_directory(target: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    recover(target)?;
    // A link to a directory stays a link: its target is what gets replaced.
    let target = &fs::canonicalize(target).unwrap_or_else(|_| target.to_owned());
    if target.exists() && !target.is_dir() {
        return Err(Error::file(
            target,
            "is a file where a directory has to be written; remove it or choose another name",
        ));
    }
    let directory = parent(target);
    fs::create_dir_all(directory).map_err(|e| Error::io("create", directory, e))?;
    let temp = sibling(target, "hbt-tmp")?;
    // Runs after a failure, and after an exchange, when the old content has this name.
    let _guard = RemoveOnDrop(&temp);
    remove(&temp)?;
    fs::create_dir(&temp).map_err(|e| Error::io("create", &temp, e))?;
    fill(&temp)?;
    sync_tree(&temp)?;
    swap(&temp, target)?;
    sync_directory(directory)
}

/// Puts back what a run killed in the middle of [`replace_directory`]'s two renames left; does nothing otherwise.
/// Call it before looking for a directory that such a run has written.
///
/// # Errors
/// When the old directory cannot be renamed or removed.
pub fn recover(target: &Path) -> Result<()> {
    // A target without a name of its own (`/`, `..`) has never been written.
    let Ok(old) = sibling(target, "hbt-old") else { return Ok(()) };
    if !old.exists() {
        return Ok(());
    }
    if target.exists() {
        return remove(&old);
    }
    fs::rename(&old, target).map_err(|e| Error::io("recover", target, e))?;
    sync_directory(parent(target))
}

/// Creates `path` and hands `write` a buffered writer to it.
///
/// # Errors
/// When the file cannot be created or written.
pub fn write_file(path: &Path, write: impl FnOnce(&mut io::BufWriter<File>) -> io::Result<()>) -> Result<()> {
    let run = || {
        let mut file = io::BufWriter::with_capacity(1 << 20, File::create(path)?);
        write(&mut file)?;
        file.flush()
    };
    run().map_err(|e| Error::io("write", path, e))
}

/// A temporary file beside `path`, with the permissions of an ordinary new file instead of the owner's only, for content
/// that is written little by little and then persisted as `path`. Dropped before, it leaves nothing behind.
///
/// # Errors
/// When the folder of `path` is not there or takes no file.
pub fn temporary_beside(path: &Path) -> Result<NamedTempFile> {
    let create = |path: &Path| File::options().write(true).create_new(true).open(path);
    let mut builder = tempfile::Builder::new();
    let file = builder.prefix(".hbt-").suffix(".part").make_in(parent(path), create);
    file.map_err(|e| Error::io("create", path, e))
}

/// Gives a [temporary file](temporary_beside) that is complete the name `path`, replacing a file that had it.
///
/// # Errors
/// When the file cannot be completed, synced or renamed; the old file is then untouched.
pub fn persist(file: io::BufWriter<NamedTempFile>, path: &Path) -> Result<()> {
    let failed = |e| Error::io("write", path, e);
    let file = file.into_inner().map_err(|e| failed(e.into_error()))?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}

/// Gives the complete directory `temp` the name `target`; the old one, if any, is then `temp` or gone.
fn swap(temp: &Path, target: &Path) -> Result<()> {
    if !target.exists() {
        return fs::rename(temp, target).map_err(|e| Error::io("create", target, e));
    }
    match exchange(temp, target) {
        Ok(()) => Ok(()),
        Err(e) if cannot_exchange(&e) => swap_in_two_steps(temp, target),
        Err(e) => Err(Error::io("replace", target, e)),
    }
}

fn swap_in_two_steps(temp: &Path, target: &Path) -> Result<()> {
    let old = sibling(target, "hbt-old")?;
    fs::rename(target, &old).map_err(|e| Error::io("replace", target, e))?;
    if let Err(e) = fs::rename(temp, target) {
        recover(target)?;
        return Err(Error::io("replace", target, e));
    }
    // Before the old content goes, the new name has to be on the disk.
    sync_directory(parent(target))?;
    remove(&old)
}

#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?)
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn exchange(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether `exchange` failed because this system or file system does not know it.
fn cannot_exchange(e: &io::Error) -> bool {
    use io::ErrorKind::{CrossesDevices, InvalidInput, Unsupported};
    matches!(e.kind(), CrossesDevices | InvalidInput | Unsupported)
}

/// `.NAME.SUFFIX` beside `path`.
fn sibling(path: &Path, suffix: &str) -> Result<PathBuf> {
    let name =
        path.file_name().ok_or_else(|| Error::file(path, "has no name of its own to write to; name a directory"))?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(".");
    hidden.push(suffix);
    Ok(path.with_file_name(hidden))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Removes a file or a directory with all it holds, if it is there.
fn remove(path: &Path) -> Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match result {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}

fn sync_tree(directory: &Path) -> Result<()> {
    let entries = fs::read_dir(directory).map_err(|e| Error::io("read", directory, e))?;
    for entry in entries {
        let path = entry.map_err(|e| Error::io("read", directory, e))?.path();
        if path.is_dir() { sync_tree(&path)? } else { sync(&path)? }
    }
    sync_directory(directory)
}

fn sync(file: &Path) -> Result<()> {
    File::open(file).and_then(|f| f.sync_all()).map_err(|e| Error::io("sync", file, e))
}

/// Makes the names in a directory durable. Only Unix can open a directory to sync it.
fn sync_directory(directory: &Path) -> Result<()> {
    if cfg!(unix) { sync(directory) } else { Ok(()) }
}

/// Removes a temporary file or directory when a save ends, well or not.
struct RemoveOnDrop<'a>(&'a Path);

impl Drop for RemoveOnDrop<'_> {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next save, which reports it if it still cannot.
        let _ = remove(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn two_steps_replace_as_well_and_leave_nothing() {
        let root = tempfile::tempdir().unwrap();
        let (temp, target) = (root.path().join(".model.hbt-tmp"), root.path().join("model"));
        for (directory, text) in [(&temp, "new"), (&target, "old")] {
            fs::create_dir(directory).unwrap();
            fs::write(directory.join("a"), text).unwrap();
        }
        swap_in_two_steps(&temp, &target).unwrap();
        assert_eq!(fs::read_to_string(target.join("a")).unwrap(), "new");
        assert_eq!(names(root.path()), ["model"]);
    }

    #[test]
    fn a_kill_between_the_two_steps_is_recovered() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("model");
        fs::create_dir(root.path().join(".model.hbt-old")).unwrap();
        fs::write(root.path().join(".model.hbt-old/a"), "old").unwrap();
        recover(&target).unwrap();
        assert_eq!(fs::read_to_string(target.join("a")).unwrap(), "old");
        assert_eq!(names(root.path()), ["model"]);
    }

    #[test]
    fn a_kill_after_the_two_steps_leaves_the_new_content() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("model");
        for (name, text) in [(".model.hbt-old", "old"), ("model", "new")] {
            fs::create_dir(root.path().join(name)).unwrap();
            fs::write(root.path().join(name).join("a"), text).unwrap();
        }
        recover(&target).unwrap();
        assert_eq!(fs::read_to_string(target.join("a")).unwrap(), "new");
        assert_eq!(names(root.path()), ["model"]);
    }
}
