//! What one device believes: its root, its revocation, its clock and its counters, with one door for
//! each kind of document.
//!
//! A door either takes a document whole or refuses it and changes nothing. Uptimes are milliseconds
//! since this boot. What is written to disk, and when, is for the caller: after a door took something
//! new, [`Trust::counters`] (and a new root or revocation) must be saved before anything is done with it.

use crate::counters::Counters;
use crate::dsse::{Envelope, PayloadKind};
use crate::root::{Role, read_root};
use crate::strict::{self, Time, U53};
use crate::{
    Clock, ClockState, Code, Digest, MAX_RETAINED_BYTES, Manifest, Refusal, Revocation, Root, Statement, Verified,
    statement, verify_manifest, verify_root,
};
use std::collections::{BTreeMap, BTreeSet};

/// The device that believes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub id: String,
    /// The class of its board; empty when it has none.
    pub class: String,
    /// The SHA-256 of its certificate.
    pub certificate: Option<Digest>,
    /// When its agent was built: it cannot be earlier.
    pub built: Time,
}

/// A document that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted<T> {
    /// It is newer than all before it: the counters changed.
    New(Verified<T>),
    /// It is the newest one, which was known; nothing changed.
    Again(Verified<T>),
}

impl<T> Accepted<T> {
    /// The document.
    pub fn document(&self) -> &Verified<T> {
        match self {
            Accepted::New(document) | Accepted::Again(document) => document,
        }
    }
}

/// What a device believes.
#[derive(Debug, Clone)]
pub struct Trust {
    pub(crate) device: Device,
    pub(crate) root: Verified<Root>,
    pub(crate) revocation: Option<Verified<Revocation>>,
    pub(crate) counters: Counters,
    pub(crate) clock: Clock,
    /// The newest root and revocation of which a beacon told in this boot.
    pub(crate) told: Option<(U53, U53)>,
    pub(crate) nonce: Option<String>,
    /// When that hello was said, and the number of the latest command that answered it.
    pub(crate) greeted_ms: u64,
    pub(crate) commanded: u64,
    pub(crate) roots_taken: usize,
}

impl Trust {
    /// The beginning of a device's life, with the root that it was given.
    ///
    /// # Errors
    /// What [`verify_root`] refuses.
    pub fn first(device: Device, fleet: &str, root: &[u8]) -> Result<Self, Refusal> {
        let root = verify_root(fleet, root)?;
        let counters = Counters {
            root_version: root.version,
            root_sha256: root.digest(),
            clock_reset: root.clock_reset,
            revocation: None,
            assignment: None,
            beacon: None,
            floors: BTreeMap::new(),
            floors_unknown: false,
            breakglass_epoch: root.epoch(Role::Breakglass),
            once_ids: BTreeSet::new(),
            leaves: BTreeMap::new(),
            time: device.built.max(root.issued),
            time_was_told: false,
        };
        Ok(Self::with(device, root, None, counters))
    }

    /// A device that lost its memory: as at the beginning, but it knows that it knows no floor, so it
    /// installs nothing until the bridge answers afresh.
    ///
    /// # Errors
    /// What [`verify_root`] refuses.
    pub fn after_loss(device: Device, fleet: &str, root: &[u8]) -> Result<Self, Refusal> {
        let mut trust = Self::first(device, fleet, root)?;
        trust.counters.floors_unknown = true;
        Ok(trust)
    }

    /// A new boot with the counters and documents of the last one. They are known again by the digests
    /// in the counters; a `revocation` that was lost on disk is `None`, and nothing is installed until
    /// it came again.
    ///
    /// # Errors
    /// `E_DIGEST` when a document is not the one that was believed.
    pub fn open(
        device: Device,
        fleet: &str,
        counters: Counters,
        root: &[u8],
        revocation: Option<&[u8]>,
    ) -> Result<Self, Refusal> {
        let other =
            |what: &str| Refusal::new(Code::Digest, format!("the {what} on disk is not the one that was believed"));
        let (envelope, root) = read_root(fleet, root)?;
        let root = Verified::new(root, &envelope.payload);
        if root.digest() != counters.root_sha256 {
            return Err(other("root"));
        }
        let read = |bytes: &[u8]| -> Result<Verified<Revocation>, Refusal> {
            let envelope = Envelope::parse(PayloadKind::Revocation, bytes, MAX_RETAINED_BYTES)?;
            let document = strict::parse_versioned("revocation", &envelope.payload)?;
            Ok(Verified::new(document, &envelope.payload))
        };
        let revocation = revocation.map(read).transpose()?;
        if revocation.as_ref().is_some_and(|r| counters.revocation.is_none_or(|known| known.sha256 != r.digest())) {
            return Err(other("revocation"));
        }
        Ok(Self::with(device, root, revocation, counters))
    }

    /// The same when the newest root was lost on disk: from `root`, an older one such as the device was
    /// given at first. Nothing is forgotten, and nothing is installed until the lost one came again.
    ///
    /// # Errors
    /// What [`verify_root`] refuses; `E_ROOT_FORK` when `root` is newer than what was believed, or another one.
    pub fn from_older_root(device: Device, fleet: &str, counters: Counters, root: &[u8]) -> Result<Self, Refusal> {
        let root = verify_root(fleet, root)?;
        counters.check_leads_to(&root)?;
        Ok(Self::with(device, root, None, counters))
    }

    fn with(
        device: Device,
        root: Verified<Root>,
        revocation: Option<Verified<Revocation>>,
        counters: Counters,
    ) -> Self {
        let clock = Clock::new(counters.time.max(device.built));
        Self {
            device,
            root,
            revocation,
            counters,
            clock,
            told: None,
            nonce: None,
            greeted_ms: 0,
            commanded: 0,
            roots_taken: 0,
        }
    }

    /// All that must be saved.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The root in use.
    pub fn root(&self) -> &Verified<Root> {
        &self.root
    }

    /// The revocation in use.
    pub fn revocation(&self) -> Option<&Verified<Revocation>> {
        self.revocation.as_ref()
    }

    /// Whether a revocation was believed that is not at hand: it was lost on the disk, and must come again.
    pub fn revocation_is_lost(&self) -> bool {
        self.counters.revocation.is_some() && self.revocation.is_none()
    }

    /// The time.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// How well the time is known.
    pub fn clock_state(&self, uptime_ms: u64) -> ClockState {
        if self.root_expired(uptime_ms) {
            ClockState::Expired
        } else if self.clock.fresh(uptime_ms) {
            ClockState::Fresh
        } else if self.counters.time_was_told {
            ClockState::Stale
        } else {
            ClockState::Unset
        }
    }

    /// The next uptime at which [`Self::clock_state`] is another one, if nothing is heard until then.
    pub fn clock_turns(&self, uptime_ms: u64) -> Option<u64> {
        let turns = [self.clock.fresh_until(), Some(self.clock.passes(self.root.expires))];
        turns.into_iter().flatten().filter(|turn| *turn > uptime_ms).min()
    }

    /// The nonce of the hello that is said now, drawn by the caller: only an answer that holds it is fresh.
    pub fn expect_nonce(&mut self, nonce: impl Into<String>, uptime_ms: u64) {
        self.nonce = Some(nonce.into());
        (self.greeted_ms, self.commanded) = (uptime_ms, 0);
    }

    /// The lowest release of a stream that may be installed.
    pub fn floor(&self, stream: &str) -> u64 {
        self.counters.floor(stream).max(self.revocation.as_ref().map_or(0, |r| r.floor(stream)))
    }

    /// A bundle's envelope, signed by enough publishers that are not revoked.
    ///
    /// # Errors
    /// What [`crate::verify_statement`] refuses; `E_REVOKED_KEY`.
    pub fn verify_statement(&self, bytes: &[u8]) -> Result<Verified<Statement>, Refusal> {
        let revoked = |key: &str| self.revocation.as_ref().is_some_and(|r| r.key_revoked(key, None));
        statement::believe(&self.root, revoked, bytes)
    }

    /// A bundle's manifest, signed by enough unrevoked publishers of its stream.
    ///
    /// # Errors
    /// What [`verify_manifest`] refuses.
    pub fn verify_manifest(
        &self,
        statement: &Verified<Statement>,
        bytes: &[u8],
    ) -> Result<Verified<Manifest>, Refusal> {
        verify_manifest(&self.root, statement, bytes)
    }

    /// A release of `stream` proved itself: the security floor of its verified manifest holds from now
    /// on, and leave to go under the floor for it is used up. What is on trial raises nothing.
    ///
    /// # Errors
    /// `E_LIMIT` when more than 1,024 streams would have a floor.
    pub fn confirm(&mut self, stream: &str, release: U53, security_floor: U53) -> Result<(), Refusal> {
        self.counters.raise_floor(stream, security_floor)?;
        if self.counters.leaves.get(stream).is_some_and(|leave| leave.release == release) {
            self.counters.leaves.remove(stream);
        }
        Ok(())
    }

    pub(crate) fn root_expired(&self, uptime_ms: u64) -> bool {
        self.clock.low(uptime_ms) > self.root.expires
    }

    pub(crate) fn check_root_valid(&self, uptime_ms: u64) -> Result<(), Refusal> {
        if self.root_expired(uptime_ms) {
            let detail = format!("root {} expired at {}", self.root.version, self.root.expires);
            return Err(Refusal::new(Code::ExpiredRoot, detail));
        }
        Ok(())
    }

    /// Refuses while the root that was believed is not at hand again.
    pub(crate) fn check_root_reached(&self) -> Result<(), Refusal> {
        let (known, found) = (self.counters.root_version, self.root.version);
        if found < known {
            return Err(Refusal::new(Code::RootOld, format!("root {known} was lost on disk, {found} is at hand")));
        }
        Ok(())
    }

    pub(crate) fn check_device(&self) -> Result<(), Refusal> {
        let (id, certificate) = (&self.device.id, self.device.certificate);
        if self.revocation.as_ref().is_some_and(|r| r.device_revoked(id, certificate)) {
            return Err(Refusal::new(Code::RevokedDevice, format!("`{id}` was taken out of the fleet")));
        }
        Ok(())
    }

    pub(crate) fn check_not_expired(&self, what: &str, expires: Time, uptime_ms: u64) -> Result<(), Refusal> {
        if self.clock.low(uptime_ms) > expires {
            return Err(Refusal::new(Code::Expired, format!("the {what} expired at {expires}")));
        }
        Ok(())
    }

    /// Refuses to act on the word of somebody who knows a newer root or revocation.
    pub(crate) fn check_known(&self, root: U53, revocation: U53, who: &str) -> Result<(), Refusal> {
        if root > self.root.version {
            let detail = format!("{who} knows root {root}, this device has {}", self.root.version);
            return Err(Refusal::new(Code::RootOld, detail));
        }
        let version = self.revocation.as_ref().map_or(0, |r| r.version.get());
        if revocation.get() > version {
            let detail = format!("{who} knows revocation {revocation}, this device has {version}");
            return Err(Refusal::new(Code::RevocationOld, detail));
        }
        Ok(())
    }
}
