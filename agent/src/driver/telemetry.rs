//! Measures, and says what was measured: all of it through the spool.
//!
//! Decides when it is measured. What is kept of it, and when it is said and saved, the spool decides.

use super::{Driver, effects};
use crate::telemetry::Speaker;
use agent_core::{Millis, Waiting};
use protocol::{BridgeTopic, Kind};
use std::time::Duration;
use tokio::time::Instant;

/// A person may be waiting for what arrives.
const ARRIVING_PAUSE: Duration = Duration::from_secs(10);

impl Driver {
    /// Measures how the board and its models are doing, whether or not there is somebody to hear it.
    pub(super) fn measure(&mut self) {
        self.measure_at = Instant::now() + self.config.telemetry;
        self.observe();
        let Some(boot) = self.core.as_ref().map(|core| core.ledger().boot) else { return };
        let speaker = Speaker {
            device: self.config.device.clone(),
            boot,
            run: self.run,
            seq: self.next_seq(),
            at: self.now().wall,
            uptime_s: self.started.elapsed().as_secs(),
        };
        // What does not move is no news later.
        let online = self.connected == Some(true);
        let arriving = if online { self.arrivals.rows(std::time::Instant::now()) } else { Vec::new() };
        let measured = self.gauge.read(speaker, &self.worker.serving(), arriving);
        self.spool.put(self.age(), Waiting::Telemetry(Box::new(measured)));
        self.tend_spool();
    }

    /// What arrives is told more often, and so is its end.
    pub(super) fn measure_soon(&mut self) {
        self.measure_at = self.measure_at.min(Instant::now() + ARRIVING_PAUSE);
    }

    /// Saves and says what the spool wants saved and said.
    pub(super) fn tend_spool(&mut self) {
        if self.spool.is_save_due(self.age()) {
            self.save_spool();
        }
        while let Some(message) = self.spool.next(self.age()) {
            let device = self.config.device.clone();
            let receipt = Some(crate::mqtt::Receipt::Spooled { run: message.run(), seq: message.seq() });
            let expiry = Some(effects::TELEMETRY_EXPIRY_S);
            let said = match message {
                Waiting::Telemetry(message) => {
                    self.say_frame(Kind::Telemetry, &BridgeTopic::Telemetry(device), &*message, expiry, receipt)
                }
                Waiting::Drift(message) => {
                    self.say_frame(Kind::Drift, &BridgeTopic::Drift(device), &*message, expiry, receipt)
                }
            };
            if !said {
                self.spool.refused();
            }
        }
    }

    pub(super) fn save_spool(&mut self) {
        let saved = self.spool_file.save(self.spool.spooled());
        if let Err(error) = &saved {
            tracing::warn!("telemetry that waits is kept in memory, the disk does not take it: {error}");
        }
        self.spool.saved(self.age(), saved.is_ok());
    }

    /// Since the start: the time of the spool.
    pub(super) fn age(&self) -> Millis {
        Millis::try_from(self.started.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }
}
