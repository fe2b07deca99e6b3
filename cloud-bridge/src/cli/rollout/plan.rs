//! `petrel rollout plan`, as people read it.

use crate::cli::table::table;
use crate::service::view::PlanView;
use indicatif::{HumanBytes, HumanDuration};
use std::time::Duration;

/// How many devices are named one by one.
const NAMED: usize = 20;

/// A plan in words.
pub(super) fn people(plan: &PlanView) -> String {
    let row = |(at, wave): (usize, &crate::service::view::PlannedWave)| {
        let boards: Vec<String> = wave.boards.iter().map(|(board, n)| format!("{board} {n}")).collect();
        let first: Vec<&str> = wave.devices.iter().take(3).map(String::as_str).collect();
        let more = if wave.devices.len() > 3 { ", …" } else { "" };
        let approval = if wave.approval { "yes" } else { "" };
        [
            (at + 1).to_string(),
            wave.size.clone(),
            wave.devices.len().to_string(),
            boards.join(", "),
            wave.soak.clone(),
            approval.to_owned(),
            first.join(", ") + more,
        ]
    };
    let waves = table(
        ["WAVE", "SIZE", "DEVICES", "BOARDS", "SOAK", "APPROVAL", "FIRST"],
        plan.waves.iter().enumerate().map(row),
    );
    let devices: usize = plan.waves.iter().map(|wave| wave.devices.len()).sum();
    let mut text =
        format!("{} {} to {devices} device(s), {} of them away now\n\n{waves}\n", plan.stream, plan.version, plan.away);
    for link in &plan.links {
        let (bytes, most) = (HumanBytes(link.bytes), HumanBytes(link.most));
        text += &format!("\n{} links: {bytes} to {} device(s), at most {most} to one", link.link, link.devices);
    }
    if plan.at_least_s > 0 {
        text += &format!("\ntakes at least {}, besides trials", HumanDuration(Duration::from_secs(plan.at_least_s)));
    }
    for (device, why) in plan.left_out.iter().take(NAMED) {
        text += &format!("\nleft out: {device} {why}");
    }
    if plan.left_out.len() > NAMED {
        text += &format!("\nleft out: {} more (all with --json)", plan.left_out.len() - NAMED);
    }
    for warning in &plan.warnings {
        text += &format!("\nwarning: {warning}");
    }
    text
}
