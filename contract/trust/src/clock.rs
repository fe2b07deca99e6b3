//! The time as a device without a clock can know it: a lower bound that only signed words and its own
//! uptime move.
//!
//! A board may boot in 1970, and a system clock may say anything. What is certain is that it cannot be
//! earlier than the newest signed moment plus the uptime since it was heard. It may be later.

use crate::Time;
use serde::{Deserialize, Serialize};

/// How long one fresh answer of the bridge counts, in milliseconds.
const FRESH_FOR_MS: u64 = 24 * 3_600 * 1_000;
/// How far a system clock may be from a fresh time to be believed, in seconds.
const AGREES_WITHIN_S: i64 = 24 * 3_600;

/// How well the time is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ClockState {
    /// No signed time but that of the build and of the root was ever seen.
    Unset,
    /// A signed time is known; nothing proves that it is fresh.
    Stale,
    /// The bridge answered this boot's nonce within the last day.
    Fresh,
    /// The root has expired, for certain.
    Expired,
}

/// A lower bound of the time. All uptimes are milliseconds since this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Not earlier than this …
    least: Time,
    /// … at this uptime.
    at_ms: u64,
    fresh_at_ms: Option<u64>,
}

impl Clock {
    /// At the start of a boot, when nothing newer than `least` is known.
    pub fn new(least: Time) -> Self {
        Self { least, at_ms: 0, fresh_at_ms: None }
    }

    /// It is not earlier than this.
    pub fn low(&self, uptime_ms: u64) -> Time {
        let since = i64::try_from(uptime_ms.saturating_sub(self.at_ms) / 1_000).unwrap_or(i64::MAX);
        Time::clamped(self.least.unix().saturating_add(since))
    }

    /// A signed word says that it is `time` or later.
    pub(crate) fn learn(&mut self, time: Time, uptime_ms: u64) {
        if time > self.low(uptime_ms) {
            (self.least, self.at_ms) = (time, uptime_ms);
        }
    }

    pub(crate) fn freshen(&mut self, uptime_ms: u64) {
        self.fresh_at_ms = Some(uptime_ms);
    }

    /// The key that made it fresh is not trusted any more.
    pub(crate) fn doubt(&mut self) {
        self.fresh_at_ms = None;
    }

    /// Whether the bridge answered this boot's nonce within the last day.
    pub fn fresh(&self, uptime_ms: u64) -> bool {
        self.fresh_at_ms.is_some_and(|at| uptime_ms.saturating_sub(at) <= FRESH_FOR_MS)
    }

    /// The first uptime at which it is not fresh any more, unless it is made so again.
    pub(crate) fn fresh_until(&self) -> Option<u64> {
        self.fresh_at_ms.map(|at| at.saturating_add(FRESH_FOR_MS + 1))
    }

    /// The first uptime at which it is later than `time`, for certain.
    pub(crate) fn passes(&self, time: Time) -> u64 {
        let seconds = time.unix().saturating_sub(self.least.unix()).saturating_add(1);
        self.at_ms.saturating_add(u64::try_from(seconds).unwrap_or_default().saturating_mul(1_000))
    }

    /// The time to go by: a system clock is believed only when a fresh bound agrees with it within a
    /// day, and never when it is behind.
    pub fn best(&self, system: Option<Time>, uptime_ms: u64) -> Time {
        let low = self.low(uptime_ms);
        let agrees = |system: &Time| *system >= low && system.unix() - low.unix() <= AGREES_WITHIN_S;
        system.filter(|_| self.fresh(uptime_ms)).filter(agrees).unwrap_or(low)
    }
}
