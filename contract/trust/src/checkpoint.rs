//! A checkpoint: how far the bridge's audit log had come, signed by the director, to be kept elsewhere.
//!
//! Whoever holds one finds a log whose end was cut off, or that was written anew. What a line of the
//! log is, and how lines hold each other, is decided where the log is.

use crate::dsse::{Envelope, PayloadKind};
use crate::root::{Role, Root};
use crate::strict::{self, Time, U53};
use crate::{Digest, MAX_RETAINED_BYTES, Refusal, Verified};
use serde::{Deserialize, Serialize};

/// How far an audit log had come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Version of the form: 1.
    pub spec: U53,
    /// The fleet.
    pub fleet: String,
    /// When it was signed.
    pub issued: Time,
    /// The role's epoch in the root.
    pub role_epoch: U53,
    /// The number of its last line.
    pub seq: U53,
    /// The digest of that line, and through it of all before it.
    pub sha256: Digest,
}

/// Believes a checkpoint: signed by the director in `root`, for its fleet and the role's epoch.
///
/// # Errors
/// A refusal when the form or the signatures are wrong.
pub fn verify_checkpoint(root: &Verified<Root>, bytes: &[u8]) -> Result<Verified<Checkpoint>, Refusal> {
    let envelope = Envelope::parse(PayloadKind::Checkpoint, bytes, MAX_RETAINED_BYTES)?;
    envelope.require(PayloadKind::Checkpoint, root, Role::Director)?;
    let checkpoint: Checkpoint = strict::parse_versioned("checkpoint", &envelope.payload)?;
    root.check_speaks_for("checkpoint", &checkpoint.fleet, Role::Director, checkpoint.role_epoch)?;
    Ok(Verified::new(checkpoint, &envelope.payload))
}
