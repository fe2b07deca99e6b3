//! How fast land reaches its devices: a rollout of one wave to all of them, then a command that all are asked at once, then a
//! command that each is asked by itself.
//!
//! Counted from the moment at which a person asks to the last device that has it.

use super::rest::Rest;
use super::{ASK_EVERY, Crowd, LOOK_EVERY, STREAM, TAKEN, cost, reached};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

/// Commands that are asked for at the same time.
const AT_ONCE: usize = 8;

pub(super) fn measure(crowd: &mut Crowd) -> anyhow::Result<Value> {
    let assignments = assignments(crowd)?;
    let (commands, singly) = (commands(crowd, "one", at_once)?, commands(crowd, "many", one_by_one)?);
    let memory = cost::memory(crowd.fleet.bridge().id(), "VmRSS")?;
    Ok(json!({ "assignments": assignments, "commands": commands, "singly": singly, "bridge_rss": memory }))
}

fn assignments(crowd: &mut Crowd) -> anyhow::Result<Value> {
    let (all, seen) = (crowd.signers.len() as u64, crowd.clients.seen.clone());
    let (heard, before) = (seen.releases.load(Relaxed), crowd.rest.metric(TAKEN)?);
    let bridge = crowd.fleet.bridge().id();
    let (began, cpu) = (Instant::now(), cost::seconds(bridge)?);
    let line = format!("petrel rollout start {STREAM}@1.0.0 --waves 100% --trial-window 1 --trial-answers 0");
    let rollout = crowd.fleet.desk.json(&line)?["id"].as_u64().context("the rollout has no number")?;
    let answered = began.elapsed().as_secs_f64();
    reached("the assignments", heard + all, LOOK_EVERY, || {
        seen.check()?;
        Ok(seen.releases.load(Relaxed))
    })?;
    let reached_all = (seen.latest()? - began).as_secs_f64();
    // Each says what it runs, and that it confirms it.
    reached("the verdicts", before + 2 * all, ASK_EVERY, || crowd.rest.metric(TAKEN))?;
    crowd.fleet.completed(rollout)?;
    let completed = began.elapsed().as_secs_f64();
    let cpu = cost::seconds(bridge)? - cpu;
    Ok(json!({
        "devices": all, "answered_s": answered, "seconds": reached_all, "completed_s": completed, "bridge_cpu_s": cpu
    }))
}

/// Has every device do something, which `ask` asks for.
fn commands(crowd: &mut Crowd, who: &str, ask: fn(&Crowd, &Rest) -> anyhow::Result<()>) -> anyhow::Result<Value> {
    // A minute's requests of one person are counted, and this one has asked for nothing yet.
    crowd.fleet.desk.done(&format!("petrel people new {who} --role operator --out {who}.token"))?;
    let crew = Rest::new(&crowd.fleet, &format!("{who}.token"))?;
    let (all, seen) = (crowd.signers.len() as u64, crowd.clients.seen.clone());
    let (heard, before) = (seen.commands.load(Relaxed), crowd.rest.metric(TAKEN)?);
    let began = Instant::now();
    ask(crowd, &crew)?;
    let asked = began.elapsed().as_secs_f64();
    reached("the commands", heard + all, LOOK_EVERY, || {
        seen.check()?;
        Ok(seen.commands.load(Relaxed))
    })?;
    let seconds = (seen.latest()? - began).as_secs_f64();
    reached("the answers to commands", before + all, ASK_EVERY, || crowd.rest.metric(TAKEN))?;
    let answered = began.elapsed().as_secs_f64();
    Ok(json!({ "devices": all, "asked_s": asked, "seconds": seconds, "answered_s": answered }))
}

fn at_once(crowd: &Crowd, crew: &Rest) -> anyhow::Result<()> {
    let asked = crew.post("/api/v1/fan-outs", &json!({ "to": "online", "request": report() }))?;
    ensure!(asked["given"] == crowd.signers.len(), "not all are there: {asked}");
    Ok(())
}

fn one_by_one(crowd: &Crowd, crew: &Rest) -> anyhow::Result<()> {
    let (next, command) = (AtomicUsize::new(0), json!({ "request": report() }));
    let some = || {
        while let Some(signer) = crowd.signers.get(next.fetch_add(1, Relaxed)) {
            crew.post(&format!("/api/v1/devices/{}/commands", signer.id), &command)?;
        }
        anyhow::Ok(())
    };
    thread::scope(|scope| {
        let hands: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(some)).collect();
        hands.into_iter().try_for_each(|hand| hand.join().ok().context("a thread ended early")?)
    })
}

fn report() -> Value {
    json!({ "what": "report" })
}
