//! Breakglass: the only way under a floor, signed offline, once.

use crate::dsse::{Envelope, PayloadKind};
use crate::root::{Role, Root};
use crate::strict::{self, Time, U53};
use crate::{Code, MAX_RETAINED_BYTES, Refusal, Verified, dsse};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The longest name of a use.
const MAX_ONCE_ID: usize = 64;

/// Leave for some devices to install one release below the floor of its stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Breakglass {
    /// Version of the form: 1.
    pub spec: U53,
    /// The fleet.
    pub fleet: String,
    /// When it was signed.
    pub issued: Time,
    /// The role's epoch in the root.
    pub role_epoch: U53,
    /// Whom it is for.
    pub to: Recipients,
    /// Which stream.
    pub stream: String,
    /// The one release.
    pub release: U53,
    /// True: whoever signs this must have seen what it does.
    pub below_floor: bool,
    /// Names this use; a device takes each name once.
    pub once_id: String,
    /// After this it is void.
    pub expires: Time,
}

/// Whom a breakglass is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recipients {
    /// These devices.
    DeviceIds(BTreeSet<String>),
    /// Every device of a class of boards.
    Class(String),
}

/// Believes a breakglass: signed by its role in `root`, for this fleet and the role's epoch. Whether it is for
/// a device is for that device to ask ([`crate::Trust`]).
///
/// # Errors
/// A refusal when the form or the signatures are wrong.
pub fn verify_breakglass(root: &Verified<Root>, bytes: &[u8]) -> Result<Verified<Breakglass>, Refusal> {
    believe(root, |_, _| false, bytes)
}

/// The same, when `revoked` says which keys may not sign what was issued when.
pub(crate) fn believe(
    root: &Verified<Root>,
    revoked: impl Fn(&str, Time) -> bool,
    bytes: &[u8],
) -> Result<Verified<Breakglass>, Refusal> {
    let kind = PayloadKind::Breakglass;
    let envelope = Envelope::parse(kind, bytes, MAX_RETAINED_BYTES)?;
    let signers = envelope.require(kind, root, Role::Breakglass)?;
    let leave: Breakglass = strict::parse_versioned("breakglass", &envelope.payload)?;
    dsse::unrevoked("breakglass", signers, root.threshold(Role::Breakglass), |key| revoked(key, leave.issued))?;
    root.check_speaks_for("breakglass", &leave.fleet, Role::Breakglass, leave.role_epoch)?;
    if !leave.below_floor {
        return Err(Refusal::new(Code::Parse, "a breakglass says below_floor: true, or it is none"));
    }
    if leave.once_id.is_empty() || leave.once_id.len() > MAX_ONCE_ID {
        return Err(Refusal::new(Code::Limit, format!("a once_id has 1 to {MAX_ONCE_ID} bytes")));
    }
    Ok(Verified::new(leave, &envelope.payload))
}

impl Recipients {
    /// Refuses a device that is not among them.
    pub(crate) fn check(&self, device: &str, class: &str) -> Result<(), Refusal> {
        let among = match self {
            Recipients::DeviceIds(devices) => devices.contains(device),
            Recipients::Class(named) => !class.is_empty() && named == class,
        };
        match among {
            true => Ok(()),
            false => Err(Refusal::new(Code::Device, format!("the breakglass is not for `{device}`"))),
        }
    }
}
