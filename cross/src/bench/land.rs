//! What land costs with ten thousand devices: real MQTT clients, a real bridge, a real Mosquitto.
//!
//! Decides what each figure should be. How it is made is decided by the program that measures, `tests/src/measure/land`.

use super::{Asked, Row};
use crate::build::output;
use crate::postgres::Server;
use anyhow::Context;
use serde_json::Value;
use std::process::Command;

/// What the page says of it.
pub(super) const ABOUT: &str = "One bridge and Debian's Mosquitto, set up by `petrel broker config`, with 10,000 devices on the same machine: each an MQTT 5 client with a \
key of its own, let in by a join token, with a label, its presence, its report and its session; without TLS, for all of them live in one process beside the bridge. They answer as agents do, run no models and fetch no bundles. \
Commands: the best of five runs of the program. Fan-out: from the moment at which a person asks to the last device that has it, with one request for all of them; and commands that are asked for one by one over REST, eight at a time. \
Ingest: 20 messages of each device, signed beforehand and said as fast as windows of 16 allow, until the bridge has taken all of them; then its database is compared with what was said, by device, run and number. \
Kills: `kill -9` at any moment while the bridge takes a message of each device; each says one more while it is away. Full disk: what SQLite writes fails with ENOSPC while devices speak. \
PostgreSQL: land is moved there by its backup; the server is stopped while the bridge takes a message of each device, each says one more, and after a minute it is started. \
After each every record and every message in the database is read.";

const MB: f64 = 1e6;

pub(super) fn run(Asked { folder, .. }: Asked) -> anyhow::Result<Vec<Row>> {
    let server = Server::start(&folder.join("petrel"))?;
    let mut measure = Command::new(folder.join("measure"));
    server.introduce(&mut measure);
    let said = output(measure.arg(folder).arg("land"))?;
    let seen: Value = serde_json::from_str(&said).context("the program that measures did not say what it saw")?;
    let number = |name: &str| seen.pointer(name).and_then(Value::as_f64).with_context(|| format!("no {name} was seen"));
    let over = |one: &str, other: &str| anyhow::Ok(number(one)? / number(other)?);
    let devices = number("/crowd/devices")?;
    let confirmed = format!(
        "the person had the answer after {:.1} s, every verdict was in after {:.0} s",
        number("/fan_out/assignments/answered_s")?,
        number("/fan_out/assignments/completed_s")?
    );
    let commands = format!(
        "the person had the answer after {:.1} s, every device's answer was in after {:.0} s",
        number("/fan_out/commands/asked_s")?,
        number("/fan_out/commands/answered_s")?
    );
    let seconds = number("/ingest/seconds")?;
    let megabytes = |name: &str| anyhow::Ok(number(name)? / MB);
    let kills = format!(
        "{} kills, {} messages; all was there after {:.1} s at most",
        number("/kills/kills")?,
        number("/kills/messages")?,
        number("/kills/longest_s")?
    );
    let full = format!(
        "{} messages; {} starts in vain; all was there {:.1} s after there was room",
        number("/full/messages")?,
        number("/full/starts_in_vain")?,
        number("/full/seconds")?
    );
    let stopped = format!(
        "stopped for {:.0} s, {} messages; all was there {:.1} s after it was back",
        number("/server/stopped_s")?,
        number("/server/messages")?,
        number("/server/seconds")?
    );
    Ok(vec![
        Row::new("devices that connect and are heard", devices / number("/crowd/reported_s")?, "/s")
            .beside(&format!("{devices} devices; {:.0} s to enrol", number("/crowd/enrolled_s")?)),
        Row::new("`petrel rollout plan` for all", number("/asks/plan_s")?, "s").at_most(1.0),
        Row::new("`petrel devices ls` with a label", number("/asks/ls_s")? * 1e3, "ms")
            .at_most(200.0)
            .beside(&format!("{} devices have it", number("/asks/listed")?)),
        Row::new("fan-out, assignments", over("/fan_out/assignments/devices", "/fan_out/assignments/seconds")?, "/s")
            .at_least(1_000.0)
            .beside(&confirmed),
        Row::new("fan-out, commands", over("/fan_out/commands/devices", "/fan_out/commands/seconds")?, "/s")
            .at_least(1_000.0)
            .beside(&commands),
        Row::new("commands asked for one by one", over("/fan_out/singly/devices", "/fan_out/singly/seconds")?, "/s")
            .beside(&format!("every answer was in after {:.0} s", number("/fan_out/singly/answered_s")?)),
        Row::new("ingest, signed telemetry", over("/ingest/messages", "/ingest/seconds")?, "/s")
            .at_least(10_000.0)
            .beside(&bottleneck(&seen, seconds)?),
        Row::new("ingest: acknowledged and lost", number("/ingest/lost")?, "")
            .at_most(0.0)
            .beside(&format!("the broker had all of it after {:.1} s", number("/ingest/acknowledged_s")?)),
        Row::new("the bridge's memory (RSS), at most", megabytes("/ingest/bridge_rss")?, "MB").at_most(300.0).beside(
            &format!(
                "{:.0} MB when all had come, {:.0} MB after the fan-out; Mosquitto {:.0} MB at most",
                megabytes("/crowd/bridge_rss")?,
                megabytes("/fan_out/bridge_rss")?,
                megabytes("/ingest/broker_rss")?
            ),
        ),
        Row::new("killed: acknowledged and lost", number("/kills/lost")?, "").at_most(0.0).beside(&kills),
        Row::new("disk full: acknowledged and lost", number("/full/lost")?, "").at_most(0.0).beside(&full),
        Row::new("PostgreSQL stopped: acknowledged and lost", number("/server/lost")?, "")
            .at_most(0.0)
            .beside(&stopped),
    ])
}

/// Who took how much of the processor.
fn bottleneck(seen: &Value, seconds: f64) -> anyhow::Result<String> {
    let share = |name: &str| {
        let taken = seen["ingest"]["cpu"][name].as_f64();
        taken.map(|s| s / seconds).with_context(|| format!("no {name} was seen"))
    };
    Ok(format!(
        "of a core: the bridge {:.2}, of it SQLite's threads {:.2}; Mosquitto {:.2}; the devices {:.2}",
        share("bridge_s")?,
        share("sqlite_s")?,
        share("broker_s")?,
        share("devices_s")?
    ))
}
