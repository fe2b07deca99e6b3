//! What the agent keeps on disk: its ledger, the documents that it names, its bundles, and the checks of
//! what lies there.
//!
//! Decides how bytes survive a power cut. What is kept and for how long is decided by the core.

mod bundles;
mod documents;
mod ledger;
mod verify;

pub(crate) use bundles::Bundles;
pub(crate) use ledger::Lock;
pub(crate) use verify::{ENVELOPE, Fault, Known, bundle, known, statement};

use agent_core::{Ledger, Memory};
use documents::Documents;
use ledger::LedgerStore;
use std::fs::File;
use std::io;
use std::path::Path;
use trust::{Device, Refusal, Trust};

/// All that the core remembers.
#[derive(Debug)]
pub(crate) struct Store {
    ledger: LedgerStore,
    documents: Documents,
}

impl Store {
    /// Opens what is kept in the state folder.
    ///
    /// # Errors
    /// What the system said; then nothing is known to be lost.
    pub(crate) fn open(state: &Path) -> io::Result<(Self, Ledger)> {
        let documents = Documents::open(state)?;
        let (store, ledger) = LedgerStore::open(state)?;
        Ok((Self { ledger: store, documents }, ledger))
    }

    /// What the device believes: what it believed, or, at first, what it was given.
    ///
    /// # Errors
    /// A refusal when `given` is no root of the fleet.
    pub(crate) fn recall(&self, device: &Device, fleet: &str, given: &[u8], ledger: &Ledger) -> Result<Trust, Refusal> {
        match &ledger.trust {
            Some(counters) => self.documents.recall(device, fleet, given, counters),
            None => Trust::first(device.clone(), fleet, given),
        }
    }

    /// Documents first, then the ledger that names them.
    ///
    /// # Errors
    /// What the system said; the ledger before this one is still there, with its documents.
    pub(crate) fn save(&mut self, memory: &Memory) -> io::Result<()> {
        self.documents.keep(&memory.documents)?;
        self.ledger.save(&memory.ledger)?;
        self.documents.forget_others(&memory.ledger);
        Ok(())
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Bytes that may still be written where `path` lies.
pub(crate) fn free_space(path: &Path) -> io::Result<u64> {
    let volume = rustix::fs::statvfs(path)?;
    Ok(volume.f_bavail.saturating_mul(volume.f_frsize))
}
