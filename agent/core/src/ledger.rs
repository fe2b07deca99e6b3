//! What a device must remember over a power cut: small, written whole, only when it changed.

use protocol::{Generation, StreamName, Verdict};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use trust::{Digest, Intent, Trial};

/// The memory of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// How often the agent was started.
    pub boot: u64,
    /// The last assignment that was accepted.
    pub generation: Option<Generation>,
    /// The streams that were ever assigned; of a retired one its floor is all that is left.
    pub streams: BTreeMap<StreamName, StreamLedger>,
    /// The number of verdicts given.
    pub verdicts_given: u64,
    /// Verdicts that the broker does not have yet.
    pub outbox: Vec<Verdict>,
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
    /// The lowest release that may be installed.
    pub floor: u64,
}

/// What land wants of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The latest assignment that said so.
    pub generation: Generation,
    /// What is meant by it.
    pub intent: Intent,
    /// The bundle and its release.
    pub target: Installed,
    /// Its size in bytes.
    pub total_size: u64,
    /// The rollout that it belongs to.
    pub rollout: u64,
    /// How it proves itself.
    pub trial: Trial,
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
    pub security_floor: u64,
    /// Starts of the agent that found it on trial.
    pub boots: u64,
}

impl StreamLedger {
    /// What should answer now, and what answers when that fails.
    pub fn serving(&self) -> Option<(Installed, Option<Installed>)> {
        match (self.trial, self.active) {
            (Some(trial), active) => Some((trial.candidate, active)),
            (None, Some(active)) => Some((active, None)),
            (None, None) => None,
        }
    }

    /// The bundles that must stay on disk.
    pub(crate) fn pinned(&self) -> impl Iterator<Item = Digest> {
        let wanted = self.wanted.as_ref().filter(|_| !self.settled).map(|w| w.target);
        [self.active, self.previous, self.trial.map(|t| t.candidate), wanted].into_iter().flatten().map(|i| i.bundle)
    }
}

impl Ledger {
    /// The bundles that must stay on disk.
    pub(crate) fn pinned(&self) -> BTreeSet<Digest> {
        self.streams.values().flat_map(StreamLedger::pinned).collect()
    }
}
