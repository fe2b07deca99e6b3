//! One device as land knows it: who it is, what it should run, what it says it runs.

use crate::audit::Deed;
use crate::evidence::{Figures, Lately};
use crate::{AssignmentDraft, Credential, Now, Numbers, Release, UnixMillis};
use litemap::LiteMap;
use protocol::{DeviceId, Profile, Report, StreamName, StreamReport};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use trust::{Digest, Intent, StreamAssignment, Trial, U53};

/// An assignment is signed anew after 30 days, in milliseconds: it is good for a year.
const SIGNED_ANEW: UnixMillis = 30 * 24 * 3_600_000;

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
    /// What people say of it: a site, a line, whatever they group devices by.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Whether the broker sees it.
    pub online: bool,
    /// When it was last heard.
    pub last_seen: UnixMillis,
    /// When one of this name last left the fleet: invitations from before that count no more.
    #[serde(default)]
    pub left: Option<UnixMillis>,
    /// The latest of its messages, each kind once.
    pub heard: Heard,
    /// Its latest hello, which commands answer.
    #[serde(default)]
    pub greeted: Option<Greeted>,
    /// The number of the latest command for it.
    #[serde(default)]
    pub commands: u64,
    /// The generation of its latest assignment.
    pub generation: u64,
    /// Land was put back from a copy: the generation that this knew. Nothing is signed for the device until it was heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgotten: Option<u64>,
    /// What its latest assignment was signed with.
    pub sealed: Sealed,
    /// What is wrong with it, the latest.
    pub alarm: Option<Alarm>,
    /// What it should run.
    pub desired: LiteMap<StreamName, Desired>,
    /// What it says it runs.
    pub report: Option<Report>,
    /// What the releases that it runs did lately, by stream.
    #[serde(default)]
    pub lately: LiteMap<StreamName, Lately>,
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

/// What an assignment says besides the streams: the same generation is always signed alike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The generation that was signed.
    pub generation: u64,
    /// When it was decided.
    pub issued: UnixMillis,
    /// The root, the revocation and the epoch of that moment.
    pub numbers: Numbers,
}

/// Something about a device that a person should look into: it says less than it knew before, or there are two of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// When land saw it.
    pub at: UnixMillis,
    /// What was seen, in words.
    pub what: String,
}

/// The latest messages taken from a device: an older one is never taken after a newer one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// Boot counter and sequence of the latest hello.
    pub hello: (u64, u64),
    /// Boot counter and sequence of the latest report.
    pub report: (u64, u64),
}

/// A hello that was heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeted {
    /// Its nonce.
    pub nonce: String,
    /// When.
    pub at: UnixMillis,
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
            labels: BTreeMap::new(),
            left: None,
            heard: Heard::default(),
            greeted: None,
            commands: 0,
            generation: 0,
            forgotten: None,
            sealed: Sealed::default(),
            alarm: None,
            desired: LiteMap::new(),
            report: None,
            lately: LiteMap::new(),
        }
    }

    /// Whether it belongs to the fleet, and its word counts.
    pub fn is_approved(&self) -> bool {
        self.status == Status::Approved
    }

    /// What the release that it should run did in the last day or two, when nothing of another was told since.
    pub(crate) fn lately(&self, stream: &StreamName) -> Figures {
        let runs = self.desired.get(stream).map(|desired| desired.release);
        let lately = self.lately.get(stream).filter(|lately| Some(lately.release) == runs);
        lately.map(Lately::all).unwrap_or_default()
    }

    /// Whether people want it to stay as it is: it has a label `pinned`.
    pub fn is_pinned(&self) -> bool {
        self.labels.get("pinned").is_some_and(|value| value != "false")
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

    /// Settles what its assignment says besides the streams: `true` when that changed. What was signed
    /// long ago, or names what is not the newest any more, becomes a new generation.
    pub(crate) fn seal(&mut self, now: Now, numbers: Numbers) -> bool {
        let current = now.unix.saturating_sub(self.sealed.issued) < SIGNED_ANEW && self.sealed.numbers == numbers;
        if self.sealed.generation == self.generation {
            if current {
                return false;
            }
            self.generation += 1;
        }
        self.sealed = Sealed { generation: self.generation, issued: now.unix, numbers };
        true
    }

    /// Takes what it says of itself, and what it says less than before.
    pub(crate) fn take_report(&mut self, now: Now, mut report: Report) {
        // It is held for long, and of most devices has one row.
        report.streams.shrink_to_fit();
        if self.forgot(&report) {
            let last = self.report.as_ref();
            let what = format!(
                "its memory went back: boot {} after {}, assignment {} after {}; its disk was lost or put back from a copy",
                report.boot,
                self.heard.report.0,
                report.generation.map_or(0, |g| g.seq),
                last.and_then(|r| r.generation).map_or(0, |g| g.seq),
            );
            self.alarm = Some(Alarm { at: now.unix, what });
            self.heard.hello = self.heard.hello.min((report.boot, report.seq));
            // Its verdicts are counted anew.
            self.desired.iter_mut().for_each(|(_, desired)| desired.verdict = 0);
        }
        self.heard.report = (report.boot, report.seq);
        self.last_seen = now.unix;
        self.report = Some(report);
    }

    /// Whether a report says less than the last one did: of boots, of documents, or of floors.
    pub(crate) fn forgot(&self, report: &Report) -> bool {
        let Some(last) = &self.report else { return false };
        let floor = |report: &Report, stream: &StreamName| {
            report.streams.iter().find(|row| row.stream == *stream).map(|row| row.floor)
        };
        let fell = |row: &StreamReport| floor(report, &row.stream).is_some_and(|now| now < row.floor);
        report.boot < last.boot
            || report.root_version < last.root_version
            || report.generation < last.generation
            || report.revocation < last.revocation
            || report.beacon < last.beacon
            || last.streams.iter().any(fell)
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
        let Sealed { generation, issued, numbers } = self.sealed;
        AssignmentDraft { device: self.id.clone(), seq: generation, issued, numbers, streams: streams.collect() }
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

    /// The bundles that it says it holds: active, before it, and on trial.
    pub(crate) fn held(&self) -> impl Iterator<Item = Digest> {
        self.report.iter().flat_map(|report| &report.streams).flat_map(|row| {
            let trial = row.trial.as_ref().map(|trial| trial.statement_sha256);
            let kept = [row.active, row.previous].into_iter().flatten().map(|running| running.statement_sha256);
            kept.chain(trial).map(Digest)
        })
    }

    /// The release that it says serves as confirmed.
    pub fn active(&self, stream: &StreamName) -> Option<(u64, Digest)> {
        let row = self.report.as_ref()?.streams.iter().find(|s| s.stream == *stream)?;
        row.active.map(|a| (a.release, Digest(a.statement_sha256)))
    }
}
