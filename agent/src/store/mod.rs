//! What the agent keeps on disk: its ledger, the documents that it names, its bundles, the checks of what lies
//! there, and, as it may be lost, telemetry that waits and what was learned of the inputs.
//!
//! Decides how bytes survive a power cut; everything passes the storage door (`disk`). What is kept and for
//! how long is decided by the core.

mod bundles;
mod disk;
mod documents;
mod ledger;
mod summed;
mod verify;

pub(crate) use bundles::Bundles;
pub(crate) use disk::{Disk, DiskFile, Door, How, host};
pub(crate) use ledger::Lock;
pub(crate) use summed::{Found, Summed};
pub(crate) use verify::{ENVELOPE, Fault, Known, bundle, known, statement};

use agent_core::{Ledger, Memory};
use documents::Documents;
use ledger::{LedgerStore, Recalled};
use std::io;
use std::path::Path;
use trust::{Device, Refusal, Trust};

/// All that the core remembers.
#[derive(Debug)]
pub(crate) struct Store {
    ledger: LedgerStore,
    documents: Documents,
    /// There was a ledger once, and none of it is left.
    lost: bool,
}

impl Store {
    /// Opens what is kept in the state folder. A ledger that never was, and one that is lost, are empty.
    ///
    /// # Errors
    /// What the system said; then nothing is known to be lost.
    pub(crate) fn open(disk: Door, state: &Path) -> io::Result<(Self, Ledger)> {
        let documents = Documents::open(disk.clone(), state)?;
        let (store, recalled) = LedgerStore::open(disk, state)?;
        let (lost, ledger) = match recalled {
            Recalled::Never => (false, Ledger::default()),
            Recalled::Whole(ledger) => (false, *ledger),
            Recalled::Lost => (true, Ledger::default()),
        };
        Ok((Self { ledger: store, documents, lost }, ledger))
    }

    /// What the device believes: what it believed, or, at first, what it was given. If it forgot what it
    /// believed, it knows that it knows no floor.
    ///
    /// # Errors
    /// A refusal when `given` is no root of the fleet.
    pub(crate) fn recall(&self, device: &Device, fleet: &str, given: &[u8], ledger: &Ledger) -> Result<Trust, Refusal> {
        match &ledger.trust {
            Some(counters) => self.documents.recall(device, fleet, given, counters),
            None if self.lost => Trust::after_loss(device.clone(), fleet, given),
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

#[cfg(test)]
mod sweep;
