//! Bundles on disk: `incoming/<digest>/` while they arrive, `bundles/<digest>/` when they are whole.
//!
//! Decides where bytes lie and how they move from one to the other over a power cut. Whether a folder
//! may be believed is decided by `verify`, what stays by the core. Names that are no digest are not
//! ours: they are left alone.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use trust::Digest;

/// The two folders.
#[derive(Debug, Clone)]
pub(crate) struct Bundles {
    complete: PathBuf,
    incoming: PathBuf,
}

impl Bundles {
    /// The bundles of a state folder.
    ///
    /// # Errors
    /// When the folders cannot be made.
    pub(crate) fn open(state: &Path) -> io::Result<Self> {
        let bundles = Self { complete: state.join("bundles"), incoming: state.join("incoming") };
        fs::create_dir_all(&bundles.complete)?;
        fs::create_dir_all(&bundles.incoming)?;
        super::sync_dir(state)?;
        Ok(bundles)
    }

    /// The folder of a whole bundle.
    pub(crate) fn complete(&self, bundle: Digest) -> PathBuf {
        self.complete.join(bundle.to_string())
    }

    /// The folder of a bundle that arrives.
    pub(crate) fn incoming(&self, bundle: Digest) -> PathBuf {
        self.incoming.join(bundle.to_string())
    }

    /// Whether the bundle is there as a whole.
    pub(crate) fn has(&self, bundle: Digest) -> bool {
        self.complete(bundle).is_dir()
    }

    /// Bytes that may still be written.
    pub(crate) fn free(&self) -> io::Result<u64> {
        super::free_space(&self.incoming)
    }

    /// Bytes of a bundle that have arrived.
    pub(crate) fn arrived(&self, bundle: Digest) -> u64 {
        sizes(&self.incoming(bundle))
    }

    /// Moves a bundle that was verified to its place: its bytes are durable before its name is.
    ///
    /// # Errors
    /// What the system said; nothing is lost.
    pub(crate) fn promote(&self, bundle: Digest) -> io::Result<()> {
        let from = self.incoming(bundle);
        sync_tree(&from)?;
        fs::rename(&from, self.complete(bundle))?;
        super::sync_dir(&self.complete)?;
        super::sync_dir(&self.incoming)
    }

    /// Moves a damaged bundle back, to be mended.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn demote(&self, bundle: Digest) -> io::Result<()> {
        if !self.has(bundle) {
            return Ok(());
        }
        remove(&self.incoming(bundle))?;
        fs::rename(self.complete(bundle), self.incoming(bundle))?;
        super::sync_dir(&self.complete)?;
        super::sync_dir(&self.incoming)
    }

    /// Removes a bundle, whole or not. A power cut in between leaves at most a part in `incoming`.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn discard(&self, bundle: Digest) -> io::Result<()> {
        self.demote(bundle)?;
        remove(&self.incoming(bundle))
    }

    /// Removes every bundle but those of `kept`; gives the removed ones.
    ///
    /// # Errors
    /// The first that the system said; the rest is tried all the same.
    pub(crate) fn keep(&self, kept: &BTreeSet<Digest>) -> io::Result<Vec<Digest>> {
        let mut found = names(&self.complete)?;
        found.extend(names(&self.incoming)?);
        let gone: Vec<Digest> = found.difference(kept).copied().collect();
        let outcomes: Vec<io::Result<()>> = gone.iter().map(|bundle| self.discard(*bundle)).collect();
        outcomes.into_iter().collect::<io::Result<()>>()?;
        Ok(gone)
    }
}

/// The folders that are named by a digest.
fn names(dir: &Path) -> io::Result<BTreeSet<Digest>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir)? {
        found.extend(entry?.file_name().to_str().and_then(|name| name.parse::<Digest>().ok()));
    }
    Ok(found)
}

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn sync_tree(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => sync_tree(&entry.path())?,
            false => File::open(entry.path())?.sync_all()?,
        }
    }
    super::sync_dir(dir)
}

/// The sizes of all files together; what cannot be read counts as nothing.
fn sizes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => sizes(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(n: u8) -> Digest {
        Digest::of(&[n])
    }

    fn store() -> (tempfile::TempDir, Bundles) {
        let state = tempfile::tempdir().unwrap();
        let bundles = Bundles::open(state.path()).unwrap();
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
        assert_eq!((bundles.has(bundle(1)), bundles.arrived(bundle(1))), (false, 5));
        bundles.promote(bundle(1)).unwrap();
        assert_eq!((bundles.has(bundle(1)), bundles.arrived(bundle(1))), (true, 0));
        bundles.demote(bundle(1)).unwrap();
        assert_eq!((bundles.has(bundle(1)), bundles.arrived(bundle(1))), (false, 5));
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
        assert!(bundles.has(bundle(2)) && !bundles.has(bundle(1)) && bundles.arrived(bundle(4)) == 0);
        assert!(foreign.iter().all(|f| f.join("sub/file").exists()));
    }

    #[test]
    fn to_discard_what_is_not_there_is_no_error() {
        let (_state, bundles) = store();
        bundles.discard(bundle(7)).unwrap();
        put(&bundles.complete(bundle(7)));
        put(&bundles.incoming(bundle(7)));
        bundles.discard(bundle(7)).unwrap();
        assert!(!bundles.has(bundle(7)) && bundles.arrived(bundle(7)) == 0);
    }

    #[test]
    fn free_space_is_known() {
        assert!(store().1.free().unwrap() > 0);
    }
}
