//! A rollout as people read it: how far it is, and what the evidence says, number by number.

use crate::cli::table::{arriving, table};
use crate::service::view::{ArrivingView, RolloutView};
use bridge_core::{Finding, Judgement};
use indicatif::HumanDuration;
use std::time::Duration;

/// The most devices whose words are shown one by one.
const NAMED: usize = 50;

/// One line: what changes when something of the rollout itself does.
pub(super) fn progress(rollout: &RolloutView) -> String {
    let at = (rollout.wave as usize).saturating_sub(1).min(rollout.waves.len().saturating_sub(1));
    let head = format!("{} {}", rollout.stream, rollout.version);
    let Some(w) = rollout.waves.get(at) else { return head };
    let why = rollout.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let back = if rollout.returning + rollout.returned > 0 {
        format!(", {} of {} back", rollout.returned, rollout.returning + rollout.returned)
    } else {
        String::new()
    };
    format!(
        "{head} {} wave {}/{}: {} of {} confirmed, {} failed{back}{why}",
        rollout.state,
        rollout.wave,
        rollout.waves.len(),
        w.confirmed,
        w.devices,
        w.failed
    )
}

/// What is redrawn on a terminal: waves, gates with their evidence, time left.
pub(super) fn watched(rollout: &RolloutView) -> String {
    let getting = |of: &ArrivingView| format!("; {} getting it: {}", of.devices, arriving(of));
    let moving = rollout.arriving.as_ref().map_or(String::new(), getting);
    let soaks = rollout.soaks_until.map(|until| {
        let left = until.saturating_sub(crate::service::unix_millis());
        format!("; soaks for {} more", HumanDuration(Duration::from_millis(left)))
    });
    let judged = rollout.judgement.as_ref().map(|judgement| format!("\n\n{}", judged(judgement)));
    let (soaks, judged) = (soaks.unwrap_or_default(), judged.unwrap_or_default());
    format!("{}{moving}{soaks}\n\n{}{judged}", progress(rollout), waves(rollout))
}

/// All of it, at its end or when somebody asks.
pub(super) fn outcome(rollout: &RolloutView) -> String {
    let rows = rollout.results.iter().take(NAMED).map(|r| {
        let why = r.code.as_ref().map(|c| format!("{c}: {}", r.detail.clone().unwrap_or_default()));
        [r.device.clone(), r.outcome.clone(), r.answers.to_string(), r.errors.to_string(), why.unwrap_or_default()]
    });
    let reason = rollout.reason.as_ref().map(|r| format!("\nwhy: {r}")).unwrap_or_default();
    let more = rollout.results.len().saturating_sub(NAMED);
    let more = if more > 0 { format!("\nand {more} more (all with --json)") } else { String::new() };
    let judged = rollout.judgement.as_ref().map(|j| format!("\n\n{}", judged(j))).unwrap_or_default();
    format!(
        "rollout {} of {} {}: {}, {} device(s) had it{reason}\n\n{}{judged}\n\n{}{more}",
        rollout.id,
        rollout.stream,
        rollout.version,
        rollout.state,
        rollout.hit,
        waves(rollout),
        table(["DEVICE", "OUTCOME", "ANSWERS", "ERRORS", "WHY"], rows)
    )
}

fn waves(rollout: &RolloutView) -> String {
    let rows = rollout.waves.iter().enumerate().map(|(at, wave)| {
        let numbers = [wave.devices, wave.confirmed, wave.failed, wave.open, wave.unknown, wave.away, wave.waiting];
        let [devices, confirmed, failed, open, unknown, away, waiting] = numbers.map(|n| n.to_string());
        [(at + 1).to_string(), devices, confirmed, failed, open, unknown, away, waiting]
    });
    table(["WAVE", "DEVICES", "CONFIRMED", "FAILED", "OPEN", "UNKNOWN", "AWAY", "WAITING"], rows).trim_fmt().to_string()
}

/// The judgement, gate by gate.
pub(crate) fn judged(judgement: &Judgement) -> String {
    let row = |f: &Finding| {
        let number = |n: Option<f64>| n.map_or("-".to_owned(), |n| format!("{n:.4}"));
        let evidence =
            f.evidence.map_or("-".to_owned(), |e| if e < 1e6 { format!("{e:.2}") } else { format!("{e:.1e}") });
        let needed = f.evidence.map_or(String::new(), |_| format!("{:.0}", f.needed));
        [f.gate.clone(), f.verdict.to_string(), number(f.canary), number(f.control), evidence, needed, f.why.clone()]
    };
    let weak = if judgement.weak { " (weak: too few devices to be compared with others)" } else { "" };
    let gates = table(
        ["GATE", "", "CANARY", "LIMIT OR CONTROL", "EVIDENCE", "NEEDED", "WHY"],
        judgement.findings.iter().map(row),
    );
    format!("judgement: {}{weak}\n{}", judgement.verdict, gates.trim_fmt())
}
