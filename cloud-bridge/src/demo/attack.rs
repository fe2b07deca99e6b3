//! `petrel demo --attack`: seven attacks on a device that answers, by whoever holds the broker, and by whoever holds the
//! whole bridge.
//!
//! Decides which attacks are played, and what the device must say to each. The broker's are made of what was heard on
//! the wire; the bridge's are signed with its own keys, which the device believes. In the end people take those keys out of the
//! root, with a key that was never on land.

use super::fleet::{self, Fleet};
use super::model::{self, GOOD, OLD, STREAM};
use super::process::wait_for;
use super::traffic::{Count, Traffic};
use crate::bundle;
use crate::ceremony::{self, Changes, Draft};
use crate::cli::Out;
use crate::cli::draft::now;
use crate::cli::push::push;
use crate::cli::table::table;
use crate::keyfile::{self, Passphrase};
use crate::service::view::DeviceView;
use crate::service::{Hijacked, Tap};
use anyhow::Context;
use bridge_core::{AssignmentDraft, BeaconDraft, Numbers};
use ed25519_dalek::SigningKey;
use protocol::{DeviceId, RefusalReport, Topics};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use trust::{Assignment, Beacon, Code, Digest, Envelope, MAX_RETAINED_BYTES, PayloadKind, Role, U53};

/// How long a device may take to find the broker again and to say what it thinks of a word.
const PATIENCE: Duration = Duration::from_secs(60);
const TEN_YEARS: u64 = 10 * 365 * 24 * 3_600;
/// The version that a thief signs.
const FORGED: &str = "2.0.0";

/// One attack, and what the device said to it.
#[derive(Debug, Serialize)]
struct Tried {
    /// Who holds what.
    by: &'static str,
    /// What is tried.
    attack: &'static str,
    /// The code of the refusal.
    code: String,
    /// The refusal in the device's words.
    said: String,
}

/// What an attacker has in hands.
struct Spoils {
    topics: Topics,
    device: DeviceId,
    /// Everything that land ever told the device to run, as it was signed.
    assignments: Vec<Vec<u8>>,
    /// The latest of them.
    latest: Assignment,
    /// What land told another device.
    another: Vec<u8>,
    /// The latest beacon.
    beacon: Beacon,
    /// A bundle from before that a publisher signed.
    old: Named,
    /// A bundle that a thief signed, and its envelope.
    forged: Named,
    forged_envelope: Vec<u8>,
}

/// What the demo saw.
struct Seen {
    tried: Vec<Tried>,
    devices: usize,
    answers: Vec<Count>,
    release: u64,
    recovered: Vec<DeviceView>,
    seconds: f64,
}

/// Plays the story.
///
/// # Errors
/// When it does not go as promised.
pub(super) fn play(out: &Out, dir: &Path, program: PathBuf, devices: usize, begun: Instant) -> anyhow::Result<()> {
    let step = |text: &str| out.say(format_args!("{:6.1} s  {text}", begun.elapsed().as_secs_f64()));
    step("making a root of trust, keys and certificates");
    let key = fleet::found(dir)?;
    let heldout = Arc::new(model::unpack(dir)?);
    step(&format!("packing and signing {STREAM} {OLD} and {GOOD}; a thief signs {FORGED} with a key of his own"));
    let (old, good) = (model::make(dir, OLD, &key)?, model::make(dir, GOOD, &key)?);
    let forged = model::make(dir, FORGED, &keyfile::generate()?)?;

    step(&format!("starting the bridge with its broker, and {devices} devices"));
    let mut fleet = Fleet::start(dir, program)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let tap = runtime.block_on(Tap::open(&fleet.bridge_config()?, &fleet.addresses.broker))?;
    fleet.enlist(devices)?;
    let traffic: Vec<Traffic> =
        fleet.agents.iter().map(|d| Traffic::start(d.address.clone(), heldout.clone())).collect();
    push(&fleet.client, &old)?;
    push(&fleet.client, &good)?;
    step(&format!("rolling out {STREAM} {GOOD}"));
    let rollout = fleet.roll_out(GOOD, Duration::ZERO, out)?;
    anyhow::ensure!(rollout.state == "completed", "the good release was {}", rollout.state);
    let spoils = Spoils::gather(&fleet, &tap, &old, &forged)?;
    let before: Vec<Count> = traffic.iter().map(|t| t.tally.count()).collect();

    step("the bridge is gone; its broker, its papers and its keys are in hostile hands");
    fleet.end_bridge();
    drop(runtime);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let land = runtime.block_on(Hijacked::start(&fleet.bridge_config()?))?;
    let tried = attack(&mut fleet, &land, &spoils, |tried| {
        step(&format!("{:<10} {}: {}", tried.by, tried.attack, tried.code))
    })?;
    runtime.block_on(land.stop());
    drop(runtime);

    step("people make a root without the stolen keys, and start a bridge with new ones");
    recover(dir, &mut fleet)?;
    let mut recovered = Vec::new();
    for id in fleet.agents.iter().map(|d| d.id.clone()).collect::<Vec<_>>() {
        let back = |d: &DeviceView| {
            d.online
                && d.root_version == Some(2)
                && d.streams.iter().any(|s| s.converged && s.active == Some(rollout.release))
        };
        recovered.push(fleet.wait_for_device(&id, "the return", back)?);
    }
    let answers = traffic.iter().zip(&before).map(|(t, before)| t.tally.count().since(before)).collect();
    drop(traffic);
    let seconds = begun.elapsed().as_secs_f64();
    let seen = Seen { tried, devices, answers, release: rollout.release, recovered, seconds };
    seen.tell(out)?;
    anyhow::ensure!(seen.old_model_answered_throughout(), "requests went unanswered, or another model answered");
    Ok(())
}

impl Spoils {
    fn gather(fleet: &Fleet, tap: &Tap, old: &Path, forged: &Path) -> anyhow::Result<Self> {
        let topics = Topics::new(&fleet.bridge_config()?.fleet);
        let [device, other] = [0, 1].map(|n| fleet.agents[n].id.parse::<DeviceId>());
        let (device, other) = (device?, other?);
        let told = |device| {
            wait_for("the assignments on the wire", PATIENCE, || {
                let told = tap.heard(&topics.assignment(device));
                let latest: Option<Assignment> =
                    told.last().map(|bytes| says(PayloadKind::Assignment, bytes)).transpose()?;
                Ok(latest.filter(|latest| !latest.streams.is_empty()).map(|latest| (told, latest)))
            })
        };
        let (assignments, latest) = told(&device)?;
        let another = told(&other)?.0.pop().context("nothing was said")?;
        let beacons = [topics.beacon(), topics.answer(&device)].map(|topic| tap.heard(&topic)).concat();
        let beacons: Vec<Beacon> =
            beacons.iter().map(|bytes| says(PayloadKind::Beacon, bytes)).collect::<anyhow::Result<_>>()?;
        let beacon = beacons.into_iter().max_by_key(|beacon| beacon.seq).context("land never told the time")?;
        let forged_envelope = std::fs::read(forged.join(bundle::SEAL))?;
        let (old, forged) = (Named::of(old)?, Named::of(forged)?);
        Ok(Self { topics, device, assignments, latest, another, beacon, old, forged, forged_envelope })
    }

    fn numbers(&self) -> Numbers {
        let (root, revocation) = (self.latest.root_version.get(), self.latest.min_revocation.get());
        let (director, beacon) = (self.latest.role_epoch.get(), self.beacon.role_epoch.get());
        Numbers { root, revocation, director, beacon }
    }

    /// The latest assignment but for its bundle, the `n`th after it.
    fn wish(&self, n: u64, bundle: Named) -> AssignmentDraft {
        let mut streams = self.latest.streams.clone();
        if let Some(stream) = streams.first_mut() {
            (stream.statement_sha256, stream.release, stream.total_size) = (bundle.digest, bundle.release, bundle.size);
        }
        let issued = u64::try_from(self.latest.issued.unix()).unwrap_or_default() * 1_000;
        let (device, seq) = (self.device.clone(), self.latest.seq.get() + n);
        AssignmentDraft { device, seq, issued, numbers: self.numbers(), streams }
    }
}

/// A bundle as an assignment names it.
#[derive(Clone, Copy)]
struct Named {
    digest: Digest,
    release: U53,
    size: U53,
}

impl Named {
    fn of(dir: &Path) -> anyhow::Result<Self> {
        let described = bundle::describe(dir)?;
        let size = described.files.iter().map(|file| file.size.get()).sum::<u64>();
        Ok(Self {
            digest: described.digest(),
            release: described.manifest.release,
            size: U53::try_from(size).map_err(anyhow::Error::msg)?,
        })
    }
}

/// What a document says, whoever signed it.
fn says<T: DeserializeOwned>(kind: PayloadKind, bytes: &[u8]) -> anyhow::Result<T> {
    Ok(serde_json::from_slice(&Envelope::parse(kind, bytes, MAX_RETAINED_BYTES)?.payload)?)
}

/// The seven attacks, one after the other.
fn attack(
    fleet: &mut Fleet,
    land: &Hijacked,
    spoils: &Spoils,
    mut tell: impl FnMut(&Tried),
) -> anyhow::Result<Vec<Tried>> {
    const BROKER: &str = "the broker";
    const BRIDGE: &str = "the bridge";
    let here = spoils.topics.assignment(&spoils.device);
    let first = spoils.assignments.first().context("nothing was said")?;
    let mut altered =
        Envelope::parse(PayloadKind::Assignment, spoils.assignments.last().unwrap_or(first), MAX_RETAINED_BYTES)?;
    altered.payload[20] ^= 1;
    type Play<'a> = Box<dyn FnOnce() -> anyhow::Result<()> + 'a>;
    let say = |bytes: Vec<u8>| -> Play<'_> {
        let topic = here.clone();
        Box::new(move || {
            land.say(topic, bytes);
            Ok(())
        })
    };
    let plays: [(&str, &str, Code, Play<'_>); 7] = [
        (BROKER, "changes one bit of what land says", Code::Sig, say(altered.to_bytes())),
        (BROKER, "gives it what land told another device", Code::Device, say(spoils.another.clone())),
        (BROKER, "repeats what land said long ago", Code::Replay, say(first.clone())),
        (
            BRIDGE,
            "makes it install a model of its own",
            Code::Threshold,
            Box::new(|| {
                land.say(spoils.topics.envelope(&spoils.forged.digest.0), spoils.forged_envelope.clone());
                land.assign(&spoils.wish(1, spoils.forged))
            }),
        ),
        (
            BRIDGE,
            "goes back to an older release",
            Code::UndeclaredRollback,
            Box::new(|| land.assign(&spoils.wish(2, spoils.old))),
        ),
        (
            BRIDGE,
            "gives the older release a new number",
            Code::Mismatch,
            Box::new(|| {
                land.deliver(spoils.old.digest);
                land.assign(&spoils.wish(3, Named { release: spoils.forged.release, ..spoils.old }))
            }),
        ),
        (
            BRIDGE,
            "puts the clock ten years ahead",
            Code::TimeJump,
            Box::new(|| {
                let beacon =
                    BeaconDraft { to: None, seq: spoils.beacon.seq.get() + 1, nonce: None, numbers: spoils.numbers() };
                land.tell_time(&beacon, now()? + TEN_YEARS)
            }),
        ),
    ];
    let mut tried = Vec::new();
    for (by, attack, code, play) in plays {
        let count =
            |refusals: &[RefusalReport]| refusals.iter().find(|r| r.code == code.as_str()).map_or(0, |r| r.count);
        let before = count(&fleet.refusals(0)?);
        play()?;
        let said = wait_for(&format!("a refusal with {code} when {by} {attack}"), PATIENCE, || {
            fleet.check()?;
            let refusals = fleet.refusals(0)?;
            let news = count(&refusals) > before;
            Ok(refusals.into_iter().find(|r| news && r.code == code.as_str()).map(|r| r.detail))
        })?;
        let refused = Tried { by, attack, code: code.to_string(), said };
        tell(&refused);
        tried.push(refused);
    }
    Ok(tried)
}

/// What people do when the bridge was taken: the keys that were on it leave the root, which is signed by a key that was not.
fn recover(dir: &Path, fleet: &mut Fleet) -> anyhow::Result<()> {
    let keys = dir.join("fleet/keys");
    let none = Passphrase::default();
    let read =
        |name: &str| -> anyhow::Result<SigningKey> { keyfile::read_private(&keys.join(format!("{name}.pem")), &none) };
    let mut changes = Changes { clock_reset: true, ..Changes::default() };
    for role in [Role::Director, Role::Beacon] {
        let new = keyfile::generate()?;
        changes.remove.push((role, keyfile::id(&read(role.as_str())?.verifying_key())));
        changes.add.push((role, new.verifying_key()));
        keyfile::write_pair(&keys, &format!("{role}-2"), &new, None)?;
    }
    let trusted = fleet.bridge_config()?.root()?.0;
    let root = ceremony::next_root(&trusted, None, &changes, now()?)?;
    let mut draft = Draft::new(PayloadKind::Root, serde_json::to_vec(&root)?);
    draft.sign(&read("root")?, Role::Root, &[&trusted, &root])?;
    draft.write(&dir.join("fleet/root-2.json"))?;
    fleet.restart_bridge(|text| {
        text.replace("\"root.json\"", "\"root-2.json\"")
            .replace("keys/director.pem", "keys/director-2.pem")
            .replace("keys/beacon.pem", "keys/beacon-2.pem")
    })
}

impl Seen {
    fn old_model_answered_throughout(&self) -> bool {
        self.answers.iter().all(|c| {
            c.asked > 0 && c.failed == 0 && c.other_class == 0 && c.by_release.keys().all(|r| *r == self.release)
        })
    }

    fn tell(&self, out: &Out) -> anyhow::Result<()> {
        let asked: u64 = self.answers.iter().map(|c| c.asked).sum();
        let failed: u64 = self.answers.iter().map(|c| c.failed + c.other_class).sum();
        let machine = serde_json::json!({
            "devices": self.devices,
            "attacks": self.tried,
            "requests": asked,
            "unanswered": failed,
            "old_model_answered_throughout": self.old_model_answered_throughout(),
            "recovered": self.recovered.len(),
            "seconds": (self.seconds * 10.0).round() / 10.0,
        });
        let rows = self.tried.iter().map(|t| [t.by.to_owned(), t.attack.to_owned(), t.code.clone(), t.said.clone()]);
        let people = format!(
            "\n{}\n\n{} of {} requests meanwhile answered by {STREAM} {GOOD}, as Python does; all {} devices follow the new bridge, in {:.1} s",
            table(["WHO HOLDS", "TRIES", "REFUSED WITH", "IN THE DEVICE'S WORDS"], rows),
            asked - failed,
            asked,
            self.recovered.len(),
            self.seconds,
        );
        out.line(&machine, people)
    }
}
