//! A new release under load: what a client that asks without a pause notices of it.

use super::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

const BEFORE: usize = 3_000;

/// Requests before and during the change, with the longest wait; one that fails is no figure but an error.
pub(crate) fn measure(programs: &Path) -> anyhow::Result<Value> {
    let (fleet, bundle) = prepared(programs)?;
    let _agent = serving(&fleet, &bundle)?;
    let next = digits(&fleet, "1.1.0")?;
    let (mut client, request) = (connect(&fleet)?, in_bytes()?);
    let before = (0..BEFORE).map(|_| client.time(&request)).collect::<anyhow::Result<Vec<f64>>>()?;
    let over = AtomicBool::new(false);
    let during = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut times = Vec::new();
            while !over.load(Ordering::Relaxed) {
                times.push(client.time(&request)?);
            }
            anyhow::Ok(times)
        });
        let swapped = fleet.roll_out(&next, &[DEVICE.to_owned()]).and_then(|rollout| fleet.completed(rollout));
        over.store(true, Ordering::Relaxed);
        let times = asking.join().unwrap_or_else(|_| anyhow::bail!("the client panicked"))?;
        swapped.map(|()| times)
    })?;
    let began = Instant::now();
    let (code, body) = client.ask(&in_json()?)?;
    let answer: Value = serde_json::from_slice(&body)?;
    anyhow::ensure!(code == 200 && answer["model_version"] == "1001000", "the new release does not answer: {answer}");
    let last = began.elapsed().as_secs_f64();
    let longest = during.iter().copied().fold(last, f64::max);
    let (requests, (half, most)) = (during.len(), percentiles(before));
    let (_, during_most) = percentiles(during);
    Ok(json!({
        "before": { "p50_us": half * 1e6, "p99_us": most * 1e6 },
        "during": { "requests": requests, "p99_us": during_most * 1e6, "longest_us": longest * 1e6 }
    }))
}
