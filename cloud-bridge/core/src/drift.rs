//! What the fleet's models see: windows of many devices as one, and the alarms that people hear of.
//!
//! Decides which windows may be added up, which alarm is news, and when there are too many of them to be told one by one.
//! How a window is judged was decided on the device, which alone knows how its inputs vary; the arithmetic by `drift`.

use crate::UnixMillis;
use drift::{Baseline, Judgement, Known, Summary, SummaryError, judge, judge_against};
use protocol::{AlarmLevel, DeviceId, Drift, DriftAlarm, Performance, StreamName};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use trust::Digest;

/// An alarm that has not come again for so long is over; the next one is news.
pub const QUIET: UnixMillis = 24 * 3_600_000;
/// New alarms of a stream that are told one by one in a day.
pub const ALARM_BUDGET: u64 = 50;

/// A window that a device sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// When it ended: by the device's clock where that is plausible, else when land took it.
    pub ended: UnixMillis,
    /// What the device said.
    pub drift: Drift,
}

/// Windows of one release that were added up.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// What they have in common.
    pub key: String,
    /// The bundle whose baseline they were counted against.
    pub bundle: Digest,
    /// Its release.
    pub release: u64,
    /// Who saw them.
    pub devices: BTreeSet<DeviceId>,
    /// When the first of them began.
    pub from: UnixMillis,
    /// When the last of them ended.
    pub until: UnixMillis,
    /// All their counts.
    pub summary: Summary,
    /// What the devices had to say, by feature: the loudest.
    pub alarms: BTreeMap<String, DriftAlarm>,
    /// How right the answers were of which the truth came to be known meanwhile.
    pub performance: Performance,
}

/// Adds up windows by what `key` says of each and by bundle, in the order of keys and releases. A window that does not fit
/// its neighbours is left out: it was checked when it was taken.
pub fn gather(windows: impl IntoIterator<Item = Window>, key: impl Fn(&Window) -> String) -> Vec<Group> {
    let mut groups: BTreeMap<(String, u64, Digest), Group> = BTreeMap::new();
    for window in windows {
        let Ok(summary) = Summary::decode(&window.drift.summary) else { continue };
        let (key, Window { ended, drift }) = (key(&window), window);
        let began = ended.saturating_sub(drift.span_s.saturating_mul(1_000));
        let bundle = Digest(drift.statement);
        match groups.get_mut(&(key.clone(), drift.release, bundle)) {
            Some(group) => {
                if group.summary.merge(&summary).is_err() {
                    continue;
                }
                group.devices.insert(drift.device);
                drift.performance.iter().for_each(|performance| group.performance.add(performance));
                (group.from, group.until) = (group.from.min(began), group.until.max(ended));
                drift.alarms.into_iter().for_each(|alarm| louder(&mut group.alarms, alarm));
            }
            None => {
                let mut alarms = BTreeMap::new();
                drift.alarms.into_iter().for_each(|alarm| louder(&mut alarms, alarm));
                let group = Group {
                    key: key.clone(),
                    bundle,
                    release: drift.release,
                    devices: BTreeSet::from([drift.device]),
                    from: began,
                    until: ended,
                    summary,
                    alarms,
                    performance: drift.performance.unwrap_or_default(),
                };
                groups.insert((key, drift.release, bundle), group);
            }
        }
    }
    groups.into_values().collect()
}

fn louder(alarms: &mut BTreeMap<String, DriftAlarm>, alarm: DriftAlarm) {
    match alarms.get_mut(&alarm.feature) {
        Some(known) => {
            let windows = known.windows.saturating_add(alarm.windows);
            if (alarm.level, alarm.effect) > (known.level, known.effect) {
                *known = alarm;
            }
            known.windows = windows;
        }
        None => drop(alarms.insert(alarm.feature.clone(), alarm)),
    }
}

impl Group {
    /// How far all of it is from the baseline. Its tests take rows for independent, which they seldom are: what is alarmed on,
    /// devices decide.
    ///
    /// # Errors
    /// When it was counted against another baseline.
    pub fn against(&self, baseline: &Baseline) -> Result<Judgement, SummaryError> {
        judge(baseline, &self.summary, Known::Independent)
    }

    /// How far it is from another group with the same baseline: canaries from control, so that a season that both have is no
    /// drift.
    ///
    /// # Errors
    /// When one of them was counted against another baseline.
    pub fn against_control(&self, control: &Group, baseline: &Baseline) -> Result<Judgement, SummaryError> {
        judge_against(baseline, &control.summary, &self.summary, Known::Independent)
    }
}

/// A drift alarm that people hear of, until it is quiet for [`QUIET`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Concern {
    /// Of which stream.
    pub stream: StreamName,
    /// Whose inputs; nobody's for what the budget holds back.
    pub device: Option<DeviceId>,
    /// What is not as it was; empty for what the budget holds back.
    pub feature: String,
    /// The release that saw it last.
    pub release: u64,
    /// How loud, at its loudest.
    pub level: AlarmLevel,
    /// What to look at first.
    pub cause: String,
    /// The same in words.
    pub detail: String,
    /// Standard deviations by which it surely differed, at most.
    pub effect: f32,
    /// Windows in which it did.
    pub windows: u64,
    /// When it began.
    pub first: UnixMillis,
    /// When it was heard last.
    pub last: UnixMillis,
    /// Who has seen it, and when.
    pub acknowledged: Option<(String, UnixMillis)>,
}

impl Concern {
    /// A new one.
    pub fn raised(drift: &Drift, alarm: &DriftAlarm, at: UnixMillis) -> Self {
        Self {
            stream: drift.stream.clone(),
            device: Some(drift.device.clone()),
            feature: alarm.feature.clone(),
            release: drift.release,
            level: alarm.level,
            cause: alarm.cause.clone(),
            detail: alarm.detail.clone(),
            effect: alarm.effect,
            windows: alarm.windows,
            first: at,
            last: at,
            acknowledged: None,
        }
    }

    /// What stands for those that the budget holds back.
    pub fn held_back(stream: &StreamName, at: UnixMillis) -> Self {
        Self {
            stream: stream.clone(),
            device: None,
            feature: String::new(),
            release: 0,
            level: AlarmLevel::Warn,
            cause: "budget".into(),
            detail: format!("more alarms than the {ALARM_BUDGET} that are told one by one in a day"),
            effect: 0.0,
            windows: 0,
            first: at,
            last: at,
            acknowledged: None,
        }
    }

    /// Whether it is still heard of.
    pub fn is_open(&self, now: UnixMillis) -> bool {
        now.saturating_sub(self.last) < QUIET
    }

    /// It came again. Who has acknowledged a warning has not acknowledged a page.
    pub fn again(&mut self, drift: &Drift, alarm: &DriftAlarm, at: UnixMillis) {
        if alarm.level > self.level {
            self.acknowledged = None;
        }
        if alarm.level >= self.level {
            (self.cause, self.detail) = (alarm.cause.clone(), alarm.detail.clone());
        }
        self.level = self.level.max(alarm.level);
        self.effect = self.effect.max(alarm.effect);
        self.windows = self.windows.saturating_add(alarm.windows);
        (self.release, self.last) = (drift.release, self.last.max(at));
    }
}
