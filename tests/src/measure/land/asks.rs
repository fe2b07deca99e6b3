//! What a person waits for: the real commands, against a bridge that knows all the devices.

use super::{Crowd, STREAM, enrolment::SITES};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::time::Instant;

const ROUNDS: usize = 5;

pub(super) fn measure(crowd: &mut Crowd) -> anyhow::Result<Value> {
    let all = crowd.signers.len();
    let site = all / SITES + usize::from(all % SITES > 3);
    let desk = &crowd.fleet.desk;
    let best = |line: &str| -> anyhow::Result<f64> {
        let mut best = f64::MAX;
        for _ in 0..ROUNDS {
            let began = Instant::now();
            desk.done(line)?;
            best = best.min(began.elapsed().as_secs_f64());
        }
        Ok(best)
    };
    let (plan, list) = (format!("petrel rollout plan {STREAM}@1.0.0 --to all"), "petrel devices ls -l site=plant-3");
    let planned = desk.json(&plan)?;
    let waves = planned["waves"].as_array().context("the plan has no waves")?;
    let devices: usize = waves.iter().filter_map(|wave| wave["devices"].as_array()).map(Vec::len).sum();
    ensure!(devices == all, "the plan is for {devices} devices");
    let listed = desk.json(list)?.as_array().context("the list is none")?.len();
    ensure!(listed == site, "{listed} devices are listed, and not {site}");
    Ok(json!({ "rounds": ROUNDS, "plan_s": best(&plan)?, "ls_s": best(list)?, "listed": listed }))
}
