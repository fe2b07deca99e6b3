//! The hands of a device, modelled: its disk, its connection, its fetches, its worker.
//!
//! They believe nothing that `trust` does not: envelopes and files are really verified, and what land signs
//! is verified by the core. They decide nothing: what to do is the real core's, what must hold is `check`'s.

mod pull;
mod traffic;

use super::broker::{Client, Link, Message, Payload, Topic};
use super::check::Violation;
use super::faults::{Crash, Faults};
use super::scenario::{Flaw, Millis, SECOND};
use super::world::{Happening, World, flipped};
use crate::signer::{FLEET, resources};
use agent_core::{Agent, Described, Effect, Event, Flow, Found, Ledger, Limits, Memory, Now, Step, Wait, Window};
use protocol::{DeviceId, DocumentKind, Profile, Sandbox, StreamName};
use pull::{Admission, Fetch, LOOK, WINDOW};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use trust::{Code, Digest, Refusal, Root, Statement, Verified};

/// A device: what outlives a power cut, and the process that does not.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) id: DeviceId,
    /// The ledger as it was saved last; its bytes are made when they are read.
    ledger: Option<Rc<Ledger>>,
    /// Roots and revocations that were believed.
    documents: BTreeMap<Digest, Vec<u8>>,
    folders: BTreeMap<Digest, Folder>,
    /// The number of the process.
    life: u64,
    pub(super) process: Option<Process>,
    /// Power cuts, and releases that took the agent down.
    pub(super) crashes: u64,
    /// A bundle on its disk was damaged.
    pub(super) rotted: bool,
}

/// What answers, and what in its place when it fails.
pub(super) type Pair = (Digest, Option<Digest>);

/// What is lost in a crash.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) agent: Agent,
    started: Millis,
    pub(super) link: Option<Link>,
    /// Land has answered a hello of this boot.
    pub(super) answered: bool,
    fetching: BTreeMap<Digest, Fetch>,
    flow: Flow,
    /// What answers, and what in its place when it fails.
    pub(super) serving: BTreeMap<StreamName, Pair>,
    /// What the worker has still to do, in order; `None` stops the stream.
    pub(super) loads: BTreeMap<StreamName, VecDeque<Option<Pair>>>,
    deadline: Option<Millis>,
}

/// A bundle on the disk, whole or not.
#[derive(Debug, Default)]
struct Folder {
    envelope: Option<Rc<[u8]>>,
    files: BTreeMap<String, Vec<u8>>,
}

/// Work that the hands have begun.
#[derive(Debug)]
pub(super) enum Job {
    Connect,
    Stored(Digest),
    Describe(Digest),
    Examine(Digest),
    Probe(Digest),
    Load(StreamName),
    Traffic {
        stream: StreamName,
        bundle: Digest,
        left: u8,
    },
    /// Looks at what is late.
    Look(Digest),
    Deadline,
    /// The model on trial takes the agent down.
    Die {
        stream: StreamName,
        bundle: Digest,
    },
}

/// What was read already; the same bytes are not read twice in a world.
#[derive(Debug, Default)]
pub(super) struct Believed {
    statements: BTreeMap<Digest, Result<Verified<Statement>, Refusal>>,
}

impl Believed {
    fn statement(&mut self, root: &Verified<Root>, bytes: &[u8]) -> Result<&Verified<Statement>, &Refusal> {
        let verify = || trust::verify_statement(root, bytes);
        self.statements.entry(Digest::of(bytes)).or_insert_with(verify).as_ref()
    }
}

impl Folder {
    /// What lies there, when it is exactly what was signed.
    fn examine(&self, root: &Verified<Root>, seen: &mut Believed, bundle: Digest) -> Result<Box<Found>, Refusal> {
        let missing = || Refusal::new(Code::Missing, "no envelope");
        let envelope = self.envelope.as_ref().ok_or_else(missing)?;
        let statement = seen.statement(root, envelope).map_err(Clone::clone)?;
        if statement.digest() != bundle {
            return Err(Refusal::new(Code::Mismatch, "another bundle"));
        }
        let files = resources(&self.files);
        statement.check_files(&files)?;
        let manifest = self.files["manifest.json"].clone();
        Ok(Box::new(Found { envelope: envelope.to_vec(), manifest, files, room: 1 << 30 }))
    }

    /// The signed files that are not there; `None` while nobody knows which they are.
    fn missing(&self, root: &Verified<Root>, seen: &mut Believed) -> Option<Vec<Digest>> {
        let statement = seen.statement(root, self.envelope.as_ref()?).ok()?;
        let lacks = |r: &&trust::Resource| !self.files.contains_key(&r.name);
        Some(statement.resources().iter().filter(lacks).map(|r| r.digest).collect())
    }

    /// What describes the bundle, when that is there.
    fn described(&self, root: &Verified<Root>, seen: &mut Believed) -> Option<Box<Described>> {
        let (envelope, manifest) = (self.envelope.clone()?, self.files.get(MANIFEST)?.clone());
        let statement = seen.statement(root, &envelope).ok()?;
        let lacks = |r: &&trust::Resource| !self.files.contains_key(&r.name);
        let missing = statement.resources().iter().filter(lacks).map(|r| r.size.get()).sum();
        Some(Box::new(Described { envelope: envelope.to_vec(), manifest: manifest.to_vec(), missing, room: 1 << 30 }))
    }

    /// The digest of the manifest, when it is signed.
    fn manifest(&self, root: &Verified<Root>, seen: &mut Believed) -> Option<Digest> {
        Some(seen.statement(root, self.envelope.as_ref()?).ok()?.resource(MANIFEST)?.digest)
    }

    /// Takes `bytes` for the signed files of that digest.
    fn store(&mut self, root: &Verified<Root>, seen: &mut Believed, digest: Digest, bytes: &[u8]) {
        if Digest::of(bytes) != digest {
            return;
        }
        let Some(Ok(statement)) = self.envelope.as_ref().map(|e| seen.statement(root, e)) else { return };
        for resource in statement.resources().iter().filter(|r| r.digest == digest) {
            self.files.insert(resource.name.clone(), bytes.to_vec());
        }
    }
}

impl Device {
    pub(super) fn new(id: &DeviceId) -> Self {
        Self {
            id: id.clone(),
            ledger: None,
            documents: BTreeMap::new(),
            folders: BTreeMap::new(),
            life: 0,
            process: None,
            crashes: 0,
            rotted: false,
        }
    }
}

/// A ledger as it is after it lay on a disk.
fn read_back(saved: &Ledger) -> Ledger {
    let bytes = serde_json::to_vec(saved).expect("a ledger has a JSON form");
    serde_json::from_slice(&bytes).expect("what was saved is read back")
}

/// All of the board's memory, and a link that costs nothing.
const LIMITS: Limits = Limits { models_mb: 512, metered: None };
const MANIFEST: &str = "manifest.json";

fn profile() -> Profile {
    let text = str::to_owned;
    Profile {
        board: text("generic"),
        arch: text("aarch64"),
        cores: 4,
        ram_mb: 512,
        models_mb: 512,
        metered: false,
        agent: text("0.1.0"),
    }
}

impl World {
    pub(super) fn start_device(&mut self, device: usize) -> Result<(), Violation> {
        if self.devices[device].process.is_some() {
            return Ok(());
        }
        let ledger = self.devices[device].ledger.as_deref().map(read_back).unwrap_or_default();
        self.checks.device_read(device, &ledger)?;
        let id = self.devices[device].id.clone();
        let trust = match &ledger.trust {
            None => self.library.newborn[device].clone(),
            Some(_) => self.library.signer.trust(&id, &ledger, &self.devices[device].documents),
        };
        let seed = format!("{:032x}", self.rng.u128(..));
        let flow = Flow::new(WINDOW, None, id.as_str());
        let (agent, step) =
            Agent::restore(FLEET.parse().expect("a good name"), id, profile(), LIMITS, seed, trust, ledger);
        self.devices[device].process = Some(Process {
            agent,
            started: self.now,
            link: None,
            answered: false,
            fetching: BTreeMap::new(),
            flow,
            serving: BTreeMap::new(),
            loads: BTreeMap::new(),
            deadline: None,
        });
        self.hand_on(device, SECOND / 10..3 * SECOND, Job::Connect);
        self.conclude_device(device, step)
    }

    /// The process ends here and now.
    pub(super) fn crash_device(&mut self, device: usize) {
        if self.devices[device].process.take().is_none() {
            return;
        }
        self.note(|| format!("device {device} crashes"));
        self.devices[device].life += 1;
        self.devices[device].crashes += 1;
        self.crashes += 1;
        self.break_link(Client::Device(device));
        let pause = Faults::pause(&mut self.rng, self.now);
        self.at(self.now + pause, Happening::DeviceStarts { device });
    }

    /// A bit flips in a bundle on the disk.
    pub(super) fn rot(&mut self, device: usize) {
        let files = self.devices[device].folders.values_mut().flat_map(|f| f.files.values_mut());
        if let Some(file) = self.rng.choice(files.collect::<Vec<_>>()) {
            *file = flipped(file, &mut self.rng).to_vec();
            self.devices[device].rotted = true;
        }
    }

    /// The connection breaks.
    pub(super) fn lose_device(&mut self, device: usize, pause: Millis) -> Result<(), Violation> {
        let Some(process) = self.devices[device].process.as_mut() else { return Ok(()) };
        if process.link.take().is_none() {
            return Ok(());
        }
        self.break_link(Client::Device(device));
        self.hand_on(device, pause..pause + 5 * SECOND, Job::Connect);
        self.tell_device(device, Event::Disconnected)
    }

    fn hand_on(&mut self, device: usize, range: std::ops::Range<Millis>, job: Job) {
        let life = self.devices[device].life;
        self.after(range, Happening::Hand { device, life, job });
    }

    fn tell_device(&mut self, device: usize, event: Event) -> Result<(), Violation> {
        let now = self.now;
        let Some(process) = self.devices[device].process.as_mut() else { return Ok(()) };
        let step = process.agent.step(Now { mono: now - process.started, wall: None }, event);
        self.conclude_device(device, step)
    }

    /// Saves, then carries out: unless the power goes before, between or within.
    fn conclude_device(&mut self, device: usize, step: Step) -> Result<(), Violation> {
        self.steps += 1;
        let crash = self.faults.crash(&mut self.rng, self.now);
        let mut saved = None;
        let committed = step.commit(|memory| match crash {
            Crash::InSave => Err("the power went"),
            Crash::Never | Crash::After(_) => {
                saved = Some(memory.clone());
                Ok(())
            }
        });
        if let Some(Memory { documents, ledger }) = saved {
            self.devices[device].documents.extend(documents.into_iter().map(|d| (d.digest, d.bytes)));
            let ledger = Rc::new(ledger);
            self.devices[device].ledger = Some(ledger.clone());
            self.checks.device_saved(device, ledger, &self.scenario)?;
        }
        let Ok(effects) = committed else {
            self.crash_device(device);
            return Ok(());
        };
        let Some(process) = &self.devices[device].process else { return Ok(()) };
        self.checks.device_stepped(device, &process.agent, &effects)?;
        let done = if let Crash::After(effects) = crash { effects } else { usize::MAX };
        for effect in effects.into_iter().take(done) {
            self.note(|| format!("device {device}: {effect:?}"));
            self.checks.device_does(device, &effect)?;
            self.carry_out(device, effect);
        }
        if let Crash::After(_) = crash {
            self.crash_device(device);
        }
        self.await_deadline(device);
        self.checks.device_serves(device, self.devices[device].process.as_ref())
    }

    fn await_deadline(&mut self, device: usize) {
        let life = self.devices[device].life;
        let Some(process) = self.devices[device].process.as_mut() else { return };
        let due = process.agent.deadline().map(|mono| process.started + mono);
        if due != process.deadline {
            process.deadline = due;
            if let Some(at) = due {
                self.at(at, Happening::Hand { device, life, job: Job::Deadline });
            }
        }
    }

    fn carry_out(&mut self, device: usize, effect: Effect) {
        let now = self.now;
        let Some(process) = self.devices[device].process.as_mut() else { return };
        match effect {
            Effect::Fetch { bundle, total_size } => {
                let wait = Wait::from(now, &process.flow, bundle);
                process
                    .fetching
                    .insert(bundle, Fetch { size: total_size, wait, admission: Admission::Unknown, window: None });
                self.devices[device].folders.entry(bundle).or_default();
                self.fetch_on(device, bundle);
                self.hand_on(device, LOOK, Job::Look(bundle));
            }
            Effect::Admit { bundle } => {
                if let Some(fetch) = process.fetching.get_mut(&bundle) {
                    fetch.admission = Admission::Given;
                    fetch.window = None;
                    self.fetch_on(device, bundle);
                }
            }
            Effect::StopFetching { bundle } => drop(process.fetching.remove(&bundle)),
            Effect::Examine { bundle } => self.hand_on(device, 20..500, Job::Examine(bundle)),
            Effect::Probe { bundle } => self.hand_on(device, 50..SECOND, Job::Probe(bundle)),
            Effect::Serve { stream, bundle, fallback } => self.load(device, stream, Some((bundle, fallback))),
            Effect::StopServing { stream } => self.load(device, stream, None),
            Effect::Discard { bundle } => drop(self.devices[device].folders.remove(&bundle)),
            Effect::Keep { bundles } => self.devices[device].folders.retain(|bundle, _| bundles.contains(bundle)),
            Effect::AwaitRoot { version } => {
                if let Some(link) = process.link {
                    self.broker.unsubscribe(device, Topic::All(DocumentKind::Root, version - 1));
                    self.subscribe(device, link, Topic::All(DocumentKind::Root, version));
                }
            }
            Effect::SayHello { boot, seq, nonce, profile } => {
                self.say(device, Topic::Hello(device), Payload::Hello { boot, seq, nonce, profile }, None);
            }
            Effect::PublishReport(report) => {
                self.say(device, Topic::Report(device), Payload::Report(Rc::new(report)), None);
            }
            Effect::DeliverVerdict(said) => {
                let (token, said) = (Some(said.seq), Payload::Verdict(Rc::new(said)));
                self.say(device, Topic::Verdict(device), said, token);
            }
            Effect::Shadow { .. }
            | Effect::Judge { .. }
            | Effect::Give { .. }
            | Effect::Restart { .. }
            | Effect::SetLog(_)
            | Effect::Measure
            | Effect::Diagnose(_)
            | Effect::DeliverResult(_) => {}
        }
    }

    fn say(&mut self, device: usize, topic: Topic, payload: Payload, token: Option<u64>) {
        let Some(link) = self.devices[device].process.as_ref().and_then(|p| p.link) else { return };
        let retain = self.broker.kind.retains && matches!(topic, Topic::Report(_) | Topic::Presence(_));
        self.publish(Client::Device(device), link, Message { topic, payload, retain, token });
    }

    fn load(&mut self, device: usize, stream: StreamName, what: Option<Pair>) {
        let Some(process) = self.devices[device].process.as_mut() else { return };
        let loads = process.loads.entry(stream.clone()).or_default();
        loads.push_back(what);
        if loads.len() == 1 {
            self.hand_on(device, 20..SECOND, Job::Load(stream));
        }
    }

    pub(super) fn device_hears(&mut self, device: usize, message: Message) -> Result<(), Violation> {
        let Payload::Bytes(bytes) = message.payload else { return Ok(()) };
        let root = self.library.signer.root();
        match message.topic {
            Topic::Assignment(_) => return self.tell_document(device, DocumentKind::Assignment, &bytes),
            Topic::Answer(_) => {
                if let Some(process) = self.devices[device].process.as_mut() {
                    process.answered = true;
                }
                return self.tell_document(device, DocumentKind::Beacon, &bytes);
            }
            Topic::All(kind, _) => return self.tell_document(device, kind, &bytes),
            Topic::Envelope(bundle) => {
                let size = self.fetched_size(device, bundle);
                let Some(folder) = self.devices[device].folders.get_mut(&bundle) else { return Ok(()) };
                let statement = self.believed.statement(root, &bytes);
                let asked = |s: &Verified<Statement>| s.digest() == bundle && Some(s.total_size()) == size;
                if folder.envelope.is_none() && statement.is_ok_and(asked) {
                    folder.envelope = Some(bytes);
                    self.broker.unsubscribe(device, Topic::Envelope(bundle));
                    self.fetch_on(device, bundle);
                }
            }
            Topic::Chunk(chunk) => {
                self.chunk_came(device, chunk, &bytes, message.retain);
                let Some(process) = &self.devices[device].process else { return Ok(()) };
                for bundle in process.fetching.keys().copied().collect::<Vec<_>>() {
                    let Some(folder) = self.devices[device].folders.get_mut(&bundle) else { continue };
                    let before = folder.files.len();
                    folder.store(root, &mut self.believed, chunk, &bytes);
                    let whole = folder.missing(root, &mut self.believed).is_some_and(|m| m.is_empty());
                    if whole && folder.files.len() > before {
                        self.hand_on(device, 5..100, Job::Stored(bundle));
                    } else {
                        self.fetch_on(device, bundle);
                    }
                }
            }
            Topic::Hello(_)
            | Topic::Need(_)
            | Topic::Presence(_)
            | Topic::Report(_)
            | Topic::Telemetry(_)
            | Topic::Verdict(_) => {}
        }
        Ok(())
    }

    fn tell_document(&mut self, device: usize, kind: DocumentKind, bytes: &[u8]) -> Result<(), Violation> {
        self.tell_device(device, Event::DocumentArrived { kind, bytes: bytes.to_vec() })
    }

    fn fetched_size(&self, device: usize, bundle: Digest) -> Option<u64> {
        self.devices[device].process.as_ref()?.fetching.get(&bundle).map(|fetch| fetch.size)
    }

    pub(super) fn device_delivered(&mut self, device: usize, seq: u64) -> Result<(), Violation> {
        self.tell_device(device, Event::VerdictDelivered { seq })
    }

    pub(super) fn device_works(&mut self, device: usize, life: u64, job: Job) -> Result<(), Violation> {
        let now = self.now;
        let state = &mut self.devices[device];
        let Some(process) = state.process.as_mut().filter(|_| state.life == life) else { return Ok(()) };
        let root = self.library.signer.root();
        match job {
            Job::Connect => self.connect_device(device),
            Job::Stored(bundle) => match process.fetching.remove(&bundle) {
                Some(_) => self.tell_device(device, Event::BundleStored { bundle }),
                None => Ok(()),
            },
            Job::Describe(bundle) => {
                let folder = state.folders.entry(bundle).or_default();
                match folder.described(root, &mut self.believed) {
                    Some(described) => {
                        self.checks.device_described(device, bundle);
                        self.tell_device(device, Event::BundleDescribed { bundle, described })
                    }
                    // The disk lost it meanwhile: what is missing is looked for again.
                    None => Ok(()),
                }
            }
            Job::Examine(bundle) => {
                let folder = state.folders.entry(bundle).or_default();
                match folder.examine(root, &mut self.believed, bundle) {
                    Ok(found) => {
                        self.checks.device_examined(device, bundle);
                        self.tell_device(device, Event::BundleExamined { bundle, found })
                    }
                    // Every chunk was checked as it came: the disk did this, and another fetch mends it.
                    Err(_) => {
                        state.folders.remove(&bundle);
                        self.tell_device(device, Event::Stumbled { bundle })
                    }
                }
            }
            Job::Probe(bundle) if self.scenario.fails(device, bundle, Flaw::Golden) => {
                let refusal = Refusal::new(Code::Golden, "the golden vectors disagree");
                self.tell_device(device, Event::ProbeFailed { bundle, refusal })
            }
            Job::Probe(bundle) => {
                self.checks.device_probed(device, bundle);
                self.tell_device(device, Event::ProbePassed { bundle, row_us: 1_000 })
            }
            Job::Load(stream) => self.do_load(device, stream),
            Job::Traffic { stream, bundle, left } => self.answer(device, stream, bundle, left),
            Job::Look(bundle) => {
                self.look(device, bundle);
                Ok(())
            }
            Job::Deadline => match process.agent.deadline() {
                Some(due) if process.started + due <= now => {
                    self.tell_device(device, Event::DeadlineReached)?;
                    self.checks
                        .deadline_passed(self.devices[device].process.as_ref().and_then(|p| p.agent.deadline()), due)
                }
                Some(_) | None => Ok(()),
            },
            Job::Die { stream, bundle } => {
                if process.serving.get(&stream).is_some_and(|(main, _)| *main == bundle) {
                    self.crash_device(device);
                }
                Ok(())
            }
        }
    }

    fn connect_device(&mut self, device: usize) -> Result<(), Violation> {
        let now = self.now;
        if self.broker.down {
            self.hand_on(device, SECOND..10 * SECOND, Job::Connect);
            return Ok(());
        }
        self.links += 1;
        let link = self.links;
        let Some(process) = self.devices[device].process.as_mut().filter(|p| p.link.is_none()) else { return Ok(()) };
        process.link = Some(link);
        let fetching: Vec<Digest> = process.fetching.keys().copied().collect();
        process.flow.reconnected(self.broker.kind.retains);
        for (bundle, fetch) in &mut process.fetching {
            fetch.wait = Wait::from(now, &process.flow, *bundle);
            fetch.window.iter_mut().for_each(Window::reconnected);
        }
        self.broker.connect(Client::Device(device), link);
        self.say(device, Topic::Presence(device), Payload::Presence { online: true }, None);
        self.subscribe(device, link, Topic::Assignment(device));
        self.subscribe(device, link, Topic::Answer(device));
        for kind in [DocumentKind::Revocation, DocumentKind::Beacon] {
            self.subscribe(device, link, Topic::All(kind, 0));
        }
        for bundle in fetching {
            self.fetch_on(device, bundle);
        }
        self.tell_device(device, Event::Connected)
    }

    /// The worker loads what is next for a stream: read again, whatever was read before.
    fn do_load(&mut self, device: usize, stream: StreamName) -> Result<(), Violation> {
        let root = self.library.signer.root();
        let state = &mut self.devices[device];
        let Some(process) = state.process.as_mut() else { return Ok(()) };
        let loads = process.loads.entry(stream.clone()).or_default();
        let Some(what) = loads.pop_front() else { return Ok(()) };
        if loads.is_empty() {
            process.loads.remove(&stream);
        }
        let more = process.loads.contains_key(&stream);
        let mut check = |bundle: Digest| {
            let missing = || Refusal::new(Code::Missing, "it is not on the disk");
            state.folders.get(&bundle).ok_or_else(missing)?.examine(root, &mut self.believed, bundle)
        };
        let event = match what {
            None => {
                process.serving.remove(&stream);
                None
            }
            Some((bundle, fallback)) => {
                let fallback = fallback.filter(|f| check(*f).is_ok());
                let loaded = match self.scenario.fails(device, bundle, Flaw::Unloadable) {
                    true => Err(Refusal::new(Code::Model, "the engine cannot load it")),
                    false => check(bundle),
                };
                Some(match loaded {
                    Ok(_) => {
                        process.serving.insert(stream.clone(), (bundle, fallback));
                        Event::Served { stream: stream.clone(), bundle, sandbox: Sandbox::default() }
                    }
                    Err(refusal) => Event::ServeFailed { stream: stream.clone(), bundle, refusal },
                })
            }
        };
        if more {
            self.hand_on(device, 20..SECOND, Job::Load(stream.clone()));
        }
        if let Some(Event::Served { bundle, .. }) = event {
            if self.scenario.fails(device, bundle, Flaw::Crashes) {
                self.hand_on(device, 100..SECOND, Job::Die { stream: stream.clone(), bundle });
            } else if self.scenario.busy.contains(&device) {
                self.hand_on(device, SECOND..8 * SECOND, Job::Traffic { stream, bundle, left: self.scenario.pieces });
            }
        }
        event.map_or(Ok(()), |event| self.tell_device(device, event))
    }
}
