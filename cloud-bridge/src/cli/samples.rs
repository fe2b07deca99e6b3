//! `petrel samples`: inputs that devices keep, for people who want to see what their models see.

use super::Out;
use super::client::Client;
use super::table::{ago, ends, table};
use super::token::duration;
use crate::bundle::Staging;
use crate::fault::Fault;
use crate::service::samples::{GivenView, NewSampleRequest, SampleRequestView, TurnedSampleRequest};
use crate::service::unix_millis;
use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use protocol::{Sample, SampledInput};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How a PNG file begins.
const PNG: &[u8] = b"\x89PNG";

/// Ask devices for inputs that they keep; somebody else must approve it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  petrel samples ask digits --to edge-1,edge-2 --count 20 --for 2d --reason \"why so many eights?\"
  petrel samples approve 1                 # somebody else
  petrel samples get 1 --out eights/       # samples.csv, and pictures as files

A device keeps inputs only where its own configuration says so: `samples` in docs/operations.md.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Ask for inputs of a stream
    Ask(Ask),
    /// Let the devices be asked: somebody else than who wants it
    Approve {
        /// The request's number
        id: u64,
    },
    /// Ask nobody any more; what came stays
    End {
        /// The request's number
        id: u64,
    },
    /// Every request
    Ls,
    /// One request, and what became of it at each device
    Show {
        /// The request's number
        id: u64,
    },
    /// Write what came to a new folder; the audit log tells who did
    Get {
        /// The request's number
        id: u64,
        /// The folder to make
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct Ask {
    /// The stream
    stream: String,
    /// The devices, with commas between them
    #[arg(long, value_name = "DEVICES", value_delimiter = ',', required = true)]
    to: Vec<String>,
    /// At most so many inputs of each device
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=trust::MAX_SAMPLES))]
    count: u64,
    /// In at most so many bytes
    #[arg(long, default_value_t = 65_536, value_parser = clap::value_parser!(u64).range(1..=trust::MAX_SAMPLES_BYTES))]
    bytes: u64,
    /// Until when devices that come are asked
    #[arg(long = "for", value_name = "TIME", default_value = "24h", value_parser = duration)]
    period: Duration,
    /// What for: whoever approves it reads this, and so does the audit log
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

impl Args {
    /// Asks the bridge.
    pub(crate) fn run(self, out: &Out) -> anyhow::Result<()> {
        let client = Client::from_context()?;
        let turn = |id: u64, wish: &str| -> anyhow::Result<()> {
            let wish = TurnedSampleRequest { wish: wish.into() };
            let answer: Option<SampleRequestView> = client.post(&format!("/sample-requests/{id}"), &wish)?;
            let request = answer.context("the bridge's answer was empty")?;
            out.result(&request, told(&request))
        };
        match self.command {
            Command::Ask(ask) => {
                let Ask { stream, to, count, bytes, period, reason } = ask;
                let new = NewSampleRequest { stream, devices: to, count, bytes, for_s: period.as_secs(), reason };
                let answer: Option<SampleRequestView> = client.post("/sample-requests", &new)?;
                let request = answer.context("the bridge's answer was empty")?;
                let people = format!("{}\nsomebody else: petrel samples approve {}", told(&request), request.id);
                out.result(&request, people)
            }
            Command::Approve { id } => turn(id, "approve"),
            Command::End { id } => turn(id, "end"),
            Command::Ls => list(&client, out),
            Command::Show { id } => {
                let request: SampleRequestView = client.get(&format!("/sample-requests/{id}"))?;
                out.result(&request, shown(&request))
            }
            Command::Get { id, out: dir } => get(&client, out, id, &dir),
        }
    }
}

fn told(request: &SampleRequestView) -> String {
    let SampleRequestView { id, stream, count, bytes, .. } = request;
    let devices = request.devices.len();
    let state = match request.state.as_str() {
        "approval" => "waits for somebody else's approval",
        "open" => "is open: devices that are there are asked",
        "answered" => "was answered",
        _ => "is over",
    };
    format!("request {id} for {count} inputs of {stream}, in {bytes} bytes, of {devices} device(s) {state}")
}

fn given(request: &SampleRequestView) -> String {
    let gave = request.devices.iter().filter(|d| d.state == "gave").count();
    let samples: u64 = request.devices.iter().map(|d| d.samples).sum();
    format!("{samples} of {gave}/{}", request.devices.len())
}

fn list(client: &Client, out: &Out) -> anyhow::Result<()> {
    let requests: Vec<SampleRequestView> = client.list("/sample-requests")?;
    let now = unix_millis();
    let row = |r: &SampleRequestView| {
        let ends = if matches!(r.state.as_str(), "approval" | "open") { ends(r.until, now) } else { "-".into() };
        let approved = r.approved.clone().unwrap_or_else(|| "-".into());
        [r.id.to_string(), r.stream.clone(), r.state.clone(), given(r), r.by.clone(), approved, ends, r.reason.clone()]
    };
    let people = match requests.is_empty() {
        true => "nobody asked for inputs yet\nask with: petrel samples ask STREAM --to DEVICE --reason TEXT".to_owned(),
        false => {
            let header = ["REQUEST", "STREAM", "STATE", "GIVEN", "BY", "APPROVED", "ENDS", "WHAT FOR"];
            table(header, requests.iter().map(row)).to_string()
        }
    };
    out.result(&requests, people)
}

fn shown(request: &SampleRequestView) -> String {
    let now = unix_millis();
    let approved = request.approved.as_ref().map(|who| format!(", approved by {who}")).unwrap_or_default();
    let ended = request.ended.as_ref().map(|who| format!(", ended by {who}")).unwrap_or_default();
    let row = |d: &crate::service::samples::AskedView| {
        [d.device.clone(), d.state.clone(), d.samples.to_string(), d.why.clone().unwrap_or_default()]
    };
    let devices = table(["DEVICE", "STATE", "GAVE", "WHY"], request.devices.iter().map(row));
    let (by, made, ends) = (&request.by, ago(request.made, now), ends(request.until, now));
    let (head, reason) = (told(request), &request.reason);
    format!("{head}\nasked by {by} {made}{approved}{ended}; ends {ends}\nwhat for: {reason}\n\n{devices}")
}

/// Writes `samples.json` with all of it, `samples.csv` with a line for each, and every picture as a file.
fn get(client: &Client, out: &Out, id: u64, dir: &Path) -> anyhow::Result<()> {
    let given: Vec<GivenView> = client.list(&format!("/sample-requests/{id}/samples"))?;
    if given.is_empty() {
        let fault = Fault::new(format!("nothing came for request {id} yet"));
        return Err(fault.remedy(format!("see how far it is: petrel samples show {id}")).into());
    }
    let staging = Staging::beside(dir)?;
    fs::write(staging.path().join("samples.json"), serde_json::to_string_pretty(&given)? + "\n")?;
    let mut lines = Vec::new();
    let mut pictures = 0;
    for GivenView { device, samples, .. } in &given {
        for (at, sample) in samples.iter().enumerate() {
            let mut line = line(device, sample);
            if let SampledInput::Image(text) = &sample.input {
                let bytes = STANDARD.decode(text).context("a picture is not what it says")?;
                let name = format!("{device}-{}.{}", at + 1, if bytes.starts_with(PNG) { "png" } else { "jpg" });
                fs::write(staging.path().join(&name), bytes)?;
                line.insert("file".into(), name);
                pictures += 1;
            }
            lines.push(line);
        }
    }
    fs::write(staging.path().join("samples.csv"), written(&lines)?)?;
    staging.commit()?;
    let (count, devices) = (lines.len(), given.len());
    let machine = json!({ "folder": dir, "samples": count, "devices": devices, "pictures": pictures });
    let pictures = if pictures > 0 { format!(", and {pictures} pictures") } else { String::new() };
    out.result(&machine, format!("{} has {count} inputs of {devices} device(s): samples.csv{pictures}", dir.display()))
}

/// A line of the table. `id` and `device` are as labels name them.
fn line(device: &str, sample: &Sample) -> BTreeMap<String, String> {
    let fixed = [
        ("device", device.to_owned()),
        ("id", sample.id.clone().unwrap_or_default()),
        ("at", sample.at.to_string()),
        ("release", sample.release.to_string()),
        ("chosen", sample.chosen.as_str().to_owned()),
    ];
    let fixed = fixed.into_iter().map(|(name, value)| (name.to_owned(), value));
    let answer = sample.answer.iter().map(|cell| (format!("answer.{}", cell.name), harmless(&cell.value)));
    let input: Vec<(String, String)> = match &sample.input {
        SampledInput::Fields(cells) => {
            cells.iter().map(|c| (format!("input.{}", c.name), harmless(&c.value))).collect()
        }
        SampledInput::Arrays(arrays) => {
            arrays.iter().map(|a| (format!("input.{}", a.name), harmless(&a.values.join(" ")))).collect()
        }
        SampledInput::Image(_) => Vec::new(),
    };
    fixed.chain(answer).chain(input).collect()
}

/// A cell that no spreadsheet takes for a formula; `samples.json` has it as it was.
fn harmless(text: &str) -> String {
    let starts = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let is_number = |word: &str| word.parse::<f64>().is_ok();
    if starts && !text.split(' ').all(is_number) { format!("'{text}") } else { text.to_owned() }
}

/// As CSV: first what every line has, then what some have.
fn written(lines: &[BTreeMap<String, String>]) -> anyhow::Result<Vec<u8>> {
    let first = ["device", "id", "at", "release", "chosen"].map(str::to_owned);
    let others: BTreeSet<&String> =
        lines.iter().flat_map(BTreeMap::keys).filter(|name| !first.contains(name)).collect();
    let header: Vec<&String> = first.iter().chain(others).collect();
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(&header)?;
    for line in lines {
        csv.write_record(header.iter().map(|name| line.get(*name).map_or("", |text| text.as_str())))?;
    }
    csv.into_inner().context("the table cannot be written")
}
