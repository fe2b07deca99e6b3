//! What is tried in a world: the fleet, the releases and how good each is, and what people ask for.
//!
//! All of it follows from the seed, before anything runs. What goes wrong on the way is `faults`.

use super::broker::Kind;
use crate::signer::{Bundle, Signer, number, trial};
use agent_core::Ledger;
use bridge_core::policy::{Gates, Silence, Wave};
use bridge_core::{Policy, RolloutRequest, Span, Targets, WaveSize};
use fastrand::Rng;
use protocol::{DeviceId, DocumentKind};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use trust::{Digest, RevokedDevice, Role, Trust};

/// Milliseconds of the world.
pub(super) type Millis = u64;

pub(super) const SECOND: Millis = 1_000;
pub(super) const MINUTE: Millis = 60 * SECOND;
/// The devices of a world.
pub(super) const DEVICES: usize = 20;
/// Nothing goes wrong from here on.
pub(super) const QUIET: Millis = 20 * MINUTE;
/// When everybody is in, and one release goes to all.
pub(super) const START: Millis = 60 * SECOND;
/// A deadline that only an unfinished wave would meet.
const LONG_DEADLINE_S: u64 = 6 * 3_600;
const HOUR: Millis = 60 * MINUTE;
/// Pieces of work for a release that serves, where nobody counts them.
const PIECES: u8 = 4;

/// Keys and bundles, made once a process: how good a bundle is, is not in its bytes.
#[derive(Debug)]
pub(super) struct Library {
    pub(super) signer: Signer,
    /// What each device believes before it heard anything.
    pub(super) newborn: Vec<Trust>,
    /// Two roots after the first one; the second of them renews the director and the beacon.
    pub(super) roots: [Vec<u8>; 2],
    pub(super) bundles: BTreeMap<Digest, Bundle>,
}

fn names(devices: usize) -> impl Iterator<Item = DeviceId> {
    (0..devices).map(|i| format!("d-{i:02}").parse().expect("a good name"))
}

fn newborn(signer: &Signer, devices: usize) -> Vec<Trust> {
    names(devices).map(|name| signer.trust(&name, &Ledger::default(), &BTreeMap::new())).collect()
}

impl Library {
    pub(super) fn shared() -> &'static Self {
        static LIBRARY: OnceLock<Library> = OnceLock::new();
        LIBRARY.get_or_init(|| {
            let signer = Signer::new(7);
            let all = ["digits", "vibration"].map(|stream| (1..=4).map(move |release| (stream, release)));
            let bundle =
                |(stream, release)| signer.bundle(stream, release, |manifest| manifest.security_floor = number(1));
            let bundles = all.into_iter().flatten().map(bundle).map(|b| (b.digest, b)).collect();
            let second = signer.root_after(signer.root_bytes(), |_| ());
            let third = signer.root_after(&second, |root| {
                for role in [Role::Director, Role::Beacon] {
                    root.roles.get_mut(role.as_str()).expect("every role is held").role_epoch = number(2);
                }
            });
            let newborn = newborn(&signer, DEVICES);
            Self { signer, newborn, roots: [second, third], bundles }
        })
    }

    /// For `devices` devices and two releases of a stream, for the rest of the process.
    pub(super) fn of_two_releases(devices: usize) -> &'static Self {
        let signer = Signer::new(7);
        let bundle = |release| signer.bundle("digits", release, |_| ());
        let bundles = (1..=2).map(bundle).map(|b| (b.digest, b)).collect();
        let (newborn, roots) = (newborn(&signer, devices), [Vec::new(), Vec::new()]);
        Box::leak(Box::new(Self { newborn, roots, bundles, signer }))
    }

    /// For `devices` devices and one bundle of `chunks` chunks, for the rest of the process.
    pub(super) fn of_one_bundle(devices: usize, chunks: usize) -> &'static Self {
        let signer = Signer::new(7);
        let weights = |n: usize| (format!("weights/{n:04}"), format!("{n:064}").into_bytes());
        let bundle = signer.bundle_with("digits", 1, |_| (), (5..chunks).map(weights));
        let (newborn, roots) = (newborn(&signer, devices), [Vec::new(), Vec::new()]);
        Box::leak(Box::new(Self { newborn, roots, bundles: [(bundle.digest, bundle)].into(), signer }))
    }
}

/// How a release does on the devices that it does not suit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// The golden vectors disagree.
    Golden,
    /// It does not load, although it passed the probe.
    Unloadable,
    /// It gives no usable answers on trial.
    Errors,
    /// It takes the agent down with it on trial.
    Crashes,
    /// It is confirmed, and fails three times as often as the one before: only together devices see that.
    Fades,
}

/// A release of this world.
#[derive(Debug, Clone)]
pub(super) struct Quality {
    pub(super) flaw: Flaw,
    /// The devices that it does not suit; none for a good release.
    pub(super) fails_on: BTreeSet<usize>,
}

/// What a person does.
#[derive(Debug, Clone)]
pub(super) enum Ask {
    /// Lets a device enrol.
    Enrol(usize),
    /// Lets a device in that waits.
    Approve(usize),
    /// Brings a root or a revocation.
    Document(DocumentKind, Vec<u8>),
    /// Brings a release.
    Push(Digest),
    /// Starts a rollout.
    Start(Box<RolloutRequest>),
}

/// A world before it begins.
#[derive(Debug)]
pub(super) struct Scenario {
    pub(super) names: Vec<DeviceId>,
    /// Devices that are asked something.
    pub(super) busy: BTreeSet<usize>,
    pub(super) qualities: BTreeMap<Digest, Quality>,
    pub(super) asks: Vec<(Millis, Ask)>,
    /// Some rollouts have a deadline that a slow fleet misses.
    pub(super) impatient: bool,
    /// Devices fail sometimes whatever they run, and tell land how often.
    pub(super) measured: bool,
    /// Pieces of work for a release that serves.
    pub(super) pieces: u8,
    pub(super) broker: Kind,
}

impl Scenario {
    pub(super) fn new(rng: &mut Rng, library: &Library) -> Self {
        let names = names(DEVICES).collect();
        let busy: BTreeSet<usize> = (0..DEVICES).filter(|_| rng.u8(..10) < 7).collect();
        let broker = [Kind::LARGE, Kind::LARGE, Kind::SMALL, Kind::FORGETFUL][rng.usize(..4)];
        let impatient = rng.u8(..10) == 0;
        let (qualities, asks) = (BTreeMap::new(), Vec::new());
        let mut scenario = Self { names, busy, qualities, asks, impatient, measured: false, pieces: PIECES, broker };
        scenario.asks.push((0, Ask::Document(DocumentKind::Root, library.signer.root_bytes().to_vec())));
        if rng.bool() {
            scenario.rotate(rng, library);
        }
        let streams: &[&str] = if rng.bool() { &["digits"] } else { &["digits", "vibration"] };
        let mut releases = rng.usize(2..=4);
        for stream in streams {
            let share = releases.div_ceil(streams.len()).max(1).min(releases);
            releases -= share;
            let line: Vec<&Bundle> = library
                .bundles
                .values()
                .filter(|b| b.stream.as_str() == *stream && b.release <= share as u64)
                .collect();
            scenario.plan(rng, line);
        }
        scenario
    }

    /// One release for everybody at once, through a broker that takes few subscriptions.
    pub(super) fn of_one_rollout(devices: usize, library: &Library) -> Self {
        let bundle = library.bundles.values().next().expect("one bundle");
        let request = RolloutRequest {
            stream: bundle.stream.clone(),
            version: bundle.version.clone(),
            to: Targets::All,
            policy: Policy { trial: trial(0, 0, 1), ..policy(Vec::new(), LONG_DEADLINE_S) },
            by: "anna".into(),
            draft: false,
        };
        let root = library.signer.root_bytes().to_vec();
        let good = Quality { flaw: Flaw::Golden, fails_on: BTreeSet::new() };
        Self {
            names: names(devices).collect(),
            busy: BTreeSet::new(),
            qualities: [(bundle.digest, good)].into(),
            asks: vec![
                (0, Ask::Document(DocumentKind::Root, root)),
                (SECOND, Ask::Push(bundle.digest)),
                (START, Ask::Start(Box::new(request))),
            ],
            impatient: false,
            measured: false,
            pieces: PIECES,
            broker: Kind::SMALL,
        }
    }

    /// Two releases, one after the other, for devices that are asked all the time; the second one is judged by what they
    /// tell, and fades when it is `bad`.
    pub(super) fn of_judgement(devices: usize, library: &Library, bad: bool) -> Self {
        let mut line: Vec<&Bundle> = library.bundles.values().collect();
        line.sort_by_key(|bundle| bundle.release);
        let root = library.signer.root_bytes().to_vec();
        let mut asks = vec![(0, Ask::Document(DocumentKind::Root, root))];
        let mut qualities = BTreeMap::new();
        let canaries = vec![WaveSize::Percent(6), WaveSize::Percent(100)];
        for (at, waves, bundle) in [(START, Vec::new(), line[0]), (START + HOUR, canaries, line[1])] {
            let gates =
                Gates { max_failed: devices as u64, install_failed: None, min_answers: 100, ..Gates::default() };
            let mut policy = Policy { trial: trial(10, 60, 600), gates, ..policy(waves, LONG_DEADLINE_S) };
            policy.waves.iter_mut().for_each(|wave| wave.soak = Span(HOUR / 2));
            let (stream, version) = (bundle.stream.clone(), bundle.version.clone());
            let request = RolloutRequest { stream, version, to: Targets::All, policy, by: "anna".into(), draft: false };
            asks.push((at / 2, Ask::Push(bundle.digest)));
            asks.push((at, Ask::Start(Box::new(request))));
            let all = if bad && bundle.release == line[1].release { (0..devices).collect() } else { BTreeSet::new() };
            qualities.insert(bundle.digest, Quality { flaw: Flaw::Fades, fails_on: all });
        }
        let (names, busy) = (names(devices).collect(), (0..devices).collect());
        Self { names, busy, qualities, asks, impatient: false, measured: true, pieces: 150, broker: Kind::LARGE }
    }

    /// Whether `bundle` does not suit `device`.
    pub(super) fn fails(&self, device: usize, bundle: Digest, flaw: Flaw) -> bool {
        self.qualities.get(&bundle).is_some_and(|q| q.flaw == flaw && q.fails_on.contains(&device))
    }

    /// The root is rotated twice while things go wrong, and something is revoked that nobody runs.
    fn rotate(&mut self, rng: &mut Rng, library: &Library) {
        let mut at = 0;
        for root in &library.roots {
            at += rng.u64(SECOND..QUIET / 3);
            self.asks.push((at, Ask::Document(DocumentKind::Root, root.clone())));
        }
        for version in 1..=rng.u64(1..=3) {
            at += rng.u64(SECOND..QUIET / 10);
            let taken = RevokedDevice::DeviceId("nobody".into());
            let bytes = library.signer.revocation(version, |revocation| revocation.devices.push(taken));
            self.asks.push((at, Ask::Document(DocumentKind::Revocation, bytes)));
        }
    }

    /// Releases of one stream in their order, each rolled out; some again, some back.
    fn plan(&mut self, rng: &mut Rng, mut line: Vec<&Bundle>) {
        line.sort_by_key(|b| b.release);
        let mut at = rng.u64(30 * SECOND..3 * MINUTE);
        for bundle in &line {
            let quality = self.quality(rng);
            self.qualities.insert(bundle.digest, quality);
            self.asks.push((at / 2, Ask::Push(bundle.digest)));
            let again = 1 + usize::from(rng.u8(..4) == 0);
            for _ in 0..again {
                let request = self.request(rng, bundle);
                self.asks.push((at, Ask::Start(Box::new(request))));
                at += rng.u64(10 * SECOND..6 * MINUTE);
            }
        }
        if line.len() > 1 && rng.u8(..3) == 0 {
            let older = line[rng.usize(..line.len() - 1)];
            let back = self.request(rng, older);
            self.asks.push((at, Ask::Start(Box::new(back))));
        }
    }

    fn quality(&self, rng: &mut Rng) -> Quality {
        let flaw = [Flaw::Golden, Flaw::Unloadable, Flaw::Errors, Flaw::Crashes][rng.usize(..4)];
        let share = [0, 0, 0, 5, 10, 40, 100][rng.usize(..7)];
        // A release that nobody asks gives no wrong answer.
        let suits = |device: &usize| flaw == Flaw::Errors && !self.busy.contains(device);
        let fails_on = (0..DEVICES).filter(|d| !suits(d)).filter(|_| rng.u8(..100) < share).collect();
        Quality { flaw, fails_on }
    }

    fn request(&self, rng: &mut Rng, bundle: &Bundle) -> RolloutRequest {
        let waves = [
            vec![],
            vec![WaveSize::Percent(10)],
            vec![WaveSize::Count(3), WaveSize::Percent(50)],
            vec![WaveSize::Count(1), WaveSize::Count(6), WaveSize::Percent(100)],
        ];
        let some = (0..DEVICES).filter(|_| rng.bool()).map(|i| self.names[i].clone()).collect();
        let hurried = self.impatient && rng.bool();
        RolloutRequest {
            stream: bundle.stream.clone(),
            version: bundle.version.clone(),
            to: if rng.u8(..4) == 0 { Targets::Devices(some) } else { Targets::All },
            policy: {
                let waves = waves[rng.usize(..waves.len())].clone();
                let trial = trial(rng.u64(5..40), rng.u64(0..3), rng.u64(30..300));
                let max_failed = [0, 0, 1, 2][rng.usize(..4)];
                let at_once = [None, None, Some(1), Some(3)][rng.usize(..4)];
                let deadline_s = if hurried { rng.u64(20..300) } else { LONG_DEADLINE_S };
                let gates = Gates { max_failed, ..Gates::default() };
                Policy { trial, gates, at_once, ..policy(waves, deadline_s) }
            },
            by: "anna".into(),
            draft: false,
        }
    }
}

fn policy(sizes: Vec<WaveSize>, deadline_s: u64) -> Policy {
    let wave = |size| Wave { size, soak: Span(0), approval: false };
    let silence = Silence { deadline: Span::seconds(deadline_s), ..Silence::default() };
    Policy { waves: sizes.into_iter().map(wave).collect(), silence, ..Policy::default() }
}
