//! What devices measured, as evidence: each message once, since it is kept before it counts.

use super::Hands;
use bridge_core::{Figures, Measured};
use drift::{Baseline, Summary};
use protocol::{Drift, Telemetry};
use std::collections::BTreeMap;
use tracing::{debug, info};
use trust::Digest;

/// What the features of answers are called.
const ANSWER: &str = "answer.";
/// The one of them whose categories are the classes themselves.
const CLASS: &str = "class";
/// The most characters of a class.
const MAX_CLASS: usize = 64;
/// Categories without a slot of their own.
const OTHERS: &str = "(others)";

/// Every row of telemetry.
pub(super) fn by_telemetry(telemetry: &Telemetry) -> Vec<Measured> {
    telemetry.streams.iter().map(|row| Measured::row(&telemetry.device, row)).collect()
}

/// What a window says of the answers, if it was counted against the baseline of the bundle that it names; nothing of a bundle
/// that is not here any more.
pub(super) fn by_window(hands: &Hands, drift: &Drift) -> anyhow::Result<Option<Measured>> {
    let bundle = Digest(drift.statement);
    let baseline = tokio::task::block_in_place(|| hands.library.baseline(bundle));
    let Some(baseline) = baseline else {
        debug!(bundle = %bundle.short(), device = %drift.device, "a window of a bundle that is not here any more");
        return Ok(None);
    };
    let summary = Summary::decode(&drift.summary)?;
    summary.fits(&baseline)?;
    for alarm in &drift.alarms {
        let known = baseline.features.iter().any(|feature| feature.name == alarm.feature);
        anyhow::ensure!(known, "an alarm names a feature that the baseline does not have");
        info!(device = %drift.device, stream = %drift.stream, release = drift.release, feature = alarm.feature, level = ?alarm.level, "drift: {}", alarm.detail);
    }
    Ok(Some(answers(drift, &baseline, &summary)))
}

/// How often each class was answered.
fn answers(drift: &Drift, baseline: &Baseline, summary: &Summary) -> Measured {
    let mut classes: BTreeMap<String, u64> = BTreeMap::new();
    for (feature, tally) in baseline.features.iter().zip(&summary.features) {
        let Some(name) = feature.name.strip_prefix(ANSWER).filter(|_| feature.is_categorical()) else { continue };
        let slots = feature.categories.iter().map(String::as_str).chain([OTHERS]);
        for (slot, count) in slots.zip(&tally.counts).filter(|(_, count)| **count > 0) {
            let class = if name == CLASS { slot.to_owned() } else { format!("{name}={slot}") };
            // Whoever packed the bundle chose it: cut, and nothing that a terminal would obey.
            let class = class.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_CLASS).collect();
            let sum = classes.entry(class).or_default();
            *sum = sum.saturating_add(*count);
        }
    }
    let figures = Figures { classes, ..Figures::default() };
    Measured { device: drift.device.clone(), stream: drift.stream.clone(), release: drift.release, figures }
}
