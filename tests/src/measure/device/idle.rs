//! The agent alone: its memory while it is connected and runs nothing, and its start with a model that is on its disk.

use super::*;
use std::thread::park_timeout;
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;
/// For what it does once after it was heard.
const SETTLED: Duration = Duration::from_secs(3);

/// Proportional set size: its own pages, and its share of those that others use as well.
pub(crate) fn memory(programs: &Path) -> anyhow::Result<Value> {
    let fleet = Fleet::start(programs)?;
    fleet.enrol(DEVICE, &fleet.broker(true))?;
    let mut agent = super::start(&fleet)?;
    fleet.reports(DEVICE)?;
    let end = Instant::now() + SETTLED;
    while Instant::now() < end {
        park_timeout(end.saturating_duration_since(Instant::now()));
    }
    agent.runs()?;
    let [pss, anonymous] = ["Pss:", "Pss_Anon:"].map(|key| kib(agent.id(), "smaps_rollup", key));
    Ok(json!({ "pss": pss?, "anonymous": anonymous? }))
}

/// From the start of the program to the first answer of a model that it has.
pub(crate) fn start(programs: &Path) -> anyhow::Result<Value> {
    let (fleet, bundle) = prepared(programs)?;
    serving(&fleet, &bundle)?.kill()?;
    let request = in_json()?;
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let agent = super::start(&fleet)?;
        wait_for("the first answer", || {
            let Some(address) = address(&fleet) else { return Ok(None) };
            let Ok(mut client) = Client::connect(&address) else { return Ok(None) };
            Ok(client.ask(&request).is_ok_and(|(code, _)| code == 200).then_some(()))
        })?;
        best = best.min(began.elapsed().as_secs_f64());
        agent.kill()?;
    }
    Ok(json!({ "seconds": best, "rounds": ROUNDS }))
}
