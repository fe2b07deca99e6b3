//! What the agent keeps on disk: its ledger, its bundles, and the checks of what lies there.
//!
//! Decides how bytes survive a power cut. What is kept and for how long is decided by the core.

mod bundles;
mod ledger;
mod verify;

pub(crate) use bundles::Bundles;
pub(crate) use ledger::{LedgerStore, Lock};
pub(crate) use verify::{ENVELOPE, Fault, bundle, statement};

use std::fs::File;
use std::io;
use std::path::Path;

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Bytes that may still be written where `path` lies.
pub(crate) fn free_space(path: &Path) -> io::Result<u64> {
    let volume = rustix::fs::statvfs(path)?;
    Ok(volume.f_bavail.saturating_mul(volume.f_frsize))
}
