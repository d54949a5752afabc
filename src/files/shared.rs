//! Files and directories that any number of processes make for one another, such as those of a cache. What is being written
//! is locked, so that what killed processes have left is known for what it is.

use super::{RemoveOnDrop, parent, remove, sibling, swap};
use crate::{Error, Result};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::NamedTempFile;

/// A file that gets its name, replacing an older one, when it is complete. Any number of processes may write files of one name
/// at once: each writes its own, and the last to complete it is read. Dropped before it is complete, it leaves nothing
/// behind; what a killed process has left goes with the next file in its folder.
pub struct SharedFile(NamedTempFile);

impl SharedFile {
    /// Begins a file in `folder`, with at most the permissions `mode` of Unix; the user's umask takes some away.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn create(folder: &Path, mode: u32) -> io::Result<Self> {
        remove_abandoned_files(folder);
        let mut builder = tempfile::Builder::new();
        builder.prefix(".").suffix(PARTIAL);
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
        #[cfg(not(unix))]
        let _ = mode;
        loop {
            let file = builder.tempfile_in(folder)?;
            let is_taken = matches!(file.as_file().try_lock(), Err(TryLockError::WouldBlock));
            // Before it was locked, another process may have taken it for abandoned.
            if !is_taken && file.path().exists() {
                return Ok(SharedFile(file));
            }
        }
    }

    /// The file, to write it.
    pub fn as_file(&self) -> &File {
        self.0.as_file()
    }

    /// Gives the complete file its name.
    ///
    /// # Errors
    /// If it cannot be renamed; an older file is then unchanged.
    pub fn persist(self, path: &Path) -> io::Result<()> {
        self.0.persist(path).map(drop).map_err(|e| e.error)
    }
}

/// The name's end of files that are being written.
const PARTIAL: &str = ".partial";
/// Where files cannot be locked, those of this age are a dead process's.
const PARTIAL_MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// Removes what killed processes have left of [`SharedFile`]. Failing to do so is no reason to stop.
fn remove_abandoned_files(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().ends_with(PARTIAL) {
            continue;
        }
        // Some file systems lock only what is opened for writing.
        let Ok(file) = File::options().write(true).open(entry.path()) else { continue };
        let age = || file.metadata().and_then(|meta| meta.modified()).ok().and_then(|written| written.elapsed().ok());
        let is_abandoned = match file.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(_)) => age().is_some_and(|age| age > PARTIAL_MAX_AGE),
        };
        if is_abandoned {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Makes sure that `target` is a directory for which `is_whole` holds, by one that `fill` writes if need be. Any number of
/// processes may do so at once: each writes a directory of its own, the first gives it the name, the others use it. Nothing
/// is synced to the disk, since what a crash tears is not whole and is made again. What cannot be removed of a directory that
/// was replaced goes with the next call.
///
/// # Errors
/// Those of `fill`, and if the directory cannot be written.
pub fn share_directory(
    target: &Path,
    is_whole: impl Fn(&Path) -> bool,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    if is_whole(target) {
        // One that replaced another may have been killed before it had removed that. It does no harm.
        let _ = remove_abandoned(target);
        return Ok(());
    }
    let directory = parent(target);
    fs::create_dir_all(directory).map_err(|e| Error::io("create", directory, e))?;
    remove_abandoned(target)?;
    let (temp, _lock) = create_own_directory(target)?;
    let _guard = RemoveOnDrop(temp.clone());
    fill(&temp)?;
    let mut n_tries = 0;
    loop {
        n_tries += 1;
        // Where there is a directory that is not empty, nothing is renamed.
        let Err(e) = fs::rename(&temp, target) else { return Ok(()) };
        if is_whole(target) {
            return Ok(());
        }
        match swap(&temp, target) {
            // Another process has just renamed or removed it, or else the system refuses it for good.
            Err(_) if !target.exists() && n_tries < 100 => {}
            Ok(()) => return Ok(()),
            Err(_) => return Err(Error::io("create", target, e)),
        }
    }
}

/// The name's end of directories that processes make for [`share_directory`].
const OWN: &str = ".hbt-own";

/// An empty directory beside `target`, under a name that no other process uses, and its lock: it is in use as long as that
/// lives.
fn create_own_directory(target: &Path) -> Result<(PathBuf, Option<File>)> {
    // A name is used once: what was removed as abandoned and another thread's new directory would be taken for one.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let temp = sibling(target, &format!("{}-{number}{OWN}", std::process::id()))?;
        match fs::create_dir(&temp) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
            result => result.map_err(|e| Error::io("create", &temp, e))?,
        }
        // Only Unix can open a directory, and not every file system can lock it.
        let lock = File::open(&temp).ok();
        let is_taken = lock.as_ref().is_some_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)));
        // Before it was locked, another process may have taken it for abandoned.
        if !is_taken && temp.exists() {
            return Ok((temp, lock));
        }
    }
}

/// Removes what killed processes have left of [`share_directory`].
fn remove_abandoned(target: &Path) -> Result<()> {
    let Some(name) = target.file_name().and_then(|name| name.to_str()) else { return Ok(()) };
    let directory = parent(target);
    for entry in fs::read_dir(directory).map_err(|e| Error::io("read", directory, e))?.flatten() {
        let is_own =
            entry.file_name().to_str().is_some_and(|own| own.starts_with(&format!(".{name}.")) && own.ends_with(OWN));
        if is_own
            && let Ok(abandoned) = File::open(entry.path())
            && abandoned.try_lock().is_ok()
        {
            remove(&entry.path())?;
        }
    }
    Ok(())
}
