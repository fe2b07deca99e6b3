//! A fault at every call that writes, one at a time, and what the device is in the end.
//!
//! Decides what is tried and what must hold: whatever call fails or is the last, the device comes by itself to the
//! very state in which it is without a fault, its model answers, and its verdict reaches land.

use super::disk::{Disk, Left};
use super::flows::{Flow, put_back, rest, settled};
use super::trace::{Call, MODES, Mode, Point, inject, points, record};
use crate::answers::npy;
use crate::fleet::Fleet;
use crate::programs::{Process, seen_in_time, wait_for};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a sweep of one flow came to.
#[derive(Debug, Default)]
pub(super) struct Tried {
    /// States after a power cut, each another one.
    pub(super) cuts: usize,
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
    /// What its program asked of the disk on the way.
    calls: Vec<Call>,
}

/// Lets every device go a flow without a fault, and then again and again: with a fault each, and from what a power cut
/// may leave on the way. So many of both are tried.
pub(super) fn sweep(
    fleet: &Fleet,
    devices: &[String],
    flow: &Flow,
    (faults, cuts): (usize, usize),
    dice: &mut fastrand::Rng,
) -> Tried {
    for id in devices {
        put_back(&fleet.desk.path(id), &fleet.desk.path(&format!("{id}.before")));
    }
    (flow.land)(fleet);
    let mut lanes = Vec::new();
    let mut common: Option<BTreeSet<Point>> = None;
    for id in devices {
        let state = fleet.desk.path(id);
        let lane = Lane {
            fleet,
            flow,
            id,
            before: fleet.desk.path(&format!("{id}.before")),
            end: Value::Null,
            calls: Vec::new(),
            state,
        };
        lane.begin();
        let traced = record(fleet, id);
        let end = settled(&lane.state, flow);
        wait_for("an answer", || lane.answers().then_some(()));
        let calls = traced.end();
        // How threads take turns differs from run to run: what comes in each of them will come again.
        let points = points(&calls, &lane.state);
        common = Some(common.map_or(points.clone(), |common| &common & &points));
        lanes.push(Lane { end, calls, ..lane });
    }
    let common = common.unwrap_or_default();
    let (all, planned) = plan(&common, faults, dice);
    let (next, met) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for lane in &lanes {
            scope.spawn(|| {
                while let Some((fault, second)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    met.fetch_add(lane.survives(*fault, *second), Ordering::Relaxed);
                }
            });
        }
    });
    let met = met.into_inner();
    let cuts = if flow.again.is_some() { 0 } else { explore(&lanes, cuts.div_ceil(lanes.len()), dice) };
    println!(
        "`{}`: {} calls that write; {met} faults, {} not met; {cuts} states after a power cut; 0 bad",
        flow.name,
        common.len(),
        planned - met
    );
    Tried { cuts, met, missed: planned - met }
}

/// A call, and what becomes of it.
type Fault<'a> = (&'a Point, Mode);

/// So many faults: each that there is, alone; then a loss of power at a call, with another fault in the start after it.
fn plan<'a>(
    points: &'a BTreeSet<Point>,
    faults: usize,
    dice: &mut fastrand::Rng,
) -> (Vec<(Fault<'a>, Option<Fault<'a>>)>, usize) {
    let single: Vec<Fault<'a>> = points.iter().flat_map(|point| MODES.map(|mode| (point, mode))).collect();
    let mut all: Vec<_> = single.iter().map(|fault| (*fault, None)).collect();
    dice.shuffle(&mut all);
    all.truncate(faults);
    let mut planned = all.len();
    while planned < faults {
        let (first, second) = (single[dice.usize(..single.len())].0, single[dice.usize(..single.len())]);
        all.push(((first, Mode::Kill), Some(second)));
        planned += 2;
    }
    (all, planned)
}

/// Cuts the power for each device at moments of its own way; gives how many states were tried.
fn explore(lanes: &[Lane<'_>], each: usize, dice: &mut fastrand::Rng) -> usize {
    let seeds: Vec<u64> = lanes.iter().map(|_| dice.u64(..)).collect();
    std::thread::scope(|scope| {
        let run = |(lane, seed): (&'_ Lane<'_>, u64)| {
            let states = lane.cuts(each, &mut fastrand::Rng::with_seed(seed));
            states.iter().for_each(|left| lane.recovers(left));
            states.len()
        };
        let all: Vec<_> = lanes.iter().zip(seeds).map(|lane| scope.spawn(move || run(lane))).collect();
        all.into_iter().map(|tried| tried.join().unwrap()).sum()
    })
}

impl Lane<'_> {
    fn begin(&self) {
        match self.flow.again {
            Some(begin) => begin(&self.state),
            None => put_back(&self.before, &self.state),
        }
        let _ = fs::remove_file(self.state.join("http.addr"));
    }

    /// A fault, or another in the start after it, and what becomes of the device; how many of them were met.
    fn survives(&self, fault: Fault<'_>, second: Option<Fault<'_>>) -> usize {
        let told = format!("{}: {fault:?}, then {second:?}, of `{}`", self.id, self.flow.name);
        self.begin();
        let verdicts = self.verdicts();
        let (mut ended, mut met) = self.meets(fault, &told);
        if let Some(second) = second.filter(|_| ended) {
            let (ended_again, met_again) = self.meets(second, &told);
            (ended, met) = (ended_again, met + met_again);
        }
        while ended {
            // As a service manager does, however often it takes.
            let line = format!("petrel-agent run --config {}.toml", self.id);
            let mut process = self.fleet.desk.start(&line, &format!("{}.log", self.id));
            ended = self.comes_to_rest(&told, &mut process, Mode::Kill);
        }
        if self.flow.verdict {
            wait_for(&format!("the verdict after {told}"), || (self.verdicts() > verdicts).then_some(()));
        }
        met
    }

    /// A start that meets a fault: whether the program has ended, and whether the fault was met.
    fn meets(&self, (point, mode): Fault<'_>, told: &str) -> (bool, usize) {
        let mut point = point.clone();
        if !self.state.join("identity/a.json").exists() {
            point.path = swapped(&point.path);
        }
        let mut traced = inject(self.fleet, self.id, &point, mode);
        let ended = match self.flow.again {
            None => self.comes_to_rest(told, &mut traced.process, mode),
            // A certificate has weeks until it is needed, and a failure is not tried again at once: the next start does.
            Some(_) => {
                let mut over = || traced.process.has_ended() || traced.failed() || self.is_at_rest();
                wait_for(told, || over().then_some(()));
                traced.process.kill();
                true
            }
        };
        let met = if mode == Mode::Kill { ended } else { traced.failed() };
        (ended, usize::from(met))
    }

    /// Different states that a power cut may leave on the way, as many as are wanted.
    fn cuts(&self, most: usize, dice: &mut fastrand::Rng) -> Vec<Left> {
        let calls = || self.calls.iter().filter(|call| call.done);
        let mut disk = Disk::at_rest(&self.before, &self.state);
        let mut ways = Vec::new();
        for (at, call) in calls().enumerate() {
            disk.take(call);
            ways.extend((0..disk.ways()).map(|way| (at, way)));
        }
        dice.shuffle(&mut ways);
        // Many ways lead to the same state.
        ways.truncate(most * 3);
        let mut disk = Disk::at_rest(&self.before, &self.state);
        let mut states: BTreeMap<u64, Left> = BTreeMap::new();
        for (at, call) in calls().enumerate() {
            disk.take(call);
            for (_, way) in ways.iter().filter(|(of, _)| *of == at) {
                let left = disk.way(*way, dice);
                states.insert(left.print(), left);
            }
        }
        let mut states: Vec<Left> = states.into_values().collect();
        dice.shuffle(&mut states);
        states.truncate(most);
        states
    }

    /// The device from what a power cut left.
    fn recovers(&self, left: &Left) {
        left.lay_out(&self.state);
        let told = format!("{}: a power cut on the way of `{}` that left {left}", self.id, self.flow.name);
        let line = format!("petrel-agent run --config {}.toml", self.id);
        let mut process = self.fleet.desk.start(&line, &format!("{}.log", self.id));
        let ended = self.comes_to_rest(&told, &mut process, Mode::Kill);
        assert!(!ended, "{told}: it did not start: {}", process.said());
    }

    /// Waits until the device is as it is without a fault, or its program ended: whether it ended.
    fn comes_to_rest(&self, told: &str, process: &mut Process, mode: Mode) -> bool {
        let came = seen_in_time(|| {
            let ended = process.has_ended();
            (ended || self.is_at_rest() && self.answers()).then_some(ended)
        });
        let seen = rest(&self.state).unwrap_or_default();
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

    fn is_at_rest(&self) -> bool {
        rest(&self.state).as_ref() == Some(&self.end) && self.state.join("http.addr").exists()
    }

    /// How often land heard a verdict of this device.
    fn verdicts(&self) -> usize {
        let said = self.fleet.bridge.said();
        let of_it = format!("verdict device={} ", self.id);
        said.lines().filter(|line| line.contains(&of_it) && line.contains("outcome=Confirmed")).count()
    }

    /// Whether the model answers; what it answers is right.
    fn answers(&self) -> bool {
        let images = npy(&self.fleet.desk.path("models/digits/heldout_x.npy"));
        let expected = npy(&self.fleet.desk.path("models/digits/heldout_class.npy"));
        let (status, answer) = self.fleet.try_classes(self.id, &images[..64]);
        let class = &answer["outputs"][0]["data"][0];
        assert!(status != 200 || class.as_f64() == Some(expected[0]), "{answer}");
        status == 200
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
