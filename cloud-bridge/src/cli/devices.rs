//! `petrel devices`: who is there, who may come in, how they are doing.

use super::client::{Client, encoded};
use super::table::{ago, arriving, spark, table};
use super::target::{Meant, pair};
use super::{Out, command, fan_outs, token};
use crate::service::unix_millis;
use crate::service::view::{DeviceView, SpoolView, TelemetryView};
use anyhow::Context;
use indicatif::HumanDuration;
use std::collections::BTreeMap;
use std::time::Duration;

/// List devices, let them in, see how they are doing
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  petrel devices token new edge-1 --out edge-1.join    # on the device: petrel-agent enrol edge-1.join
  petrel devices ls -l site=plant-3
  petrel devices label edge-1 site=plant-3
  petrel devices command edge-1 diagnostics
  petrel devices command -l site=plant-3 report        # of many at once
  petrel devices revoke edge-1                         # stolen: its session ends, its name stays taken
  petrel devices retire edge-1                         # gone: its name is free")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Token(token::Args),
    /// Every device, or those with some labels
    Ls(Meant),
    /// One device
    Show {
        /// The device's name
        id: String,
    },
    /// Let a pending device in, after comparing its key id with what `petrel-agent enrol` printed on it
    Approve {
        /// The device's name
        id: String,
    },
    /// Turn a pending device away
    Reject {
        /// The device's name
        id: String,
    },
    /// Throw a device out: nothing that it says counts any more, and its session ends
    #[command(after_help = "Example:\n  petrel devices revoke edge-1\n\nIts name stays taken until it is retired.")]
    Revoke {
        /// The device's name
        id: String,
    },
    /// Take a device out of the fleet: what the broker keeps of it is cleared, and its name is free
    #[command(
        after_help = "Example:\n  petrel devices retire edge-1\n  petrel devices token new edge-1 --out edge-1.join   # the next of that name"
    )]
    Retire {
        /// The device's name
        id: String,
    },
    /// Say what a device is called beside its name
    #[command(
        after_help = "Examples:\n  petrel devices label edge-1 site=plant-3 line=2\n  petrel devices label edge-1 line-   # takes it away"
    )]
    Label {
        /// The device's name
        id: String,
        /// KEY=VALUE, or KEY- to take it away
        #[arg(required = true, value_name = "LABEL", value_parser = change)]
        labels: Vec<(String, Option<String>)>,
    },
    /// Keep a device as it is: no rollout changes it while it has the label `pinned`
    Pin {
        /// The device's name
        id: String,
    },
    /// Let rollouts change a pinned device again
    Unpin {
        /// The device's name
        id: String,
    },
    #[command(name = "command")]
    Ask(command::Args),
    /// What was asked of a device lately, and what came of it
    Commands {
        /// The device's name
        id: String,
    },
    /// What was asked of many devices at once lately, and what came of it
    FanOuts {
        /// The number of one
        number: Option<u64>,
        /// Every device of it, and what it answered
        #[arg(long, requires = "number")]
        commands: bool,
    },
    /// How a device was doing lately
    Telemetry {
        /// The device's name
        id: String,
        /// How many of the latest messages
        #[arg(long, default_value_t = 60)]
        last: u32,
    },
}

impl Args {
    /// Asks the bridge.
    pub(crate) fn run(self, out: &Out) -> anyhow::Result<()> {
        let client = Client::from_context()?;
        match self.command {
            Command::Token(args) => args.run(&client, out),
            Command::Ls(meant) => list(&client, out, &meant),
            Command::Label { id, labels } => label(&client, out, &id, labels),
            Command::Pin { id } => label(&client, out, &id, vec![("pinned".into(), Some("yes".into()))]),
            Command::Unpin { id } => label(&client, out, &id, vec![("pinned".into(), None)]),
            Command::Show { id } => show(&client, out, &id),
            Command::Approve { id } => decide(&client, out, &id, "approve", "approved"),
            Command::Reject { id } => decide(&client, out, &id, "reject", "rejected"),
            Command::Revoke { id } => decide(&client, out, &id, "revoke", "revoked"),
            Command::Retire { id } => decide(&client, out, &id, "retire", "retired"),
            Command::Ask(args) => args.run(&client, out),
            Command::Commands { id } => command::list(&client, out, &id),
            Command::FanOuts { number: None, .. } => fan_outs::list(&client, out),
            Command::FanOuts { number: Some(number), commands: true } => fan_outs::commands(&client, out, number),
            Command::FanOuts { number: Some(number), .. } => fan_outs::show(&client, out, number),
            Command::Telemetry { id, last } => telemetry(&client, out, &id, last),
        }
    }
}

/// `KEY=VALUE`, or `KEY-`
fn change(text: &str) -> Result<(String, Option<String>), String> {
    match text.strip_suffix('-').filter(|key| !key.is_empty() && !key.contains('=')) {
        Some(key) => Ok((key.to_owned(), None)),
        None => pair(text).map(|(key, value)| (key, Some(value))).map_err(|why| why + ", or KEY- to take it away"),
    }
}

fn told_labels(device: &DeviceView) -> String {
    device.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

fn label(client: &Client, out: &Out, id: &str, labels: Vec<(String, Option<String>)>) -> anyhow::Result<()> {
    let labels: BTreeMap<String, Option<String>> = labels.into_iter().collect();
    let device: Option<DeviceView> =
        client.post(&format!("/devices/{id}/labels"), &serde_json::json!({ "labels": labels }))?;
    let device = device.context("the bridge's answer was empty")?;
    let told = told_labels(&device);
    out.result(&device, if told.is_empty() { format!("{id} has no labels") } else { format!("{id}: {told}") })
}

fn link(device: &DeviceView) -> String {
    if device.online { "online".into() } else { "offline".into() }
}

fn list(client: &Client, out: &Out, meant: &Meant) -> anyhow::Result<()> {
    let meant = meant.expression();
    let path = match &meant {
        None => "/devices".to_owned(),
        Some(meant) => format!("/devices?to={}", encoded(meant)),
    };
    let devices: Vec<DeviceView> = client.list(&path)?;
    let now = unix_millis();
    let row = |d: &DeviceView| {
        let serving = d.streams.iter().filter_map(|s| s.active.map(|release| format!("{} {release}", s.stream)));
        [
            d.id.clone(),
            d.status.clone(),
            link(d),
            ago(d.last_seen, now),
            d.board.clone(),
            d.arch.clone(),
            told_labels(d),
            serving.collect::<Vec<_>>().join(", "),
        ]
    };
    let people = if devices.is_empty() && meant.is_some() {
        "no device is meant".to_owned()
    } else if devices.is_empty() {
        "no device has enrolled yet\nbegin with: petrel devices token new DEVICE --out DEVICE.join".to_owned()
    } else {
        let header = ["DEVICE", "STATUS", "LINK", "LAST SEEN", "BOARD", "ARCH", "LABELS", "RUNS"];
        table(header, devices.iter().map(row)).to_string()
    };
    out.result(&devices, people)
}

fn show(client: &Client, out: &Out, id: &str) -> anyhow::Result<()> {
    let device: DeviceView = client.get(&format!("/devices/{id}"))?;
    let mut people = format!(
        "{}  {}, {}, seen {}\nkey id  {}\nboard   {} ({}, {} MiB, {} for models), agent {}{}\nassigned generation {}, reported {}\n",
        device.id,
        device.status,
        link(&device),
        ago(device.last_seen, unix_millis()),
        device.key_id,
        device.board,
        device.arch,
        device.ram_mb,
        device.models_mb,
        device.agent,
        if device.metered { "; on a metered link" } else { "" },
        device.generation,
        device.reported_generation.map_or("none".into(), |g| g.to_string()),
    );
    if let Some(clock) = &device.clock {
        let (root, revocation) = (device.root_version.unwrap_or(0), device.revocation);
        let revocation = revocation.map_or("no revocation".into(), |version| format!("revocation {version}"));
        people += &format!("clock   {clock}; believes root {root}, {revocation}\n");
    }
    if let Some(alarm) = &device.alarm {
        people += &format!("ALARM   {alarm}\n");
    }
    let release = |r: Option<u64>| r.map_or("-".into(), |r| r.to_string());
    let rows = device.streams.iter().map(|s| {
        let state = match (s.standing.as_str(), &s.held) {
            ("unwanted" | "stopped", _) => format!("{}: does not answer", s.standing),
            (_, Some(code)) => format!("waits: {code}"),
            (_, None) if s.converged => "as wanted".into(),
            (_, None) => match (&s.shadow, &s.arriving) {
                (Some(seen), _) => format!("in the shadow: {} of {} answers are others", seen.disagreed, seen.compared),
                (None, Some(rows)) => arriving(rows),
                (None, None) => "on its way".into(),
            },
        };
        let desired = s.desired.clone().unwrap_or("-".into());
        [s.stream.clone(), desired, release(s.active), release(s.trial), release(s.previous), state]
    });
    if !device.streams.is_empty() {
        people += &format!("\n{}", table(["STREAM", "WANTED", "ACTIVE", "TRIAL", "PREVIOUS", "STATE"], rows));
    }
    for stream in &device.streams {
        if stream.sandbox.as_ref().is_some_and(|s| !(s.files && s.calls && s.memory)) {
            people += &format!(
                "\n{}: its process is not wholly shut in; `petrel-agent status` says what its system lacks",
                stream.stream
            );
        }
    }
    if !device.refusals.is_empty() {
        let rows = device.refusals.iter().map(|r| [r.code.clone(), r.count.to_string(), r.detail.clone()]);
        people += &format!("\n\n{}", table(["REFUSED", "TIMES", "LATEST"], rows));
    }
    out.result(&device, people.trim_end())
}

fn decide(client: &Client, out: &Out, id: &str, verb: &str, done: &str) -> anyhow::Result<()> {
    let body = serde_json::Map::new();
    client.post::<serde_json::Value>(&format!("/devices/{id}/{verb}"), &body)?;
    out.result(&serde_json::json!({ "device": id, "status": done }), format!("{id} is {done}"))
}

fn telemetry(client: &Client, out: &Out, id: &str, last: u32) -> anyhow::Result<()> {
    let rows: Vec<TelemetryView> = client.list(&format!("/devices/{id}/telemetry?limit={last}"))?;
    let Some(latest) = rows.last() else {
        return out.result(&rows, format!("{id} has sent no telemetry yet"));
    };
    let line = |name: &str, unit: &str, value: &dyn Fn(&TelemetryView) -> Option<f64>| {
        let values: Vec<f64> = rows.iter().filter_map(value).collect();
        let now = values.last().map_or("-".into(), |v| format!("{v:.1} {unit}"));
        [name.to_owned(), now, spark(&values)]
    };
    let total = |of: fn(&crate::service::view::StreamTelemetryView) -> u64| {
        // A message that was merged covers more than others.
        move |t: &TelemetryView| Some(t.streams.iter().map(of).sum::<u64>() as f64 * 60.0 / t.span_s.max(1) as f64)
    };
    let chart = [
        line("processor", "%", &|t| Some(t.cpu_percent.into())),
        line("memory used", "MiB", &|t| Some(t.memory_used_mb as f64)),
        line("agent memory", "MiB", &|t| Some(t.agent_memory_mb as f64)),
        line("disk free", "MiB", &|t| Some(t.disk_free_mb as f64)),
        line("temperature", "°C", &|t| t.temperature_c.map(f64::from)),
        line("answers", "/min", &total(|s| s.answers)),
        line("errors", "/min", &total(|s| s.errors)),
    ];
    let SpoolView { waiting, merged, dropped, damaged, .. } = latest.spool;
    let mut people = format!(
        "{id}, the latest of {} messages {}; they cover {}\n{}",
        rows.len(),
        ago(latest.at, unix_millis()),
        HumanDuration(Duration::from_secs(rows.iter().map(|t| t.span_s).sum())),
        table(["", "NOW", "LATELY"], chart)
    );
    for (count, what) in [
        (waiting, "messages wait on the device"),
        (merged, "messages were merged there while it was not heard: of each measure they show the worst"),
        (dropped, "measurements were DROPPED there, for want of room"),
        (damaged, "times its disk lost what waited"),
    ] {
        if count > 0 {
            people += &format!("\n{count} {what}");
        }
    }
    out.result(&rows, people)
}
