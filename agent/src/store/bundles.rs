//! Bundles on disk: `incoming/<digest>/` while they arrive, `bundles/<digest>/` when they are whole.
//!
//! Decides where bytes lie and how they move from one to the other over a power cut. Whether a folder
//! may be believed is decided by `verify`, what stays by the core. Names that are no digest are not
//! ours: they are left alone.

use super::disk::{Disk, Door, How, Kind};
use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use trust::Digest;

/// The two folders.
#[derive(Debug, Clone)]
pub(crate) struct Bundles {
    disk: Door,
    complete: PathBuf,
    incoming: PathBuf,
    /// What the disk failed to write and did not let be removed either.
    lost: Arc<Mutex<BTreeSet<Digest>>>,
}

impl Bundles {
    /// The bundles of a state folder.
    ///
    /// # Errors
    /// When the folders cannot be made.
    pub(crate) fn open(disk: Door, state: &Path) -> io::Result<Self> {
        let (complete, incoming) = (state.join("bundles"), state.join("incoming"));
        let bundles = Self { disk, complete, incoming, lost: Arc::default() };
        bundles.disk.make_dirs(&bundles.complete)?;
        bundles.disk.make_dirs(&bundles.incoming)?;
        bundles.disk.sync_dir(state)?;
        Ok(bundles)
    }

    /// Where they lie.
    pub(crate) fn disk(&self) -> &Door {
        &self.disk
    }

    /// The folder of a whole bundle.
    pub(crate) fn complete(&self, bundle: Digest) -> PathBuf {
        self.complete.join(bundle.to_string())
    }

    /// The folder of a bundle that arrives.
    pub(crate) fn incoming(&self, bundle: Digest) -> PathBuf {
        self.incoming.join(bundle.to_string())
    }

    /// The folder of a bundle that is to arrive; what the disk lost of it is gone.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn begin(&self, bundle: Digest) -> io::Result<PathBuf> {
        let incoming = self.incoming(bundle);
        if self.lost().contains(&bundle) {
            self.remove(&incoming)?;
            self.lost().remove(&bundle);
        }
        Ok(incoming)
    }

    fn lost(&self) -> MutexGuard<'_, BTreeSet<Digest>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the bundle is there as a whole.
    ///
    /// # Errors
    /// What the system said: then nobody knows.
    pub(crate) fn has(&self, bundle: Digest) -> io::Result<bool> {
        match self.disk.look(&self.complete(bundle)) {
            Ok(found) => Ok(found.kind == Kind::Folder),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The bundles that are there as a whole.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn whole(&self) -> io::Result<BTreeSet<Digest>> {
        self.names(&self.complete)
    }

    /// Bytes that may still be written.
    pub(crate) fn free(&self) -> io::Result<u64> {
        self.disk.free(&self.incoming)
    }

    /// Bytes of a bundle that have arrived.
    pub(crate) fn arrived(&self, bundle: Digest) -> u64 {
        sizes(&*self.disk, &self.incoming(bundle))
    }

    /// Moves a bundle that was verified to its place: its bytes are durable before its name is. Bytes that
    /// the disk failed to write are lost, although they can still be read: they go, and come again.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn promote(&self, bundle: Digest) -> io::Result<()> {
        let from = self.incoming(bundle);
        if let Err(error) = sync_tree(&*self.disk, &from) {
            if self.remove(&from).is_err() {
                self.lost().insert(bundle);
            }
            return Err(error);
        }
        self.disk.rename(&from, &self.complete(bundle))?;
        self.sync()
    }

    /// Moves a damaged bundle back, to be mended.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn demote(&self, bundle: Digest) -> io::Result<()> {
        if !self.has(bundle)? {
            return Ok(());
        }
        self.remove(&self.incoming(bundle))?;
        self.disk.rename(&self.complete(bundle), &self.incoming(bundle))?;
        self.sync()
    }

    /// Removes a bundle, whole or not. A power cut in between leaves at most a part in `incoming`.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn discard(&self, bundle: Digest) -> io::Result<()> {
        self.demote(bundle)?;
        self.remove(&self.incoming(bundle))
    }

    /// Removes every bundle but those of `kept`; gives the removed ones.
    ///
    /// # Errors
    /// The first that the system said; the rest is tried all the same.
    pub(crate) fn keep(&self, kept: &BTreeSet<Digest>) -> io::Result<Vec<Digest>> {
        let mut found = self.names(&self.complete)?;
        found.extend(self.names(&self.incoming)?);
        let gone: Vec<Digest> = found.difference(kept).copied().collect();
        let outcomes: Vec<io::Result<()>> = gone.iter().map(|bundle| self.discard(*bundle)).collect();
        outcomes.into_iter().collect::<io::Result<()>>()?;
        Ok(gone)
    }

    /// The folders that are named by a digest.
    fn names(&self, dir: &Path) -> io::Result<BTreeSet<Digest>> {
        let mut found = BTreeSet::new();
        for entry in self.disk.list(dir)? {
            found.extend(entry?.0.to_str().and_then(|name| name.parse::<Digest>().ok()));
        }
        Ok(found)
    }

    fn remove(&self, dir: &Path) -> io::Result<()> {
        match self.disk.remove_tree(dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Makes it durable which bundles are whole. A bundle may have its place since before a start that was
    /// cut short, and not durably.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.disk.sync_dir(&self.complete)?;
        self.disk.sync_dir(&self.incoming)
    }
}

fn sync_tree(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    for entry in disk.list(dir)? {
        let (name, kind) = entry?;
        match kind {
            Kind::Folder => sync_tree(disk, &dir.join(name))?,
            Kind::File | Kind::Other => disk.open(&dir.join(name), How::Read)?.sync()?,
        }
    }
    disk.sync_dir(dir)
}

/// The sizes of all files together; what cannot be read counts as nothing.
fn sizes(disk: &dyn Disk, dir: &Path) -> u64 {
    let Ok(entries) = disk.list(dir) else { return 0 };
    let size = |(name, kind): (std::ffi::OsString, Kind)| match kind {
        Kind::Folder => sizes(disk, &dir.join(name)),
        Kind::File | Kind::Other => disk.look(&dir.join(name)).map_or(0, |found| found.size),
    };
    entries.flatten().map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::host;
    use std::fs;

    fn bundle(n: u8) -> Digest {
        Digest::of(&[n])
    }

    fn store() -> (tempfile::TempDir, Bundles) {
        let state = tempfile::tempdir().unwrap();
        let bundles = Bundles::open(host(), state.path()).unwrap();
        (state, bundles)
    }

    fn put(dir: &Path) {
        fs::create_dir_all(dir.join("sub")).unwrap();
        fs::write(dir.join("sub/file"), "12345").unwrap();
    }

    #[test]
    fn a_promoted_bundle_is_whole_and_a_demoted_one_is_not() {
        let (_state, bundles) = store();
        put(&bundles.incoming(bundle(1)));
        assert_eq!((bundles.has(bundle(1)).unwrap(), bundles.arrived(bundle(1))), (false, 5));
        bundles.promote(bundle(1)).unwrap();
        assert_eq!((bundles.has(bundle(1)).unwrap(), bundles.arrived(bundle(1))), (true, 0));
        bundles.demote(bundle(1)).unwrap();
        assert_eq!((bundles.has(bundle(1)).unwrap(), bundles.arrived(bundle(1))), (false, 5));
    }

    #[test]
    fn only_what_is_kept_stays_and_foreign_names_are_left_alone() {
        let (state, bundles) = store();
        for n in 1..=3 {
            put(&bundles.complete(bundle(n)));
        }
        put(&bundles.incoming(bundle(4)));
        let foreign = [state.path().join("bundles/notes"), state.path().join("incoming/ABC")];
        foreign.iter().for_each(|f| put(f));
        let gone = bundles.keep(&BTreeSet::from([bundle(2), bundle(9)])).unwrap();
        assert_eq!(gone.len(), 3);
        assert!(bundles.has(bundle(2)).unwrap() && !bundles.has(bundle(1)).unwrap() && bundles.arrived(bundle(4)) == 0);
        assert!(foreign.iter().all(|f| f.join("sub/file").exists()));
    }

    #[test]
    fn to_discard_what_is_not_there_is_no_error() {
        let (_state, bundles) = store();
        bundles.discard(bundle(7)).unwrap();
        put(&bundles.complete(bundle(7)));
        put(&bundles.incoming(bundle(7)));
        bundles.discard(bundle(7)).unwrap();
        assert!(!bundles.has(bundle(7)).unwrap() && bundles.arrived(bundle(7)) == 0);
    }

    #[test]
    fn free_space_is_known() {
        assert!(store().1.free().unwrap() > 0);
    }
}
