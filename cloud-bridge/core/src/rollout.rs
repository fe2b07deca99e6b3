//! A rollout: its waves, its members, and how far it is.
//!
//! Decides what a member counts as, and through [`Phase::next`] what may follow on what: the one table of a rollout's
//! life. What the evidence says is decided in [`crate::judge`], who is next in [`crate::planner`].

use crate::evidence::Figures;
use crate::judge::Judgement;
use crate::policy::{Wave, WaveSize};
use crate::{Device, Policy, Release, RolloutRequest, Targets, UnixMillis};
use protocol::{DeviceId, Outcome, StreamName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use trust::Digest;

/// A rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// Memory that its manifest promises to be enough, in MiB; 0 where nobody knows.
    pub ram_mb: u64,
    /// Whom it is for: devices that come later join it.
    pub to: Targets,
    /// How it goes; of its waves those that add a device.
    pub policy: Policy,
    /// Who asked for it.
    pub by: String,
    /// Who approved it, by wave. A list on the disk: a record names its kind within itself, and JSON's keys, which are text, are
    /// then no numbers any more.
    #[serde(with = "pairs")]
    pub approved: BTreeMap<usize, String>,
    /// How far it is.
    pub phase: Phase,
    /// The wave for which a person said that it goes on in spite of the evidence.
    pub waived: Option<usize>,
    /// When the wave under way began.
    pub wave_started: UnixMillis,
    /// When it was asked for.
    pub started: UnixMillis,
    /// When it ended.
    pub ended: Option<UnixMillis>,
    /// Devices that the pace lets begin, and when that was counted.
    pub allowance: (f64, UnixMillis),
    /// How often devices were tried again.
    pub retries: u64,
    /// What the evidence said last.
    pub judgement: Option<Judgement>,
    /// Its devices; each has a record of its own.
    #[serde(skip)]
    pub members: BTreeMap<DeviceId, Member>,
}

/// A device of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Which rollout.
    pub rollout: u64,
    /// Which device.
    pub device: DeviceId,
    /// The wave that it is in.
    pub wave: usize,
    /// Where it is.
    pub place: Place,
    /// The bundle that it ran before.
    pub before: Option<Digest>,
    /// When it was assigned the release last.
    pub assigned: Option<UnixMillis>,
    /// Whether it was there then.
    pub there: bool,
    /// How often it was assigned it again.
    pub tries: u64,
    /// What it said of the release.
    pub result: Option<DeviceResult>,
    /// What its release before did before that: from the day before the rollout on.
    pub day: Figures,
    /// What its release before did in the wave under way, or in the one in which it was assigned this release.
    pub old: Figures,
    /// What this release did.
    pub new: Figures,
}

/// Where a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "at")]
pub enum Place {
    /// It runs what it ran; not before this moment is it assigned the release.
    Waiting {
        /// 0 for whenever it is its turn.
        until: UnixMillis,
    },
    /// It is to run the release.
    Assigned,
    /// It is to run what it ran before.
    Returning,
    /// It says that it does.
    Returned,
}

/// How far a rollout is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum Phase {
    /// It is only written down.
    Draft,
    /// Somebody else than who started it must approve this wave.
    Approval {
        /// Its index.
        wave: usize,
    },
    /// A wave is under way.
    Rolling {
        /// Its index.
        wave: usize,
    },
    /// A wave has it, and is looked at.
    Soaking {
        /// Its index.
        wave: usize,
        /// When all of it had answered.
        since: UnixMillis,
    },
    /// A person must say how it goes on.
    Paused {
        /// The wave that it reached.
        wave: usize,
        /// Why.
        reason: String,
        /// A person wanted it, and nothing was against the wave.
        #[serde(default)]
        by_person: bool,
    },
    /// The devices that had it are on their way back.
    Reverting {
        /// The wave that it reached.
        wave: usize,
        /// Why.
        reason: String,
    },
    /// It ended before its time; the devices that had it are back.
    Stopped {
        /// The wave that it reached.
        wave: usize,
        /// Why.
        reason: String,
    },
    /// Every device that should have it, has it.
    Completed,
}

/// What happens to a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// A person starts what was written down; a first wave may need approval.
    Begun {
        /// It does.
        approval: bool,
    },
    /// Somebody else approved the wave.
    Approved,
    /// Every device of the wave that can answer has.
    Answered {
        /// When.
        at: UnixMillis,
    },
    /// The wave was looked at for long enough, and nothing is against it.
    Passed {
        /// It was the last.
        last: bool,
        /// The next one needs approval.
        approval: bool,
    },
    /// The evidence is against it.
    Breached {
        /// Why.
        reason: String,
        /// The devices are sent back; else a person decides.
        revert: bool,
    },
    /// A person, or the lack of evidence, holds it.
    Held {
        /// Why.
        reason: String,
        /// A person.
        by_person: bool,
    },
    /// A person lets it go on.
    Resumed,
    /// A person ends it.
    Aborted {
        /// Why.
        reason: String,
        /// The devices keep what they have.
        keep: bool,
    },
    /// A person takes it back after its end.
    Undone {
        /// Why.
        reason: String,
    },
    /// The last device is back.
    Returned,
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
    /// Answers that were compared in its shadow.
    #[serde(default)]
    pub compared: u64,
    /// Those of them that were others.
    #[serde(default)]
    pub disagreed: u64,
}

/// What a member counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It has left the fleet: nobody waits for it.
    Gone,
    /// It was not assigned the release.
    Waiting,
    /// It is on its way to a verdict.
    Open,
    /// It was away when it was assigned the release, and is.
    Away,
    /// It was there, and said nothing for too long.
    Unknown,
    /// It refused the release or took it back.
    Failed,
    /// It has the release.
    Confirmed,
}

impl Phase {
    /// What follows when something happens; `None` when it cannot happen now.
    pub fn next(&self, turn: Turn) -> Option<Phase> {
        use Phase::{Approval, Completed, Draft, Paused, Reverting, Rolling, Soaking, Stopped};
        let phase = match (self, turn) {
            (Draft, Turn::Begun { approval: true }) => Approval { wave: 0 },
            (Draft, Turn::Begun { approval: false }) => Rolling { wave: 0 },
            (Approval { wave }, Turn::Approved) => Rolling { wave: *wave },
            (Rolling { wave }, Turn::Answered { at }) => Soaking { wave: *wave, since: at },
            (Soaking { .. }, Turn::Passed { last: true, .. }) => Completed,
            (Soaking { wave, .. }, Turn::Passed { last: false, approval: true }) => Approval { wave: wave + 1 },
            (Soaking { wave, .. }, Turn::Passed { last: false, approval: false }) => Rolling { wave: wave + 1 },
            (Approval { wave } | Rolling { wave } | Soaking { wave, .. }, Turn::Breached { reason, revert: true }) => {
                Reverting { wave: *wave, reason }
            }
            // Without approval it goes on nowhere.
            (Approval { wave }, Turn::Breached { reason, revert: false }) => {
                Paused { wave: wave.saturating_sub(1), reason, by_person: false }
            }
            (Rolling { wave } | Soaking { wave, .. }, Turn::Breached { reason, revert: false }) => {
                Paused { wave: *wave, reason, by_person: false }
            }
            (Rolling { wave } | Soaking { wave, .. }, Turn::Held { reason, by_person }) => {
                Paused { wave: *wave, reason, by_person }
            }
            (Paused { wave, .. }, Turn::Resumed) => Rolling { wave: *wave },
            (
                Approval { wave } | Rolling { wave } | Soaking { wave, .. } | Paused { wave, .. },
                Turn::Aborted { reason, keep: false },
            ) => Reverting { wave: *wave, reason },
            (
                Approval { wave }
                | Rolling { wave }
                | Soaking { wave, .. }
                | Paused { wave, .. }
                | Reverting { wave, .. },
                Turn::Aborted { reason, keep: true },
            ) => Stopped { wave: *wave, reason },
            (Draft, Turn::Aborted { reason, .. }) => Stopped { wave: 0, reason },
            (Completed, Turn::Undone { reason }) => Reverting { wave: 0, reason },
            (Stopped { wave, .. }, Turn::Undone { reason }) => Reverting { wave: *wave, reason },
            (Reverting { wave, reason }, Turn::Returned) => Stopped { wave: *wave, reason: reason.clone() },
            (
                Draft
                | Approval { .. }
                | Rolling { .. }
                | Soaking { .. }
                | Paused { .. }
                | Reverting { .. }
                | Stopped { .. }
                | Completed,
                Turn::Begun { .. }
                | Turn::Approved
                | Turn::Answered { .. }
                | Turn::Passed { .. }
                | Turn::Breached { .. }
                | Turn::Held { .. }
                | Turn::Resumed
                | Turn::Aborted { .. }
                | Turn::Undone { .. }
                | Turn::Returned,
            ) => return None,
        };
        Some(phase)
    }

    /// The wave that may be assigned the release now.
    pub fn wave(&self) -> Option<usize> {
        match self {
            Phase::Rolling { wave } | Phase::Soaking { wave, .. } => Some(*wave),
            Phase::Draft
            | Phase::Approval { .. }
            | Phase::Paused { .. }
            | Phase::Reverting { .. }
            | Phase::Stopped { .. }
            | Phase::Completed => None,
        }
    }

    /// Whether it holds its devices: no other rollout of the stream may have them.
    pub fn is_under_way(&self) -> bool {
        match self {
            Phase::Approval { .. } | Phase::Rolling { .. } | Phase::Soaking { .. } | Phase::Paused { .. } => true,
            Phase::Draft | Phase::Reverting { .. } | Phase::Stopped { .. } | Phase::Completed => false,
        }
    }

    /// The names of all.
    pub const NAMES: [&str; 8] =
        ["draft", "approval", "rolling", "soaking", "paused", "reverting", "stopped", "completed"];

    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Phase::Draft => "draft",
            Phase::Approval { .. } => "approval",
            Phase::Rolling { .. } => "rolling",
            Phase::Soaking { .. } => "soaking",
            Phase::Paused { .. } => "paused",
            Phase::Reverting { .. } => "reverting",
            Phase::Stopped { .. } => "stopped",
            Phase::Completed => "completed",
        }
    }
}

impl Member {
    pub(crate) fn new(rollout: u64, device: DeviceId, wave: usize) -> Self {
        Self {
            rollout,
            device,
            wave,
            place: Place::Waiting { until: 0 },
            before: None,
            assigned: None,
            there: false,
            tries: 0,
            result: None,
            day: Figures::default(),
            old: Figures::default(),
            new: Figures::default(),
        }
    }

    /// What it did so far is its past: others are measured from now on as well.
    pub(crate) fn begin_anew(&mut self) {
        let old = std::mem::take(&mut self.old);
        self.day.add(&old);
    }

    /// What its release before did, as far as that is known.
    pub(crate) fn past(&self) -> Figures {
        self.day.clone().with(&self.old)
    }

    /// What an answer took on average before, in microseconds.
    pub(crate) fn past_mean_us(&self) -> Option<f64> {
        let answers = self.day.answers.saturating_add(self.old.answers);
        Figures { answers, took_us: self.day.took_us.saturating_add(self.old.took_us), ..Figures::default() }.mean_us()
    }

    /// Whether it ever was assigned the release.
    pub fn is_hit(&self) -> bool {
        self.assigned.is_some()
    }

    /// Whether it said that it refused the release or took it back.
    pub fn has_failed(&self) -> bool {
        self.result.as_ref().is_some_and(|result| result.outcome != Outcome::Confirmed)
    }

    /// What it counts as at `now`, when `deadline` is how long one may be silent.
    pub fn standing(&self, device: Option<&Device>, now: UnixMillis, deadline: u64) -> Standing {
        let Some(device) = device.filter(|device| device.is_approved()) else {
            return if self.has_failed() { Standing::Failed } else { Standing::Gone };
        };
        if let Place::Waiting { .. } = self.place {
            return Standing::Waiting;
        }
        let (Some(assigned), false) = (self.assigned, self.has_failed()) else { return Standing::Failed };
        // Since it was assigned the release, or since it was heard last.
        let was_there = self.there || self.result.is_some() || device.last_seen > assigned;
        let heard = if was_there { device.last_seen.max(assigned) } else { 0 };
        match (&self.result, heard) {
            (Some(_), heard) if device.online || now.saturating_sub(heard) < deadline => Standing::Confirmed,
            (Some(_), _) => Standing::Unknown,
            (None, 0) => Standing::Away,
            (None, _) if now.saturating_sub(assigned) < deadline => Standing::Open,
            // It came only now, long after it was assigned.
            (None, heard) if !self.there && now.saturating_sub(heard) < deadline => Standing::Open,
            (None, _) => Standing::Unknown,
        }
    }
}

impl Rollout {
    /// A rollout that has not begun, over `devices` in the order in which they enter.
    pub(crate) fn plan(
        (id, now): (u64, UnixMillis),
        request: &RolloutRequest,
        release: &Release,
        devices: &[DeviceId],
    ) -> Self {
        let (waves, upto) = divided(&request.policy.waves, devices.len());
        let wave = |place: usize| upto.iter().position(|end| place < *end).unwrap_or(0);
        let member = |(place, id_of): (usize, &DeviceId)| (id_of.clone(), Member::new(id, id_of.clone(), wave(place)));
        Self {
            id,
            stream: request.stream.clone(),
            version: request.version.clone(),
            release: release.release,
            bundle: release.bundle,
            ram_mb: release.ram_mb,
            to: request.to.clone(),
            policy: Policy { waves, ..request.policy.clone() },
            by: request.by.clone(),
            approved: BTreeMap::new(),
            phase: Phase::Draft,
            waived: None,
            wave_started: now,
            started: now,
            ended: None,
            allowance: (1.0, now),
            retries: 0,
            judgement: None,
            members: devices.iter().enumerate().map(member).collect(),
        }
    }

    /// The wave under way.
    pub fn wave(&self) -> Option<usize> {
        self.phase.wave()
    }

    /// The number of devices that were assigned the release.
    pub fn hit(&self) -> usize {
        self.members.values().filter(|m| m.is_hit()).count()
    }

    /// The number of devices with `outcome`.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.results().filter(|(_, result)| result.outcome == outcome).count()
    }

    /// What its devices said of the release.
    pub fn results(&self) -> impl Iterator<Item = (&DeviceId, &DeviceResult)> {
        self.members.values().filter_map(|m| Some((&m.device, m.result.as_ref()?)))
    }

    /// The devices of one wave.
    pub fn members_of(&self, wave: usize) -> impl Iterator<Item = &Member> {
        self.members.values().filter(move |m| m.wave == wave)
    }

    /// Whether this wave waits for approval; the policy's own is that of the first.
    pub(crate) fn wants_approval(&self, wave: usize) -> bool {
        let asked = self.policy.waves.get(wave).is_some_and(|w| w.approval) || (wave == 0 && self.policy.approval);
        asked && !self.approved.contains_key(&wave)
    }

    /// How long this wave is looked at.
    pub(crate) fn soak(&self, wave: usize) -> u64 {
        self.policy.waves.get(wave).map_or(0, |w| w.soak.0)
    }

    /// Whether a device is one that it may change.
    pub(crate) fn wants(&self, device: &Device) -> bool {
        device.is_approved() && device.forgotten.is_none() && !device.is_pinned() && self.to.mean(device)
    }

    /// The number of its waves.
    pub fn waves(&self) -> usize {
        self.policy.waves.len()
    }

    /// The wave of a device that comes later: that of its place among all, or the one under way when that is over.
    pub(crate) fn joins(&self, device: &DeviceId) -> usize {
        let all = self.members.len() + 1;
        let place = (entry(&self.stream, device) as f64 / u64::MAX as f64 * all as f64) as usize;
        let own = self.policy.waves.iter().position(|wave| place < wave.size.of(all));
        own.unwrap_or(self.waves().saturating_sub(1)).max(self.wave().unwrap_or(0))
    }
}

/// The waves that add somebody when there are so many devices, and how many have the release after each. Devices that no
/// wave reaches are one more, which is looked at for as long as the last.
pub(crate) fn divided(waves: &[Wave], devices: usize) -> (Vec<Wave>, Vec<usize>) {
    let all = Wave {
        size: WaveSize::Percent(100),
        soak: waves.last().map(|wave| wave.soak).unwrap_or_default(),
        approval: false,
    };
    let mut reached = 0;
    waves
        .iter()
        .chain([&all])
        .filter_map(|wave| {
            let upto = wave.size.of(devices);
            (upto > reached).then(|| {
                reached = upto;
                (wave.clone(), upto)
            })
        })
        .unzip()
}

/// Where a device stands among those of a stream, 0 to 1: stable, and different for each stream (FNV-1a over both names,
/// 64 bit).
pub(crate) fn entry(stream: &StreamName, device: &DeviceId) -> u64 {
    let bytes = stream.as_str().bytes().chain([0]).chain(device.as_str().bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The order in which devices enter, so that each wave holds every hardware class in its proportion: the n-th of a class
/// of k stands at (n - 1/2) / k; equals by their hash.
pub(crate) fn entry_order<'a>(stream: &StreamName, devices: impl IntoIterator<Item = &'a Device>) -> Vec<DeviceId> {
    let mut classes: BTreeMap<&str, Vec<(u64, &DeviceId)>> = BTreeMap::new();
    for device in devices {
        classes.entry(&device.profile.board).or_default().push((entry(stream, &device.id), &device.id));
    }
    let mut order: Vec<(f64, u64, &DeviceId)> = Vec::new();
    for class in classes.values_mut() {
        class.sort();
        let all = class.len() as f64;
        order.extend(class.iter().enumerate().map(|(n, (hash, id))| ((n as f64 + 0.5) / all, *hash, *id)));
    }
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    order.into_iter().map(|(_, _, id)| id.clone()).collect()
}

/// A map as a list of pairs; what an earlier version wrote while nobody had approved is an empty map.
mod pairs {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::collections::BTreeMap;

    pub(super) fn serialize<S: Serializer>(map: &BTreeMap<usize, String>, to: S) -> Result<S::Ok, S::Error> {
        map.iter().collect::<Vec<_>>().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<usize, String>, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            List(Vec<(usize, String)>),
            Map(BTreeMap<String, String>),
        }
        match Form::deserialize(from)? {
            Form::List(pairs) => Ok(pairs.into_iter().collect()),
            Form::Map(map) => {
                let pair = |(wave, who): (String, String)| Some((wave.parse().ok()?, who));
                Ok(map.into_iter().filter_map(pair).collect())
            }
        }
    }
}
