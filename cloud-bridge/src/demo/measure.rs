//! What the benches ask of a running fleet: memory, start-up, latency.

use super::fleet::Fleet;
use super::model::{GOOD, HeldOut, STREAM};
use super::process::wait_for;
use super::traffic;
use anyhow::Context;
use engine::{Data, Input, Limits, Pipeline, Tensor};
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, Instant};

/// Requests for a median.
const REQUESTS: usize = 1_000;

/// Figures of a running fleet.
#[derive(Debug, Serialize)]
pub(crate) struct Measures {
    /// From `rollout start` to the last device's confirmation, seconds.
    pub(crate) rollout_s: f64,
    /// Bytes of the bundle that was rolled out.
    pub(crate) bundle_bytes: u64,
    /// Proportional set size of an agent that serves the model, MiB, the largest of all.
    pub(crate) agent_pss_mib: f64,
    /// From the start of an agent's process to its first answer, the model on disk, seconds.
    pub(crate) cold_start_s: f64,
    /// Median of one request through the local API, microseconds.
    pub(crate) api_p50_us: f64,
    /// Median of the engine alone for the same input, microseconds.
    pub(crate) engine_p50_us: f64,
}

/// Measures with the good release serving everywhere.
pub(crate) fn take(fleet: &mut Fleet, dir: &Path, heldout: &HeldOut, rollout_s: f64) -> anyhow::Result<Measures> {
    let pss = fleet.agents.iter().map(|d| pss_kib(d.process.id())).collect::<anyhow::Result<Vec<_>>>()?;
    let image = heldout.images.first().context("there are no held-out images")?;
    let bundle = dir.join(format!("{STREAM}-{GOOD}"));
    let bytes = std::fs::read_dir(&bundle)?.map(|entry| Ok(entry?.metadata()?.len())).sum::<std::io::Result<u64>>()?;
    Ok(Measures {
        rollout_s,
        bundle_bytes: bytes,
        agent_pss_mib: pss.into_iter().max().unwrap_or_default() as f64 / 1024.0,
        api_p50_us: api_p50(&fleet.agents[0].address, image)?,
        engine_p50_us: engine_p50(&bundle, image)?,
        cold_start_s: cold_start(fleet, image)?,
    })
}

fn pss_kib(pid: u32) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|l| l.strip_prefix("Pss:")).context("the kernel tells no PSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

fn api_p50(address: &str, image: &Vec<f32>) -> anyhow::Result<f64> {
    let client = traffic::client();
    let mut times = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        let begun = Instant::now();
        traffic::ask(&client, address, std::slice::from_ref(image))?.context("the agent serves no model")?;
        times.push(begun.elapsed());
    }
    Ok(median(times))
}

fn engine_p50(bundle: &Path, image: &[f32]) -> anyhow::Result<f64> {
    let pipeline = Pipeline::open(bundle, &Limits::default())?;
    let tensor = Tensor::new(vec![1, 1, 8, 8], Data::F32(image.to_vec()))?;
    let input = Input::Tensors(vec![(String::new(), tensor)]);
    let mut times = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        let begun = Instant::now();
        pipeline.infer(&input)?;
        times.push(begun.elapsed());
    }
    Ok(median(times))
}

/// Stops the last agent and starts it again from its disk.
fn cold_start(fleet: &mut Fleet, image: &Vec<f32>) -> anyhow::Result<f64> {
    let mut device = fleet.agents.pop().context("there is no agent")?;
    device.process.stop();
    let client = traffic::client();
    let begun = Instant::now();
    let again = fleet.start_agent(&device.id)?;
    wait_for("the first answer after a start", Duration::from_secs(30), || {
        // Not listening yet is no failure here.
        Ok(traffic::ask(&client, &again.address, std::slice::from_ref(image)).ok().flatten())
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    fleet.agents.push(again);
    Ok(seconds)
}
