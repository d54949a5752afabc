//! Checkpoints besides the last, and weights that two directories of a run have in common.
//!
//! Both are hard links where the file system has them, else copies. A save never writes into a file that is there: it makes a
//! new one, which takes the name, so that no link follows it.

use super::checkpoint::RunDir;
use crate::files::owned::{Manifest, refuse_foreign_directory};
use crate::files::{replace_directory, tidy};
use crate::progress::say;
use crate::{Error, Result};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

const PREFIX: &str = "step-";

impl RunDir {
    /// Path of the checkpoints that were kept.
    pub fn checkpoints(&self) -> PathBuf {
        self.path().join("checkpoints")
    }

    /// The checkpoints that were kept, with their steps, ascending.
    ///
    /// # Errors
    /// If the directory is there and cannot be read.
    pub fn kept(&self) -> Result<Vec<(u64, PathBuf)>> {
        let directory = self.checkpoints();
        let mut kept = Vec::new();
        for name in names(&directory)? {
            if let Some(step) = name.strip_prefix(PREFIX).and_then(|step| step.parse().ok()) {
                kept.push((step, directory.join(name)));
            }
        }
        kept.sort();
        Ok(kept)
    }

    /// Fails unless the checkpoints that are there are hbt's, and of a run that `is_resumed`.
    pub(super) fn refuse_foreign_checkpoints(&self, is_resumed: bool) -> Result<()> {
        let kept = self.kept()?;
        kept.iter().try_for_each(|(_, path)| refuse_foreign_directory(path))?;
        if !kept.is_empty() && !is_resumed {
            let message = "holds checkpoints of an earlier run; move them away, or choose another directory with --out";
            return Err(Error::file(self.checkpoints(), message));
        }
        Ok(())
    }

    /// Removes what a killed process has left of a checkpoint.
    pub(super) fn tidy_checkpoints(&self) -> Result<()> {
        let directory = self.checkpoints();
        for name in names(&directory)? {
            let target = name.strip_prefix('.').and_then(|name| name.rsplit_once(".hbt-"));
            if let Some((target, _)) = target.filter(|(target, _)| target.starts_with(PREFIX)) {
                tidy(&directory.join(target))?;
            }
        }
        Ok(())
    }

    /// Keeps what `last/` holds, of the step `step`, as a checkpoint.
    pub(super) fn keep_last(&self, step: u64) -> Result<()> {
        let target = self.checkpoints().join(format!("{PREFIX}{step:06}"));
        refuse_foreign_directory(&target)?;
        let last = self.last();
        replace_directory(&target, |new| link_all(&last, new))
    }

    /// Removes all kept checkpoints but the latest `n`, and those in which others keep files.
    pub(super) fn remove_oldest(&self, n: usize) -> Result<()> {
        let kept = self.kept()?;
        for (_, path) in &kept[..kept.len().saturating_sub(n)] {
            match Manifest::read(path)?.map(|manifest| manifest.others()).transpose()? {
                Some(others) if others.is_empty() => {
                    fs::remove_dir_all(path).map_err(|e| Error::io("remove", path, e))?;
                }
                Some(others) => {
                    say(&format!("{} stays: {} is not hbt's", path.display(), path.join(&others[0]).display()));
                }
                None => {}
            }
        }
        Ok(())
    }
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("read", directory, e)),
    };
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

/// Gives all files below `old` a second name below `new`, or copies them.
fn link_all(old: &Path, new: &Path) -> Result<()> {
    for name in names(old)? {
        let (from, to) = (old.join(&name), new.join(&name));
        if from.is_dir() {
            fs::create_dir(&to).map_err(|e| Error::io("create", &to, e))?;
            link_all(&from, &to)?;
        } else {
            let linked = fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(drop));
            linked.map_err(|e| Error::io("copy", &from, e))?;
        }
    }
    Ok(())
}

/// Files of weights in a model directory.
const WEIGHTS: [&str; 2] = ["model.safetensors", "2_Dense/model.safetensors"];

/// Makes the weights in `new`, a directory that is being written, links to those in `old` where they are equal, byte by
/// byte. Where the file system has no links, both stay.
pub(super) fn share_weights(new: &Path, old: &Path) {
    for name in WEIGHTS {
        let (new, old) = (new.join(name), old.join(name));
        let link = new.with_extension("hbt-link");
        // A symbolic link of others' leads who knows where.
        let is_file = fs::symlink_metadata(&old).is_ok_and(|found| found.is_file());
        let is_linked = is_file && is_equal(&new, &old).unwrap_or(false) && fs::hard_link(&old, &link).is_ok();
        if is_linked && fs::rename(&link, &new).is_err() {
            let _ = fs::remove_file(&link);
        }
    }
}

fn is_equal(a: &Path, b: &Path) -> io::Result<bool> {
    let (mut a, mut b) = (File::open(a)?, File::open(b)?);
    let n_bytes = a.metadata()?.len();
    if n_bytes != b.metadata()?.len() {
        return Ok(false);
    }
    let (mut of_a, mut of_b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut left = n_bytes;
    while left > 0 {
        let n = left.min(of_a.len() as u64) as usize;
        a.read_exact(&mut of_a[..n])?;
        b.read_exact(&mut of_b[..n])?;
        if of_a[..n] != of_b[..n] {
            return Ok(false);
        }
        left -= n as u64;
    }
    Ok(true)
}
