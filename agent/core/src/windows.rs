//! Windows of drift: when one ends, and what of it is told.
//!
//! Decides how long a model is watched before its inputs are judged, and which alarms fit into a message. Whether a
//! feature differs is decided by `drift`.

use crate::Millis;
use drift::{Finding, Judgement, Level};
use protocol::{AlarmLevel, DriftAlarm, MAX_DRIFT_ALARMS};

/// Rows that a window should have: fewer see little.
const ADVISED_ROWS: u64 = 200;
/// Where requests are rare a window stays open for them, and this many times its length at most.
const MOST_LENGTHS: u64 = 24;

/// A window that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenWindow {
    /// When it began, or the last one ended.
    pub since: Millis,
    /// Rows that it has seen.
    pub rows: u64,
}

impl OpenWindow {
    /// Whether it ends now, when windows are so long.
    pub fn is_over(self, now: Millis, length: Millis) -> bool {
        let open = now.saturating_sub(self.since);
        let enough = self.rows >= ADVISED_ROWS || open >= length.saturating_mul(MOST_LENGTHS);
        self.rows > 0 && open >= length && enough
    }
}

/// What of a judgement is told, the loudest first, and how many alarms there was no room for.
pub fn alarms(judgement: &Judgement) -> (Vec<DriftAlarm>, u64) {
    let alarm = |finding: &Finding| {
        let level = match finding.level {
            Level::Quiet => return None,
            Level::Warn => AlarmLevel::Warn,
            Level::Page => AlarmLevel::Page,
        };
        let cause = finding.cause?;
        let detail = if finding.gradual { format!("{cause}, little by little") } else { cause.to_string() };
        let effect = if finding.effect.is_finite() { finding.effect as f32 } else { f32::MAX };
        let feature = finding.name.clone();
        Some(DriftAlarm { feature, level, cause: cause.kind().into(), detail, effect, windows: 1 })
    };
    let mut alarms: Vec<DriftAlarm> = judgement.features.iter().filter_map(alarm).collect();
    alarms.sort_by(|a, b| b.level.cmp(&a.level).then(b.effect.total_cmp(&a.effect)));
    let unsaid = alarms.len().saturating_sub(MAX_DRIFT_ALARMS) as u64;
    alarms.truncate(MAX_DRIFT_ALARMS);
    (alarms, unsaid)
}
