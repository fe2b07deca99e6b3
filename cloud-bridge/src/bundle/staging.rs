//! A folder that appears whole or not at all: made beside its target, then renamed.
//!
//! Decides when a target is free, and removes what somebody left behind who was killed. Knows nothing of what is put
//! inside.

use crate::fault::Fault;
use anyhow::Context;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// How the name of a folder begins that is not whole yet.
const UNFINISHED: &str = ".petrel-unfinished-";
/// Younger ones are left alone: their maker may not have locked them yet.
const YOUNG: Duration = Duration::from_secs(60);

/// A folder that is not there yet for anybody else; dropped without [`Staging::commit`] it is gone.
#[derive(Debug)]
pub(crate) struct Staging {
    dir: TempDir,
    target: PathBuf,
    /// The folder itself, locked for as long as somebody works in it; the lock goes with the process.
    _lock: File,
}

impl Staging {
    /// A place beside `target`, which must not exist or be an empty folder.
    ///
    /// # Errors
    /// When `target` is taken, or nothing can be written beside it.
    pub(crate) fn beside(target: &Path) -> anyhow::Result<Self> {
        let cannot = |why: io::Error| {
            let what = format!("cannot make {}", target.display());
            Fault::new(what).because(why).remedy("choose another folder, in one that you may write")
        };
        let target = std::path::absolute(target).map_err(cannot)?;
        let free = match target.symlink_metadata() {
            Ok(found) if found.is_dir() => fs::read_dir(&target).map_err(cannot)?.next().is_none(),
            Ok(_) => false,
            Err(_) => true,
        };
        if !free {
            let fault = Fault::new(format!("{} is there already", target.display()))
                .because("nothing is written over")
                .remedy("choose another folder, or remove this one first");
            return Err(fault.into());
        }
        let parent = target.parent().unwrap_or(&target);
        fs::create_dir_all(parent).map_err(cannot)?;
        sweep(parent);
        let mut builder = tempfile::Builder::new();
        let dir = builder.prefix(UNFINISHED).permissions(Permissions::from_mode(0o755)).tempdir_in(parent);
        let dir = dir.map_err(cannot)?;
        let lock = File::open(dir.path()).map_err(cannot)?;
        // Where there are no locks nothing is swept either.
        let _ = flock(&lock, FlockOperation::NonBlockingLockExclusive);
        Ok(Self { dir, target, _lock: lock })
    }

    /// Where to write meanwhile.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Makes a folder inside.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn folder(&self, name: &str) -> anyhow::Result<()> {
        let path = self.path().join(name);
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))
    }

    /// Renames the folder to its target, once it is on the disk.
    ///
    /// # Errors
    /// When somebody took the target meanwhile; then nothing is left behind.
    pub(crate) fn commit(self) -> anyhow::Result<()> {
        let cannot = || format!("cannot make {}", self.target.display());
        let sync = |dir: &Path| File::open(dir).and_then(|dir| dir.sync_all());
        sync(self.path()).with_context(cannot)?;
        fs::rename(self.path(), &self.target).with_context(cannot)?;
        if let Some(parent) = self.target.parent() {
            sync(parent).with_context(cannot)?;
        }
        // Its old name is gone: there is nothing to remove.
        let _ = self.dir.keep();
        Ok(())
    }
}

/// Removes the folders of those who were killed at work. What cannot be looked at or removed is not ours.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let named = entry.file_name().to_str().is_some_and(|name| name.starts_with(UNFINISHED));
        let old = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
        if !named || !entry.file_type().is_ok_and(|kind| kind.is_dir()) || old().is_none_or(|age| age < YOUNG) {
            continue;
        }
        let free = |dir: &File| flock(dir, FlockOperation::NonBlockingLockExclusive).is_ok();
        if File::open(entry.path()).is_ok_and(|dir| free(&dir)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_folder_appears_whole() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("new/bundle");
        let staging = Staging::beside(&target).unwrap();
        fs::write(staging.path().join("a"), "1").unwrap();
        assert!(!target.exists());
        staging.commit().unwrap();
        assert_eq!(names(&target), ["a"]);
        assert_eq!(names(target.parent().unwrap()), ["bundle"]);
    }

    #[test]
    fn what_is_not_committed_leaves_nothing() {
        let parent = tempfile::tempdir().unwrap();
        drop(Staging::beside(&parent.path().join("bundle")).unwrap());
        assert_eq!(names(parent.path()).len(), 0);
    }

    #[test]
    fn what_a_killed_one_left_is_swept_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let age = |name: &str| {
            let path = parent.path().join(name);
            fs::create_dir_all(path.join("within")).unwrap();
            let dir = File::open(path).unwrap();
            dir.set_modified(std::time::SystemTime::now() - 2 * YOUNG).unwrap();
            dir
        };
        age(".petrel-unfinished-left");
        age(".petrel-other");
        let locked = age(".petrel-unfinished-locked");
        flock(&locked, FlockOperation::NonBlockingLockExclusive).unwrap();
        fs::create_dir(parent.path().join(".petrel-unfinished-young")).unwrap();
        drop(Staging::beside(&parent.path().join("bundle")).unwrap());
        let mut left = names(parent.path());
        left.sort();
        assert_eq!(left, [".petrel-other", ".petrel-unfinished-locked", ".petrel-unfinished-young"]);
    }

    #[test]
    fn a_taken_target_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("bundle");
        let late = Staging::beside(&target).unwrap();
        fs::create_dir(&target).unwrap();
        fs::write(target.join("mine"), "1").unwrap();
        assert!(Staging::beside(&target).is_err());
        assert!(late.commit().is_err());
        assert_eq!(names(&target), ["mine"]);
        assert_eq!(names(parent.path()), ["bundle"]);
    }
}
