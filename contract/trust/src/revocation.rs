//! The revocation: keys, bundles and devices that were taken away, and floors under streams.
//!
//! It can only take away. Within an epoch of its role a newer one gives no key and no floor back.

use crate::dsse::{Envelope, PayloadKind};
use crate::root::{Role, Root};
use crate::strict::{self, Time, U53};
use crate::{Code, Digest, MAX_RETAINED_BYTES, Refusal, Verified, dsse};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How many must sign a `stop`, whatever the threshold of the role: it silences models that work.
const STOP_THRESHOLD: u64 = 2;

/// What was taken away, all of it: a newer document replaces the older one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// Version of the form: 1.
    pub spec: U53,
    /// The fleet.
    pub fleet: String,
    /// When it was signed.
    pub issued: Time,
    /// The role's epoch in the root.
    pub role_epoch: U53,
    /// Grows with every revocation within an epoch.
    pub version: U53,
    /// Keys of publishers, of the director, of the beacon and of breakglass. Those of the root and of
    /// this role are taken away by a new root only.
    pub keys: Vec<RevokedKey>,
    /// Bundles.
    pub bundles: Vec<RevokedBundle>,
    /// Devices.
    pub devices: Vec<RevokedDevice>,
    /// The lowest release of a stream that may be installed.
    pub floors: BTreeMap<String, U53>,
}

/// A key that is not trusted any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokedKey {
    /// Its id.
    pub keyid: String,
    /// What it signed that counts no more.
    pub from: RevokedFrom,
}

/// What a revoked key signed that counts no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RevokedFrom {
    /// Everything.
    All,
    /// What was issued after this moment. A bundle has no date that its key could not lie about, so no
    /// bundle is newly installed; one that is active already stays good.
    IssuedAfter(Time),
}

/// Bundles that should not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokedBundle {
    /// Which.
    pub bundle: WhichBundle,
    /// What a device does about it.
    pub severity: Severity,
    /// For people.
    pub reason: String,
}

/// One bundle, or a range of a stream's releases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhichBundle {
    /// The bundle of this statement.
    StatementSha256(Digest),
    /// Releases of a stream.
    Releases(Releases),
}

/// Releases of a stream, both ends among them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Releases {
    /// Which stream.
    pub stream: String,
    /// The lowest.
    pub first: U53,
    /// The highest.
    pub last: U53,
}

/// What a device does about a revoked bundle, from mild to severe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Nothing; people are told.
    Info,
    /// It is not newly installed; where it is active it goes on.
    NoNew,
    /// The previous good release takes over.
    Fallback,
    /// It stops answering. Needs two signatures.
    Stop,
}

/// A device that is not part of the fleet any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevokedDevice {
    /// By its name.
    DeviceId(String),
    /// By the SHA-256 of its certificate.
    CertSha256(Digest),
}

impl Revocation {
    /// Whether `key` may not sign what was issued at `issued`; `None` for what has no date.
    pub fn key_revoked(&self, key: &str, issued: Option<Time>) -> bool {
        self.keys.iter().filter(|k| k.keyid == key).any(|k| match k.from {
            RevokedFrom::All => true,
            RevokedFrom::IssuedAfter(moment) => issued.is_none_or(|issued| issued > moment),
        })
    }

    /// Whether everything that `key` ever signed counts no more.
    pub fn key_void(&self, key: &str) -> bool {
        self.keys.iter().any(|k| k.keyid == key && k.from == RevokedFrom::All)
    }

    /// The severest word on a bundle.
    pub fn severity(&self, statement: Digest, stream: &str, release: u64) -> Option<Severity> {
        let named = |which: &WhichBundle| match which {
            WhichBundle::StatementSha256(digest) => *digest == statement,
            WhichBundle::Releases(r) => r.stream == stream && (r.first.get()..=r.last.get()).contains(&release),
        };
        self.bundles.iter().filter(|b| named(&b.bundle)).map(|b| b.severity).max()
    }

    /// Whether a device is taken out of the fleet, by its name or its certificate.
    pub fn device_revoked(&self, device: &str, certificate: Option<Digest>) -> bool {
        self.devices.iter().any(|revoked| match revoked {
            RevokedDevice::DeviceId(id) => id == device,
            RevokedDevice::CertSha256(digest) => Some(*digest) == certificate,
        })
    }

    /// The lowest release of `stream` that it allows.
    pub fn floor(&self, stream: &str) -> u64 {
        self.floors.get(stream).map_or(0, |floor| floor.get())
    }

    /// Refuses a newer document of the same epoch that gives a key or a floor back.
    pub(crate) fn check_takes_nothing_back(&self, newer: &Self) -> Result<(), Refusal> {
        let fault = |detail: String| Err(Refusal::new(Code::RollbackRev, detail));
        let as_much = |key: &RevokedKey| {
            newer.keys.iter().filter(|k| k.keyid == key.keyid).any(|k| match (key.from, k.from) {
                (_, RevokedFrom::All) => true,
                (RevokedFrom::All, RevokedFrom::IssuedAfter(_)) => false,
                (RevokedFrom::IssuedAfter(old), RevokedFrom::IssuedAfter(new)) => new <= old,
            })
        };
        if let Some(key) = self.keys.iter().find(|key| !as_much(key)) {
            return fault(format!("key {} was revoked, and the newer revocation gives it back", key.keyid));
        }
        match self.floors.keys().find(|stream| newer.floor(stream) < self.floor(stream)) {
            Some(stream) => fault(format!("the newer revocation lowers the floor of `{stream}`")),
            None => Ok(()),
        }
    }
}

/// Believes a revocation: signed by its role in `root`, for this fleet and the role's epoch. Whether it
/// is newer than the last one is for the holder of the counters to decide ([`crate::Trust`]).
///
/// # Errors
/// A refusal when the form or the signatures are wrong; `E_THRESHOLD` for a `stop` with one signature.
pub fn verify_revocation(root: &Verified<Root>, bytes: &[u8]) -> Result<Verified<Revocation>, Refusal> {
    let envelope = Envelope::parse(PayloadKind::Revocation, bytes, MAX_RETAINED_BYTES)?;
    let signers = envelope.signers("revocation", root, Role::Revocation)?.len();
    dsse::enough("revocation", signers, root.threshold(Role::Revocation))?;
    let revocation: Revocation = strict::parse_versioned("revocation", &envelope.payload)?;
    root.check_speaks_for("revocation", &revocation.fleet, Role::Revocation, revocation.role_epoch)?;
    if revocation.bundles.iter().any(|b| b.severity == Severity::Stop) {
        dsse::enough("revocation with a `stop`", signers, STOP_THRESHOLD)?;
    }
    Ok(Verified::new(revocation, &envelope.payload))
}

/// Believes the revocation that follows `last`.
///
/// # Errors
/// What [`verify_revocation`] refuses; `E_ROLLBACK_REV` for one that is not newer, or that gives a key or a
/// floor back within its epoch.
pub fn next_revocation(
    root: &Verified<Root>,
    last: Option<&Verified<Revocation>>,
    bytes: &[u8],
) -> Result<Verified<Revocation>, Refusal> {
    let newer = verify_revocation(root, bytes)?;
    let Some(last) = last else { return Ok(newer) };
    if (newer.role_epoch, newer.version) <= (last.role_epoch, last.version) {
        let detail = format!("revocation {} was offered, {} is the newest", newer.version, last.version);
        return Err(Refusal::new(Code::RollbackRev, detail));
    }
    if newer.role_epoch == last.role_epoch {
        last.check_takes_nothing_back(&newer)?;
    }
    Ok(newer)
}
