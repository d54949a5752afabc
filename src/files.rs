//! Writing files and directories so that a process killed at any instant loses nothing.
//!
//! New content is written beside its target under a temporary name (`.NAME.hbt-tmp`), synced to the disk, and then
//! takes the target's name in one step. The temporary name is fixed, so leftovers of a killed run are removed by the
//! next save. Only one process may write to a target at a time; a [file](NewFile) that another one is writing is
//! refused.

pub mod owned;
mod shared;

pub use shared::{SharedFile, share_directory};

use crate::{Error, Result};
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Replaces the file `path` by one that holds `bytes`: at every instant it is either the old or the new file.
///
/// # Errors
/// Those of [`NewFile`]; `path` is then unchanged.
pub fn write_file_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = NewFile::create(path)?;
    file.write_all(bytes).map_err(|e| Error::io("write", path, e))?;
    file.persist()
}

/// A file that gets its name, replacing an older one, when it is complete; for content that is written little by
/// little. A symbolic link stays: its target is replaced. Dropped before it is complete, it leaves nothing behind.
pub struct NewFile {
    file: io::BufWriter<File>,
    temp: RemoveOnDrop,
    target: PathBuf,
}

impl NewFile {
    /// Begins a file that will be `path`, with the permissions of an ordinary new file.
    ///
    /// # Errors
    /// If `path` is a directory, a pipe or a device, its folder does not exist or is not writable, or another process
    /// is writing the file.
    pub fn create(path: &Path) -> Result<Self> {
        let target = replaceable(path)?;
        let temp = sibling(&target, "hbt-tmp")?;
        // A file in use is locked; one that a killed process left is not.
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
        Ok(NewFile { file: io::BufWriter::with_capacity(1 << 20, file), temp: RemoveOnDrop::new(temp), target })
    }

    /// Fails if [`create`](Self::create) would, so that hours of work are not lost.
    ///
    /// # Errors
    /// Those of [`create`](Self::create).
    pub fn check(path: &Path) -> Result<()> {
        Self::create(path).map(drop)
    }

    /// Path of the file when it is complete.
    pub fn path(&self) -> &Path {
        &self.target
    }

    /// Gives the complete file its name.
    ///
    /// # Errors
    /// If the file cannot be completed, synced or renamed; the old file is then unchanged.
    pub fn persist(self) -> Result<()> {
        let NewFile { file, temp, target } = self;
        let failed = |e| Error::io("write", &target, e);
        let file = file.into_inner().map_err(|e| failed(e.into_error()))?;
        file.sync_all().map_err(failed)?;
        // The file is still locked.
        fs::rename(&temp.0, &target).map_err(failed)?;
        // From here on the temporary name is the next writer's.
        temp.forget();
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

/// The regular file that `path` is, or links to, or will be.
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
    // This loop ends: the system has followed these links already.
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
/// Where the system can exchange two names (Linux, macOS), `target` is at every instant the complete old or the
/// complete new directory. On other systems and some file systems, there is an instant between two renames when only
/// `.NAME.hbt-old` holds the old content; [`recover`] restores it.
///
/// # Errors
/// Those of `fill`, and if something cannot be written; `target` is then unchanged and the temporary one is gone. If the old
/// content cannot be removed, `target` is the new one.
pub fn replace_directory(target: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    recover(target)?;
    // A link to a directory stays a link: its target is replaced.
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
    // Removes the temporary directory after a failure.
    let _guard = RemoveOnDrop::new(temp.clone());
    remove(&temp)?;
    fs::create_dir(&temp).map_err(|e| Error::io("create", &temp, e))?;
    fill(&temp)?;
    sync_tree(&temp)?;
    swap(&temp, target)?;
    sync_directory(directory)?;
    remove(&temp)
}

/// Restores the directory if a run was killed between the two renames of [`replace_directory`]; does nothing otherwise.
/// Call it before looking for a directory that such a run has written.
///
/// # Errors
/// If the old directory cannot be renamed or removed.
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

/// Ends what a killed process left undone at `target`, a file or a directory: [recovers](recover) it, and removes what it
/// had not completed. Only where no other process may be writing it.
///
/// # Errors
/// If something cannot be renamed or removed.
pub fn tidy(target: &Path) -> Result<()> {
    recover(target)?;
    // What a link leads to was written beside its own place.
    let real = fs::canonicalize(target).unwrap_or_else(|_| target.to_owned());
    recover(&real)?;
    sibling(&real, "hbt-tmp").map_or(Ok(()), |temp| remove(&temp))
}

/// Creates `path` and hands `write` a buffered writer to it.
///
/// # Errors
/// If the file cannot be created or written.
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
    // The new name has to be on the disk before the old content is removed.
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

/// Removes a file, or a directory with its contents, if it exists.
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
        match path {
            // Its own name is the directory's to sync, and what it leads to is not ours.
            link if link.is_symlink() => {}
            folder if folder.is_dir() => sync_tree(&folder)?,
            file => sync(&file)?,
        }
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

/// Temporary files and directories of this process.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn unfinished() -> MutexGuard<'static, Vec<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes what is being written, for a process that is about to end without completing it.
pub fn remove_unfinished() {
    // The next save removes what another thread still adds to.
    unfinished().iter().for_each(|path| _ = remove(path));
}

/// Removes a temporary file or directory when a save ends, with or without success.
struct RemoveOnDrop(PathBuf);

impl RemoveOnDrop {
    fn new(path: PathBuf) -> Self {
        unfinished().push(path.clone());
        RemoveOnDrop(path)
    }

    /// Leaves alone what has its own name now.
    fn forget(mut self) {
        self.done();
        self.0.clear();
    }

    fn done(&self) {
        let mut all = unfinished();
        if let Some(at) = all.iter().position(|path| *path == self.0) {
            all.swap_remove(at);
        }
    }
}

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        if self.0.as_os_str().is_empty() {
            return;
        }
        // Leftovers are removed by the next save, which reports a failure.
        let _ = remove(&self.0);
        self.done();
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
