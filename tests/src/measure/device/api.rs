//! What the local API adds to the engine's own time, beside a request that asks for nothing.

use super::*;
use crate::cargo::npy;

const ROUNDS: usize = 5;
const REQUESTS: usize = 2_000;

/// In turns: an empty handler, a request with bytes, one with JSON; the best round of each, by its middle.
pub(crate) fn measure(programs: &Path) -> anyhow::Result<Value> {
    let (fleet, bundle) = prepared(programs)?;
    let agent = serving(&fleet, &bundle)?;
    let mut client = connect(&fleet)?;
    let requests = [("empty", Request::get("/v2/health/live")), ("bytes", in_bytes()?), ("json", in_json()?)];
    let mut best = [(f64::MAX, f64::MAX); 3];
    for _ in 0..ROUNDS {
        for ((_, request), best) in requests.iter().zip(&mut best) {
            let times = (0..REQUESTS).map(|_| client.time(request)).collect::<anyhow::Result<Vec<f64>>>()?;
            let (half, most) = percentiles(times);
            if half < best.0 {
                *best = (half, most);
            }
        }
    }
    let profile = format!("petrel-agent infer {} --input one.npy --profile", bundle.dir.display());
    let row: Vec<u8> = row()?.iter().flat_map(|x| x.to_le_bytes()).collect();
    fleet.desk.write("one.npy", npy(&[1, 1, 8, 8], &row))?;
    let engine = fleet.desk.json(&profile)?["total_us"].as_f64().context("the profile tells no time")?;
    drop(agent);
    let mut seen = serde_json::Map::new();
    seen.insert("engine_us".into(), engine.into());
    for ((name, _), (half, most)) in requests.iter().zip(best) {
        seen.insert((*name).into(), json!({ "p50_us": half * 1e6, "p99_us": most * 1e6 }));
    }
    Ok(seen.into())
}
