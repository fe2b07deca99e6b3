//! What land costs with ten thousand devices: each a real MQTT client with a key of its own, let in through the doors that
//! devices use, at a real Mosquitto.
//!
//! Decides how they come and how they are waited for. They run no models and fetch no bundles ([`voice`]), and have no TLS:
//! all of them live in this process, which must leave the processor to the bridge. PETREL_LAND_DEVICES says how many there
//! are; PETREL_LAND_QUEUED how many messages the broker keeps for the bridge, where that is to be tried.

mod asks;
mod client;
mod cost;
mod enrolment;
mod fan_out;
mod ingest;
mod kept;
mod rest;
mod rough;
mod server;
mod signer;
mod voice;

use crate::cargo::Release;
use crate::fleet::Fleet;
use anyhow::{Context, ensure};
use client::Clients;
use kept::Kept;
use protocol::{BridgeTopic, FleetId, StreamName, Topics};
use rest::Rest;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use signer::Signer;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, park_timeout};
use std::time::{Duration, Instant};
use voice::{Voice, Word, Work};

/// How a figure is made, with devices that are there.
pub(crate) type Figure = fn(&mut Crowd) -> anyhow::Result<Value>;

/// The figures by name.
pub(crate) const FIGURES: &[(&str, Figure)] = &[
    ("crowd", |crowd| Ok(crowd.arrival.clone())),
    ("asks", asks::measure),
    ("fan_out", fan_out::measure),
    ("ingest", ingest::measure),
    ("kills", rough::kills),
    ("full", rough::full),
    // The last: land's database is another one from here on.
    ("server", server::stopped),
];

const DEVICES: usize = 10_000;
/// Devices that connect at once.
const BATCH: usize = 500;
/// Open files beside those of the devices.
const FILES: u64 = 500;
/// What each device says when it comes: that it is there, who it is, and what it runs.
const BIRTH_WORDS: u64 = 3;
/// After so long without a step nothing more is waited for.
const STALLED: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How often the bridge is asked: the answer costs it a look at each device.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// The release that devices get.
const STREAM: &str = "pumps";
const ROWS: usize = 10;
const ADMIN: &str = "fleet/data/admin.token";
const TAKEN: &str = "petrel_messages_taken_total";

/// Devices that are connected, and their land.
pub(crate) struct Crowd {
    fleet: Fleet,
    rest: Rest,
    /// Where land's database is, as whoever reads it finds it.
    database: String,
    clients: Clients,
    signers: Vec<Arc<Signer>>,
    topics: Topics,
    stream: StreamName,
    /// The number that each device drew at its start.
    runs: Vec<u64>,
    /// The number of the latest telemetry of every device.
    measured: u64,
    /// Telemetry that the broker acknowledged and that never came.
    lost: u64,
    /// What it cost to let them in.
    arrival: Value,
}

impl Crowd {
    /// Lets all of them in, and waits until land has heard of each what it runs.
    pub(crate) fn gather(programs: &Path) -> anyhow::Result<Self> {
        let count = match std::env::var("PETREL_LAND_DEVICES") {
            Ok(count) => count.parse().context("PETREL_LAND_DEVICES is no number")?,
            Err(_) => DEVICES,
        };
        open_files(count as u64 + FILES)?;
        let queued = std::env::var("PETREL_LAND_QUEUED").ok();
        let mut fleet = Fleet::start_direct(programs, queued.as_deref())?;
        Release { stream: STREAM, version: "1.0.0", rows: ROWS, same: ROWS }.push(&fleet.desk)?;
        let rest = Rest::new(&fleet, ADMIN)?;
        let began = Instant::now();
        let signers = enrolment::enrol(&rest, count)?;
        let enrolled = began.elapsed().as_secs_f64();
        let name: FleetId = "sea".parse()?;
        let mut clients = Clients::new(fleet.plain_port())?;
        let (began, before) = (Instant::now(), rest.metric(TAKEN)?);
        let mut heard = before;
        for batch in signers.chunks(BATCH) {
            batch.iter().for_each(|signer| clients.connect(signer.id.as_str(), Voice::new(signer.clone(), &name)));
            // The broker keeps only so much for land, and says nothing of what it does not keep: nobody comes before land
            // has heard of those before.
            heard += BIRTH_WORDS * batch.len() as u64;
            reached("the first report of every device", heard, ASK_EVERY, || {
                clients.seen.check()?;
                rest.metric(TAKEN)
            })?;
        }
        let reported = began.elapsed().as_secs_f64();
        let memory = cost::memory(fleet.bridge().id(), "VmRSS")?;
        let arrival = json!({ "devices": count, "enrolled_s": enrolled, "reported_s": reported, "bridge_rss": memory });
        let runs = signers.iter().map(|_| fastrand::u64(..)).collect();
        let (topics, stream) = (Topics::new(&name), STREAM.parse()?);
        let database = format!("sqlite://{}?mode=ro", fleet.desk.path("fleet/data/bridge.db").display());
        Ok(Self { fleet, rest, database, clients, signers, topics, stream, runs, measured: 0, lost: 0, arrival })
    }

    /// The next messages of telemetry, so many of each device, signed: who says what, each device once before any says more.
    fn sign(&mut self, each: u64) -> anyhow::Result<Vec<(usize, Word)>> {
        let first = self.measured + 1;
        self.measured += each;
        let (from, work) = (&*self, Work { stream: &self.stream, release: 1 });
        let half = self.signers.len().div_ceil(2);
        let some = |devices: &[usize]| -> anyhow::Result<Vec<(u64, usize, Word)>> {
            let mut words = Vec::with_capacity(devices.len() * each as usize);
            for &device in devices {
                let signer = &from.signers[device];
                for seq in first..first + each {
                    let topic = from.topics.upstream(&BridgeTopic::Telemetry(signer.id.clone()));
                    let bytes = voice::telemetry(signer, from.runs[device], seq, &work)?;
                    words.push((seq, device, Word { topic, bytes, retain: false }));
                }
            }
            Ok(words)
        };
        let numbers: Vec<usize> = (0..self.signers.len()).collect();
        let mut words = Vec::with_capacity(self.signers.len() * each as usize);
        thread::scope(|scope| {
            let hands: Vec<_> = numbers.chunks(half).map(|devices| scope.spawn(move || some(devices))).collect();
            hands.into_iter().try_for_each(|hand| {
                words.extend(hand.join().ok().context("a thread ended early")??);
                anyhow::Ok(())
            })
        })?;
        words.sort_by_key(|(seq, device, _)| (*seq, *device));
        Ok(words.into_iter().map(|(_, device, word)| (device, word)).collect())
    }

    /// Lets devices say this as fast as their windows allow.
    fn say(&self, words: Vec<(usize, Word)>) -> anyhow::Result<()> {
        words.into_iter().try_for_each(|(device, word)| self.clients.say(device, word))
    }

    /// Waits until the broker has acknowledged all that was said.
    fn acknowledged(&self) -> anyhow::Result<()> {
        let seen = &self.clients.seen;
        reached("the broker's acknowledgements", seen.said.load(Relaxed), LOOK_EVERY, || {
            seen.check()?;
            Ok(seen.acknowledged.load(Relaxed))
        })?;
        ensure!(self.clients.all_acknowledged(), "somebody has said something meanwhile");
        Ok(())
    }

    /// Waits until the bridge has all telemetry that was said; gives how much of it is lost that was not before.
    fn settled(&mut self) -> anyhow::Result<u64> {
        let runs = self.signers.iter().zip(&self.runs);
        let said = runs.map(|(signer, run)| ((signer.id.to_string(), *run), self.measured)).collect();
        let all = self.measured * self.signers.len() as u64;
        let mut kept = Kept::open(&self.database)?;
        grows(all - self.lost, ASK_EVERY, || kept.count())?;
        let before = std::mem::replace(&mut self.lost, kept.lost(&said)?);
        Ok(self.lost.saturating_sub(before))
    }
}

/// Waits until a number has become so large; gives up when it does not grow.
fn grows(to: u64, every: Duration, mut look: impl FnMut() -> anyhow::Result<u64>) -> anyhow::Result<u64> {
    let (mut most, mut since) = (0, Instant::now());
    loop {
        let now = look()?;
        if now >= to {
            return Ok(now);
        }
        if now > most {
            (most, since) = (now, Instant::now());
        } else if since.elapsed() > STALLED {
            return Ok(most);
        }
        park_timeout(every);
    }
}

/// The same, where it must become so large.
fn reached(what: &str, to: u64, every: Duration, look: impl FnMut() -> anyhow::Result<u64>) -> anyhow::Result<()> {
    let now = grows(to, every, look)?;
    ensure!(now >= to, "{what} came to a stand at {now} of {to}");
    Ok(())
}

/// Lets this process, and those that it starts, have so many files open.
fn open_files(files: u64) -> anyhow::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < files) {
        let wanted = Rlimit { current: Some(files), maximum };
        setrlimit(Resource::Nofile, wanted)
            .with_context(|| format!("this system does not allow {files} open files"))?;
    }
    Ok(())
}
