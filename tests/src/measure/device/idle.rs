//! The agent alone: its memory while it is connected and runs nothing, and its start with a model that is on its disk.

use super::*;
use std::thread::park_timeout;
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;
/// How long, and how often.
struct Method {
    runs: usize,
    /// For what it does once after it was heard.
    settled: Duration,
    lasts: Duration,
    every: Duration,
}

const BRIEF: Method =
    Method { runs: 1, settled: Duration::from_secs(5), lasts: Duration::from_secs(60), every: Duration::from_secs(1) };
/// As AWS measures the Greengrass nucleus lite (`benchmark/REPORT.md` of aws-greengrass-lite): each 10 seconds of ten minutes,
/// after five; three times.
const FULL: Method = Method {
    runs: 3,
    settled: Duration::from_secs(5 * 60),
    lasts: Duration::from_secs(10 * 60),
    every: Duration::from_secs(10),
};

/// Proportional set size: its own pages, and its share of those that others use as well.
pub(crate) fn memory(programs: &Path) -> anyhow::Result<Value> {
    measured(programs, &BRIEF)
}

/// The same, for as long as others measure it.
pub(crate) fn memory_in_full(programs: &Path) -> anyhow::Result<Value> {
    measured(programs, &FULL)
}

fn measured(programs: &Path, method: &Method) -> anyhow::Result<Value> {
    let fleet = Fleet::start(programs)?;
    fleet.enrol(DEVICE, &fleet.broker(true))?;
    let mut runs = Vec::with_capacity(method.runs);
    for _ in 0..method.runs {
        let mut agent = super::start(&fleet)?;
        fleet.reports(DEVICE)?;
        pass(method.settled);
        let mut seen = Vec::new();
        let began = Instant::now();
        while began.elapsed() < method.lasts {
            agent.runs()?;
            let [pss, anonymous] = ["Pss:", "Pss_Anon:"].map(|key| kib(agent.id(), "smaps_rollup", key));
            seen.push((pss?, anonymous?));
            pass(method.every);
        }
        seen.sort_unstable();
        runs.push(seen[seen.len() / 2]);
        agent.kill()?;
    }
    runs.sort_unstable();
    let (pss, anonymous) = runs[runs.len() / 2];
    Ok(json!({
        "pss": pss,
        "anonymous": anonymous,
        "least": runs[0].0,
        "greatest": runs[runs.len() - 1].0,
        "runs": method.runs,
        "settled_s": method.settled.as_secs(),
        "seconds": method.lasts.as_secs(),
    }))
}

fn pass(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        park_timeout(end.saturating_duration_since(Instant::now()));
    }
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
