//! The assignment: all that one device should run, signed by the director.

use crate::dsse::{Envelope, PayloadKind};
use crate::root::{Role, Root};
use crate::strict::{self, Time, U53};
use crate::{Code, Digest, MAX_RETAINED_BYTES, Refusal, Verified, dsse};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The most streams of an assignment.
const MAX_STREAMS: usize = 64;

/// All that a device should run. A stream that is not listed is retired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    /// Version of the form: 1.
    pub spec: U53,
    /// The fleet.
    pub fleet: String,
    /// When it was signed.
    pub issued: Time,
    /// The one device that it is for.
    pub device_id: String,
    /// The director's epoch in the root.
    pub role_epoch: U53,
    /// Grows with every assignment of this device within an epoch.
    pub seq: U53,
    /// The root that the director worked from.
    pub root_version: U53,
    /// The oldest revocation list that the director knew.
    pub min_revocation: U53,
    /// After this the device changes nothing because of it.
    pub expires: Time,
    /// The streams, in any order.
    pub streams: Vec<StreamAssignment>,
}

/// What a device should do with one stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamAssignment {
    /// Which stream.
    pub stream: String,
    /// What is meant by it.
    pub intent: Intent,
    /// The release to run.
    pub release: U53,
    /// The release that a rollback leaves; on a device that runs another one it does nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_release: Option<U53>,
    /// The bundle to run.
    pub statement_sha256: Digest,
    /// Its size in bytes, known before the first byte is fetched.
    pub total_size: U53,
    /// The rollout that it belongs to.
    pub rollout_id: U53,
    /// How it proves itself.
    pub trial: Trial,
    /// Nothing is done before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// Nothing is begun after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
}

/// What an assignment means to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Intent {
    /// Go on to this release.
    Install,
    /// Go back to this release, deliberately.
    Rollback,
    /// Change nothing.
    Hold,
}

/// How a release proves itself on a device before it is confirmed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// Answers after which it is confirmed before the window ends.
    pub min_answers: U53,
    /// One error more reverts it.
    pub max_errors: U53,
    /// The longest trial in seconds; what was seen by then decides.
    pub window_s: U53,
    /// An answer may take so much, on average and in percent of what it takes the release before on this device; as
    /// long as it takes when nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_slowdown: Option<U53>,
    /// Its process may hold so much memory, in percent of what the manifest says that it needs; as much as a process may
    /// take when nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_memory_percent: Option<U53>,
    /// Before the trial it is asked what the release before answers, and nobody hears it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadow>,
}

/// How much a release may differ from the one before it, before anybody hears it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shadow {
    /// Answers that are compared; what was seen when the trial's window has passed decides too.
    pub answers: U53,
    /// Of a hundred so many may be others; one that it cannot give is another.
    pub max_disagreement: U53,
}

/// Believes an assignment: signed by the director of `root`, for this fleet and this device. Whether
/// it is newer than the last one is for the ledger's owner to decide.
///
/// # Errors
/// A refusal when the form, the addressee or the signatures are wrong.
pub fn verify_assignment(root: &Verified<Root>, device: &str, bytes: &[u8]) -> Result<Verified<Assignment>, Refusal> {
    believe(root, |_, _| false, device, bytes)
}

/// The same, when `revoked` says which keys may not sign what was issued when.
pub(crate) fn believe(
    root: &Verified<Root>,
    revoked: impl Fn(&str, Time) -> bool,
    device: &str,
    bytes: &[u8],
) -> Result<Verified<Assignment>, Refusal> {
    let envelope = Envelope::parse(PayloadKind::Assignment, bytes, MAX_RETAINED_BYTES)?;
    let signers = envelope.require(PayloadKind::Assignment, root, Role::Director)?;
    let assignment: Assignment = strict::parse_versioned("assignment", &envelope.payload)?;
    dsse::unrevoked("assignment", signers, root.threshold(Role::Director), |key| revoked(key, assignment.issued))?;
    root.check_speaks_for("assignment", &assignment.fleet, Role::Director, assignment.role_epoch)?;
    if assignment.device_id != device {
        return Err(Refusal::new(Code::Device, format!("the assignment is not for `{device}`")));
    }
    let streams: BTreeSet<&str> = assignment.streams.iter().map(|s| s.stream.as_str()).collect();
    if assignment.streams.len() > MAX_STREAMS {
        return Err(Refusal::new(Code::Limit, format!("the assignment has more than {MAX_STREAMS} streams")));
    }
    if streams.len() != assignment.streams.len() {
        return Err(Refusal::new(Code::Parse, "the assignment names a stream twice"));
    }
    Ok(Verified::new(assignment, &envelope.payload))
}
