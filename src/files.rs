//! Writing files and directories so that losing the process at any instant loses nothing.
//!
//! New content is written beside its target under a temporary name (`.NAME.hbt-tmp`), synced to the disk, and then
//! takes the target's name in one step. The name is fixed, so whatever a killed run left is removed by the next save.
//! One process may write to a target at a time; a [file](NewFile) that another one is writing is refused.

use crate::{Error, Result};
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Replaces the file `path` by one that holds `bytes`: at every instant it is either the old or the new file.
///
/// # Errors
/// As [`NewFile`]; `path` is then as it was.
pub fn write_file_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = NewFile::create(path)?;
    file.write_all(bytes).map_err(|e| Error::io("write", path, e))?;
    file.persist()
}

/// A file that gets its name, and replaces one that had it, when it is complete; for content that is written little by
/// little. A link stays a link: what it leads to is replaced. Dropped before it is complete, it leaves nothing behind.
pub struct NewFile {
    file: io::BufWriter<File>,
    temp: RemoveOnDrop,
    target: PathBuf,
}

impl NewFile {
    /// Begins a file that will be `path`, with the permissions of an ordinary new file.
    ///
    /// # Errors
    /// When `path` is a directory, a pipe or a device, its folder is not there or takes no file, or another process is
    /// writing to it.
    pub fn create(path: &Path) -> Result<Self> {
        let target = replaceable(path)?;
        let temp = sibling(&target, "hbt-tmp")?;
        // A file that is written is locked; one that a killed process left is not.
        let is_in_use = |file: &File| matches!(file.try_lock(), Err(TryLockError::WouldBlock));
        let in_use = || Err(Error::file(path, "is being written by another process; wait for it or name another file"));
        if File::open(&temp).is_ok_and(|left| is_in_use(&left)) {
            return in_use();
        }
        remove(&temp)?;
        let file = File::create_new(&temp).map_err(|e| Error::io("create", path, e))?;
        if is_in_use(&file) {
            return in_use();
        }
        Ok(NewFile { file: io::BufWriter::with_capacity(1 << 20, file), temp: RemoveOnDrop(temp), target })
    }

    /// Fails where [`create`](Self::create) does, so that hours of work do not end there.
    ///
    /// # Errors
    /// See there.
    pub fn check(path: &Path) -> Result<()> {
        Self::create(path).map(drop)
    }

    /// What will have been written.
    pub fn path(&self) -> &Path {
        &self.target
    }

    /// Gives the complete file its name.
    ///
    /// # Errors
    /// When the file cannot be completed, synced or renamed; the old file is then untouched.
    pub fn persist(self) -> Result<()> {
        let NewFile { file, mut temp, target } = self;
        let failed = |e| Error::io("write", &target, e);
        let file = file.into_inner().map_err(|e| failed(e.into_error()))?;
        file.sync_all().map_err(failed)?;
        // Still locked.
        fs::rename(&temp.0, &target).map_err(failed)?;
        // The name is the next writer's.
        temp.0.clear();
        sync_directory(parent(&target))
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for NewFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// The file that `path` is or leads to, or will be.
fn replaceable(path: &Path) -> Result<PathBuf> {
    if path == Path::new("-") {
        return Err(Error::file(path, "does not mean standard output here; name a file, ./- for one of this name"));
    }
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => return Err(Error::file(path, "is a directory; name a file in it")),
        Ok(meta) if !meta.is_file() => {
            let message =
                "is a pipe or device, and only files are replaced; name a file, or - where that means standard output";
            return Err(Error::file(path, message));
        }
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io("create", path, e)),
        _ => {}
    }
    // Ends: the system has followed these links.
    let mut target = path.to_owned();
    while let Ok(to) = fs::read_link(&target) {
        target = parent(&target).join(to);
    }
    let folder = parent(&target);
    if !folder.is_dir() {
        return Err(Error::file(path, format!("there is no directory {}; create it first", folder.display())));
    }
    Ok(target)
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
    let _guard = RemoveOnDrop(temp.clone());
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
struct RemoveOnDrop(PathBuf);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next save, which reports it if it still cannot.
        let _ = remove(&self.0);
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
