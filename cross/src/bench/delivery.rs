//! What it costs to bring bundles to devices: real agents, a real bridge, a real Mosquitto, and HTTP beside them.
//!
//! Decides what each figure should be. How it is made is decided by the program that measures, `tests/src/measure`.

use super::{Asked, Row};
use crate::build::output;
use anyhow::Context;
use serde_json::Value;
use std::process::Command;

/// What the page says of it.
pub(super) const ABOUT: &str = "The agent and the bridge with Debian's Mosquitto on loopback, set up by `petrel broker config`. Every file on every \
device's disk is compared with what was signed, or there are no figures. Speed: a device that never saw the bundle, from the moment when it \
knows what it should have to the last byte on its disk, each chunk checked; beside it, in turns, the same bytes by HTTP, hashed and written down \
(rustls on both sides where it is TLS); the best of five. Memory: the agent's own pages, without those of files, above what a quiet agent has, while everything is with the broker already. \
Bytes are counted on the wire, with TLS and with all that goes beside the chunks; for a device that is killed also those that the broker sent \
and nobody took. The device with the kills and the one whose broker forgets have a link of 6 MB/s.";

const MB: f64 = 1e6;
/// Chunks that are on their way at once by default, and their size.
const WINDOW: f64 = 32.0 * 48.0 * 1024.0;
/// What may be sent beside the bundle itself.
const OVERHEAD: f64 = 1.05;
/// For what a bridge says besides: assignments, answers, acknowledgements.
const BESIDES: f64 = 0.02;

pub(super) fn run(Asked { folder, .. }: Asked) -> anyhow::Result<Vec<Row>> {
    let said = output(Command::new(folder.join("measure")).arg(folder).arg("delivery"))?;
    let seen: Value = serde_json::from_str(&said).context("the program that measures did not say what it saw")?;
    let number = |name: &str| seen.pointer(name).and_then(Value::as_f64).with_context(|| format!("no {name} was seen"));
    let over = |one: &str, other: &str| anyhow::Ok(number(one)? / number(other)?);
    let speed = |name: &str, key: &str| -> anyhow::Result<Row> {
        let megabytes = number("/speed/bytes")? / MB;
        let (agent, http) = (number(&format!("/speed/{key}/agent_s"))?, number(&format!("/speed/{key}/http_s"))?);
        let beside = format!("{:.0} MB/s over {:.0} MB/s, {megabytes:.0} MB", megabytes / agent, megabytes / http);
        Ok(Row::new(name, http / agent, "x").at_least(0.5).beside(&beside))
    };
    let memory = |name: &str, key: &str| -> anyhow::Result<Row> {
        let [bytes, before, most] = ["bytes", "before", "most"].map(|what| number(&format!("/memory/{key}/{what}")));
        let (bytes, before, most) = (bytes? / MB, before? / MB, most? / MB);
        let beside = format!("{before:.1} MB before, a bundle of {bytes:.0} MB");
        Ok(Row::new(name, most - before, "MB").at_most(8.0).beside(&beside))
    };
    let (kills, killed) = (number("/kills/kills")?, number("/kills/bytes")?);
    let megabytes = |name: &str| anyhow::Ok(number(name)? / MB);
    let crowd = format!("{:.1} MB to {} devices", megabytes("/crowd/bytes")?, number("/crowd/devices")?);
    let allowed = format!("bundle of {:.0} MB, {kills} kills: 1.05 of it and a window a kill", killed / MB);
    let shares = format!("it shares {:.1} % of its chunks", number("/update/shared")? * 100.0);
    let forgot =
        format!("{:.1} MB were sent for {:.1} MB", megabytes("/forgotten/received")?, megabytes("/forgotten/bytes")?);
    Ok(vec![
        speed("one device over HTTP, both without TLS", "plain")?,
        speed("one device over HTTP, both with TLS", "tls")?,
        memory("the agent's memory grows by, small bundle", "small")?,
        memory("the agent's memory grows by, large bundle", "large")?,
        Row::new("bridge's bytes out over the bundle, all devices at once", over("/crowd/sent", "/crowd/bytes")?, "x")
            .at_most(OVERHEAD + BESIDES)
            .beside(&crowd),
        Row::new("from its start to the last device confirmed", number("/crowd/seconds")?, "s").beside(&crowd),
        Row::new("sent to a device that is killed again and again", megabytes("/kills/received")?, "MB")
            .at_most(((OVERHEAD * killed + kills * WINDOW) / MB).floor())
            .beside(&allowed),
        Row::new("sent of an update over its size", over("/update/received", "/update/bytes")?, "x")
            .at_most(0.42)
            .beside(&shares),
        Row::new("whole after the broker came back with nothing retained", number("/forgotten/seconds")?, "s")
            .beside(&forgot),
    ])
}
