//! Windows of drift: ended when they are over, judged here and now, and told.
//!
//! Decides nothing: when a window ends and what of it is told, the core decides; what differs, `drift`.

use super::Driver;
use crate::status::DriftStatus;
use crate::worker::SeenWindow;
use agent_core::{Millis, Waiting, alarms};
use drift::Doubt;
use protocol::{Drift, MAX_SUMMARY_BYTES};
use std::time::Duration;
use tokio::time::Instant;

/// Windows are looked at this often: one that waits for rows may end at any time.
pub(super) const LOOK_AT_WINDOWS: Duration = Duration::from_secs(60);
/// The most bytes of what was learned of the inputs.
pub(super) const MAX_LEARNED_BYTES: u64 = 64 << 20;

impl Driver {
    /// Ends the windows that are over, or at the `end` of the agent all that have seen anything.
    pub(super) fn look_at_windows(&mut self, end: bool) {
        self.windows_at = Instant::now() + self.config.drift_window.min(LOOK_AT_WINDOWS);
        let Some(boot) = self.core.as_ref().map(|core| core.ledger().boot) else { return };
        let length = Millis::try_from(self.config.drift_window.as_millis()).unwrap_or(Millis::MAX);
        let windows = self.worker.close_windows(length, end);
        if windows.is_empty() {
            return;
        }
        for window in windows {
            self.tell_window(boot, window);
        }
        // What was learned in months is worth a write in an hour.
        if let Err(error) = self.learned_file.save(&self.worker.learned()) {
            tracing::warn!("what was learned of the inputs is kept in memory, the disk does not take it: {error}");
        }
        if !end {
            self.tend_spool();
        }
    }

    fn tell_window(&mut self, boot: u64, window: SeenWindow) {
        let SeenWindow { stream, bundle, release, span_s, closed, performance } = window;
        let (judgement, uptime_s) = (&closed.judgement, self.started.elapsed().as_secs());
        let (alarms, unsaid) = alarms(judgement);
        for alarm in &alarms {
            let (feature, effect, detail) = (&alarm.feature, alarm.effect, &alarm.detail);
            tracing::warn!(%stream, release, feature, effect, level = ?alarm.level, "drift: {detail}");
        }
        let windows = self.drift.get(&stream).map_or(0, |last| last.windows) + 1;
        let status = DriftStatus {
            level: judgement.level,
            release,
            windows,
            rows: judgement.rows,
            uptime_s,
            learning: judgement.doubts.contains(&Doubt::Learning),
            alarms: alarms.clone(),
        };
        self.drift.insert(stream.clone(), status);
        let summary = closed.summary.encode();
        if summary.len() > MAX_SUMMARY_BYTES {
            tracing::warn!(%stream, release, bytes = summary.len(), "a window is too large to be told; it is judged here all the same");
            return;
        }
        let message = Drift {
            device: self.config.device.clone(),
            boot,
            run: self.run,
            seq: self.next_seq(),
            at: self.now().wall,
            uptime_s,
            span_s,
            stream,
            release,
            statement: bundle.0,
            windows: closed.summary.windows,
            summary,
            alarms,
            unsaid,
            performance,
        };
        self.spool.put(self.age(), Waiting::Drift(Box::new(message)));
    }
}
