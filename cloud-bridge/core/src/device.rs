//! One device as land knows it: who it is, what it should run, what it says it runs.

use crate::audit::Deed;
use crate::{AssignmentDraft, Release, UnixMillis};
use protocol::{DeviceId, Profile, Report, StreamName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use trust::{Digest, Intent, StreamAssignment, Trial, U53};

/// A device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its name.
    pub id: DeviceId,
    /// Its public key, SubjectPublicKeyInfo in DER.
    pub key: Vec<u8>,
    /// Whether a person let it in.
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

/// Whether a person let a device in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It said hello; nobody decided.
    Pending,
    /// It belongs to the fleet.
    Approved,
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
    pub(crate) fn new(id: DeviceId, key: Vec<u8>, profile: Profile) -> Self {
        Self {
            id,
            key,
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

    /// What it should be told, as the audit log tells it: whatever the director signs stands there before.
    pub(crate) fn assigned(&self) -> Deed {
        let stream = |(stream, desired): (&StreamName, &Desired)| {
            format!(", {stream} {} ({})", desired.release, desired.bundle.short())
        };
        let streams: String = self.desired.iter().map(stream).collect();
        let subject = format!("{} generation {}{streams}", self.id, self.generation);
        Deed::new("director", "assign", &subject, "done")
    }

    /// The release that it says serves as confirmed.
    pub fn active(&self, stream: &StreamName) -> Option<(u64, Digest)> {
        let row = self.report.as_ref()?.streams.iter().find(|s| s.stream == *stream)?;
        row.active.map(|a| (a.release, Digest(a.statement_sha256)))
    }
}
