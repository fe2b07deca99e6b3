//! What a bundle on its way costs a device in memory: a small one and a large one.
//!
//! Decides what counts: pages of the agent's own, without those of files, from what a quiet agent that is connected has to
//! the most while bytes arrive as fast as they can: all is with the broker before. The model is loaded after that.

use crate::cargo::Release;
use crate::fleet::{Fleet, STORED};
use crate::programs::wait_for;
use anyhow::Context;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const SMALL: usize = 1_000;
const LARGE: usize = 5_000;

pub(crate) fn measure(programs: &Path) -> anyhow::Result<Value> {
    let mut fleet = Fleet::start(programs)?;
    let sizes = [("small", SMALL), ("large", LARGE)].map(|(stream, rows)| growth(&mut fleet, stream, rows));
    let [small, large] = sizes;
    Ok(json!({ "small": small?, "large": large? }))
}

fn growth(fleet: &mut Fleet, stream: &str, rows: usize) -> anyhow::Result<Value> {
    let bundle = Release { stream, version: "1.0.0", rows, same: rows }.push(&fleet.desk)?;
    fleet.enrol(stream, &fleet.broker(true))?;
    let mut quiet = fleet.start_agent(stream)?;
    fleet.reports(stream)?;
    quiet.runs()?;
    let before = own_pages(quiet.id())?;
    quiet.kill()?;
    fleet.roll_out_ahead(&bundle, &[stream.to_owned()])?;
    let mut agent = fleet.start_agent(stream)?;
    let mut most = before;
    wait_for("the whole bundle", || {
        agent.runs()?;
        // First what it holds, then whether it is whole: what comes after that is not looked at.
        let now = own_pages(agent.id())?;
        let stored = agent.said()?.contains(STORED);
        most = if stored { most } else { most.max(now) };
        Ok(stored.then_some(()))
    })?;
    agent.kill()?;
    fleet.check(stream, &bundle)?;
    Ok(json!({ "bytes": bundle.bytes, "before": before, "most": most }))
}

/// Bytes of memory that belong to the process alone and to no file.
fn own_pages(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB")?.parse().ok());
    kib.map(|kib: u64| kib * 1024).context("this system does not tell a process's own memory")
}
