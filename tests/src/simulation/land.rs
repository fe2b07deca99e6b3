//! The hands of the bridge, modelled: its rows on disk, its session, its signing; and the people who
//! ask it for something.
//!
//! Messages are acknowledged after what they led to is saved, and not before.

use super::broker::{Client, Link, Message, Payload, Topic};
use super::check::Violation;
use super::faults::{Crash, Faults};
use super::scenario::{Ask, MINUTE, Millis, SECOND};
use super::world::{Happening, World};
use crate::signer::FLEET;
use bridge_core::{Answer, Bridge, Credential, Effect, Event, Invitation, Now, Record, Rejection, Status};
use protocol::{DeviceId, DocumentKind, Profile};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use trust::Digest;

/// The moment at which the world begins, in Unix milliseconds.
const EPOCH: Millis = 1_700_000_000_000;

/// The bridge: what outlives a crash, and the process that does not.
#[derive(Debug, Default)]
pub(super) struct Land {
    /// As they were saved last; their bytes are made when they are read.
    rows: BTreeMap<Row, Record>,
    life: u64,
    pub(super) process: Option<Process>,
    /// Bytes of chunks that were published.
    pub(super) chunk_bytes: u64,
    /// Assignments by device and generation: the same draft is signed to the same bytes.
    signed: BTreeMap<(usize, u64), Rc<[u8]>>,
}

/// What is lost in a crash.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) bridge: Bridge,
    link: Option<Link>,
    /// What the broker has not acknowledged, in order.
    outgoing: BTreeMap<u64, Message>,
    given: u64,
    deadline: Option<Millis>,
}

/// The key of a row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Row {
    Device(DeviceId),
    Release(Digest),
    Rollout(u64),
    Member(u64, DeviceId),
    Document(DocumentKind, u64),
    Beacons,
    Withdrawn(String),
}

/// The device of that name.
pub(super) fn index(id: &DeviceId) -> usize {
    id.as_str().trim_start_matches("d-").parse().expect("devices are called d-NN")
}

/// What a device enrols with: its number is its key.
fn credential(device: usize) -> Credential {
    let key = device.to_be_bytes().to_vec();
    let serial = format!("{device:02x}");
    Credential { certificate: Digest::of(&key), key, serial, until: Millis::MAX }
}

/// A row as it is after it lay on a disk.
fn read_back(saved: &Record) -> Record {
    let bytes = serde_json::to_vec(saved).expect("a record has a JSON form");
    serde_json::from_slice(&bytes).expect("what was saved is read back")
}

fn profile() -> Profile {
    Profile {
        board: "x".into(),
        arch: "aarch64".into(),
        cores: 1,
        ram_mb: 64,
        models_mb: 64,
        metered: false,
        agent: "0.1.0".into(),
    }
}

impl World {
    pub(super) fn start_land(&mut self) {
        let records = self.land.rows.values().map(read_back);
        let fleet = FLEET.parse().expect("a good name");
        let bridge = Bridge::restore(fleet, records.collect::<Vec<Record>>()).expect("what was believed is believed");
        self.land.process = Some(Process { bridge, link: None, outgoing: BTreeMap::new(), given: 0, deadline: None });
        self.await_land_deadline();
        let life = self.land.life;
        self.after(SECOND / 10..3 * SECOND, Happening::LandConnects { life });
    }

    pub(super) fn crash_land(&mut self) {
        if self.land.process.take().is_none() {
            return;
        }
        self.note(|| "the bridge crashes".into());
        self.land.life += 1;
        self.crashes += 1;
        self.break_link(Client::Land);
        let pause = Faults::pause(&mut self.rng, self.now);
        self.at(self.now + pause, Happening::LandStarts);
    }

    pub(super) fn lose_land(&mut self) {
        let Some(process) = self.land.process.as_mut() else { return };
        if process.link.take().is_some() {
            self.break_link(Client::Land);
            let life = self.land.life;
            self.after(SECOND..20 * SECOND, Happening::LandConnects { life });
        }
    }

    pub(super) fn land_connects(&mut self, life: u64) -> Result<(), Violation> {
        let current = self.land.life == life;
        let Some(process) = self.land.process.as_mut().filter(|p| current && p.link.is_none()) else { return Ok(()) };
        if self.broker.down {
            self.after(SECOND..5 * SECOND, Happening::LandConnects { life });
            return Ok(());
        }
        self.links += 1;
        let link = self.links;
        process.link = Some(link);
        let (remembered, waiting) = self.broker.connect(Client::Land, link);
        if !remembered {
            process.outgoing.clear();
        }
        let again: Vec<Message> = process.outgoing.values().cloned().collect();
        for message in again {
            self.publish(Client::Land, link, message);
        }
        self.hand_out(waiting);
        let retains = self.broker.kind.retains;
        self.tell_land(Event::BrokerConnected { remembered, retains }).map(drop)
    }

    /// The answer is `None` when the bridge died over it.
    fn tell_land(&mut self, event: Event) -> Result<Option<Result<Answer, Rejection>>, Violation> {
        let Some(process) = self.land.process.as_mut() else { return Ok(None) };
        self.steps += 1;
        let step = process.bridge.step(Now { unix: EPOCH + self.now }, event);
        let crash = self.faults.crash(&mut self.rng, self.now);
        let mut saved = Vec::new();
        let committed = step.commit(|records| match crash {
            Crash::InSave => Err("the power went"),
            Crash::Never | Crash::After(_) => {
                saved = records.to_vec();
                Ok(())
            }
        });
        self.checks.land_saved(&saved)?;
        for record in saved {
            self.save_row(record);
        }
        let Ok(committed) = committed else {
            self.crash_land();
            return Ok(None);
        };
        let Some(process) = &self.land.process else { return Ok(None) };
        self.checks.land_stepped(&process.bridge, &committed.effects)?;
        let done = if let Crash::After(effects) = crash { effects } else { usize::MAX };
        for effect in committed.effects.into_iter().take(done) {
            self.note(|| format!("land: {effect:?}"));
            self.checks.land_does(&effect)?;
            self.publish_from_land(effect);
        }
        if let Crash::After(_) = crash {
            self.crash_land();
            return Ok(None);
        }
        self.await_land_deadline();
        Ok(Some(committed.answer))
    }

    fn save_row(&mut self, record: Record) {
        let row = match &record {
            Record::Device(device) => Row::Device(device.id.clone()),
            Record::Release(release) => Row::Release(release.bundle),
            Record::Rollout(rollout) => Row::Rollout(rollout.id),
            Record::Member(member) => Row::Member(member.rollout, member.device.clone()),
            Record::NoMember { rollout, device } => {
                return drop(self.land.rows.remove(&Row::Member(*rollout, device.clone())));
            }
            Record::NoRollout { rollout } => return drop(self.land.rows.remove(&Row::Rollout(*rollout))),
            Record::Document(document) => Row::Document(document.document, document.slot()),
            Record::Beacons { .. } => Row::Beacons,
            Record::Withdrawn(withdrawn) => Row::Withdrawn(withdrawn.serial.clone()),
            Record::NoDevice { id } => return drop(self.land.rows.remove(&Row::Device(id.clone()))),
            Record::NoRelease { bundle } => return drop(self.land.rows.remove(&Row::Release(*bundle))),
            Record::NotWithdrawn { serial } => return drop(self.land.rows.remove(&Row::Withdrawn(serial.clone()))),
            // Nothing is decided from the audit log, nobody gives commands or asks for inputs here, and land is not put back from copies.
            Record::Deed(_)
            | Record::Command(_)
            | Record::FanOut(_)
            | Record::NoFanOut { .. }
            | Record::Samples(_)
            | Record::NoSamples { .. }
            | Record::PutBack { .. } => return,
        };
        self.land.rows.insert(row, record);
    }

    fn await_land_deadline(&mut self) {
        let life = self.land.life;
        let Some(process) = self.land.process.as_mut() else { return };
        let due = process.bridge.deadline().map(|unix| unix.saturating_sub(EPOCH));
        if due != process.deadline {
            process.deadline = due;
            if let Some(at) = due {
                self.at(at, Happening::LandDeadline { life });
            }
        }
    }

    pub(super) fn land_deadline(&mut self, life: u64) -> Result<(), Violation> {
        let current = self.land.life == life;
        let Some(process) = self.land.process.as_ref().filter(|_| current) else { return Ok(()) };
        match process.bridge.deadline() {
            Some(due) if due <= EPOCH + self.now => {
                self.tell_land(Event::DeadlineReached)?;
                let next = self.land.process.as_ref().and_then(|p| p.bridge.deadline());
                self.checks.deadline_passed(next, due)
            }
            Some(_) | None => Ok(()),
        }
    }

    fn publish_from_land(&mut self, effect: Effect) {
        let library = self.library;
        match effect {
            Effect::PublishAssignment(draft) => {
                let device = index(&draft.device);
                let sign = || library.signer.drafted(&draft).into();
                let bytes: Rc<[u8]> = self.land.signed.entry((device, draft.seq)).or_insert_with(sign).clone();
                self.signed.push((device, bytes.clone()));
                self.send(Topic::Assignment(device), Payload::Bytes(bytes), true);
            }
            Effect::PublishBeacon(draft) => {
                let bytes = library.signer.beacon(&draft, (EPOCH + self.now) / 1_000);
                let (topic, retain) = match &draft.to {
                    Some(device) => (Topic::Answer(index(device)), false),
                    None => (Topic::All(DocumentKind::Beacon, 0), true),
                };
                self.send(topic, Payload::Bytes(bytes.into()), retain);
            }
            Effect::PublishDocument(document) => {
                let slot = document.slot();
                let bytes = Payload::Bytes(document.text.into_bytes().into());
                self.send(Topic::All(document.document, slot), bytes, true);
            }
            Effect::Adopt { .. } => {}
            Effect::PublishBundle { bundle } => {
                self.send_parts(bundle, true, None, true);
            }
            Effect::PublishParts { bundle, documents, chunks } => {
                let chunks = chunks.into_iter().map(Digest).collect();
                self.send_parts(bundle, documents, Some(chunks), false);
            }
            Effect::LookForBundles { bundles } => {
                if let Some(link) = self.land.process.as_ref().and_then(|p| p.link) {
                    self.after(1..SECOND, Happening::Looked { link, bundles });
                }
            }
            Effect::ClearChunks { bundle, stay } => {
                let chunks = |bundle: &Digest| library.bundles[bundle].files.values().map(|file| Digest::of(file));
                let shared: BTreeSet<Digest> = stay.iter().flat_map(chunks).collect();
                for chunk in chunks(&bundle).filter(|chunk| !shared.contains(chunk)) {
                    self.send(Topic::Chunk(chunk), Payload::Empty, true);
                }
            }
            // Nobody leaves this fleet, nor is anything removed from its library; its broker knows no certificates.
            Effect::RemoveBundle { .. }
            | Effect::ClearDevice { .. }
            | Effect::EndSession { .. }
            | Effect::PublishCommand(_)
            | Effect::PublishWithdrawn(_) => {}
        }
    }

    /// Tells of the bundles whose chunks the broker does not retain any more.
    pub(super) fn land_looked(&mut self, bundles: BTreeSet<Digest>) -> Result<(), Violation> {
        for bundle in bundles {
            let files = &self.library.bundles[&bundle].files;
            let retained = |file: &Vec<u8>| self.broker.retained.contains_key(&Topic::Chunk(Digest::of(file)));
            if !files.values().all(retained) {
                self.tell_land(Event::BundleMissed { bundle })?;
            }
        }
        Ok(())
    }

    /// Publishes documents and chunks of a bundle; those that a device asked for are not retained,
    /// since it has subscribed to them and nobody would clear them.
    fn send_parts(&mut self, bundle: Digest, documents: bool, only: Option<BTreeSet<Digest>>, retain: bool) {
        let bundle = &self.library.bundles[&bundle];
        if documents {
            let envelope = Payload::Bytes(bundle.envelope.as_slice().into());
            self.send(Topic::Envelope(bundle.digest), envelope, true);
        }
        for file in bundle.files.values() {
            let chunk = Digest::of(file);
            if only.as_ref().is_none_or(|o| o.contains(&chunk)) {
                self.send(Topic::Chunk(chunk), Payload::Bytes(file.as_slice().into()), retain);
            }
        }
    }

    fn send(&mut self, topic: Topic, payload: Payload, retain: bool) {
        let Some(process) = self.land.process.as_mut() else { return };
        if let (Topic::Chunk(_), Payload::Bytes(bytes)) = (topic, &payload) {
            self.land.chunk_bytes += bytes.len() as u64;
        }
        process.given += 1;
        let retain = retain && self.broker.kind.retains;
        let message = Message { topic, payload, retain, token: Some(process.given) };
        process.outgoing.insert(process.given, message.clone());
        if let Some(link) = process.link {
            self.publish(Client::Land, link, message);
        }
    }

    pub(super) fn land_delivered(&mut self, token: u64) {
        if let Some(process) = self.land.process.as_mut() {
            process.outgoing.remove(&token);
        }
    }

    pub(super) fn land_hears(&mut self, link: Link, queued: Option<u64>, message: Message) -> Result<(), Violation> {
        let name = |device: usize| self.scenario.names[device].clone();
        let event = match (message.topic, message.payload) {
            (Topic::Hello(device), Payload::Hello { boot, seq, nonce, profile }) => {
                Event::HelloReceived { device: name(device), boot, seq, key: credential(device).key, nonce, profile }
            }
            (Topic::Need(device), Payload::Need { bundle, documents, chunks }) => {
                let chunks = chunks.into_iter().map(|c| c.0).collect();
                Event::ChunksNeeded { device: name(device), bundle, documents, chunks }
            }
            (Topic::Presence(device), Payload::Presence { online }) => {
                Event::PresenceReceived { device: name(device), online }
            }
            (Topic::Report(_), Payload::Report(report)) => Event::ReportReceived(Box::new((*report).clone())),
            (Topic::Verdict(_), Payload::Verdict(verdict)) => Event::VerdictReceived((*verdict).clone()),
            (Topic::Telemetry(_), Payload::Telemetry(measured)) => Event::Measured(vec![(*measured).clone()]),
            (topic, payload) => unreachable!("{payload:?} on {topic:?}"),
        };
        let answer = self.tell_land(event)?;
        if let (Some(_), Some(queued)) = (&answer, queued) {
            self.after(1..100, Happening::Done { link, queued });
        }
        Ok(())
    }

    /// A person asks; whoever gets no answer, or is told to wait, asks again.
    pub(super) fn ask(&mut self, ask: Ask) -> Result<(), Violation> {
        let event = match ask.clone() {
            Ask::Enrol(device) => Event::DeviceEnrolled {
                device: self.scenario.names[device].clone(),
                credential: credential(device),
                profile: profile(),
                invitation: Invitation { made: 0, pending: device % 2 == 1 },
            },
            Ask::Approve(device) => Event::DeviceApproved { device: self.scenario.names[device].clone() },
            Ask::Document(kind, bytes) => Event::DocumentPushed { kind, bytes },
            Ask::Push(bundle) => Event::ReleasePushed(self.library.bundles[&bundle].released()),
            Ask::Start(request) => Event::RolloutRequested(request),
        };
        let answer = self.tell_land(event)?;
        self.note(|| format!("land answers {answer:?}"));
        if let (Some(Ok(_)), Ask::Enrol(device)) = (&answer, &ask) {
            // No broker takes a device that has no certificate yet.
            self.after(0..20 * SECOND, Happening::DeviceStarts { device: *device });
            let known = self.bridge().and_then(|b| b.devices().get(&self.scenario.names[*device]));
            if known.is_some_and(|d| d.status == Status::Pending) {
                self.after(SECOND..5 * SECOND, Happening::Asked(Ask::Approve(*device)));
            }
        }
        match answer {
            Some(Ok(_) | Err(Rejection::Invalid(_) | Rejection::Refused(_))) => {}
            Some(Err(Rejection::Conflict(_) | Rejection::NotFound(_))) | None => {
                self.after(10 * SECOND..2 * MINUTE, Happening::Asked(ask));
            }
        }
        Ok(())
    }

    /// The bridge, for those who look on.
    pub(super) fn bridge(&self) -> Option<&Bridge> {
        self.land.process.as_ref().map(|p| &p.bridge)
    }

    /// Whether every device has power and a connection.
    pub(super) fn all_connected(&self) -> bool {
        self.devices.iter().all(|device| device.process.as_ref().is_some_and(|p| p.link.is_some()))
    }
}
