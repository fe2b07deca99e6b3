//! What a device states over its signature: the report of its state and its verdict on a release.
//!
//! Both are JSON inside DSSE, so that a person can read them with any MQTT client. The report is
//! retained and complete: whoever reads the last one knows the device, whatever was lost before.

use crate::{DeviceId, FleetId, HexDigest, Profile, StreamName};
use serde::{Deserialize, Deserializer, Serialize, de::Error};

/// The version of the documents in this file.
pub const SPEC: u64 = 1;

/// Refuses a version from the future by its name, not as some field that is unknown.
pub(crate) fn known_spec<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    match u64::deserialize(d)? {
        SPEC => Ok(SPEC),
        other => Err(D::Error::custom(format!("version {other} is not known here: update the older side"))),
    }
}

/// The generation of an assignment: newer means greater, first by the director's epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    /// Grows when the root renews the director's role.
    pub role_epoch: u64,
    /// Grows with every assignment within an epoch.
    pub seq: u64,
}

/// The reported state of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Version of this document: [`SPEC`].
    #[serde(deserialize_with = "known_spec")]
    pub spec: u64,
    /// The fleet.
    pub fleet: FleetId,
    /// Who reports.
    pub device_id: DeviceId,
    /// Boot counter.
    pub boot: u64,
    /// Grows with every report within a boot.
    pub seq: u64,
    /// The last assignment that was accepted.
    pub generation: Option<Generation>,
    /// The nonce of its latest hello.
    pub nonce: String,
    /// The root of trust in use.
    pub root_version: u64,
    /// The newest revocation that was accepted.
    pub revocation: Option<Generation>,
    /// The newest beacon that was accepted: a report that names one cannot be older than it.
    pub beacon: Option<Generation>,
    /// What is known of the time.
    pub clock: ClockState,
    /// A row for each stream.
    pub streams: Vec<StreamReport>,
    /// The latest refusals, by code.
    pub last_refusals: Vec<RefusalReport>,
    /// What the agent runs on.
    pub profile: Profile,
}

/// How well a device knows the time (docs/trust.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ClockState {
    /// No signed time was seen since the agent was installed.
    Unset,
    /// A signed time is known; nothing proves that it is fresh.
    Stale,
    /// Land answered the nonce of a hello within the last day.
    Fresh,
    /// The root has expired, for certain: nothing changes any more, inference goes on.
    Expired,
}

/// One stream on a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamReport {
    /// Which stream.
    pub stream: StreamName,
    /// The confirmed release that serves, or stands behind a trial.
    pub active: Option<Running>,
    /// The previous good release, pinned on disk.
    pub previous: Option<Running>,
    /// The release on trial, which serves; or the one in its shadow.
    pub trial: Option<TrialReport>,
    /// The lowest release that may be installed.
    pub floor: u64,
    /// What is said against the active release.
    pub standing: Standing,
    /// The code of what keeps the wanted release waiting; it may pass.
    pub held: Option<String>,
    /// How the process of what answers is shut in; nothing where nothing answers.
    pub sandbox: Option<Sandbox>,
}

/// How the active release of a stream stands, from good to bad.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Nothing is said against it.
    #[default]
    Good,
    /// Something is; it goes on.
    Doubted,
    /// It was taken away and nothing good is left to fall back to: it does not answer.
    Unwanted,
    /// It was stopped: it does not answer.
    Stopped,
}

/// How the process of a stream's model is shut in: what the device's system cannot do is missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sandbox {
    /// It reads its bundle and no other file, and reaches no network.
    pub files: bool,
    /// It makes only the calls to the system that a model needs.
    pub calls: bool,
    /// Its memory has a limit.
    pub memory: bool,
}

/// A release and its statement digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Running {
    /// The release number.
    pub release: u64,
    /// The bundle's statement digest, hex.
    #[serde(with = "hex")]
    pub statement_sha256: [u8; 32],
}

/// A release on trial, or in the shadow of the one before it, and what it has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrialReport {
    /// The release number.
    pub release: u64,
    /// The bundle's statement digest, hex.
    #[serde(with = "hex")]
    pub statement_sha256: [u8; 32],
    /// Answers given on trial.
    pub answers: u64,
    /// Requests that it could not answer on trial.
    pub errors: u64,
    /// While it is in the shadow of the release that answers: nobody hears it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowReport>,
}

/// What a release has shown in the shadow of the one before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShadowReport {
    /// Answers that were compared.
    pub compared: u64,
    /// Those of them that were others.
    pub disagreed: u64,
}

/// A refusal of something that arrived, counted by its code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusalReport {
    /// The stable code, `E_…`.
    pub code: String,
    /// How often.
    pub count: u64,
    /// When the first one was, by the device's lower bound of the time, in seconds since 1970.
    pub first: u64,
    /// When the latest one was.
    pub last: u64,
    /// The digest of the latest document, where it was one.
    pub document: Option<HexDigest>,
    /// The latest one, in words.
    pub detail: String,
}

/// What a device says of a release that it was assigned. Kept on its disk until land's broker has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// Version of this document: [`SPEC`].
    #[serde(deserialize_with = "known_spec")]
    pub spec: u64,
    /// The fleet.
    pub fleet: FleetId,
    /// Who judges.
    pub device_id: DeviceId,
    /// Grows with every verdict of the device, over all boots.
    pub seq: u64,
    /// The assignment that asked for it.
    pub generation: Generation,
    /// Which stream.
    pub stream: StreamName,
    /// Which release.
    pub release: u64,
    /// The bundle's statement digest, hex.
    #[serde(with = "hex")]
    pub statement_sha256: [u8; 32],
    /// What became of it.
    pub outcome: Outcome,
    /// The stable code, when it was refused or reverted.
    pub code: Option<String>,
    /// In words, when it was refused or reverted.
    pub detail: Option<String>,
    /// Answers given on trial.
    pub answers: u64,
    /// Requests that it could not answer on trial.
    pub errors: u64,
    /// What it showed in the shadow of the release before, where it was in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowReport>,
}

/// What became of an assigned release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It serves, and its trial is over.
    Confirmed,
    /// It served on trial and was taken back; the previous release serves.
    Reverted,
    /// It never served.
    Refused,
}
