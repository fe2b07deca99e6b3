//! A modelled fleet under a real bridge: thousands of devices in virtual time, whose new release is worse in one way.
//!
//! The bridge is the real core: it gives assignments, takes verdicts and figures, judges, and sends back. Devices are a
//! few numbers each: how often they are asked, how often they fail, how long they take, what they answer. They differ from
//! each other, from hour to hour by chance, and all together with the day. Beside it stand three rules that people use, on
//! the same devices and the same dice.

use crate::signer::{FLEET, Signer, trial};
use bridge_core::policy::{Gates, OnBreach, Silence, Wave};
use bridge_core::{
    Bridge, Credential, Effect, Event, Figures, Invitation, Measured, Now, Phase, Place, Policy, Record,
    RolloutRequest, Span, Targets, WaveSize,
};
use fastrand::Rng;
use protocol::{DeviceId, DocumentKind, Generation, Outcome, Profile, SPEC, StreamName, Verdict};
use std::collections::BTreeMap;
use std::convert::Infallible;
use trust::Digest;

/// What is wrong with the new release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Nothing,
    /// Three requests of a hundred fail, instead of one.
    Errors,
    /// An answer takes a fifth longer.
    Latency,
    /// One class is answered half as often again.
    Class,
    /// Its process holds more than its manifest promises.
    Memory,
    /// On one device of five it crashes in the first hour.
    Crash,
    /// One device of five is never heard again.
    Bricked,
}

impl Change {
    /// All, with what they are called.
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::Nothing, "no change"),
        (Self::Errors, "errors 1 % to 3 %"),
        (Self::Latency, "latency +20 %"),
        (Self::Class, "one class x 1.5"),
        (Self::Memory, "memory above its budget"),
        (Self::Crash, "crash in the first hour"),
        (Self::Bricked, "silent devices"),
    ];
}

/// What came of a rollout.
#[derive(Debug, Clone)]
pub struct Judged {
    /// Devices that had the release.
    pub hit: usize,
    /// It was stopped.
    pub stopped: bool,
    /// It went on to its end by itself.
    pub completed: bool,
    /// Devices that had it and do not run what they ran before.
    pub left: usize,
    /// Why it was stopped.
    pub reason: String,
    /// Hours until its end.
    pub hours: f64,
}

const CLASSES: usize = 10;
/// A device tells its figures so often, in milliseconds.
const TICK: u64 = 30 * 60_000;
const HOUR: u64 = 3_600_000;
const START: u64 = 1_700_000_000_000;
/// It ends before this, in ticks.
const MOST_TICKS: u64 = 48;
/// Budget of memory in MiB.
const RAM_MB: u64 = 64;

/// A device as a few numbers.
#[derive(Debug, Clone)]
struct Device {
    id: DeviceId,
    /// Requests in a tick, on average.
    asked: f64,
    errors: f64,
    latency_us: f64,
    classes: [f64; CLASSES],
    memory_kb: f64,
    /// By chance, what the release does to it.
    fate: f64,
}

impl Device {
    fn new(rng: &mut Rng, n: usize) -> Self {
        let mut classes = [0.0; CLASSES];
        classes.iter_mut().for_each(|share| *share = 0.5 + rng.f64());
        let sum: f64 = classes.iter().sum();
        classes.iter_mut().for_each(|share| *share /= sum);
        Self {
            id: format!("d-{n:05}").parse().expect("a good name"),
            asked: 60.0 * 10f64.powf(rng.f64()),
            errors: 0.01 * (0.5 + rng.f64()),
            latency_us: 2_000.0 * 5f64.powf(rng.f64()),
            classes,
            memory_kb: RAM_MB as f64 * 1_024.0 * (0.5 + 0.3 * rng.f64()),
            fate: rng.f64(),
        }
    }

    /// What it tells of the tick that ends at `now`, with the release before or with the new one.
    fn figures(&self, rng: &mut Rng, now: u64, change: Option<Change>) -> Figures {
        let asked = count(rng, self.asked);
        let rate =
            if change == Some(Change::Errors) { self.errors * 3.0 } else { self.errors } * (1.0 + 0.5 * sun(now));
        let errors = some_of(rng, asked, rate);
        let answers = asked - errors;
        // From hour to hour a device is a little faster or slower.
        let slower = if change == Some(Change::Latency) { 1.2 } else { 1.0 };
        let mean = self.latency_us * slower * (0.95 + 0.1 * rng.f64()) * (1.0 + 0.15 * sun(now));
        let larger = if change == Some(Change::Memory) { 1.6 } else { 1.0 };
        let mut shares = self.classes;
        grow(&mut shares, 7, 1.0 + 0.4 * sun(now));
        if change == Some(Change::Class) {
            grow(&mut shares, 3, 1.5);
        }
        let mut classes = BTreeMap::new();
        let (mut left, mut of) = (answers, 1.0);
        for (class, share) in shares.iter().enumerate() {
            let n = if class + 1 == CLASSES { left } else { some_of(rng, left, (share / of).min(1.0)) };
            (left, of) = (left - n, of - share);
            classes.insert(class.to_string(), n);
        }
        let took_us = (mean * answers as f64) as u64;
        Figures { answers, errors, took_us, memory_kb: (self.memory_kb * larger) as u64, classes }
    }
}

/// Where the day is, -1 to 1: what fails, how long it takes and what is seen goes with it, with any release.
fn sun(now: u64) -> f64 {
    ((now % (24 * HOUR)) as f64 / (24 * HOUR) as f64 * std::f64::consts::TAU).sin()
}

/// One class is answered so many times as often.
fn grow(shares: &mut [f64; CLASSES], class: usize, by: f64) {
    let grown = shares[class] * by;
    let rest = (1.0 - grown) / (1.0 - shares[class]);
    shares.iter_mut().for_each(|share| *share *= rest);
    shares[class] = grown;
}

/// About `mean`, as a Poisson variable by its normal approximation.
fn count(rng: &mut Rng, mean: f64) -> u64 {
    (mean + mean.sqrt() * normal(rng)).round().max(0.0) as u64
}

/// A binomial variable: one by one where few are meant, else by its normal approximation.
fn some_of(rng: &mut Rng, all: u64, share: f64) -> u64 {
    let mean = all as f64 * share;
    if all <= 40 {
        return (0..all).filter(|_| rng.f64() < share).count() as u64;
    }
    if mean < 15.0 {
        // Poisson, by the product of uniform variables.
        let (limit, mut product, mut n) = ((-mean).exp(), rng.f64(), 0);
        while product > limit {
            product *= rng.f64();
            n += 1;
        }
        return n.min(all);
    }
    let spread = (mean * (1.0 - share)).max(0.0).sqrt();
    (mean + spread * normal(rng)).round().clamp(0.0, all as f64) as u64
}

fn normal(rng: &mut Rng) -> f64 {
    // Twelve uniform variables are near enough for counts.
    (0..12).map(|_| rng.f64()).sum::<f64>() - 6.0
}

/// The waves, gates and times of all rules.
fn policy() -> Policy {
    let wave = |share, soak| Wave { size: WaveSize::Percent(share), soak: Span(soak), approval: false };
    Policy {
        waves: vec![wave(1, 2 * HOUR), wave(10, HOUR), wave(50, HOUR), wave(100, HOUR)],
        trial: trial(10, 3, 600),
        gates: Gates { max_failed: 1_000_000, min_answers: 1_000, patience: Span(24 * HOUR), ..Gates::default() },
        silence: Silence { deadline: Span(HOUR), max_unknown: 0.05, max_away: 1.0 },
        on_breach: OnBreach::default(),
        ..Policy::default()
    }
}

/// A fleet that runs release 1, as land's records.
#[derive(Debug)]
pub struct Fleet {
    records: Vec<Record>,
    ids: Vec<DeviceId>,
    stream: StreamName,
    bundles: [Digest; 2],
    now: u64,
}

impl Fleet {
    /// So many devices, which have run release 1 for a day.
    pub fn new(devices: usize) -> Self {
        let signer = Signer::new(1);
        let bundles: Vec<_> = (1..=2).map(|release| signer.bundle("digits", release, |_| ())).collect();
        let mut land = Land {
            bridge: Bridge::restore(FLEET.parse().expect("a good name"), []).expect("nothing is believed"),
            saved: Some(BTreeMap::new()),
            now: START,
            said: Vec::new(),
        };
        land.step(Event::DocumentPushed { kind: DocumentKind::Root, bytes: signer.root_bytes().to_vec() });
        let names: Vec<DeviceId> = (0..devices).map(|n| format!("d-{n:05}").parse().expect("a good name")).collect();
        for (n, id) in names.iter().enumerate() {
            let key = n.to_be_bytes().to_vec();
            let credential =
                Credential { certificate: Digest::of(&key), serial: format!("{n:x}"), key, until: u64::MAX };
            let board = ["rpi4", "rpi4", "rpi5", "jetson"][n % 4].to_owned();
            let profile = Profile {
                board,
                arch: "aarch64".into(),
                cores: 4,
                ram_mb: 1_024,
                models_mb: 512,
                metered: false,
                agent: "0.1.0".into(),
            };
            let invitation = Invitation { made: START, pending: false };
            land.step(Event::DeviceEnrolled { device: id.clone(), credential, profile, invitation });
            land.step(Event::PresenceReceived { device: id.clone(), online: true });
        }
        for bundle in &bundles {
            let release = bridge_core::Release { ram_mb: RAM_MB, ..bundle.released() };
            land.step(Event::ReleasePushed(release));
        }
        let first = Policy { waves: Vec::new(), gates: Gates { min_answers: 0, ..Gates::default() }, ..policy() };
        land.ask("1.1.0", first);
        let fleet = Self {
            records: Vec::new(),
            ids: names,
            stream: bundles[0].stream.clone(),
            bundles: [bundles[0].digest, bundles[1].digest],
            now: 0,
        };
        let said = std::mem::take(&mut land.said);
        for (id, generation, release) in said {
            land.step(fleet.verdict(&id, generation, release, Outcome::Confirmed, 1));
        }
        land.now += 24 * HOUR;
        land.step(Event::DeadlineReached);
        Self { records: land.saved.into_iter().flatten().map(|(_, record)| record).collect(), now: land.now, ..fleet }
    }

    fn verdict(&self, id: &DeviceId, generation: u64, release: u64, outcome: Outcome, seq: u64) -> Event {
        let failed = outcome != Outcome::Confirmed;
        Event::VerdictReceived(Verdict {
            spec: SPEC,
            fleet: FLEET.parse().expect("a good name"),
            device_id: id.clone(),
            seq,
            generation: Generation { role_epoch: 1, seq: generation },
            stream: self.stream.clone(),
            release,
            statement_sha256: self.bundles[release as usize - 1].0,
            outcome,
            code: failed.then(|| "E_MODEL".into()),
            detail: failed.then(|| "its process ended".into()),
            answers: 10,
            errors: 0,
            shadow: None,
        })
    }

    /// A rollout of release 2 with our rule.
    ///
    /// # Panics
    /// When land breaks a promise: that is what it is for.
    pub fn judge(&self, seed: u64, change: Change) -> Judged {
        let mut rng = Rng::with_seed(seed);
        let mut devices: Vec<Device> = (0..self.ids.len()).map(|n| Device::new(&mut rng, n)).collect();
        let bridge = Bridge::restore(FLEET.parse().expect("a good name"), self.records.iter().cloned())
            .expect("what was believed is believed");
        let mut land = Land { bridge, saved: None, now: self.now, said: Vec::new() };
        // A day of release 1, in four messages.
        for _ in 0..4 {
            land.now += HOUR;
            let rows = devices.iter().map(|d| self.row(&d.id, 1, d.figures(&mut rng, land.now, None))).collect();
            land.step(Event::Measured(rows));
        }
        // At any hour of the day.
        land.now += rng.u64(..24) * HOUR;
        let began = land.now;
        let id = land.ask("1.2.0", policy());
        // What each device runs, and since when.
        let mut runs: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
        let mut silent: Vec<bool> = vec![false; devices.len()];
        let mut seq: Vec<u64> = vec![1; devices.len()];
        for _ in 0..MOST_TICKS {
            land.now += TICK / 2;
            // Devices do what they were told.
            for (name, generation, release) in std::mem::take(&mut land.said) {
                let n = index(&name);
                if silent[n] {
                    continue;
                }
                if release == 2 && change == Change::Bricked && devices[n].fate < 0.2 {
                    silent[n] = true;
                    land.step(Event::PresenceReceived { device: name, online: false });
                    continue;
                }
                runs.insert(n, (release, land.now));
                seq[n] += 1;
                // One of a thousand fails for reasons of its own.
                let unlucky = release == 2 && rng.u16(..1_000) == 0;
                let outcome = if unlucky { Outcome::Refused } else { Outcome::Confirmed };
                if unlucky {
                    runs.insert(n, (1, land.now));
                }
                land.step(self.verdict(&name, generation, release, outcome, seq[n]));
            }
            land.now += TICK / 2;
            let due = land.bridge.deadline().is_some_and(|at| at <= land.now);
            if due {
                land.step(Event::DeadlineReached);
            }
            if change == Change::Crash {
                for n in 0..devices.len() {
                    let since = runs.get(&n).filter(|(release, _)| *release == 2).map(|(_, since)| *since);
                    let crashed = since.is_some_and(|since| {
                        devices[n].fate < 0.2 && (land.now - since) as f64 > devices[n].fate * 5.0 * HOUR as f64
                    });
                    if crashed {
                        let device = &land.bridge.devices()[&devices[n].id];
                        let generation = device.generation;
                        if device.desired[&self.stream].bundle == self.bundles[1] {
                            runs.insert(n, (1, land.now));
                            devices[n].fate = 1.0;
                            seq[n] += 1;
                            land.step(self.verdict(&self.ids[n].clone(), generation, 2, Outcome::Reverted, seq[n]));
                        }
                    }
                }
            }
            let speaks = |n: &usize| !silent[*n];
            let row = |n: usize| {
                let release = runs.get(&n).map_or(1, |(release, _)| *release);
                let change = (release == 2).then_some(change);
                self.row(&devices[n].id, release, devices[n].figures(&mut rng, land.now, change))
            };
            let rows = (0..devices.len()).filter(speaks).map(row).collect();
            land.step(Event::Measured(rows));
            let phase = &land.bridge.rollouts()[&id].phase;
            if matches!(phase, Phase::Completed | Phase::Stopped { .. }) && land.said.is_empty() {
                break;
            }
            let stuck = matches!(phase, Phase::Reverting { .. }) && land.said.is_empty() && silent.iter().any(|s| *s);
            if stuck {
                break;
            }
        }
        let rollout = &land.bridge.rollouts()[&id];
        let reason = match &rollout.phase {
            Phase::Stopped { reason, .. } | Phase::Reverting { reason, .. } | Phase::Paused { reason, .. } => {
                reason.clone()
            }
            _ => String::new(),
        };
        let stopped = !reason.is_empty();
        let back = |n: usize| runs.get(&n).is_none_or(|(release, _)| *release == 1);
        // Whoever is silent is told all the same.
        let told = |n: usize| land.bridge.devices()[&self.ids[n]].desired[&self.stream].bundle == self.bundles[0];
        let left = rollout.members.values().filter(|m| m.is_hit() && stopped).map(|m| index(&m.device));
        let left = left.filter(|n| !(told(*n) && (back(*n) || silent[*n]))).count();
        let place = |m: &bridge_core::Member| m.place == Place::Assigned;
        assert!(!stopped || !rollout.members.values().any(place), "a stopped rollout has no device");
        let (completed, hours) = (rollout.phase == Phase::Completed, (land.now - began) as f64 / HOUR as f64);
        Judged { hit: rollout.hit(), stopped, completed, left, reason, hours }
    }

    fn row(&self, id: &DeviceId, release: u64, figures: Figures) -> Measured {
        Measured { device: id.clone(), stream: self.stream.clone(), release, figures }
    }

    /// The same with a rule that people use: waves and times are the same, and so are the dice of devices.
    pub fn by_rule(&self, seed: u64, change: Change, rule: Rule) -> Judged {
        let mut rng = Rng::with_seed(seed);
        let devices: Vec<Device> = (0..self.ids.len()).map(|n| Device::new(&mut rng, n)).collect();
        let mut order: Vec<usize> = (0..devices.len()).collect();
        rng.shuffle(&mut order);
        let waves = policy().waves;
        let began = self.now + rng.u64(..24) * HOUR;
        let (mut ticks, mut hit) = (0, 0);
        let (mut new, mut old) = (Sums::default(), Sums::default());
        for wave in waves {
            hit = match wave.size {
                WaveSize::Percent(share) => (devices.len() * share as usize).div_ceil(100),
                WaveSize::Count(n) => n as usize,
            };
            let failed = order[..hit].iter().filter(|n| fails(&devices[**n], change)).count();
            for _ in 0..(wave.soak.0 / TICK).max(1) {
                ticks += 1;
                let now = began + ticks * TICK;
                for (place, n) in order.iter().enumerate() {
                    // Of those that are not hit, as many as say enough.
                    if place < hit {
                        new.add(&devices[*n].figures(&mut rng, now, Some(change)));
                    } else if place < hit + 500 {
                        old.add(&devices[*n].figures(&mut rng, now, None));
                    }
                }
                if rule.stops(&new, &old, failed as f64 / hit as f64) {
                    let hours = (ticks * TICK) as f64 / HOUR as f64;
                    return Judged {
                        hit,
                        stopped: true,
                        completed: false,
                        left: 0,
                        reason: format!("{rule:?}"),
                        hours,
                    };
                }
            }
        }
        Judged {
            hit,
            stopped: false,
            completed: true,
            left: 0,
            reason: String::new(),
            hours: (ticks * TICK) as f64 / HOUR as f64,
        }
    }
}

fn fails(device: &Device, change: Change) -> bool {
    match change {
        Change::Crash | Change::Bricked => device.fate < 0.2,
        Change::Nothing | Change::Errors | Change::Latency | Change::Class | Change::Memory => false,
    }
}

fn index(id: &DeviceId) -> usize {
    id.as_str().trim_start_matches("d-").parse().expect("devices are called d-NNNNN")
}

#[derive(Debug, Default)]
struct Sums {
    answers: u64,
    errors: u64,
}

impl Sums {
    fn add(&mut self, figures: &Figures) {
        self.answers += figures.answers;
        self.errors += figures.errors;
    }

    fn rate(&self) -> f64 {
        self.errors as f64 / (self.answers + self.errors).max(1) as f64
    }
}

/// A rule that people use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// More than 5 % of the requests fail.
    FivePercent,
    /// More than twice as many fail as elsewhere.
    TwiceControl,
    /// More than 10 % of the devices failed to install it.
    TenPercentOfDevices,
}

impl Rule {
    /// All, with what they are called.
    pub const ALL: [(Self, &'static str); 3] = [
        (Self::FivePercent, "errors > 5 %"),
        (Self::TwiceControl, "errors > 2 x control"),
        (Self::TenPercentOfDevices, "> 10 % of devices failed"),
    ];

    fn stops(self, new: &Sums, old: &Sums, failed: f64) -> bool {
        match self {
            Rule::FivePercent => new.rate() > 0.05,
            Rule::TwiceControl => new.rate() > 2.0 * old.rate(),
            Rule::TenPercentOfDevices => failed > 0.10,
        }
    }
}

/// The core, and what a hand would keep of it.
struct Land {
    bridge: Bridge,
    /// What is kept, where somebody reads it.
    saved: Option<BTreeMap<String, Record>>,
    now: u64,
    /// Assignments of the stream that were said: to whom, which generation, which release.
    said: Vec<(DeviceId, u64, u64)>,
}

impl Land {
    fn step(&mut self, event: Event) {
        let step = self.bridge.step(Now { unix: self.now }, event);
        let saved = &mut self.saved;
        let committed = step.commit(|records| {
            for record in records {
                if let (Some(saved), Some(key)) = (saved.as_mut(), key(record)) {
                    saved.insert(key, record.clone());
                }
            }
            Ok::<_, Infallible>(())
        });
        let Ok(committed) = committed;
        assert!(committed.answer.is_ok(), "the model asks for what can be: {:?}", committed.answer);
        for effect in committed.effects {
            if let Effect::PublishAssignment(draft) = effect
                && let Some(stream) = draft.streams.first()
            {
                self.said.push((draft.device, draft.seq, stream.release.get()));
            }
        }
    }

    fn ask(&mut self, version: &str, policy: Policy) -> u64 {
        let stream = "digits".parse().expect("a good name");
        let request = RolloutRequest {
            stream,
            version: version.into(),
            to: Targets::All,
            policy,
            by: "anna".into(),
            draft: false,
        };
        self.step(Event::RolloutRequested(Box::new(request)));
        self.bridge.rollouts().keys().next_back().copied().expect("it began")
    }
}

/// What a record replaces.
fn key(record: &Record) -> Option<String> {
    Some(match record {
        Record::Device(device) => format!("device {}", device.id),
        Record::Release(release) => format!("release {}", release.bundle),
        Record::Rollout(rollout) => format!("rollout {}", rollout.id),
        Record::Member(member) => format!("rollout {} {}", member.rollout, member.device),
        Record::Document(document) => format!("document {:?} {}", document.document, document.slot()),
        Record::Beacons { .. } => "beacons".into(),
        _ => return None,
    })
}
