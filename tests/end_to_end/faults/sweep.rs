//! A fault at every call that writes, one at a time, and what the device is in the end.
//!
//! Decides what is tried and what must hold: whatever call fails or is the last, the device comes by itself to the
//! very state in which it is without a fault, its model answers, and its verdict reaches land.

use super::flows::{Flow, put_back, rest, settled};
use super::trace::{MODES, Mode, Point, inject, points, record};
use crate::answers::npy;
use crate::fleet::Fleet;
use crate::programs::{Process, seen_in_time, wait_for};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a sweep of one flow came to.
#[derive(Debug, Default)]
pub(super) struct Tried {
    /// Faults that were met.
    pub(super) met: usize,
    /// Calls that did not come this time: how threads take turns differs from run to run.
    pub(super) missed: usize,
}

/// A device: where a flow begins for it, and where it ends.
struct Lane<'a> {
    fleet: &'a Fleet,
    flow: &'a Flow,
    id: &'a str,
    state: PathBuf,
    before: PathBuf,
    end: Value,
}

/// Lets every device go a flow without a fault, one of them under record; then again and again with one fault each.
pub(super) fn sweep(fleet: &Fleet, devices: &[String], flow: &Flow, faults: usize, dice: &mut fastrand::Rng) -> Tried {
    for id in devices {
        put_back(&fleet.desk.path(id), &fleet.desk.path(&format!("{id}.before")));
    }
    (flow.land)(fleet);
    let mut lanes = Vec::new();
    let mut common: Option<BTreeSet<Point>> = None;
    for id in devices {
        let state = fleet.desk.path(id);
        let lane = Lane { fleet, flow, id, before: fleet.desk.path(&format!("{id}.before")), end: Value::Null, state };
        lane.begin();
        let traced = record(fleet, id);
        let end = settled(&lane.state, flow);
        lane.answers();
        let calls = traced.end();
        // How threads take turns differs from run to run: what comes in each of them will come again.
        let points = points(&calls, &lane.state);
        common = Some(common.map_or(points.clone(), |common| &common & &points));
        lanes.push(Lane { end, ..lane });
    }
    let common = common.unwrap_or_default();
    let mut all: Vec<(&Point, Mode)> = common.iter().flat_map(|p| MODES.map(|mode| (p, mode))).collect();
    dice.shuffle(&mut all);
    all.truncate(faults);
    let (next, met) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for lane in &lanes {
            scope.spawn(|| {
                while let Some((point, mode)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    met.fetch_add(usize::from(lane.survives(point, *mode)), Ordering::Relaxed);
                }
            });
        }
    });
    let met = met.into_inner();
    println!(
        "`{}`: {} calls that write, {met} faults met, {} not met, 0 bad",
        flow.name,
        common.len(),
        all.len() - met
    );
    Tried { met, missed: all.len() - met }
}

impl Lane<'_> {
    fn begin(&self) {
        match self.flow.again {
            Some(begin) => begin(&self.state),
            None => put_back(&self.before, &self.state),
        }
        let _ = fs::remove_file(self.state.join("http.addr"));
    }

    /// One fault, and what becomes of the device; whether the fault was met.
    fn survives(&self, point: &Point, mode: Mode) -> bool {
        let told = format!("{}: {mode:?} at {point:?} of `{}`", self.id, self.flow.name);
        self.begin();
        let verdicts = self.verdicts();
        let mut point = point.clone();
        if !self.state.join("identity/a.json").exists() {
            point.path = swapped(&point.path);
        }
        let mut traced = inject(self.fleet, self.id, &point, mode);
        let ended = self.comes_to_rest(&told, &mut traced.process, mode);
        let mut again = None;
        if ended {
            // As a service manager does, however often it takes.
            let line = format!("petrel-agent run --config {}.toml", self.id);
            loop {
                let process = again.insert(self.fleet.desk.start(&line, &format!("{}.log", self.id)));
                if !self.comes_to_rest(&told, process, mode) {
                    break;
                }
            }
        }
        self.answers();
        if self.flow.verdict {
            wait_for(&format!("the verdict after {told}"), || (self.verdicts() > verdicts).then_some(()));
        }
        let met = if mode == Mode::Kill { ended } else { traced.failed() };
        drop((traced, again));
        met
    }

    /// Waits until the device is as it is without a fault, or its program ended: whether it ended.
    fn comes_to_rest(&self, told: &str, process: &mut Process, mode: Mode) -> bool {
        let mut seen = None;
        let came = seen_in_time(|| {
            let ended = process.has_ended();
            seen = rest(&self.state).or(seen.take());
            let done = seen.as_ref() == Some(&self.end) && self.state.join("http.addr").exists();
            (ended || done).then_some(ended)
        });
        let seen = seen.unwrap_or_default();
        let ended = came.unwrap_or_else(|| panic!("{told}: it came to rest as {seen:#} instead of {:#}", self.end));
        if ended && mode != Mode::Kill {
            // What cannot even begin says so.
            let said = process.said();
            assert!(said.lines().any(|line| line.starts_with("error: ")), "{told}: it ended without a word: {said}");
        }
        if ended {
            let _ = fs::remove_file(self.state.join("http.addr"));
        }
        ended
    }

    /// How often land heard a verdict of this device.
    fn verdicts(&self) -> usize {
        let said = self.fleet.bridge.said();
        let of_it = format!("verdict device={} ", self.id);
        said.lines().filter(|line| line.contains(&of_it) && line.contains("outcome=Confirmed")).count()
    }

    /// The model of the flow's end gives the right answer.
    fn answers(&self) {
        let images = npy(&self.fleet.desk.path("models/digits/heldout_x.npy"));
        let expected = npy(&self.fleet.desk.path("models/digits/heldout_class.npy"));
        let ready = || (self.fleet.local(self.id, "/v2/models/digits/ready", None).0 == 200).then_some(());
        wait_for("a model that answers", || self.state.join("http.addr").exists().then_some(()).and_then(|()| ready()));
        let answer = self.fleet.classes(self.id, 1, &images[..64]);
        assert_eq!(answer["outputs"][0]["data"][0].as_f64(), Some(expected[0]), "{answer}");
    }
}

/// The slots of the identity take turns: what was seen of one holds for the other.
fn swapped(path: &str) -> String {
    match path.strip_prefix("identity/") {
        Some(name) if name.starts_with("a.") => format!("identity/b.{}", &name[2..]),
        Some(name) if name.starts_with("b.") => format!("identity/a.{}", &name[2..]),
        _ => path.to_owned(),
    }
}
