//! The planner and the auditor of its plans never disagree; a planner with a fault is caught.
//!
//! Worlds are drawn by chance: rollouts in any phase, devices in any state, every part of a policy. A planner with a fault
//! is the planner, asked about a world that lacks what it should heed.

use super::*;
use bridge_core::auditor::{Known, audit};
use bridge_core::planner::{Plan, plan};
use bridge_core::policy::{Pace, RateIncrease, Retry, Window};
use bridge_core::{Device, DeviceResult, Member, Phase, Place, Release, Rollout, WaveSize};
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// How many worlds; `PETREL_PLANS` says otherwise.
const WORLDS: u64 = 50_000;
const NOW: u64 = 1_705_708_800_000;

struct World {
    rollout: Rollout,
    devices: BTreeMap<DeviceId, Device>,
    rollouts: BTreeMap<u64, Rollout>,
    releases: BTreeMap<Digest, Release>,
}

impl World {
    fn new(rng: &mut Rng, pattern: &(Device, Rollout)) -> Self {
        let mut devices = BTreeMap::new();
        for n in 0..rng.usize(1..12) {
            let id = device(&format!("d-{n}"));
            let mut device = Device { id: id.clone(), online: rng.u8(..4) > 0, ..pattern.0.clone() };
            device.status = [Status::Approved, Status::Approved, Status::Approved, Status::Revoked][rng.usize(..4)];
            device.labels.clear();
            if rng.u8(..8) == 0 {
                device.labels.insert("pinned".into(), "yes".into());
            }
            if rng.u8(..3) == 0 {
                device
                    .labels
                    .insert("timezone".into(), ["Asia/Tokyo", "America/Lima", "nowhere"][rng.usize(..3)].into());
            }
            devices.insert(id, device);
        }
        let mut rollout = Rollout { policy: policy(rng), phase: phase(rng), ..pattern.1.clone() };
        rollout.retries = rng.u64(0..3);
        rollout.allowance = (rng.u64(0..5_000_000) as f64 / 1e6, NOW - rng.u64(0..300_000));
        for wave in 0..rollout.waves() {
            if rng.u8(..3) > 0 {
                rollout.approved.insert(wave, ["anna", "bert", "bert"][rng.usize(..3)].into());
            }
        }
        rollout.members = devices.keys().map(|id| (id.clone(), member(rng, id, rollout.waves()))).collect();
        let mut rollouts = BTreeMap::from([(1, rollout.clone())]);
        if rng.u8(..5) == 0 {
            let mut other = Rollout { id: 2, phase: phase(rng), ..rollout.clone() };
            // What land lets nobody ask for: two rollouts of one stream that share a device.
            other.members.retain(|_, _| false);
            rollouts.insert(2, other);
        }
        let release = Release {
            stream: rollout.stream.clone(),
            version: rollout.version.clone(),
            release: 1,
            bundle: rollout.bundle,
            total_size: 1,
            ram_mb: 1,
            pushed: 0,
        };
        Self { rollout, devices, rollouts, releases: [(release.bundle, release)].into() }
    }

    fn known(&self) -> Known<'_> {
        Known { devices: &self.devices, rollouts: &self.rollouts, releases: &self.releases, revoked: false, now: NOW }
    }
}

fn policy(rng: &mut Rng) -> Policy {
    let wave = |rng: &mut Rng| Wave { size: WaveSize::Count(1), soak: Span(0), approval: rng.u8(..3) == 0 };
    let clock = |rng: &mut Rng| format!("{:02}:{:02}", rng.u8(..24), rng.u8(..60)).parse().unwrap();
    let window = |rng: &mut Rng| Window { days: Vec::new(), from: clock(rng), to: clock(rng) };
    let pace = Pace {
        base_rate_per_minute: rng.u64(1..40) as f64 / 10.0,
        increment_factor: 1.5,
        rate_increase_criteria: RateIncrease { number_of_succeeded_things: rng.u64(0..3) },
        maximum_per_minute: 6.0,
    };
    let waves = (0..rng.usize(1..4)).map(|_| wave(rng)).collect();
    let windows = if rng.u8(..3) == 0 { vec![window(rng), window(rng)] } else { Vec::new() };
    let silence = Silence { max_away: [1.0, 1.0, 0.5, 0.1][rng.usize(..4)], ..Silence::default() };
    let retry = Retry { times: rng.u64(0..3), after: Span(rng.u64(0..100_000)), budget: rng.u64(0..4) };
    let (at_once, pace) = ((rng.u8(..3) == 0).then(|| rng.u64(1..5)), (rng.u8(..3) == 0).then_some(pace));
    Policy { waves, windows, silence, retry, at_once, pace, approval: rng.u8(..4) == 0, ..Policy::default() }
}

fn phase(rng: &mut Rng) -> Phase {
    let (wave, reason) = (rng.usize(..3), String::new());
    match rng.u8(..12) {
        0 => Phase::Draft,
        1 => Phase::Approval { wave },
        2 => Phase::Paused { wave, reason, by_person: true },
        3 => Phase::Reverting { wave, reason },
        4 => Phase::Stopped { wave, reason },
        5 => Phase::Completed,
        6 | 7 => Phase::Soaking { wave, since: 0 },
        _ => Phase::Rolling { wave },
    }
}

fn member(rng: &mut Rng, id: &DeviceId, waves: usize) -> Member {
    let place = [
        Place::Waiting { until: 0 },
        Place::Waiting { until: NOW - 100_000 + rng.u64(0..200_000) },
        Place::Assigned,
        Place::Returning,
        Place::Returned,
    ][rng.usize(..5)];
    let outcome = [Outcome::Confirmed, Outcome::Reverted, Outcome::Refused][rng.usize(..3)];
    let (code, detail) = (None, None);
    let result = DeviceResult { outcome, code, detail, answers: 0, errors: 0, compared: 0, disagreed: 0 };
    let said = !matches!(place, Place::Waiting { .. }) && rng.bool();
    Member {
        rollout: 1,
        device: id.clone(),
        wave: rng.usize(..waves),
        place,
        before: None,
        assigned: (!matches!(place, Place::Waiting { .. })).then_some(NOW - 1_000),
        there: true,
        tries: rng.u64(0..3),
        result: said.then_some(result),
        day: Default::default(),
        old: Default::default(),
        new: Default::default(),
    }
}

type Forget = fn(&mut World);

/// What a planner may forget.
const FAULTS: [(&str, Forget); 10] = [
    ("waves", |world| world.rollout.members.values_mut().for_each(|m| m.wave = 0)),
    ("phases", |world| world.rollout.phase = Phase::Rolling { wave: 2 }),
    ("how many are on their way", |world| world.rollout.policy.at_once = None),
    ("the pace", |world| world.rollout.policy.pace = None),
    ("windows", |world| world.rollout.policy.windows.clear()),
    ("pins", |world| world.devices.values_mut().for_each(|d| d.labels.clear())),
    ("who left", |world| world.devices.values_mut().for_each(|d| d.status = Status::Approved)),
    ("those that are away", |world| world.rollout.policy.silence.max_away = 1.0),
    ("boxes", |world| {
        for member in world.rollout.members.values_mut() {
            if let Place::Waiting { until } = &mut member.place {
                *until = 0;
            }
        }
    }),
    ("that somebody has it", |world| {
        for member in world.rollout.members.values_mut().filter(|m| m.place == Place::Assigned) {
            (member.place, member.result) = (Place::Waiting { until: 0 }, None);
        }
    }),
];

fn assigns(plan: &Plan) -> BTreeSet<&DeviceId> {
    plan.assign.iter().collect()
}

/// A device and a rollout to be varied.
fn pattern() -> (Device, Rollout) {
    let bench = fleet(&[("start 1 0 600", "publish 1, a 2: install 1, b 2: install 1, c 2: install 1, started 1")]);
    (bench.bridge.devices()[&device("a")].clone(), bench.bridge.rollouts()[&1].clone())
}

#[test]
fn the_planner_and_the_auditor_never_disagree_and_a_fault_of_the_planner_is_caught() {
    let worlds = std::env::var("PETREL_PLANS").ok().map_or(WORLDS, |n| n.parse().expect("a number"));
    let pattern = pattern();
    let (mut assigned, mut unapproved) = (0_u64, 0_u64);
    let mut caught = [0_u64; FAULTS.len()];
    for seed in 0..worlds {
        let world = World::new(&mut Rng::with_seed(seed), &pattern);
        let honest = plan(&world.rollout, &world.devices, NOW);
        // Approval is the machine's: a phase that nobody may be in is none that it plans for.
        let verdict = audit(&honest, &world.rollout, world.known());
        match &verdict {
            Ok(()) => assigned += honest.assign.len() as u64,
            Err(breach) if breach.promise.starts_with("what needs approval") => unapproved += 1,
            Err(breach) => panic!("seed {seed}: {breach}\n{honest:?}\n{:?}", world.rollout),
        }
        for (at, (name, forget)) in FAULTS.iter().enumerate() {
            let mut doctored = World::new(&mut Rng::with_seed(seed), &pattern);
            forget(&mut doctored);
            let faulty = plan(&doctored.rollout, &doctored.devices, NOW);
            let found = audit(&faulty, &world.rollout, world.known());
            let more = assigns(&faulty).is_superset(&assigns(&honest)) && faulty.assign.len() > honest.assign.len();
            assert!(
                found.is_err() || !more,
                "seed {seed}: a planner that forgets {name} is not caught: {faulty:?} instead of {honest:?}"
            );
            caught[at] += u64::from(more && found.is_err());
        }
    }
    let told: Vec<String> = FAULTS.iter().zip(caught).map(|((name, _), n)| format!("{name} {n}")).collect();
    println!(
        "plans: {worlds} drawn, {assigned} devices assigned, {unapproved} without approval, 0 disagreements; faults caught: {}",
        told.join(", ")
    );
    assert!(assigned > 0 && unapproved > 0 && caught.iter().all(|n| *n > 0), "{told:?}");
}
