//! The documents that the ledger names by their digests: the root and the revocation in use.
//!
//! Decides how they survive a power cut: each has a file of its own, written before the ledger that names
//! it, and the one before it goes only afterwards. What they are worth is decided by `trust`.

use super::sync_dir;
use agent_core::{Document, Ledger};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use trust::{Counters, Device, Digest, MAX_ROOT_BYTES, Refusal, Trust};

/// The folder `<state>/trust`.
#[derive(Debug)]
pub(crate) struct Documents {
    folder: PathBuf,
    /// What the ledger before the last one named: it may be read again when the last one is damaged.
    before: BTreeSet<Digest>,
}

impl Documents {
    /// Opens the folder, or makes it.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn open(state: &Path) -> io::Result<Self> {
        let folder = state.join("trust");
        fs::create_dir_all(&folder)?;
        sync_dir(state)?;
        Ok(Self { folder, before: BTreeSet::new() })
    }

    /// Writes documents that are about to be named by a ledger.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn keep(&self, documents: &[Document]) -> io::Result<()> {
        for document in documents {
            let path = self.path(document.digest);
            let fresh = path.with_extension("new");
            let mut file = File::create(&fresh)?;
            file.write_all(&document.bytes)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
        }
        if documents.is_empty() { Ok(()) } else { sync_dir(&self.folder) }
    }

    /// Removes what neither this ledger names, which was saved, nor the one before it.
    pub(crate) fn forget_others(&mut self, ledger: &Ledger) {
        let named: BTreeSet<Digest> = ledger.trust.iter().flat_map(named).collect();
        if named == self.before {
            return;
        }
        let kept: BTreeSet<PathBuf> = named.union(&self.before).map(|digest| self.path(*digest)).collect();
        let ours = |path: &PathBuf| path.extension().is_some_and(|e| e == "json" || e == "new");
        let found = fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.path());
        for path in found.filter(ours).filter(|path| !kept.contains(path)) {
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!("{} cannot be removed: {error}", path.display());
            }
        }
        self.before = named;
    }

    /// What the device believed when `counters` were saved. `given` is the root that it was given at first.
    ///
    /// # Errors
    /// A refusal when `given` is no root of the fleet.
    pub(crate) fn recall(
        &self,
        device: &Device,
        fleet: &str,
        given: &[u8],
        counters: &Counters,
    ) -> Result<Trust, Refusal> {
        let read = |digest| {
            self.read(digest).unwrap_or_else(|error| {
                tracing::warn!("a document that was believed cannot be read: {error}");
                None
            })
        };
        let root = read(counters.root_digest());
        let revocation = counters.revocation_digest().and_then(read);
        let open = |root: &[u8], revocation: Option<&[u8]>| {
            Trust::open(device.clone(), fleet, counters.clone(), root, revocation)
        };
        for root in root.iter().map(Vec::as_slice).chain([given]) {
            if let Ok(trust) = open(root, revocation.as_deref()).or_else(|_| open(root, None)) {
                if trust.revocation_is_lost() {
                    tracing::error!("the revocation in use is lost: nothing is installed until it came again");
                }
                return Ok(trust);
            }
        }
        tracing::error!("the root in use is lost: nothing is installed until it came again");
        Trust::from_older_root(device.clone(), fleet, counters.clone(), given).or_else(|refusal| {
            tracing::error!("the root that was given does not lead to the one in use: {refusal}");
            Trust::after_loss(device.clone(), fleet, given)
        })
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.folder.join(format!("{digest}.json"))
    }

    fn read(&self, digest: Digest) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        match File::open(self.path(digest)).and_then(|f| f.take(MAX_ROOT_BYTES as u64 + 1).read_to_end(&mut bytes)) {
            Ok(_) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn named(counters: &Counters) -> impl Iterator<Item = Digest> {
    [Some(counters.root_digest()), counters.revocation_digest()].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, FLEET, root_bytes};
    use protocol::DocumentKind;

    fn document(trust: &Trust) -> Document {
        Document { kind: DocumentKind::Root, digest: trust.counters().root_digest(), bytes: root_bytes() }
    }

    fn ledger(trust: &Trust) -> Ledger {
        Ledger { trust: Some(trust.counters().clone()), ..Ledger::default() }
    }

    #[test]
    fn what_was_believed_is_recalled_and_what_is_not_ours_is_left_alone() {
        let state = tempfile::tempdir().unwrap();
        let trust = testing::trust();
        let mut documents = Documents::open(state.path()).unwrap();
        documents.keep(&[document(&trust)]).unwrap();
        let old = state.path().join("trust").join(format!("{}.json", Digest::of(b"an older root")));
        fs::write(&old, "{}").unwrap();
        fs::write(state.path().join("trust/notes.txt"), "mine").unwrap();
        documents.forget_others(&ledger(&trust));
        let left = fs::read_dir(state.path().join("trust")).unwrap().count();
        assert_eq!(left, 2, "the root and the notes");
        let recalled = documents.recall(&testing::device(), FLEET, b"another file now", trust.counters()).unwrap();
        assert_eq!(recalled.counters(), trust.counters());
    }

    #[test]
    fn a_damaged_root_is_replaced_by_the_one_that_was_given() {
        let state = tempfile::tempdir().unwrap();
        let trust = testing::trust();
        let documents = Documents::open(state.path()).unwrap();
        let mut damaged = document(&trust);
        damaged.bytes[40] ^= 1;
        documents.keep(&[damaged]).unwrap();
        let recalled = documents.recall(&testing::device(), FLEET, &root_bytes(), trust.counters()).unwrap();
        assert_eq!(recalled.counters(), trust.counters());
        documents.recall(&testing::device(), FLEET, b"no root", trust.counters()).unwrap_err();
    }
}
