//! What the alarms are worth, as one line of JSON, for `cargo xtask bench drift`: simulated streams with fixed seeds.
//!
//! Decides the streams. What each figure should be is decided by the bench.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the bans are on the room: its examples measure and speak to a person"
)]

use petrel_drift::*;
use serde_json::{Map, Value, json};
use std::hint::black_box;
use std::time::Instant;

/// Rows of a baseline, where nothing else is said: as many as are advised.
const BASELINE_ROWS: usize = 5_000;
/// Windows in a cell.
const WINDOWS: usize = 400;
/// Windows without drift in a cell, and those against one baseline.
const QUIET_WINDOWS: usize = 1_000;
const QUIET_WINDOWS_EACH: usize = 125;
/// Windows in which something is missing.
const MISSING_WINDOWS: usize = 2_000;
/// Rounds of a measurement of time; the best counts.
const ROUNDS: usize = 5;

fn main() {
    let mut told = Map::new();
    for (name, figure) in [
        ("size", size as fn() -> Value),
        ("update", update),
        ("merge", merge),
        ("quiet", quiet),
        ("dependent", dependent),
        ("gradual", gradual),
        ("missing", missing),
        ("seen", seen),
    ] {
        eprintln!("{name}");
        told.insert(name.to_owned(), figure());
    }
    println!("{}", Value::Object(told));
}

/// A source of chance, and what features are like.
struct Chance(fastrand::Rng);

impl Chance {
    fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    fn normal(&mut self) -> f64 {
        let (u, v) = (1.0 - self.0.f64(), self.0.f64());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    /// A value of a feature of one of eight kinds.
    fn value(&mut self, kind: usize) -> f32 {
        let value = match kind % 8 {
            0 => self.normal(),
            1 => 20.0 + 5.0 * self.normal(),
            2 => self.normal().exp(),
            3 => self.0.f64(),
            // Few whole numbers, the small ones much more often.
            4 => (-self.0.f64().max(1e-9).ln() * 1.5).floor(),
            // Mostly nothing, as rain.
            5 => (self.normal() - 0.5).max(0.0),
            // Seldom yes.
            6 => f64::from(u8::from(self.0.f64() < 0.002)),
            // Tails without an end (Cauchy).
            _ => (std::f64::consts::PI * (self.0.f64() - 0.5)).tan(),
        };
        value as f32
    }

    fn row(&mut self, row: &mut [f32]) {
        for (kind, place) in row.iter_mut().enumerate() {
            *place = self.value(kind);
            // One of eight features is missing now and then.
            if kind % 8 == 3 && self.0.f64() < 0.01 {
                *place = f32::NAN;
            }
        }
    }
}

fn measured(rows: usize, width: usize, mut next: impl FnMut(&mut [f32])) -> Baseline {
    let mut columns = vec![Vec::with_capacity(rows); width];
    let mut row = vec![0.0; width];
    for _ in 0..rows {
        next(&mut row);
        columns.iter_mut().zip(&row).for_each(|(column, value)| column.push(*value));
    }
    let names: Vec<String> = (0..width).map(|i| format!("f{i}")).collect();
    Baseline::measure(names.iter().map(String::as_str).zip(columns.iter().map(Vec::as_slice))).expect("good columns")
}

fn baseline(chance: &mut Chance, rows: usize, width: usize) -> Baseline {
    measured(rows, width, |row| chance.row(row))
}

fn window(window: &mut Window, chance: &mut Chance, rows: usize, width: usize) -> Summary {
    let mut row = vec![0.0; width];
    for _ in 0..rows {
        chance.row(&mut row);
        window.update(&row).expect("a good row");
    }
    window.close()
}

/// An hour of a row a second, 64 features, without drift and with.
fn size() -> Value {
    let mut chance = Chance::new(1);
    let baseline = baseline(&mut chance, BASELINE_ROWS, 64);
    let mut open = Window::new(&baseline);
    let mut sizes: Vec<usize> = (0..20).map(|_| window(&mut open, &mut chance, 3_600, 64).encode().len()).collect();
    sizes.sort_unstable();
    let mut row = [0.0; 64];
    for _ in 0..3_600 {
        chance.row(&mut row);
        row.iter_mut().for_each(|value| *value += 1.0);
        open.update(&row).expect("a good row");
    }
    json!({ "bytes": sizes[19], "drifted_bytes": open.close().encode().len(), "windows": 20 })
}

fn update() -> Value {
    let mut chance = Chance::new(2);
    let baseline = baseline(&mut chance, BASELINE_ROWS, 64);
    let rows: Vec<Vec<f32>> = (0..4_000)
        .map(|_| {
            let mut row = vec![0.0; 64];
            chance.row(&mut row);
            row
        })
        .collect();
    let values = (rows.len() * 64) as f64;
    type Take = Box<dyn FnMut(&[f32])>;
    let nanoseconds = |mut take: Take| {
        let mut round = || {
            let began = Instant::now();
            rows.iter().for_each(|row| take(black_box(row)));
            began.elapsed().as_secs_f64() * 1e9 / values
        };
        (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min)
    };
    let mut open = Window::new(&baseline);
    let counted = nanoseconds(Box::new(move |row| open.update(row).expect("a good row")));
    let mut monitor = taught(&baseline, &mut chance);
    let watched = nanoseconds(Box::new(move |row| monitor.update(row).expect("a good row")));
    json!({ "window_ns": counted, "monitor_ns": watched })
}

/// A monitor that has learned all that it learns.
fn taught(baseline: &Baseline, chance: &mut Chance) -> Monitor {
    let width = baseline.features.len();
    let mut monitor = Monitor::new(baseline.clone());
    let mut row = vec![0.0; width];
    for _ in 0..LEARNED_WINDOWS {
        for _ in 0..200 {
            chance.row(&mut row);
            monitor.update(&row).expect("a good row");
        }
        monitor.close();
    }
    monitor
}

/// Thirty windows merged one after the other, in 500 other orders and groupings.
fn merge() -> Value {
    let mut chance = Chance::new(3);
    let baseline = baseline(&mut chance, BASELINE_ROWS, 10);
    let mut open = Window::new(&baseline);
    let parts: Vec<Summary> = (0..30)
        .map(|_| {
            let rows = chance.0.usize(0..300);
            window(&mut open, &mut chance, rows, 10)
        })
        .collect();
    let mut all = Summary::empty(&baseline);
    parts.iter().for_each(|part| all.merge(part).expect("of one baseline"));
    let mut different = 0;
    for _ in 0..500 {
        let mut heap = parts.clone();
        while heap.len() > 1 {
            let other = heap.swap_remove(chance.0.usize(0..heap.len()));
            let into = chance.0.usize(0..heap.len());
            heap[into].merge(&other).expect("of one baseline");
        }
        different += u32::from(heap[0].encode() != all.encode());
    }
    json!({ "different": different, "orders": 500 })
}

/// Windows without drift, of every size and number of features: how many page or warn.
fn quiet() -> Value {
    let (mut cells, mut all_paged) = (Vec::new(), 0);
    for rows in [50, 100, 200, 500, 1_000, 3_600] {
        for width in [10, 30, 64] {
            let mut chance = Chance::new(1_000 + (rows * 100 + width) as u64);
            let (mut paged, mut warned) = (0, 0);
            for _ in 0..QUIET_WINDOWS / QUIET_WINDOWS_EACH {
                // A fresh baseline now and then: its own chance is part of what may go wrong.
                let baseline = baseline(&mut chance, BASELINE_ROWS, width);
                let mut open = Window::new(&baseline);
                for _ in 0..QUIET_WINDOWS_EACH {
                    let summary = window(&mut open, &mut chance, rows, width);
                    let judged = judge(&baseline, &summary, Known::Independent).expect("of this baseline");
                    paged += u32::from(judged.level == Level::Page);
                    warned += u32::from(judged.level >= Level::Warn);
                }
            }
            all_paged += paged;
            let share = |some: u32| f64::from(some) / QUIET_WINDOWS as f64;
            cells.push(json!({ "rows": rows, "features": width, "windows": QUIET_WINDOWS, "paged": share(paged),
                "warned": share(warned) }));
        }
    }
    json!({ "worst_paged": worst(&cells, "paged"), "worst_warned": worst(&cells, "warned"),
        "paged": f64::from(all_paged) / (cells.len() * QUIET_WINDOWS) as f64, "cells": cells })
}

fn worst(cells: &[Value], name: &str) -> f64 {
    cells.iter().filter_map(|cell| cell[name].as_f64()).fold(0.0, f64::max)
}

/// A sensor whose rows resemble the row before, without drift: alarms of each feature, after the first hundred windows.
fn dependent() -> Value {
    const MEMORY: f64 = 0.9;
    let fresh = (1.0 - MEMORY * MEMORY).sqrt();
    let mut cells = Vec::new();
    for rows in [200, 1_000] {
        for width in [10, 64] {
            let mut chance = Chance::new(2_000 + (rows + width) as u64);
            let (mut alarms, mut pages, mut judged, mut plain) = (0u32, 0u32, 0u32, 0u32);
            let (mut windows, mut paged_windows) = (0u32, 0u32);
            for _ in 0..4 {
                let mut state: Vec<f64> = (0..width).map(|_| chance.normal()).collect();
                let mut next = |row: &mut [f32]| {
                    for (state, place) in state.iter_mut().zip(row) {
                        *state = MEMORY * *state + fresh * chance.normal();
                        *place = *state as f32;
                    }
                };
                let baseline = measured(BASELINE_ROWS, width, &mut next);
                let mut monitor = Monitor::new(baseline.clone());
                let mut row = vec![0.0; width];
                for number in 0..LEARNED_WINDOWS as usize + WINDOWS / 4 {
                    for _ in 0..rows {
                        next(&mut row);
                        monitor.update(&row).expect("a good row");
                    }
                    let closed = monitor.close();
                    if number < LEARNED_WINDOWS as usize {
                        continue;
                    }
                    let features = &closed.judgement.features;
                    judged += width as u32;
                    windows += 1;
                    paged_windows += u32::from(closed.judgement.level == Level::Page);
                    alarms += features.iter().filter(|finding| finding.level > Level::Quiet).count() as u32;
                    pages += features.iter().filter(|finding| finding.level == Level::Page).count() as u32;
                    // The same window, its rows taken for independent.
                    let naive = judge(&baseline, &closed.summary, Known::Independent).expect("of this baseline");
                    plain += naive.features.iter().filter(|finding| finding.level > Level::Quiet).count() as u32;
                }
            }
            let share = |some: u32| f64::from(some) / f64::from(judged);
            cells.push(json!({ "rows": rows, "features": width, "windows": windows, "alarmed": share(alarms),
                "paged": share(pages), "uncorrected": share(plain),
                "paged_windows": f64::from(paged_windows) / f64::from(windows) }));
        }
    }
    json!({ "cells": cells, "worst": worst(&cells, "alarmed"), "worst_paged": worst(&cells, "paged"),
        "worst_paged_windows": worst(&cells, "paged_windows"), "uncorrected": worst(&cells, "uncorrected") })
}

/// Rows between false alarms, and rows from a change to the alarm.
fn gradual() -> Value {
    const RUNS: usize = 400;
    let mut chance = Chance::new(4);
    let normal = |chance: &mut Chance, rows: usize| measured(rows, 1, |row| row[0] = chance.normal() as f32);
    let delay = |baseline: &Baseline, chance: &mut Chance, shift: f64| {
        let mut detector = Detector::new(&baseline.features[0], 1.0, THRESHOLD).expect("it has bins");
        let slot = |x: f64| baseline.features[0].edges.partition_point(|edge| *edge < x as f32);
        // The change comes after a quiet time, in which a false alarm only begins it anew.
        for _ in 0..500 {
            detector.update(slot(chance.normal()));
        }
        (1..).find(|_| detector.update(slot(chance.normal() + shift))).unwrap_or(u32::MAX)
    };
    let mut delays = Map::new();
    for (name, shift) in [("half", 0.5), ("one", 1.0)] {
        let rows: Vec<f64> = (0..RUNS)
            .map(|_| {
                let baseline = normal(&mut chance, BASELINE_ROWS);
                f64::from(delay(&baseline, &mut chance, shift))
            })
            .collect();
        delays.insert(name.to_owned(), json!(rows.iter().sum::<f64>() / RUNS as f64));
    }
    // Time under watch over alarms in it: 40 baselines, 500,000 rows each.
    const QUIET: u32 = 500_000;
    let (mut alarms, mut worst) = (0, 0);
    for _ in 0..40 {
        let baseline = normal(&mut chance, BASELINE_ROWS);
        let mut detector = Detector::new(&baseline.features[0], 1.0, THRESHOLD).expect("it has bins");
        let edges = &baseline.features[0].edges;
        let of_this = (0..QUIET)
            .filter(|_| detector.update(edges.partition_point(|edge| *edge < chance.normal() as f32)))
            .count();
        alarms += of_this;
        worst = worst.max(of_this);
    }
    let watched = 40.0 * f64::from(QUIET);
    json!({ "delay_half": delays["half"], "delay_one": delays["one"], "run_length": watched / (alarms.max(1) as f64),
        "alarms": alarms, "most_alarms_of_a_baseline": worst, "rows_watched": watched })
}

/// Two of a hundred values missing, in windows of 200 rows.
fn missing() -> Value {
    let mut cells = Vec::new();
    for (width, baseline_rows) in [(10, BASELINE_ROWS), (64, BASELINE_ROWS), (64, 2 * BASELINE_ROWS)] {
        let mut chance = Chance::new(5_000 + width as u64);
        let mut seen = 0;
        let baseline = measured(baseline_rows, width, |row| {
            row.iter_mut().for_each(|place| *place = chance.normal() as f32);
        });
        for _ in 0..MISSING_WINDOWS {
            let mut open = Window::new(&baseline);
            let mut row = vec![0.0; width];
            for _ in 0..200 {
                row.iter_mut().for_each(|place| *place = chance.normal() as f32);
                if chance.0.f64() < 0.02 {
                    row[0] = f32::NAN;
                }
                open.update(&row).expect("a good row");
            }
            let judged = judge(&baseline, &open.close(), Known::Independent).expect("of this baseline");
            seen += u32::from(judged.features[0].level > Level::Quiet);
        }
        cells.push(json!({ "features": width, "baseline_rows": baseline_rows, "windows": MISSING_WINDOWS,
            "seen": f64::from(seen) / MISSING_WINDOWS as f64 }));
    }
    json!({ "seen": cells[0]["seen"], "seen_of_64": cells[1]["seen"], "seen_of_64_with_more": cells[2]["seen"],
        "cells": cells })
}

/// What is seen of real changes in windows of 200 and 1,000 rows: one of ten features changes.
fn seen() -> Value {
    type Change = fn(f64, &mut Chance) -> f64;
    let changes: [(&str, &str, Change); 8] = [
        ("has moved by .3 sigma", "population", |x, _| x + 0.3),
        ("has moved by .5 sigma", "population", |x, _| x + 0.5),
        ("has moved by 1 sigma", "population", |x, _| x + 1.0),
        ("is 1.5 times as wide", "population", |x, _| 1.5 * x),
        ("is in Fahrenheit for Celsius", "unit_change", |x, _| (20.0 + 5.0 * x) * 1.8 + 32.0),
        ("is stuck", "stuck", |_, _| 0.25),
        ("is saturated", "saturated", |x, _| x.min(0.5)),
        ("is far out once in fifty", "out_of_range", |x, chance| if chance.0.f64() < 0.02 { 1e4 } else { x }),
    ];
    let mut cells = Vec::new();
    for (name, cause, change) in changes {
        // Only a feature in a unit can be in another.
        let (centre, width) = if name.contains("Fahrenheit") { (20.0, 5.0) } else { (0.0, 1.0) };
        for rows in [200, 1_000] {
            let mut chance = Chance::new(6_000 + rows as u64);
            let baseline = measured(BASELINE_ROWS, 10, |row| {
                row.iter_mut().for_each(|place| *place = (centre + width * chance.normal()) as f32);
            });
            let (mut paged, mut warned, mut named) = (0, 0, 0);
            for _ in 0..WINDOWS {
                let mut open = Window::new(&baseline);
                let mut row = [0.0; 10];
                for _ in 0..rows {
                    row.iter_mut().for_each(|place| *place = (centre + width * chance.normal()) as f32);
                    let x = chance.normal();
                    row[0] = change(x, &mut chance) as f32;
                    open.update(&row).expect("a good row");
                }
                let judged = judge(&baseline, &open.close(), Known::Independent).expect("of this baseline");
                let finding = &judged.features[0];
                paged += u32::from(finding.level == Level::Page);
                warned += u32::from(finding.level > Level::Quiet);
                let said = finding.cause.map(|cause| serde_json::to_value(cause).expect("plain data"));
                named += u32::from(said.is_some_and(|said| said["kind"] == cause));
            }
            let share = |some: u32| f64::from(some) / WINDOWS as f64;
            cells.push(json!({ "change": name, "rows": rows, "paged": share(paged), "seen": share(warned),
                "cause": cause, "named": f64::from(named) / f64::from(warned.max(1)) }));
        }
    }
    json!(cells)
}
