//! What proves that a device is who it says, and what of it was taken back.

use crate::UnixMillis;
use protocol::DeviceId;
use serde::{Deserialize, Serialize};
use trust::Digest;

/// A key of a device and the certificate that land gave it for that key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// The public key, SubjectPublicKeyInfo in DER.
    pub key: Vec<u8>,
    /// The certificate's serial number, lower-case hex.
    pub serial: String,
    /// SHA-256 of the certificate.
    pub certificate: Digest,
    /// When the certificate ends.
    pub until: UnixMillis,
}

/// A certificate that counts no more, although its end has not come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawn {
    /// Whose it was.
    pub device: DeviceId,
    /// Its serial number, lower-case hex.
    pub serial: String,
    /// When it would have ended: from then on nobody need be told.
    pub until: UnixMillis,
    /// When it was withdrawn.
    pub since: UnixMillis,
}

/// Why a message was not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Disbelief {
    /// Nobody of that name was enrolled.
    Unknown,
    /// The device waits for a person's decision.
    Pending,
    /// The device was revoked or retired.
    Revoked,
    /// It is not signed by a key of the device.
    Signature,
    /// It is no message of its kind.
    Malformed,
    /// It is not newer than the last one.
    Replayed,
}
