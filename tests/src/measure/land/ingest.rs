//! How fast land takes what devices measure: all of them say what they have as fast as their windows allow, until the
//! bridge has it.
//!
//! Everything is signed beforehand, so that the devices do not take the processor that the bridge needs.

use super::{ASK_EVERY, Crowd, TAKEN, cost, grows};
use serde_json::{Value, json};
use std::time::Instant;

/// Messages of each device.
const EACH: u64 = 20;

pub(super) fn measure(crowd: &mut Crowd) -> anyhow::Result<Value> {
    let words = crowd.sign(EACH)?;
    let messages = words.len() as u64;
    let bytes: usize = words.iter().map(|(_, word)| word.bytes.len()).sum();
    let (bridge, broker) = (crowd.fleet.bridge().id(), crowd.fleet.broker_id()?);
    let (taken, before) = (crowd.rest.metric(TAKEN)?, Times::now(bridge, broker)?);
    let began = Instant::now();
    crowd.say(words)?;
    crowd.acknowledged()?;
    let acknowledged = began.elapsed().as_secs_f64();
    // Should some be lost, the last that came counts.
    let (mut latest, mut last) = (taken, began);
    grows(taken + messages, ASK_EVERY, || {
        let now = crowd.rest.metric(TAKEN)?;
        if now > latest {
            (latest, last) = (now, Instant::now());
        }
        Ok(now)
    })?;
    let after = Times::now(bridge, broker)?;
    // What was believed last is still on its way to the disk.
    let lost = crowd.settled()?;
    Ok(json!({
        "messages": messages, "bytes": bytes, "acknowledged_s": acknowledged, "seconds": (last - began).as_secs_f64(),
        "lost": lost,
        "cpu": {
            "bridge_s": after.bridge - before.bridge, "broker_s": after.broker - before.broker,
            "devices_s": after.devices - before.devices, "sqlite_s": after.sqlite - before.sqlite,
        },
        "bridge_rss": cost::memory(bridge, "VmHWM")?, "broker_rss": cost::memory(broker, "VmHWM")?,
    }))
}

/// Seconds of the processor that were taken by now.
struct Times {
    bridge: f64,
    /// The threads of the bridge in which SQLite runs.
    sqlite: f64,
    broker: f64,
    /// This process.
    devices: f64,
}

impl Times {
    fn now(bridge: u32, broker: u32) -> anyhow::Result<Self> {
        let [of_bridge, of_broker, devices] = [bridge, broker, std::process::id()].map(cost::seconds);
        let sqlite = cost::of_threads(bridge, "sqlx-sqlite")?;
        Ok(Self { bridge: of_bridge?, sqlite, broker: of_broker?, devices: devices? })
    }
}
