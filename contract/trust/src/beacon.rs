//! The beacon: the bridge's word on the time, and on what the newest documents are.
//!
//! With the nonce that a device drew in this boot it proves that it is fresh; without one it moves the
//! lower bound of the time and proves nothing.

use crate::dsse::{Envelope, PayloadKind};
use crate::root::{Role, Root};
use crate::strict::{self, Time, U53};
use crate::{Code, MAX_RETAINED_BYTES, Refusal, Verified, dsse};
use serde::{Deserialize, Serialize};

/// The longest nonce, as text.
const MAX_NONCE: usize = 128;

/// The time as the bridge knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beacon {
    /// Version of the form: 1.
    pub spec: U53,
    /// The fleet.
    pub fleet: String,
    /// When it was signed.
    pub issued: Time,
    /// The role's epoch in the root.
    pub role_epoch: U53,
    /// Grows with every beacon within an epoch.
    pub seq: U53,
    /// The time.
    pub now: Time,
    /// The nonce of the hello that it answers; absent in one for everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// The newest root.
    pub root_version: U53,
    /// The newest revocation.
    pub revocation_version: U53,
}

/// Believes a beacon: signed by its role in `root`, for this fleet and the role's epoch. What it says
/// of the time is judged by the holder of the clock ([`crate::Trust`]).
///
/// # Errors
/// A refusal when the form or the signatures are wrong; `E_REVOKED_KEY` when too few unrevoked keys signed.
pub(crate) fn verify_beacon(
    root: &Verified<Root>,
    revoked: impl Fn(&str, Time) -> bool,
    bytes: &[u8],
) -> Result<Verified<Beacon>, Refusal> {
    let envelope = Envelope::parse(PayloadKind::Beacon, bytes, MAX_RETAINED_BYTES)?;
    let signers = envelope.require(PayloadKind::Beacon, root, Role::Beacon)?;
    let beacon: Beacon = strict::parse_versioned("beacon", &envelope.payload)?;
    dsse::unrevoked("beacon", signers, root.threshold(Role::Beacon), |key| revoked(key, beacon.issued))?;
    root.check_speaks_for("beacon", &beacon.fleet, Role::Beacon, beacon.role_epoch)?;
    if beacon.nonce.as_ref().is_some_and(|nonce| nonce.len() > MAX_NONCE) {
        return Err(Refusal::new(Code::Limit, format!("a beacon's nonce has at most {MAX_NONCE} bytes")));
    }
    Ok(Verified::new(beacon, &envelope.payload))
}
