//! One device on a slow wire: killed again and again, given an update, and with a broker that forgets everything. What
//! reaches it is counted on its wire, with all that goes with the chunks.

use crate::cargo::{Bundle, Release};
use crate::fleet::{Fleet, STORED};
use crate::programs::{Process, wait_for};
use anyhow::ensure;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;

/// A bundle of 20 MB.
const ROWS: usize = 1_000;
/// Rows that an update leaves as they are: a little more than 60 of 100, so that its manifest may be another.
const SAME: usize = 606;
const KILLS: usize = 50;
/// Bytes that reach the device between its start and its end, at most: all kills meet the download.
const MOST_BETWEEN: u64 = 640 * 1024;
/// Bytes a second towards the device.
const RATE: u32 = 6_000_000;
const DEVICE: &str = "edge-1";

/// Killed without a word, each time after as many bytes as chance says.
pub(crate) fn kills(programs: &Path) -> anyhow::Result<Value> {
    let (mut fleet, bundle) = land(programs)?;
    let tap = fleet.tap(Some(RATE))?;
    fleet.enrol(DEVICE, &format!("mqtts://127.0.0.1:{}", tap.port))?;
    fleet.roll_out_ahead(&bundle, &[DEVICE.to_owned()])?;
    let mut dice = fastrand::Rng::with_seed(7);
    let mut met = 0;
    for _ in 0..KILLS {
        let mut agent = fleet.start_agent(DEVICE)?;
        let until = tap.received() + dice.u64(1..=MOST_BETWEEN);
        reached(&mut agent, || tap.received() >= until)?;
        met += usize::from(!agent.said()?.contains(STORED));
        agent.kill()?;
    }
    ensure!(met == KILLS, "the download was over after {met} of {KILLS} kills: more of them must meet it");
    let mut agent = fleet.start_agent(DEVICE)?;
    agent.says(STORED)?;
    let received = tap.received();
    agent.kill()?;
    fleet.check(DEVICE, &bundle)?;
    Ok(json!({ "kills": met, "bytes": bundle.bytes, "received": received }))
}

/// A release that shares most of its chunks with the one that is installed.
pub(crate) fn update(programs: &Path) -> anyhow::Result<Value> {
    let (fleet, first) = land(programs)?;
    let tap = fleet.tap(None)?;
    fleet.enrol(DEVICE, &format!("mqtts://127.0.0.1:{}", tap.port))?;
    let mut agent = fleet.start_agent(DEVICE)?;
    let rollout = fleet.roll_out(&first, &[DEVICE.to_owned()])?;
    fleet.completed(rollout)?;
    let next = Release { version: "1.1.0", ..release() }.push(&fleet.desk)?;
    let before = tap.received();
    let rollout = fleet.roll_out(&next, &[DEVICE.to_owned()])?;
    fleet.completed(rollout)?;
    let received = tap.received() - before;
    agent.runs()?;
    fleet.check(DEVICE, &next)?;
    Ok(json!({ "shared": next.shared_with(&first), "bytes": next.bytes, "received": received }))
}

/// A broker that is killed in the middle, and comes back without anything that it kept.
pub(crate) fn forgotten(programs: &Path) -> anyhow::Result<Value> {
    let (mut fleet, bundle) = land(programs)?;
    let tap = fleet.tap(Some(RATE))?;
    fleet.enrol(DEVICE, &format!("mqtts://127.0.0.1:{}", tap.port))?;
    fleet.roll_out_ahead(&bundle, &[DEVICE.to_owned()])?;
    let mut agent = fleet.start_agent(DEVICE)?;
    reached(&mut agent, || tap.received() >= bundle.bytes / 2)?;
    ensure!(!agent.said()?.contains(STORED), "the download was over before the broker forgot");
    fleet.broker_forgets()?;
    let began = Instant::now();
    agent.says(STORED)?;
    let seconds = began.elapsed().as_secs_f64();
    agent.kill()?;
    fleet.check(DEVICE, &bundle)?;
    Ok(json!({ "bytes": bundle.bytes, "received": tap.received(), "seconds": seconds }))
}

fn release() -> Release<'static> {
    Release { stream: "rough", version: "1.0.0", rows: ROWS, same: SAME }
}

/// A fleet whose land has the release.
fn land(programs: &Path) -> anyhow::Result<(Fleet, Bundle)> {
    let fleet = Fleet::start(programs)?;
    let bundle = release().push(&fleet.desk)?;
    Ok((fleet, bundle))
}

fn reached(agent: &mut Process, enough: impl Fn() -> bool) -> anyhow::Result<()> {
    wait_for("the middle of the download", || {
        agent.runs()?;
        Ok(enough().then_some(()))
    })
}
