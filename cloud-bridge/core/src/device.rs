//! One device as land knows it: who it is, what it should run, what it says it runs.

use crate::{AssignmentDraft, Credential, Release, UnixMillis};
use protocol::{DeviceId, Profile, Report, StreamName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use trust::{Digest, Intent, StreamAssignment, Trial, U53};

/// A device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its name.
    pub id: DeviceId,
    /// The key that speaks for it.
    pub credential: Credential,
    /// One that it asked for later, which counts from its first use.
    pub next: Option<Credential>,
    /// Whether it belongs to the fleet.
    pub status: Status,
    /// What it runs on.
    pub profile: Profile,
    /// Whether the broker sees it.
    pub online: bool,
    /// When it was last heard.
    pub last_seen: UnixMillis,
    /// The latest of its messages, each kind once.
    pub heard: Heard,
    /// The generation of its latest assignment.
    pub generation: u64,
    /// What it should run.
    pub desired: BTreeMap<StreamName, Desired>,
    /// What it says it runs.
    pub report: Option<Report>,
}

/// Whether a device belongs to the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is enrolled; a person must still decide.
    Pending,
    /// It belongs to the fleet.
    Approved,
    /// It was thrown out: nothing that it says counts, and its name stays taken.
    Revoked,
    /// It left; its name is free.
    Retired,
}

impl Status {
    /// Whether it has a certificate that counts.
    pub fn is_member(self) -> bool {
        match self {
            Status::Pending | Status::Approved => true,
            Status::Revoked | Status::Retired => false,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Status::Pending => "pending",
            Status::Approved => "approved",
            Status::Revoked => "revoked",
            Status::Retired => "retired",
        })
    }
}

/// The latest messages taken from a device: an older one is never taken after a newer one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// Boot counter and sequence of the latest hello.
    pub hello: (u64, u64),
    /// Boot counter and sequence of the latest report.
    pub report: (u64, u64),
}

/// What a device should run of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// What is meant by it.
    pub intent: Intent,
    /// The release number.
    pub release: u64,
    /// Its version.
    pub version: String,
    /// The bundle.
    pub bundle: Digest,
    /// Its size in bytes.
    pub total_size: u64,
    /// The rollout that decided it.
    pub rollout: u64,
    /// How it proves itself.
    pub trial: Trial,
    /// The generation that first said so.
    pub since: u64,
    /// Sequence of the device's latest verdict on it; 0 before the first. Counted for each stream: the
    /// broker may lose a verdict on one and pass on a later one on another.
    pub verdict: u64,
}

impl Device {
    /// A device that was never heard before.
    pub(crate) fn new(id: DeviceId, credential: Credential, profile: Profile) -> Self {
        Self {
            id,
            credential,
            next: None,
            status: Status::Pending,
            profile,
            online: false,
            last_seen: 0,
            heard: Heard::default(),
            generation: 0,
            desired: BTreeMap::new(),
            report: None,
        }
    }

    /// Its credentials: the one that speaks for it, and one that may soon.
    pub fn credentials(&self) -> impl Iterator<Item = &Credential> {
        [&self.credential].into_iter().chain(&self.next)
    }

    /// Whether `key` is one of its keys.
    pub fn holds(&self, key: &[u8]) -> bool {
        self.credentials().any(|c| c.key == key)
    }

    /// Wants `release` of its stream: a new generation.
    pub(crate) fn want(&mut self, release: &Release, intent: Intent, rollout: u64, trial: Trial) {
        self.generation += 1;
        let desired = Desired {
            intent,
            release: release.release,
            version: release.version.clone(),
            bundle: release.bundle,
            total_size: release.total_size,
            rollout,
            trial,
            since: self.generation,
            verdict: 0,
        };
        self.desired.insert(release.stream.clone(), desired);
    }

    /// Wants nothing of a stream any more: a new generation.
    pub(crate) fn want_none(&mut self, stream: &StreamName) {
        self.generation += 1;
        self.desired.remove(stream);
    }

    /// What it should be told.
    ///
    /// # Panics
    /// When a counter passed 2^53, which no bridge lives to see.
    pub(crate) fn assignment(&self) -> AssignmentDraft {
        let number = |n: u64| U53::try_from(n).expect("counters stay below 2^53");
        let streams = self.desired.iter().map(|(stream, desired)| StreamAssignment {
            stream: stream.to_string(),
            intent: desired.intent,
            release: number(desired.release),
            statement_sha256: desired.bundle,
            total_size: number(desired.total_size),
            rollout_id: number(desired.rollout),
            trial: desired.trial,
            from_release: None,
            not_before: None,
            deadline: None,
        });
        AssignmentDraft { device: self.id.clone(), seq: self.generation, streams: streams.collect() }
    }

    /// The release that it says serves as confirmed.
    pub fn active(&self, stream: &StreamName) -> Option<(u64, Digest)> {
        let row = self.report.as_ref()?.streams.iter().find(|s| s.stream == *stream)?;
        row.active.map(|a| (a.release, Digest(a.statement_sha256)))
    }
}
