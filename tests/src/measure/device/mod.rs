//! What it costs to run models on a device: the agent alone, its start, a request, a swap, and another server beside it.

mod api;
mod client;
mod idle;
mod server;
mod swap;
mod triton;

use crate::Figure;
use crate::cargo::Bundle;
use crate::fleet::Fleet;
use crate::programs::{Process, wait_for};
use anyhow::Context;
use client::{Client, Request};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// The figures by name.
pub(crate) const FIGURES: &[(&str, Figure)] = &[
    ("idle", idle::memory),
    ("idle_full", idle::memory_in_full),
    ("start", idle::start),
    ("api", api::measure),
    ("server", server::measure),
    ("swap", swap::measure),
    ("triton", triton::agrees),
];

/// The only device.
const DEVICE: &str = "d";

/// A fleet of one device, with the example model pushed to land.
fn prepared(programs: &Path) -> anyhow::Result<(Fleet, Bundle)> {
    let fleet = Fleet::start(programs)?;
    let bundle = digits(&fleet, "1.0.0")?;
    fleet.enrol(DEVICE, &fleet.broker(true))?;
    Ok((fleet, bundle))
}

/// A release of the example model, packed as the tour does it.
fn digits(fleet: &Fleet, version: &str) -> anyhow::Result<Bundle> {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/digits");
    let file = |name: &str| models.join(name).display().to_string();
    let name = format!("digits-{version}");
    let packed = fleet.desk.json(&format!(
        "petrel pack {} --stream digits --version {version} --golden {} {} --labels {} --pre {} --post {} -o {name}",
        file("model.onnx"),
        file("golden_x.npy"),
        file("golden_y.npy"),
        file("labels.txt"),
        file("pre.json"),
        file("post.json"),
    ))?;
    fleet.desk.done(&format!("petrel sign {name} --key keys/publisher.pem"))?;
    fleet.desk.done(&format!("petrel push {name}"))?;
    let statement = packed["statement_sha256"].as_str().context("the bundle has no digest")?.to_owned();
    Bundle::of(fleet.desk.path(&name), format!("digits@{version}"), statement)
}

/// Starts the device, rolls the release out, and waits until it is confirmed.
fn serving(fleet: &Fleet, bundle: &Bundle) -> anyhow::Result<Process> {
    let agent = start(fleet)?;
    let rollout = fleet.roll_out(bundle, &[DEVICE.to_owned()])?;
    fleet.completed(rollout)?;
    Ok(agent)
}

/// Starts the agent as after a boot; what was said of the address of an earlier one is gone.
fn start(fleet: &Fleet) -> anyhow::Result<Process> {
    fleet.desk.forget("petrel-agent")?;
    let _ = fs::remove_file(fleet.desk.path(&format!("{DEVICE}/state/http.addr")));
    fleet.start_agent(DEVICE)
}

/// Where the local API is, when the agent has said it.
fn address(fleet: &Fleet) -> Option<String> {
    let bytes = fleet.desk.read(&format!("{DEVICE}/state/http.addr")).ok()?;
    Some(String::from_utf8(bytes).ok()?.trim().to_owned())
}

fn connect(fleet: &Fleet) -> anyhow::Result<Client> {
    let address = wait_for("the address of the local API", || Ok(address(fleet)))?;
    Client::connect(&address)
}

/// The first row of the held-out set.
fn row() -> anyhow::Result<Vec<f32>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/digits/heldout_x.npy");
    let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let data = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    Ok(bytes[data..].as_chunks::<4>().0.iter().take(64).map(|x| f32::from_le_bytes(*x)).collect())
}

/// A request for one row, as JSON.
fn in_json() -> anyhow::Result<Request> {
    let body = json!({ "inputs": [{ "name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": row()? }] });
    Ok(Request::post("/v2/models/digits/infer", None, &serde_json::to_vec(&body)?))
}

/// The same with the values as bytes, and the outputs too.
fn in_bytes() -> anyhow::Result<Request> {
    let bytes: Vec<u8> = row()?.iter().flat_map(|x| x.to_le_bytes()).collect();
    let body = json!({
        "inputs": [{
            "name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "parameters": { "binary_data_size": bytes.len() }
        }],
        "parameters": { "binary_data_output": true }
    });
    let head = serde_json::to_vec(&body)?;
    Ok(Request::post("/v2/models/digits/infer", Some(head.len()), &[&head[..], &bytes].concat()))
}

/// A number of `/proc/PID/FILE`, in bytes.
fn kib(pid: u32, file: &str, key: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}"))?;
    let found =
        text.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    Ok(found.with_context(|| format!("/proc/{pid}/{file} tells no {key}"))? * 1_024)
}

/// What lies at half, and at 99 of 100, of what was measured.
fn percentiles(mut seconds: Vec<f64>) -> (f64, f64) {
    seconds.sort_by(f64::total_cmp);
    let at = |share: usize| seconds[(seconds.len() * share / 100).min(seconds.len() - 1)];
    (at(50), at(99))
}
