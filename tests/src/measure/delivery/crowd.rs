//! Many devices at once: what leaves the bridge for all of them together, as seen on its wire.

use crate::cargo::Release;
use crate::fleet::Fleet;
use crate::programs::Process;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;

/// A bundle of 12 MB.
const ROWS: usize = 600;
const DEVICES: usize = 50;

pub(crate) fn measure(programs: &Path) -> anyhow::Result<Value> {
    let fleet = Fleet::start(programs)?;
    let bundle = Release { stream: "shared", version: "1.0.0", rows: ROWS, same: ROWS }.push(&fleet.desk)?;
    let ids: Vec<String> = (1..=DEVICES).map(|number| format!("edge-{number}")).collect();
    let mut agents: Vec<Process> = Vec::new();
    for id in &ids {
        fleet.enrol(id, &fleet.broker(true))?;
        agents.push(fleet.start_agent(id)?);
    }
    for id in &ids {
        fleet.reports(id)?;
    }
    let (before, began) = (fleet.land.sent(), Instant::now());
    let rollout = fleet.roll_out(&bundle, &ids)?;
    fleet.completed(rollout)?;
    let (sent, seconds) = (fleet.land.sent() - before, began.elapsed().as_secs_f64());
    agents.iter_mut().try_for_each(Process::runs)?;
    ids.iter().try_for_each(|id| fleet.check(id, &bundle))?;
    Ok(json!({ "devices": DEVICES, "bytes": bundle.bytes, "sent": sent, "seconds": seconds }))
}
