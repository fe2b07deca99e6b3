//! What the agent keeps on disk: its ledger, its bundles, and the checks of what lies there.
//!
//! Decides how bytes survive a power cut. Everything passes the storage door (`disk`). What is kept and for how long is decided by the core.

mod bundles;
mod disk;
mod ledger;
mod verify;

pub(crate) use bundles::Bundles;
pub(crate) use disk::{Disk, DiskFile, Door, How, host};
pub(crate) use ledger::{LedgerStore, Lock, Memory};
pub(crate) use verify::{ENVELOPE, Fault, bundle, statement};

#[cfg(test)]
mod sweep;
