//! What a device must remember over a power cut: small, written whole, only when it changed.

use protocol::{DocumentKind, Generation, StreamName, Verdict};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use trust::{Counters, Digest, Held, StreamAssignment, U53};

/// What is saved before the effects of a step leave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// Documents that the ledger names by their digests: on the disk before it.
    pub documents: Vec<Document>,
    /// The ledger.
    pub ledger: Ledger,
}

/// A document that was believed, to be read again after a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its kind: a root or a revocation.
    pub kind: DocumentKind,
    /// The digest of what was signed, as the counters know it.
    pub digest: Digest,
    /// The signed envelope.
    pub bytes: Vec<u8>,
}

/// The memory of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// How often the agent was started.
    pub boot: u64,
    /// What was believed, so that no old document is believed again; nothing before the first start.
    pub trust: Option<Counters>,
    /// The streams that are assigned.
    pub streams: BTreeMap<StreamName, StreamLedger>,
    /// Who signed the bundles that run or stand behind one: a publisher may be revoked later.
    pub signers: BTreeMap<Digest, Vec<String>>,
    /// What they cost this device.
    #[serde(default)]
    pub costs: BTreeMap<Digest, Cost>,
    /// The number of verdicts given.
    pub verdicts_given: u64,
    /// Verdicts that the broker does not have yet.
    pub outbox: Vec<Verdict>,
}

/// What a bundle costs the device that runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Memory that its manifest promises to do with, MiB.
    pub ram_mb: u64,
    /// Microseconds that a row took when it was probed here.
    pub row_us: u64,
}

/// One stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamLedger {
    /// What land wants.
    pub wanted: Option<Wanted>,
    /// A verdict was given on `wanted`: nothing more is done for it.
    pub settled: bool,
    /// The verdict that settled it. The broker may lose what it acknowledged, so it is said again when
    /// land says its assignment again; land takes it once.
    pub verdict: Option<Verdict>,
    /// The confirmed release.
    pub active: Option<Installed>,
    /// The confirmed release before it, pinned on disk.
    pub previous: Option<Installed>,
    /// The release on trial.
    pub trial: Option<TrialLedger>,
    /// The active release was taken away and nothing took its place: it does not answer. Remembered, so that
    /// a revocation that is lost on the disk gives nothing back.
    pub silenced: bool,
}

/// What land wants of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The latest assignment that said so.
    pub generation: Generation,
    /// What it says.
    pub order: StreamAssignment,
}

/// A bundle on disk, or one that should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Installed {
    /// The release number.
    pub release: u64,
    /// The bundle.
    pub bundle: Digest,
}

/// A release on trial: on disk before it serves, so that a crash while it serves is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrialLedger {
    /// What is on trial.
    pub candidate: Installed,
    /// The floor that its manifest asks for, once it is confirmed.
    pub security_floor: U53,
    /// Starts of the agent that found it on trial.
    pub boots: u64,
}

impl Wanted {
    /// The bundle and its release.
    pub fn target(&self) -> Installed {
        Installed { release: self.order.release.get(), bundle: self.order.statement_sha256 }
    }
}

impl StreamLedger {
    /// The bundles that must stay on disk.
    pub(crate) fn pinned(&self) -> impl Iterator<Item = Digest> {
        let wanted = self.wanted.as_ref().filter(|_| !self.settled).map(Wanted::target);
        [self.active, self.previous, self.trial.map(|t| t.candidate), wanted].into_iter().flatten().map(|i| i.bundle)
    }
}

impl Ledger {
    /// A bundle of `stream` with those who signed it, as `trust` asks for it.
    pub(crate) fn held<'a>(&'a self, stream: &'a StreamName, installed: Installed) -> Held<'a> {
        let signers = self.signers.get(&installed.bundle).map_or(&[][..], Vec::as_slice);
        Held { statement: installed.bundle, stream: stream.as_str(), release: installed.release, signers }
    }

    /// What may answer although nothing can be remembered, and microseconds that a row took it here (0 when nobody knows):
    /// of a confirmed release no crash is counted on the disk. What is on trial waits, what was silenced stays so.
    pub fn confirmed(&self) -> impl Iterator<Item = (&StreamName, Digest, u64)> {
        let speaking = self.streams.iter().filter(|(_, stream)| !stream.silenced);
        speaking.filter_map(|(name, stream)| {
            let bundle = stream.active?.bundle;
            Some((name, bundle, self.costs.get(&bundle).map_or(0, |cost| cost.row_us)))
        })
    }

    /// Memory that the bundles take which stay loaded, whatever else is tried: those that serve and those on trial, MiB.
    pub fn ram_in_use(&self) -> u64 {
        let loaded = self.streams.values().flat_map(|s| [s.active, s.trial.map(|t| t.candidate)]).flatten();
        let loaded: BTreeSet<Digest> = loaded.map(|installed| installed.bundle).collect();
        loaded.iter().filter_map(|bundle| self.costs.get(bundle)).map(|cost| cost.ram_mb).sum()
    }

    /// The bundles that must stay on disk.
    pub(crate) fn pinned(&self) -> BTreeSet<Digest> {
        self.streams.values().flat_map(StreamLedger::pinned).collect()
    }
}
