//! The whole loop, measured on real processes: the demo with its figures, and the simulation's speed.

use super::{Asked, Row};
use crate::build::output;
use anyhow::Context;
use serde_json::Value;
use std::process::Command;

/// What the page says of it.
pub(super) const ABOUT: &str = "A broker, a bridge and five agents on one machine take the digits model (TLS everywhere, signed, golden vectors, \
trial of 100 answers on each device, one canary first). Release profile. The simulation runs 20 devices a seed.";

/// Runs of the demo; the best of each figure counts.
const RUNS: usize = 5;
/// Seeds of the simulation.
const SEEDS: &str = "200";

pub(super) fn run(Asked { folder, .. }: Asked) -> anyhow::Result<Vec<Row>> {
    let mut runs = Vec::new();
    for number in 1..=RUNS {
        eprintln!("demo {number} of {RUNS}");
        let text = output(Command::new(folder.join("petrel")).args(["demo", "--json", "--measure"]))?;
        let last = text.lines().last().context("the demo said nothing")?;
        runs.push(serde_json::from_str::<Value>(last)?);
    }
    let best = |name: &str| -> anyhow::Result<f64> {
        let values = runs.iter().map(|run| run["measures"][name].as_f64());
        let values: Option<Vec<f64>> = values.collect();
        let values = values.with_context(|| format!("the demo did not measure {name}"))?;
        Ok(values.into_iter().fold(f64::INFINITY, f64::min))
    };
    let simulated = output(Command::new(folder.join("simulate")).args(["--seeds", SEEDS, "--json"]))?;
    let simulated: Value = serde_json::from_str(simulated.lines().last().context("the simulation said nothing")?)?;
    let steps = simulated["steps_per_second"].as_f64().context("the simulation did not tell its speed")?;
    let (api, engine) = (best("api_p50_us")?, best("engine_p50_us")?);
    Ok(vec![
        Row::new("rollout start to the last of 5 devices confirmed", best("rollout_s")?, "s"),
        Row::new("bundle", best("bundle_bytes")?, "bytes"),
        Row::new("agent that serves the model, PSS", best("agent_pss_mib")?, "MiB")
            .beside("the largest of five agents"),
        Row::new("cold start to the first answer", best("cold_start_s")?, "s")
            .at_most(0.5)
            .beside("model on disk, checked again before it is loaded"),
        Row::new("local API, one request, p50", api, "us").beside("JSON over HTTP on loopback, 64 values in"),
        Row::new("engine alone, same input, p50", engine, "us"),
        Row::new("local API over engine", api / engine, "x"),
        Row::new("simulation", steps, "steps/s").at_least(10_000.0),
    ])
}
