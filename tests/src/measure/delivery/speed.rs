//! How fast one device gets a large bundle, beside HTTP, with TLS and without, in turns.
//!
//! Decides what is a fair comparison: everything is with the broker before the first device asks; each run has a device that
//! never saw the bundle; its time is from the moment when it knows what it should have to the last byte on its disk,
//! each checked. Its probe and its trial come after that and are not delivery.

use super::web::Web;
use crate::cargo::{Bundle, Release, files};
use crate::fleet::{FETCHED, Fleet, STORED, said_at};
use anyhow::Context;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// A bundle of 100 MB.
const ROWS: usize = 5_000;
const RUNS: usize = 5;

pub(crate) fn measure(programs: &Path) -> anyhow::Result<Value> {
    let mut fleet = Fleet::start(programs)?;
    let bundle = Release { stream: "large", version: "1.0.0", rows: ROWS, same: ROWS }.push(&fleet.desk)?;
    let name = |tls: bool, run: usize| format!("{}-{run}", if tls { "tls" } else { "plain" });
    let runs: Vec<(bool, String)> = (0..RUNS).flat_map(|run| [true, false].map(|tls| (tls, name(tls, run)))).collect();
    for (tls, id) in &runs {
        fleet.enrol(id, &fleet.broker(*tls))?;
    }
    let ids: Vec<String> = runs.iter().map(|(_, id)| id.clone()).collect();
    fleet.roll_out_ahead(&bundle, &ids)?;
    let whole = joined(&fleet, &bundle)?;
    let webs = [false, true].map(|tls| Web::serve(&fleet.desk, whole.clone(), tls));
    let [plain, secret] = webs;
    let webs = [plain?, secret?];
    let mut best = [[f64::INFINITY; 2]; 2];
    for (tls, id) in &runs {
        let [agent, http] = &mut best[usize::from(*tls)];
        *agent = agent.min(delivered(&fleet, id, &bundle)?);
        let copy = fleet.desk.path("copy");
        *http = http.min(webs[usize::from(*tls)].fetch(&copy)?);
        fs::remove_file(copy)?;
    }
    let told = |[agent, http]: [f64; 2]| json!({ "agent_s": agent, "http_s": http });
    Ok(json!({ "bytes": bundle.bytes, "plain": told(best[0]), "tls": told(best[1]) }))
}

/// The seconds until a device has it all; then the device goes, before it would use the processor further.
fn delivered(fleet: &Fleet, id: &str, bundle: &Bundle) -> anyhow::Result<f64> {
    let mut agent = fleet.start_agent(id)?;
    agent.says(STORED)?;
    let moments = [said_at(&agent, FETCHED)?, said_at(&agent, STORED)?];
    agent.kill()?;
    fleet.check(id, bundle)?;
    fs::remove_dir_all(fleet.desk.path(id))?;
    let [Some(began), Some(ended)] = moments else { anyhow::bail!("{id} does not tell when it began") };
    // Midnight may have passed.
    Ok((ended - began).rem_euclid(86_400.0))
}

/// Everything that a device gets, in one file.
fn joined(fleet: &Fleet, bundle: &Bundle) -> anyhow::Result<PathBuf> {
    let path = fleet.desk.path("whole");
    let mut whole = File::create(&path).context("no room for the comparison")?;
    for (_, file) in files(&bundle.dir)? {
        io::copy(&mut File::open(file)?, &mut whole)?;
    }
    Ok(path)
}
