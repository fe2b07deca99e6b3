//! A rollout: waves of devices, and what they say of the release.

use crate::{RolloutRequest, UnixMillis};
use protocol::{DeviceId, Outcome, StreamName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use trust::{Digest, Trial};

/// The most waves of a rollout.
pub(crate) const MAX_WAVES: usize = 32;

/// How many devices have the release after a wave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum WaveSize {
    /// A number of devices.
    Count(u64),
    /// A share of all, 1 to 100; at least one device.
    Percent(u64),
}

impl WaveSize {
    fn of(self, all: usize) -> usize {
        match self {
            WaveSize::Count(count) => usize::try_from(count).unwrap_or(all).min(all),
            WaveSize::Percent(share) => (all * share as usize).div_ceil(100).min(all),
        }
    }
}

impl FromStr for WaveSize {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("`{text}` is no wave: use a count such as 5 or a share such as 10%");
        let size = match text.strip_suffix('%') {
            Some(share) => WaveSize::Percent(share.parse().ok().filter(|s| (1..=100).contains(s)).ok_or_else(fault)?),
            None => WaveSize::Count(text.parse().ok().filter(|c| *c > 0).ok_or_else(fault)?),
        };
        Ok(size)
    }
}

impl TryFrom<String> for WaveSize {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for WaveSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaveSize::Count(count) => write!(f, "{count}"),
            WaveSize::Percent(share) => write!(f, "{share}%"),
        }
    }
}

impl From<WaveSize> for String {
    fn from(size: WaveSize) -> String {
        size.to_string()
    }
}

/// A rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Its number.
    pub id: u64,
    /// The stream.
    pub stream: StreamName,
    /// The version that is rolled out.
    pub version: String,
    /// Its release number.
    pub release: u64,
    /// Its bundle.
    pub bundle: Digest,
    /// How it proves itself on each device.
    pub trial: Trial,
    /// One device more that refuses or reverts it stops the rollout.
    pub max_failed: u64,
    /// Seconds after which a wave that is not done stops the rollout.
    pub deadline_s: u64,
    /// Devices that may be on their way to a verdict at a time.
    #[serde(default)]
    pub at_once: Option<u64>,
    /// The devices, wave by wave.
    pub waves: Vec<Vec<DeviceId>>,
    /// How far it is.
    pub phase: Phase,
    /// When the wave under way began.
    pub wave_started: UnixMillis,
    /// When it began.
    pub started: UnixMillis,
    /// When it ended.
    pub ended: Option<UnixMillis>,
    /// The bundle that each assigned device ran before.
    pub before: BTreeMap<DeviceId, Option<Digest>>,
    /// What the devices said.
    pub results: BTreeMap<DeviceId, DeviceResult>,
}

/// How far a rollout is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum Phase {
    /// A wave is under way.
    Rolling {
        /// Its index.
        wave: usize,
    },
    /// The evidence was against it; the devices that had it were sent back.
    Stopped {
        /// The wave that it reached.
        wave: usize,
        /// Why.
        reason: String,
    },
    /// Every device that should have it, has it.
    Completed,
}

/// What one device said of the release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceResult {
    /// What became of it.
    pub outcome: Outcome,
    /// The refusal's code.
    pub code: Option<String>,
    /// The refusal in words.
    pub detail: Option<String>,
    /// Answers given on trial.
    pub answers: u64,
    /// Requests that it could not answer on trial.
    pub errors: u64,
}

/// What the results of a wave mean.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// Some devices have not answered.
    Open,
    /// The wave is done.
    Good,
    /// Too many failed.
    Bad(String),
}

impl Rollout {
    /// A rollout that has not begun, over `devices` in the order in which they enter.
    pub(crate) fn plan(id: u64, request: &RolloutRequest, release: u64, bundle: Digest, devices: &[DeviceId]) -> Self {
        let mut waves = Vec::new();
        let mut entered = 0;
        for size in &request.waves {
            let upto = size.of(devices.len());
            if upto > entered {
                waves.push(devices[entered..upto].to_vec());
                entered = upto;
            }
        }
        if entered < devices.len() {
            waves.push(devices[entered..].to_vec());
        }
        Self {
            id,
            stream: request.stream.clone(),
            version: request.version.clone(),
            release,
            bundle,
            trial: request.trial,
            max_failed: request.max_failed,
            deadline_s: request.deadline_s,
            at_once: request.at_once,
            waves,
            phase: Phase::Rolling { wave: 0 },
            wave_started: 0,
            started: 0,
            ended: None,
            before: BTreeMap::new(),
            results: BTreeMap::new(),
        }
    }

    /// The wave under way.
    pub fn wave(&self) -> Option<usize> {
        match self.phase {
            Phase::Rolling { wave } => Some(wave),
            Phase::Stopped { .. } | Phase::Completed => None,
        }
    }

    /// The number of devices that were assigned the release.
    pub fn hit(&self) -> usize {
        self.before.len()
    }

    /// The number of devices with `outcome`.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.results.values().filter(|r| r.outcome == outcome).count()
    }

    /// When the wave under way has taken too long.
    pub(crate) fn deadline(&self) -> Option<UnixMillis> {
        self.wave().map(|_| self.wave_started.saturating_add(self.deadline_s.saturating_mul(1_000)))
    }

    /// What the results say, `overdue` or not.
    pub(crate) fn evidence(&self, overdue: bool) -> Evidence {
        let Some(wave) = self.wave() else { return Evidence::Open };
        let failed: Vec<&DeviceResult> = self.results.values().filter(|r| r.outcome != Outcome::Confirmed).collect();
        if failed.len() as u64 > self.max_failed {
            let first = failed[0];
            let code = first.code.as_deref().unwrap_or("no code");
            let detail = first.detail.as_deref().unwrap_or_default();
            let reason =
                format!("{} device(s) failed, allowed were {}; {code}: {detail}", failed.len(), self.max_failed);
            return Evidence::Bad(reason);
        }
        let silent = self.waves[wave].iter().filter(|d| !self.results.contains_key(*d)).count();
        match (silent, overdue) {
            (0, _) => Evidence::Good,
            (_, false) => Evidence::Open,
            (_, true) => {
                Evidence::Bad(format!("{silent} device(s) gave no verdict within {} seconds", self.deadline_s))
            }
        }
    }
}

/// The order in which devices enter the waves of a stream: stable, and different for each stream
/// (FNV-1a over both names, 64 bit).
pub(crate) fn entry_order(stream: &StreamName, device: &DeviceId) -> u64 {
    let bytes = stream.as_str().bytes().chain([0]).chain(device.as_str().bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
