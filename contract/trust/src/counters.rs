//! All that a device must remember to be fooled by no old document: one small value for its ledger.
//!
//! Nothing here falls, but for what a newer root resets on purpose: the time (`clock_reset`) and the
//! numbers of a role whose epoch it raises. The fields are private so that only [`crate::Trust`]
//! changes them.

use crate::strict::{Time, U53};
use crate::{Code, Digest, Refusal, Root, Verified};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The most names of breakglass uses that are remembered, until a root raises the epoch of the role.
pub(crate) const MAX_ONCE_IDS: usize = 256;
/// The most streams that have a floor.
const MAX_FLOORS: usize = 1024;

/// The number of a document: newer means greater, first by the epoch of the role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    /// Grows when the root renews the role.
    pub role_epoch: U53,
    /// Grows with every document within an epoch.
    pub seq: U53,
}

/// The newest document of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Known {
    pub(crate) generation: Generation,
    pub(crate) sha256: Digest,
}

/// A breakglass that was taken and not yet used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Leave {
    pub(crate) release: U53,
    pub(crate) expires: Time,
}

/// The memory of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counters {
    pub(crate) root_version: U53,
    pub(crate) root_sha256: Digest,
    pub(crate) clock_reset: Option<U53>,
    pub(crate) revocation: Option<Known>,
    pub(crate) assignment: Option<Known>,
    pub(crate) beacon: Option<Known>,
    /// Floors of confirmed bundles.
    pub(crate) floors: BTreeMap<String, U53>,
    /// The memory was lost: no floor is known until the bridge answers afresh.
    pub(crate) floors_unknown: bool,
    pub(crate) breakglass_epoch: U53,
    pub(crate) once_ids: BTreeSet<String>,
    pub(crate) leaves: BTreeMap<String, Leave>,
    /// It is not earlier than this.
    pub(crate) time: Time,
    /// Some document but a root said so.
    pub(crate) time_was_told: bool,
}

impl Counters {
    /// The version of the root.
    pub fn root_version(&self) -> u64 {
        self.root_version.get()
    }

    /// The digest of the root's payload.
    pub fn root_digest(&self) -> Digest {
        self.root_sha256
    }

    /// The digest of the newest revocation's payload.
    pub fn revocation_digest(&self) -> Option<Digest> {
        self.revocation.map(|known| known.sha256)
    }

    /// The newest revocation.
    pub fn revocation(&self) -> Option<Generation> {
        self.revocation.map(|known| known.generation)
    }

    /// The newest assignment.
    pub fn assignment(&self) -> Option<Generation> {
        self.assignment.map(|known| known.generation)
    }

    /// The newest beacon.
    pub fn beacon(&self) -> Option<Generation> {
        self.beacon.map(|known| known.generation)
    }

    /// The floor that confirmed bundles put under a stream.
    pub fn floor(&self, stream: &str) -> u64 {
        self.floors.get(stream).map_or(0, |floor| floor.get())
    }

    /// The newest signed moment.
    pub fn time(&self) -> Time {
        self.time
    }

    /// What is lower here than in `last`: a device whose disk was put back cannot know that it forgot
    /// something, but whoever heard its last report can.
    pub fn behind(&self, last: &Self) -> Vec<&'static str> {
        let floors_fell = last.floors.keys().any(|stream| self.floor(stream) < last.floor(stream));
        [
            ("root", self.root_version < last.root_version),
            ("revocation", self.revocation() < last.revocation()),
            ("assignment", self.assignment() < last.assignment()),
            ("beacon", self.beacon() < last.beacon()),
            ("floors", floors_fell),
            (
                "breakglass",
                self.breakglass_epoch <= last.breakglass_epoch && !self.once_ids.is_superset(&last.once_ids),
            ),
            ("time", self.time < last.time && self.clock_reset <= last.clock_reset),
        ]
        .into_iter()
        .filter_map(|(name, fell)| fell.then_some(name))
        .collect()
    }

    /// Refuses a root that cannot come before, or be, the one that was believed.
    pub(crate) fn check_leads_to(&self, root: &Verified<Root>) -> Result<(), Refusal> {
        let other = root.version == self.root_version && root.digest() != self.root_sha256;
        if root.version > self.root_version || other {
            let detail = format!("root {} is not the one that was believed, nor before it", root.version);
            return Err(Refusal::new(Code::RootFork, detail));
        }
        Ok(())
    }

    pub(crate) fn raise_floor(&mut self, stream: &str, floor: U53) -> Result<(), Refusal> {
        if self.floors.len() >= MAX_FLOORS && !self.floors.contains_key(stream) {
            return Err(Refusal::new(Code::Limit, format!("more than {MAX_FLOORS} streams have a floor")));
        }
        let known = self.floors.entry(stream.to_owned()).or_default();
        *known = floor.max(*known);
        Ok(())
    }
}

/// Whether a document is new (`true`) or the very newest one again (`false`).
pub(crate) fn is_new(
    what: &str,
    code: Code,
    known: Option<Known>,
    (generation, sha256): (Generation, Digest),
) -> Result<bool, Refusal> {
    match known {
        None => Ok(true),
        Some(known) if generation > known.generation => Ok(true),
        Some(known) if generation == known.generation && sha256 == known.sha256 => Ok(false),
        Some(known) => {
            let (offered, last) = (generation, known.generation);
            let detail = format!(
                "{what} {}/{} (epoch/number) came after {}/{}",
                offered.role_epoch, offered.seq, last.role_epoch, last.seq
            );
            Err(Refusal::new(code, detail))
        }
    }
}
