//! The documents for everybody: the chain of roots, the newest revocation, the newest breakglass. Land can
//! make none of them; it verifies what people bring, keeps it, and says it to whoever listens.
//!
//! And the beacon, which land does make: its number grows over restarts, so that no two beacons share one.

use crate::{Answer, BeaconDraft, Bridge, Effect, Event, Now, Record, Rejection, Status, UnixMillis};
use protocol::{DeviceId, DocumentKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use trust::{Digest, Envelope, MAX_ROOT_BYTES, PayloadKind, Refusal, Revocation, Role, Root, Severity, Verified};

/// How often everybody is told the time, in milliseconds.
const BEACON_PAUSE: UnixMillis = 3_600_000;
/// Numbers of beacons are reserved so many at a time: a save for each would cost more than the beacon.
const RESERVED_AT_ONCE: u64 = 1_000;
/// A hello is answered at most so often, in milliseconds: anybody can repeat one.
const ANSWER_PAUSE: UnixMillis = 1_000;

/// Where the broker retains nothing, a hello has every document said again, at most so often, in milliseconds.
const ANNOUNCEMENT_PAUSE: UnixMillis = 5_000;

/// A document as it is kept and published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredDocument {
    /// Its kind.
    pub document: DocumentKind,
    /// The version of a root or a revocation; 0 for a breakglass.
    pub number: u64,
    /// The digest of what was signed.
    pub sha256: Digest,
    /// The signed envelope, JSON.
    pub text: String,
}

impl StoredDocument {
    /// What it is kept under: each root by its version, the newest of the others.
    pub fn slot(&self) -> u64 {
        if self.document == DocumentKind::Root { self.number } else { 0 }
    }
}

/// What was verified, and its text.
#[derive(Debug, Default)]
pub(crate) struct Documents {
    root: Option<Verified<Root>>,
    revocation: Option<Verified<Revocation>>,
    roots: BTreeMap<u64, StoredDocument>,
    others: BTreeMap<DocumentKind, StoredDocument>,
}

/// What the documents say of what land itself signs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    /// The newest root.
    pub root: u64,
    /// The newest revocation, 0 without one.
    pub revocation: u64,
    /// The director's epoch.
    pub director: u64,
    /// The beacon's epoch.
    pub beacon: u64,
}

impl Documents {
    /// Verifies and keeps a document; whether it was not known already.
    pub(crate) fn take(
        &mut self,
        fleet: &str,
        kind: DocumentKind,
        bytes: &[u8],
    ) -> Result<(StoredDocument, bool), Rejection> {
        let payload = match kind {
            DocumentKind::Root => PayloadKind::Root,
            DocumentKind::Revocation => PayloadKind::Revocation,
            DocumentKind::Breakglass => PayloadKind::Breakglass,
            DocumentKind::Assignment | DocumentKind::Beacon | DocumentKind::Command => {
                return Err(Rejection::Invalid(
                    "assignments, beacons and commands are signed by the bridge itself".into(),
                ));
            }
        };
        let sha256 = Digest::of(&Envelope::parse(payload, bytes, MAX_ROOT_BYTES)?.payload);
        if let Some(known) = self.all().find(|known| known.sha256 == sha256) {
            return Ok((known.clone(), false));
        }
        let number = if kind == DocumentKind::Root {
            self.take_root(fleet, bytes)?
        } else {
            let root = self.root.as_ref().ok_or_else(|| Rejection::Conflict("the fleet has no root yet".into()))?;
            if kind == DocumentKind::Revocation {
                let newer = trust::next_revocation(root, self.revocation.as_ref(), bytes)?;
                self.revocation.insert(newer).version.get()
            } else {
                trust::verify_breakglass(root, bytes)?;
                0
            }
        };
        let text = String::from_utf8_lossy(bytes).into_owned();
        let stored = StoredDocument { document: kind, number, sha256, text };
        match kind {
            DocumentKind::Root => drop(self.roots.insert(number, stored.clone())),
            _ => drop(self.others.insert(kind, stored.clone())),
        }
        Ok((stored, true))
    }

    /// The root after the newest, or the one before the oldest: devices that were away read them all.
    fn take_root(&mut self, fleet: &str, bytes: &[u8]) -> Result<u64, Refusal> {
        let Some(newest) = &self.root else {
            return Ok(self.root.insert(trust::verify_root(fleet, bytes)?).version.get());
        };
        let oldest = self.roots.values().next().map(|stored| stored.text.as_bytes());
        if let (Ok(offered), Some(oldest)) = (trust::verify_root(fleet, bytes), oldest)
            && trust::next_root(&offered, oldest).is_ok()
        {
            return Ok(offered.version.get());
        }
        let next = trust::next_root(newest, bytes)?;
        Ok(self.root.insert(next).version.get())
    }

    /// What was kept, verified anew.
    pub(crate) fn restore(fleet: &str, mut stored: Vec<StoredDocument>) -> Result<Self, Refusal> {
        let mut documents = Self::default();
        stored.sort_by_key(|s| (s.document, s.number));
        for document in stored {
            if let Err(Rejection::Refused(refusal)) = documents.take(fleet, document.document, document.text.as_bytes())
            {
                return Err(refusal);
            }
        }
        Ok(documents)
    }

    pub(crate) fn root(&self) -> Option<&Verified<Root>> {
        self.root.as_ref()
    }

    pub(crate) fn revocation(&self) -> Option<&Verified<Revocation>> {
        self.revocation.as_ref()
    }

    /// Every document, in the order in which it is published.
    pub(crate) fn all(&self) -> impl Iterator<Item = &StoredDocument> {
        self.roots.values().chain(self.others.values())
    }

    /// `None` before there is a root.
    pub(crate) fn numbers(&self) -> Option<Numbers> {
        let root = self.root.as_ref()?;
        Some(Numbers {
            root: root.version.get(),
            revocation: self.revocation.as_ref().map_or(0, |r| r.version.get()),
            director: root.role_epoch(Role::Director),
            beacon: root.role_epoch(Role::Beacon),
        })
    }
}

/// The numbers of beacons, and when they are due.
#[derive(Debug, Default)]
pub(crate) struct Beacons {
    next: u64,
    reserved: u64,
    /// When everybody is told the time again; `None` while nobody would hear it.
    pub(crate) due: Option<UnixMillis>,
    /// When a device's hello was answered last.
    answered: BTreeMap<DeviceId, UnixMillis>,
}

/// When every document is said to everybody again: a broker that retains nothing cannot do it.
#[derive(Debug, Default)]
pub(crate) struct Announcement {
    said: UnixMillis,
    pub(crate) due: Option<UnixMillis>,
}

impl Beacons {
    pub(crate) fn restore(&mut self, reserved: u64) {
        (self.next, self.reserved) = (reserved, reserved);
    }
}

impl Bridge {
    /// A person brings a document that land cannot make.
    pub(crate) fn take_document(&mut self, now: Now, event: Event) -> Result<Answer, Rejection> {
        let Event::DocumentPushed { kind, bytes } = event else { return Ok(Answer::Done) };
        let (stored, new) = self.documents.take(self.fleet.as_str(), kind, &bytes)?;
        let number = stored.number;
        if !new {
            return Ok(Answer::Taken { kind, number, new });
        }
        self.records.push(Record::Document(Box::new(stored.clone())));
        self.effects.push(Effect::PublishDocument(stored));
        self.adopt();
        if kind != DocumentKind::Breakglass {
            // What land signs names the newest root and revocation, and devices wait for both.
            self.everybody_is_due();
            self.remember_all(now);
            self.beacon(now, None, None);
        }
        Ok(Answer::Taken { kind, number, new })
    }

    /// Says every document, now.
    pub(crate) fn say_documents(&mut self, now: Now) {
        self.announcement = Announcement { said: now.unix, due: None };
        self.effects.extend(self.documents.all().cloned().map(Effect::PublishDocument));
    }

    /// Says every document soon: once for all who came meanwhile.
    pub(crate) fn announce(&mut self, now: Now) {
        let next = self.announcement.said.saturating_add(ANNOUNCEMENT_PAUSE);
        if next <= now.unix {
            self.say_documents(now);
        } else {
            self.announcement.due = Some(next);
        }
    }

    /// The hands sign and verify with the newest documents.
    pub(crate) fn adopt(&mut self) {
        if let Some(root) = self.documents.root() {
            let (root, revocation) = (root.clone(), self.documents.revocation().cloned());
            self.effects.push(Effect::Adopt { root: Box::new(root), revocation: revocation.map(Box::new) });
        }
    }

    pub(crate) fn everybody_is_due(&mut self) {
        let approved = self.devices.values().filter(|d| d.status == Status::Approved);
        self.due.extend(approved.map(|d| d.id.clone()));
    }

    /// Says the time to everybody, or to the device whose hello held `nonce`.
    pub(crate) fn beacon(&mut self, now: Now, to: Option<DeviceId>, nonce: Option<String>) {
        let Some(numbers) = self.documents.numbers() else { return };
        if self.beacons.next >= self.beacons.reserved {
            self.beacons.reserved = self.beacons.next + RESERVED_AT_ONCE;
            self.records.push(Record::Beacons { reserved: self.beacons.reserved });
        }
        self.beacons.next += 1;
        let seq = self.beacons.next;
        match &to {
            Some(device) => drop(self.beacons.answered.insert(device.clone(), now.unix)),
            None => self.beacons.due = Some(now.unix + BEACON_PAUSE),
        }
        self.effects.push(Effect::PublishBeacon(BeaconDraft { to, seq, nonce, numbers }));
    }

    /// Answers a hello, unless the device was answered just now.
    pub(crate) fn answer(&mut self, now: Now, device: &DeviceId, nonce: String) {
        let lately = |at: &UnixMillis| now.unix < at + ANSWER_PAUSE;
        if !self.beacons.answered.get(device).is_some_and(lately) {
            self.beacon(now, Some(device.clone()), Some(nonce));
        }
    }

    /// Refuses a release that the newest revocation took away.
    pub(crate) fn check_not_revoked(&self, release: &crate::Release) -> Result<(), Rejection> {
        let word = |r: &Verified<Revocation>| r.severity(release.bundle, release.stream.as_str(), release.release);
        match self.documents.revocation().and_then(word) {
            None | Some(Severity::Info) => Ok(()),
            Some(Severity::NoNew | Severity::Fallback | Severity::Stop) => {
                let why = format!("{}@{} was taken away by the newest revocation", release.stream, release.version);
                Err(Rejection::Conflict(why))
            }
        }
    }
}
