//! What is known of a release on a device, as counts that may be added: what gates are judged by.
//!
//! Decides what of a device's messages is evidence, and for how long it counts. Does not know what is too much of it.

use crate::UnixMillis;
use protocol::{DeviceId, StreamName, StreamTelemetry};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a device did before it was assigned something counts for one to two of these, in milliseconds.
const DAY: UnixMillis = 24 * 3_600_000;
/// Classes of answers that are counted by name; the rest of them is not compared.
const MAX_CLASSES: usize = 64;

/// What a release did on a device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Figures {
    /// Answers given.
    pub answers: u64,
    /// Requests that it could not answer.
    pub errors: u64,
    /// What the answers took together, in microseconds.
    pub took_us: u64,
    /// The most memory that its process held, in KiB.
    pub memory_kb: u64,
    /// Answers by class.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub classes: BTreeMap<String, u64>,
}

/// What a device said of one release since it said something before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// Who.
    pub device: DeviceId,
    /// Of which stream.
    pub stream: StreamName,
    /// Of which release.
    pub release: u64,
    /// What it did.
    pub figures: Figures,
}

impl Measured {
    /// A row of telemetry.
    pub fn row(device: &DeviceId, row: &StreamTelemetry) -> Self {
        let figures = Figures {
            answers: row.answers,
            errors: row.errors,
            took_us: row.took_us,
            memory_kb: row.memory_kb,
            classes: BTreeMap::new(),
        };
        Self { device: device.clone(), stream: row.stream.clone(), release: row.release, figures }
    }
}

impl Figures {
    /// Adds what was counted later, or elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.answers = self.answers.saturating_add(other.answers);
        self.errors = self.errors.saturating_add(other.errors);
        self.took_us = self.took_us.saturating_add(other.took_us);
        self.memory_kb = self.memory_kb.max(other.memory_kb);
        for (class, count) in &other.classes {
            if let Some(known) = self.classes.get_mut(class) {
                *known = known.saturating_add(*count);
            } else if self.classes.len() < MAX_CLASSES {
                self.classes.insert(class.clone(), *count);
            }
        }
    }

    /// Both together.
    pub fn with(mut self, other: &Self) -> Self {
        self.add(other);
        self
    }

    /// Requests, answered or not.
    pub fn asked(&self) -> u64 {
        self.answers.saturating_add(self.errors)
    }

    /// Requests that were not answered, as a share of all.
    pub fn error_rate(&self) -> Option<f64> {
        let asked = self.asked();
        (asked > 0).then(|| self.errors as f64 / asked as f64)
    }

    /// What an answer took on average, in microseconds.
    pub fn mean_us(&self) -> Option<f64> {
        (self.answers > 0 && self.took_us > 0).then(|| self.took_us as f64 / self.answers as f64)
    }

    /// Answers whose class is known.
    pub fn classified(&self) -> u64 {
        self.classes.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// A class's share of them.
    pub fn share(&self, class: &str) -> Option<f64> {
        let all = self.classified();
        (all > 0).then(|| self.classes.get(class).copied().unwrap_or(0) as f64 / all as f64)
    }
}

/// What the release that a device runs did lately, whether or not a rollout is under way: what the next release on this
/// device is held against. Two days follow each other, so that there is always one whole day once there was one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lately {
    /// Which release.
    pub release: u64,
    /// When the day under way began, by land's clock.
    pub since: UnixMillis,
    /// The day under way.
    pub today: Figures,
    /// The day before it.
    pub yesterday: Figures,
}

impl Lately {
    /// Takes what a release did. Another release than before begins anew.
    pub fn take(&mut self, at: UnixMillis, release: u64, figures: &Figures) {
        if self.release != release {
            *self = Self { release, since: at, ..Self::default() };
        } else if at.saturating_sub(self.since) >= DAY {
            self.yesterday = std::mem::take(&mut self.today);
            self.since = at;
        }
        self.today.add(figures);
    }

    /// Both days.
    pub fn all(&self) -> Figures {
        self.yesterday.clone().with(&self.today)
    }
}
