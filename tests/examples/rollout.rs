//! `rollout [RUNS [DEVICES]]`: what rollouts cost a modelled fleet, with our judge and with three rules that people use; one
//! JSON object with what was seen, for `cargo xtask bench rollout`.

use serde_json::{Value, json};
use world::judged::{Change, Fleet, Judged, Rule};

fn main() {
    let number = |n: usize, default| std::env::args().nth(n).map_or(default, |text| text.parse().expect("a number"));
    let (runs, devices): (u64, u64) = (number(1, 200), number(2, 10_000));
    let fleet = Fleet::new(usize::try_from(devices).expect("so many devices"));
    let cells: Vec<Value> = Change::ALL
        .into_iter()
        .map(|(change, name)| {
            let ours = told(&several(runs, |seed| fleet.judge(seed, change)), devices);
            let rules: Vec<Value> = Rule::ALL
                .into_iter()
                .map(|(rule, name)| {
                    let seen = several(runs.min(50), |seed| fleet.by_rule(seed, change, rule));
                    json!({ "rule": name, "seen": told(&seen, devices) })
                })
                .collect();
            eprintln!("{name}: {ours}");
            json!({ "cell": name, "ours": ours, "rules": rules })
        })
        .collect();
    println!("{}", json!({ "runs": runs, "devices": devices, "cells": cells }));
}

/// Half of the runs on each of two threads.
fn several(runs: u64, run: impl Fn(u64) -> Judged + Sync) -> Vec<Judged> {
    std::thread::scope(|scope| {
        let half = |odd: u64| {
            let run = &run;
            scope.spawn(move || (0..runs).filter(|n| n % 2 == odd).map(run).collect::<Vec<_>>())
        };
        let halves = [half(0), half(1)];
        halves.into_iter().flat_map(|half| half.join().expect("a run does not panic")).collect()
    })
}

fn told(seen: &[Judged], devices: u64) -> Value {
    let share = |run: &Judged| run.hit as f64 / devices as f64;
    let stopped = seen.iter().filter(|run| run.stopped);
    let reason = seen.iter().find(|run| run.stopped).map(|run| run.reason.clone());
    json!({
        "worst_hit": seen.iter().map(share).fold(0.0, f64::max),
        "mean_hit": seen.iter().map(share).sum::<f64>() / seen.len().max(1) as f64,
        "completed": seen.iter().filter(|run| run.completed).count() as f64 / seen.len().max(1) as f64,
        "stopped": stopped.count() as f64 / seen.len().max(1) as f64,
        "left": seen.iter().map(|run| run.left).sum::<usize>(),
        "hours": seen.iter().map(|run| run.hours).sum::<f64>() / seen.len().max(1) as f64,
        "reason": reason,
    })
}
