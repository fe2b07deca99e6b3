//! A new release under load: what a client that asks without a pause notices of it.

use super::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Each asks again as soon as it is answered, so that every processor is busy before the release comes.
const CLIENTS: usize = 4;
const BEFORE: Duration = Duration::from_secs(4);

/// Requests before and during the change, with the longest wait; one that fails is no figure but an error.
pub(crate) fn measure(programs: &Path) -> anyhow::Result<Value> {
    let (fleet, bundle) = prepared(programs)?;
    let _agent = serving(&fleet, &bundle)?;
    let next = digits(&fleet, "1.1.0")?;
    let began = Instant::now();
    let before = loaded(&fleet, || {
        while let Some(left) = BEFORE.checked_sub(began.elapsed()) {
            thread::park_timeout(left);
        }
        Ok(())
    })?;
    let during = loaded(&fleet, || {
        let rollout = fleet.roll_out(&next, &[DEVICE.to_owned()])?;
        fleet.completed(rollout)
    })?;
    let mut client = connect(&fleet)?;
    let began = Instant::now();
    let (code, body) = client.ask(&in_json()?)?;
    let answer: Value = serde_json::from_slice(&body)?;
    anyhow::ensure!(code == 200 && answer["model_version"] == "1001000", "the new release does not answer: {answer}");
    let last = began.elapsed().as_secs_f64();
    let most = |times: &[f64], last: f64| times.iter().copied().fold(last, f64::max) * 1e6;
    let (longest_before, longest, requests) = (most(&before, 0.0), most(&during, last), during.len());
    let ((half, p99), (_, during_p99)) = (percentiles(before), percentiles(during));
    Ok(json!({
        "before": { "p50_us": half * 1e6, "p99_us": p99 * 1e6, "longest_us": longest_before },
        "during": { "requests": requests, "p99_us": during_p99 * 1e6, "longest_us": longest }
    }))
}

/// What requests took, in seconds, while something was done.
fn loaded(fleet: &Fleet, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Vec<f64>> {
    let (over, request) = (AtomicBool::new(false), in_bytes()?);
    let ask = || {
        let (mut client, mut times) = (connect(fleet)?, Vec::new());
        while !over.load(Ordering::Relaxed) {
            times.push(client.time(&request)?);
        }
        anyhow::Ok(times)
    };
    thread::scope(|scope| {
        let asking: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(ask)).collect();
        let worked = work();
        over.store(true, Ordering::Relaxed);
        let ended = asking.into_iter().map(|c| c.join().unwrap_or_else(|_| anyhow::bail!("a client panicked")));
        let times = ended.collect::<anyhow::Result<Vec<_>>>()?;
        worked.map(|()| times.concat())
    })
}
