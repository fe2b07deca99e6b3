//! What waits, and how two of it become one.
//!
//! Decides which messages may be merged, and what is lost by it: of telemetry counts add up and the worst of each
//! measure stays; summaries of windows add up exactly, and of their alarms the loudest stay.

use drift::Summary;
use protocol::{Drift, DriftAlarm, MAX_DRIFT_ALARMS, MAX_SUMMARY_BYTES, StreamTelemetry, Telemetry, encode_cbor};
use serde::{Deserialize, Serialize};

/// The longest name of a stream.
const NAME_BYTES: usize = 64;

/// A message that waits until the broker has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Waiting {
    /// How the device and its models were doing.
    Telemetry(Box<Telemetry>),
    /// What a model saw.
    Drift(Box<Drift>),
}

impl Waiting {
    /// Drawn at the boot in which it was made.
    pub fn run(&self) -> u64 {
        match self {
            Waiting::Telemetry(telemetry) => telemetry.run,
            Waiting::Drift(drift) => drift.run,
        }
    }

    /// Its number in that boot.
    pub fn seq(&self) -> u64 {
        match self {
            Waiting::Telemetry(telemetry) => telemetry.seq,
            Waiting::Drift(drift) => drift.seq,
        }
    }

    pub(super) fn uptime_s(&self) -> u64 {
        match self {
            Waiting::Telemetry(telemetry) => telemetry.uptime_s,
            Waiting::Drift(drift) => drift.uptime_s,
        }
    }

    /// Measurements or windows that are lost with it.
    pub(super) fn measured(&self) -> u64 {
        match self {
            Waiting::Telemetry(telemetry) => telemetry.measured,
            Waiting::Drift(drift) => drift.windows,
        }
    }

    /// What is dropped first, when there is no room: telemetry, then windows, last those with an alarm.
    pub(super) fn worth(&self) -> u8 {
        match self {
            Waiting::Telemetry(_) => 0,
            Waiting::Drift(drift) if drift.alarms.is_empty() => 1,
            Waiting::Drift(_) => 2,
        }
    }

    /// What it costs, where it costs more: on the disk or in memory.
    pub(super) fn weight(&self) -> u64 {
        let (memory, encoded) = match self {
            Waiting::Telemetry(message) => {
                let rows = message.streams.len() * (size_of::<StreamTelemetry>() + NAME_BYTES);
                let arriving = size_of_val(message.arriving.as_slice());
                (size_of::<Telemetry>() + NAME_BYTES + rows + arriving, encode_cbor(message).len())
            }
            Waiting::Drift(message) => {
                let text = |alarm: &DriftAlarm| alarm.feature.len() + alarm.cause.len() + alarm.detail.len();
                let alarms = size_of_val(message.alarms.as_slice()) + message.alarms.iter().map(text).sum::<usize>();
                (size_of::<Drift>() + 2 * NAME_BYTES + message.summary.len() + alarms, encode_cbor(message).len())
            }
        };
        // The name of its kind.
        memory.max(encoded + 16) as u64
    }

    /// Whether two of one run are of one thing, so that they may be one.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Waiting::Telemetry(_), Waiting::Telemetry(_)) => true,
            (Waiting::Drift(a), Waiting::Drift(b)) => a.statement == b.statement && a.stream == b.stream,
            (Waiting::Telemetry(_), Waiting::Drift(_)) | (Waiting::Drift(_), Waiting::Telemetry(_)) => false,
        }
    }

    /// Seconds that both cover; `None` when they do not fit into one message.
    pub(super) fn together(&self, newer: &Self) -> Option<u64> {
        match (self, newer) {
            (Waiting::Telemetry(a), Waiting::Telemetry(b)) => {
                b.has_room_for(a).then(|| a.span_s.saturating_add(b.span_s))
            }
            (Waiting::Drift(a), Waiting::Drift(b)) => Some(a.span_s.saturating_add(b.span_s)),
            (Waiting::Telemetry(_), Waiting::Drift(_)) | (Waiting::Drift(_), Waiting::Telemetry(_)) => None,
        }
    }

    /// Adds an older one to this; whether that could be done.
    pub(super) fn absorb(&mut self, older: &Self) -> bool {
        match (older, self) {
            (Waiting::Telemetry(older), Waiting::Telemetry(newer)) => {
                newer.absorb(older);
                true
            }
            (Waiting::Drift(older), Waiting::Drift(newer)) => add_drift(older, newer).is_some(),
            (Waiting::Telemetry(_), Waiting::Drift(_)) | (Waiting::Drift(_), Waiting::Telemetry(_)) => false,
        }
    }
}

/// Nothing is changed where the summaries do not fit each other, or the sum would be too long.
fn add_drift(older: &Drift, newer: &mut Drift) -> Option<()> {
    let mut sum = Summary::decode(&newer.summary).ok()?;
    sum.merge(&Summary::decode(&older.summary).ok()?).ok()?;
    newer.summary = Some(sum.encode()).filter(|bytes| bytes.len() <= MAX_SUMMARY_BYTES)?;
    newer.span_s = newer.span_s.saturating_add(older.span_s);
    newer.windows = newer.windows.saturating_add(older.windows);
    newer.unsaid = newer.unsaid.saturating_add(older.unsaid);
    if let Some(performance) = &older.performance {
        newer.performance.get_or_insert_default().add(performance);
    }
    for alarm in &older.alarms {
        match newer.alarms.iter_mut().find(|other| other.feature == alarm.feature) {
            Some(known) => {
                known.windows = known.windows.saturating_add(alarm.windows);
                known.level = known.level.max(alarm.level);
                known.effect = known.effect.max(alarm.effect);
            }
            None => newer.alarms.push(alarm.clone()),
        }
    }
    newer.alarms.sort_by_key(|alarm| std::cmp::Reverse(alarm.level));
    newer.unsaid = newer.unsaid.saturating_add(newer.alarms.len().saturating_sub(MAX_DRIFT_ALARMS) as u64);
    newer.alarms.truncate(MAX_DRIFT_ALARMS);
    Some(())
}
