//! What the hands tell the core: news of devices, verified, and requests of people, authorised.

use crate::evidence::Measured;
use crate::{
    Credential, Device, Disbelief, FanOutWish, Policy, Said, SampleTurn, SampleWish, Target, UnixMillis, Wish,
};
use protocol::{CommandOutcome, DeviceId, DocumentKind, Profile, Report, StreamName, Verdict};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use trust::{Digest, Refusal, Request};

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The broker took our connection; `remembered` when it kept our session, and so, it seems, its memory.
    BrokerConnected {
        /// The broker's `session present`.
        remembered: bool,
        /// It retains what it is told to.
        retains: bool,
    },
    /// The broker was looked at, and does not hold a bundle whole that it should retain.
    BundleMissed {
        /// Which.
        bundle: Digest,
    },
    /// A device said hello and proved that it holds `key`.
    HelloReceived {
        /// Who.
        device: DeviceId,
        /// Its boot counter.
        boot: u64,
        /// Its sequence number.
        seq: u64,
        /// Its public key, SubjectPublicKeyInfo in DER.
        key: Vec<u8>,
        /// What a fresh answer must hold.
        nonce: String,
        /// What it runs on.
        profile: Profile,
    },
    /// A person brings a root, a revocation or a breakglass. Whether it is believed is decided here.
    DocumentPushed {
        /// What it should be.
        kind: DocumentKind,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// A report, verified with its device's key.
    ReportReceived(Box<Report>),
    /// A verdict, verified with its device's key.
    VerdictReceived(Verdict),
    /// The broker says whether a device is connected.
    PresenceReceived {
        /// Who.
        device: DeviceId,
        /// Connected or gone.
        online: bool,
    },
    /// A device lacks parts of a bundle; verified with its key.
    ChunksNeeded {
        /// Who.
        device: DeviceId,
        /// The bundle.
        bundle: Digest,
        /// Its envelope and offer too.
        documents: bool,
        /// Chunk digests.
        chunks: Vec<[u8; 32]>,
    },
    /// A device enrolled: its token was good, and it holds the key of `credential`.
    DeviceEnrolled {
        /// Who.
        device: DeviceId,
        /// The key and the certificate that it is to be given.
        credential: Credential,
        /// What it runs on.
        profile: Profile,
        /// What let it ask.
        invitation: Invitation,
    },
    /// A device that showed its certificate holds a new key.
    KeyRenewed {
        /// Who.
        device: DeviceId,
        /// The key of the certificate that it showed.
        shown: Vec<u8>,
        /// The key and the certificate that it is to be given.
        credential: Credential,
    },
    /// A device whose certificate expired is back with a new key, which its old one signed.
    DeviceReturned {
        /// Who.
        device: DeviceId,
        /// The key and the certificate that it is to be given.
        credential: Credential,
    },
    /// A message came that `key`, one of the device's, has signed.
    KeyUsed {
        /// Who.
        device: DeviceId,
        /// The public key, SubjectPublicKeyInfo in DER.
        key: Vec<u8>,
    },
    /// A message came that was not believed.
    MessageDisbelieved {
        /// Why.
        why: Disbelief,
    },
    /// A person let a pending device in.
    DeviceApproved {
        /// Which.
        device: DeviceId,
    },
    /// A person turned a pending device away.
    DeviceRejected {
        /// Which.
        device: DeviceId,
    },
    /// A person threw a device out.
    DeviceRevoked {
        /// Which.
        device: DeviceId,
    },
    /// A person took a device out of the fleet.
    DeviceRetired {
        /// Which.
        device: DeviceId,
    },
    /// A person says what a device is called beside its name.
    DeviceLabelled {
        /// Which.
        device: DeviceId,
        /// By key the new value, or none to take it away.
        labels: BTreeMap<String, Option<String>>,
    },
    /// A bundle was stored whole, and verified.
    ReleasePushed(Release),
    /// A rollout was kept long enough after its end.
    RolloutAged {
        /// Which.
        rollout: u64,
        /// It must have ended before this time.
        before: UnixMillis,
    },
    /// A person wants the room of the releases that nothing needs.
    StockCleared {
        /// That came before this time.
        before: UnixMillis,
    },
    /// A person wants a release on devices.
    RolloutRequested(Box<RolloutRequest>),
    /// A person wants something of a rollout.
    RolloutTurned {
        /// Which.
        rollout: u64,
        /// Who.
        by: String,
        /// When they were let in.
        since: UnixMillis,
        /// What.
        wish: Wish,
    },
    /// Devices told what their models did since they told it before, each once.
    Measured(Vec<Measured>),
    /// A person wants something of a device now.
    CommandRequested {
        /// Which.
        device: DeviceId,
        /// What.
        request: Request,
        /// For how long that counts, in milliseconds.
        good_for: UnixMillis,
    },
    /// A person wants something of many devices now.
    FanOutRequested(Box<FanOutWish>),
    /// A device said what came of a command, and it was kept.
    CommandAnswered {
        /// Which.
        device: DeviceId,
        /// The command's number.
        seq: u64,
        /// What came of it.
        outcome: CommandOutcome,
        /// And what it said beside that.
        said: Said,
    },
    /// A person wants inputs that devices keep.
    SamplesWanted(Box<SampleWish>),
    /// A person wants something of such a request.
    SamplesTurned {
        /// Which.
        request: u64,
        /// Who.
        by: String,
        /// When they were let in.
        since: UnixMillis,
        /// What.
        turn: SampleTurn,
    },
    /// The time of [`crate::Bridge::deadline`] has come.
    DeadlineReached,
}

/// What let a device ask to come in: its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invitation {
    /// When a person made it.
    pub made: UnixMillis,
    /// Whether a person must decide once more.
    pub pending: bool,
}

/// A release that can be rolled out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The stream.
    pub stream: StreamName,
    /// The version as people write it.
    pub version: String,
    /// The release number.
    pub release: u64,
    /// The bundle.
    pub bundle: Digest,
    /// Its size in bytes.
    pub total_size: u64,
    /// Memory that its manifest promises to be enough, in MiB; 0 where nobody knows.
    #[serde(default)]
    pub ram_mb: u64,
    /// When it came.
    pub pushed: UnixMillis,
}

/// What a person asks of a rollout.
#[derive(Debug, Clone, PartialEq)]
pub struct RolloutRequest {
    /// The stream.
    pub stream: StreamName,
    /// The version to roll out.
    pub version: String,
    /// To whom.
    pub to: Targets,
    /// How it goes.
    pub policy: Policy,
    /// Who asks.
    pub by: String,
    /// It is only written down: a person begins it later.
    pub draft: bool,
}

/// The devices that a rollout is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Targets {
    /// Every approved device.
    All,
    /// These.
    Devices(BTreeSet<DeviceId>),
    /// Those of which this is true, also when they come later.
    Where(Target),
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Targets::All => f.write_str("all"),
            Targets::Devices(ids) => {
                let ids: Vec<&str> = ids.iter().map(DeviceId::as_str).collect();
                f.write_str(&ids.join(","))
            }
            Targets::Where(target) => target.fmt(f),
        }
    }
}

impl Targets {
    /// Whether a device is meant.
    pub fn mean(&self, device: &Device) -> bool {
        match self {
            Targets::All => true,
            Targets::Devices(ids) => ids.contains(&device.id),
            Targets::Where(target) => target.holds(device),
        }
    }
}

/// Why a person's request was turned down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It names something that is not there.
    #[error("there is no {0}")]
    NotFound(String),
    /// It contradicts what is.
    #[error("{0}")]
    Conflict(String),
    /// It makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A document is not believed.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Rejection {
    /// A stable code, the same in REST and in the audit log.
    pub fn code(&self) -> &'static str {
        match self {
            Rejection::NotFound(_) => "not_found",
            Rejection::Conflict(_) => "conflict",
            Rejection::Invalid(_) => "invalid",
            Rejection::Refused(refusal) => refusal.code.as_str(),
        }
    }
}
