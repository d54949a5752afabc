//! Directories that any number of processes make for one another, such as those of a cache.

use super::{RemoveOnDrop, parent, remove, sibling, swap};
use crate::{Error, Result};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes sure that `target` is a directory for which `is_whole` holds, by one that `fill` writes if need be. Any number of
/// processes may do so at once: each writes a directory of its own, the first gives it the name, the others use it. Nothing
/// is synced to the disk, since what a crash tears is not whole and is made again.
///
/// # Errors
/// Those of `fill`, and if the directory cannot be written.
pub fn share_directory(
    target: &Path,
    is_whole: impl Fn(&Path) -> bool,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    if is_whole(target) {
        return Ok(());
    }
    let directory = parent(target);
    fs::create_dir_all(directory).map_err(|e| Error::io("create", directory, e))?;
    remove_abandoned(target)?;
    let (temp, _lock) = create_own_directory(target)?;
    let _guard = RemoveOnDrop(temp.clone());
    fill(&temp)?;
    loop {
        // Where there is a directory that is not empty, nothing is renamed.
        let Err(e) = fs::rename(&temp, target) else { return Ok(()) };
        if is_whole(target) {
            return Ok(());
        }
        match swap(&temp, target) {
            // Another process has just renamed or removed it.
            Err(_) if !target.exists() => {}
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
