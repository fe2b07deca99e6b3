//! The clock of a world and what is under way in it: messages, jobs of hands, faults, people.
//!
//! Everything that will happen stands in one queue, ordered by time. It knows how long things take,
//! and nothing of what they mean.

use super::Outcome;
use super::broker::{Broker, Client, Delivery, Link, Message, Payload, Topic};
use super::check::{Checks, Violation, rule};
use super::device::{Believed, Device, Job, Process};
use super::faults::{Fault, Faults};
use super::land::Land;
use super::scenario::{Ask, Library, Millis, QUIET, SECOND, Scenario};
use bridge_core::Phase;
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use trust::Digest;

/// A world that is not at rest by then never will be.
const END: Millis = 48 * 3_600 * SECOND;
/// What land does a little later, so that it does it once for many, is done within this.
const PAUSE: Millis = 10 * SECOND;
/// Where a line of the story is cut.
const LINE: usize = 220;
/// The most steps of a world.
const MAX_STEPS: u64 = 400_000;
/// The most for each device of a large fleet.
const MAX_STEPS_EACH: u64 = 200;

/// Something that will happen.
#[derive(Debug)]
pub(super) enum Happening {
    /// A message of `from` reaches the broker.
    Published { from: Client, link: Link, message: Message },
    /// A message reaches a device.
    Delivered { device: usize, link: Link, message: Message },
    /// A message reaches the bridge; `queued` is its number in the session, if it is not a retained one.
    Heard { link: Link, queued: Option<u64>, message: Message },
    /// The broker's acknowledgement reaches the publisher.
    Taken { to: Client, link: Link, token: u64 },
    /// The bridge's acknowledgement reaches the broker.
    Done { link: Link, queued: u64 },
    /// The bridge's hands have seen what the broker retains.
    Looked { link: Link, bundles: BTreeSet<Digest> },
    /// A device's hands have finished something; `life` is the process that they belong to.
    Hand { device: usize, life: u64, job: Job },
    /// The bridge's deadline; `life` is the process that it belongs to.
    LandDeadline { life: u64 },
    /// The bridge tries to connect.
    LandConnects { life: u64 },
    /// A device gets power.
    DeviceStarts { device: usize },
    /// The bridge's machine starts it.
    LandStarts,
    /// The broker takes connections again.
    BrokerStarts,
    /// A person wants something.
    Asked(Ask),
    /// Something goes wrong.
    Fault(Fault),
}

/// A world.
pub(super) struct World {
    pub(super) now: Millis,
    pub(super) rng: Rng,
    pub(super) scenario: Scenario,
    pub(super) faults: Faults,
    pub(super) library: &'static Library,
    pub(super) broker: Broker,
    pub(super) devices: Vec<Device>,
    pub(super) land: Land,
    pub(super) checks: Checks,
    pub(super) steps: u64,
    pub(super) crashes: u64,
    pub(super) links: Link,
    /// What was signed, and what was said: for a broker that repeats it.
    pub(super) signed: Vec<(usize, Rc<[u8]>)>,
    pub(super) said: Vec<Message>,
    pub(super) believed: Believed,
    seed: u64,
    queue: BTreeMap<(Millis, u64), Happening>,
    numbered: u64,
    /// When the last message of a topic to or from a client arrives: none overtakes another.
    lanes: BTreeMap<(Client, bool, Topic), Millis>,
    trace: Option<Vec<String>>,
}

impl World {
    pub(super) fn new(seed: u64, traced: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let library = Library::shared();
        let scenario = Scenario::new(&mut rng, library);
        let faults = Faults::new(&mut rng);
        let plan = Faults::plan(&mut rng);
        Self::of(seed, rng, library, scenario, (faults, plan), traced)
    }

    /// One release for `devices` devices over links that break.
    pub(super) fn of_one_rollout(seed: u64, devices: usize, chunks: usize) -> Self {
        let mut rng = Rng::with_seed(seed);
        let library = Library::of_one_bundle(devices, chunks);
        let scenario = Scenario::of_one_rollout(devices, library);
        let plan = Faults::links(&mut rng, devices);
        Self::of(seed, rng, library, scenario, (Faults::of_links(), plan), false)
    }

    /// A release that is judged by what `devices` devices tell, over links that break.
    pub(super) fn of_judgement(seed: u64, devices: usize, bad: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let library = Library::of_two_releases(devices);
        let scenario = Scenario::of_judgement(devices, library, bad);
        let plan = Faults::links(&mut rng, devices);
        Self::of(seed, rng, library, scenario, (Faults::of_links(), plan), false)
    }

    fn of(
        seed: u64,
        rng: Rng,
        library: &'static Library,
        scenario: Scenario,
        (faults, plan): (Faults, Vec<(Millis, Fault)>),
        traced: bool,
    ) -> Self {
        let devices = scenario.names.len();
        let mut world = Self {
            now: 0,
            devices: scenario.names.iter().map(Device::new).collect(),
            checks: Checks::new(&scenario.names),
            rng,
            broker: Broker::new(scenario.broker),
            scenario,
            faults,
            library,
            land: Land::default(),
            steps: 0,
            crashes: 0,
            links: 0,
            signed: Vec::new(),
            said: Vec::new(),
            believed: Believed::default(),
            seed,
            queue: BTreeMap::new(),
            numbered: 0,
            lanes: BTreeMap::new(),
            trace: traced.then(Vec::new),
        };
        world.at(0, Happening::LandStarts);
        for device in 0..devices {
            world.after(0..20 * SECOND, Happening::Asked(Ask::Enrol(device)));
        }
        for (at, ask) in std::mem::take(&mut world.scenario.asks) {
            world.at(at, Happening::Asked(ask));
        }
        for (at, fault) in plan {
            world.at(at, Happening::Fault(fault));
        }
        world
    }

    /// Goes on until nothing is under way any more.
    pub(super) fn live(mut self) -> (Outcome, Vec<String>) {
        let outcome = self.live_on();
        (outcome, self.trace.unwrap_or_default())
    }

    /// The same; the world can be looked at afterwards.
    pub(super) fn live_on(&mut self) -> Outcome {
        let mut violation = None;
        while let Some(((at, _), happening)) = self.queue.pop_first() {
            if at > self.now + PAUSE && self.rests(&happening) {
                break;
            }
            self.now = at;
            self.note(|| format!("{happening:?}"));
            let happened = self.happen(happening).and_then(|()| self.in_time());
            if let Err(broken) = happened {
                violation = Some(broken);
                break;
            }
        }
        if violation.is_none() {
            violation = Checks::at_rest(self).err();
        }
        let rollouts = self.checks.rollouts();
        let completed = rollouts.values().filter(|r| r.phase == Phase::Completed).count();
        Outcome {
            seed: self.seed,
            steps: self.steps,
            crashes: self.crashes,
            rollouts: (completed, rollouts.len() - completed),
            elapsed_ms: self.now,
            violation,
        }
    }

    /// Whether all that is left is the beat of beacons and hellos, which never ends; and land has answered everyone.
    fn rests(&self, next: &Happening) -> bool {
        let beats =
            |h: &Happening| matches!(h, Happening::LandDeadline { .. } | Happening::Hand { job: Job::Deadline, .. });
        let settled = |p: &agent_core::Phase| p.target().is_none();
        let calm = |p: &Process| p.answered && p.agent.phases().values().all(settled);
        let idle = |d: &Device| d.process.as_ref().is_some_and(calm);
        let ended = || self.bridge().is_some_and(|b| b.rollouts().values().all(|r| r.wave().is_none()));
        self.now > QUIET
            && beats(next)
            && self.queue.values().all(beats)
            && self.all_connected()
            && ended()
            && self.devices.iter().all(idle)
    }

    fn in_time(&self) -> Result<(), Violation> {
        let busy = || format!("after {} steps, at {} s, things still happen", self.steps, self.now / SECOND);
        let each = if self.scenario.measured { 10 * MAX_STEPS_EACH } else { MAX_STEPS_EACH };
        let most = MAX_STEPS.max(self.devices.len() as u64 * each);
        rule(self.now < END && self.steps < most, "the world comes to rest", busy)
    }

    /// Puts something into the queue.
    pub(super) fn at(&mut self, at: Millis, happening: Happening) {
        self.numbered += 1;
        self.queue.insert((at.max(self.now), self.numbered), happening);
    }

    /// The same, some time after now.
    pub(super) fn after(&mut self, range: std::ops::Range<Millis>, happening: Happening) {
        let at = self.now + self.rng.u64(range);
        self.at(at, happening);
    }

    /// A line of the story, if somebody reads it.
    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let line: String = line().chars().take(LINE).collect();
            trace.push(format!("{:>9.3} s  {line}", self.now as f64 / 1e3));
        }
    }

    fn happen(&mut self, happening: Happening) -> Result<(), Violation> {
        match happening {
            Happening::Published { from, link, message } => return self.take(from, link, message),
            Happening::Delivered { device, link, message } => {
                if self.broker.is_linked(Client::Device(device), link) {
                    return self.device_hears(device, message);
                }
            }
            Happening::Heard { link, queued, message } => {
                if self.broker.is_linked(Client::Land, link) {
                    return self.land_hears(link, queued, message);
                }
            }
            Happening::Taken { to, link, token } => {
                if self.broker.is_linked(to, link) {
                    return match to {
                        Client::Device(device) => self.device_delivered(device, token),
                        Client::Land => {
                            self.land_delivered(token);
                            Ok(())
                        }
                    };
                }
            }
            Happening::Done { link, queued } => {
                if self.broker.is_linked(Client::Land, link) {
                    self.broker.acknowledge(queued);
                }
            }
            Happening::Looked { link, bundles } => {
                if self.broker.is_linked(Client::Land, link) {
                    return self.land_looked(bundles);
                }
            }
            Happening::Hand { device, life, job } => return self.device_works(device, life, job),
            Happening::LandDeadline { life } => return self.land_deadline(life),
            Happening::LandConnects { life } => return self.land_connects(life),
            Happening::DeviceStarts { device } => return self.start_device(device),
            Happening::LandStarts => self.start_land(),
            Happening::BrokerStarts => self.broker.down = false,
            Happening::Asked(ask) => return self.ask(ask),
            Happening::Fault(fault) => return self.befall(fault),
        }
        Ok(())
    }

    /// When the next message on a lane arrives.
    fn arrival(&mut self, client: Client, up: bool, topic: Topic) -> Millis {
        let at = self.now + self.faults.delay(&mut self.rng, self.now);
        let last = self.lanes.entry((client, up, topic)).or_default();
        *last = at.max(*last);
        *last
    }

    /// `from` gives a message to its connection.
    pub(super) fn publish(&mut self, from: Client, link: Link, message: Message) {
        let at = self.arrival(from, true, message.topic);
        if self.faults.doubles(&mut self.rng, self.now) {
            self.at(at, Happening::Published { from, link, message: message.clone() });
        }
        self.at(at, Happening::Published { from, link, message });
    }

    /// A message reached the broker: it acknowledges, retains and passes on.
    fn take(&mut self, from: Client, link: Link, mut message: Message) -> Result<(), Violation> {
        if !self.broker.is_linked(from, link) {
            return Ok(());
        }
        self.checks.broker_takes(self.broker.kind, &message)?;
        if let Some(token) = message.token.take() {
            let at = self.arrival(from, false, message.topic);
            self.at(at, Happening::Taken { to: from, link, token });
        }
        if message.topic.is_up() && self.said.len() < 4_000 {
            self.said.push(message.clone());
        }
        self.route(message);
        Ok(())
    }

    /// The broker retains a message and passes it on.
    pub(super) fn route(&mut self, message: Message) {
        let deliveries = self.broker.publish(message);
        self.hand_out(deliveries);
    }

    /// What the broker gives to clients is under way.
    pub(super) fn hand_out(&mut self, deliveries: impl IntoIterator<Item = Delivery>) {
        for Delivery { to, link, queued, message } in deliveries {
            match to {
                Client::Land => self.pass_to_land(link, queued, message),
                Client::Device(device) => self.pass_to_device(device, link, message),
            }
        }
    }

    /// The broker sends a message to the bridge.
    pub(super) fn pass_to_land(&mut self, link: Link, queued: Option<u64>, message: Message) {
        let at = self.arrival(Client::Land, false, message.topic);
        if self.faults.doubles(&mut self.rng, self.now) {
            self.at(at, Happening::Heard { link, queued, message: message.clone() });
        }
        self.at(at, Happening::Heard { link, queued, message });
    }

    /// The broker sends a message to a device; what is damaged on the way is no chunk any more.
    pub(super) fn pass_to_device(&mut self, device: usize, link: Link, mut message: Message) {
        let at = self.arrival(Client::Device(device), false, message.topic);
        if self.faults.doubles(&mut self.rng, self.now) {
            self.at(at, Happening::Delivered { device, link, message: message.clone() });
        }
        if let (Topic::Chunk(_), Payload::Bytes(bytes)) = (message.topic, &message.payload)
            && self.faults.damages(&mut self.rng, self.now)
        {
            message.payload = Payload::Bytes(flipped(bytes, &mut self.rng));
        }
        self.at(at, Happening::Delivered { device, link, message });
    }

    /// A device hears `topic` from now on, and what is retained there at once; `false` when the broker does not take it.
    pub(super) fn subscribe(&mut self, device: usize, link: Link, topic: Topic) -> bool {
        if !self.broker.is_linked(Client::Device(device), link) {
            return true;
        }
        let retained = self.broker.subscribe(device, topic);
        let taken = retained.is_some();
        self.hand_out(retained.unwrap_or_default());
        taken
    }

    /// The broker sees that a connection is gone; a device's will is said.
    pub(super) fn break_link(&mut self, client: Client) {
        let will = self.broker.lose(client);
        self.hand_out(will);
    }

    fn befall(&mut self, fault: Fault) -> Result<(), Violation> {
        match fault {
            Fault::DropDevice { device, pause } => return self.lose_device(device, pause),
            Fault::DropLand => self.lose_land(),
            Fault::CrashDevice { device, rot } => {
                if rot {
                    self.rot(device);
                }
                self.crash_device(device);
            }
            Fault::CrashLand => self.crash_land(),
            Fault::RestartBroker { retained, sessions } => return self.restart_broker(retained, sessions),
            Fault::Mislead { device, other, flip, retain } => self.mislead(device, other, flip, retain),
            Fault::Repeat => {
                let Some(link) = self.broker.links.get(&Client::Land).copied() else { return Ok(()) };
                if let Some(message) = self.rng.choice(self.said.iter()).cloned() {
                    self.pass_to_land(link, None, message);
                }
            }
            Fault::Poison => {
                let chunks = self.broker.retained.iter_mut().filter(|(t, _)| matches!(t, Topic::Chunk(_)));
                if let Some((_, Payload::Bytes(bytes))) = self.rng.choice(chunks.collect::<Vec<_>>()) {
                    *bytes = flipped(bytes, &mut self.rng);
                }
            }
        }
        Ok(())
    }

    fn restart_broker(&mut self, retained: bool, sessions: bool) -> Result<(), Violation> {
        for device in 0..self.devices.len() {
            self.lose_device(device, SECOND)?;
        }
        self.lose_land();
        if retained {
            self.broker.retained.clear();
        }
        if sessions {
            self.broker.session = None;
        }
        self.broker.down = true;
        self.after(SECOND..20 * SECOND, Happening::BrokerStarts);
        Ok(())
    }

    fn mislead(&mut self, device: usize, other: bool, flip: bool, retain: bool) {
        let of = |(d, _): &&(usize, Rc<[u8]>)| (*d == device) != other;
        let old = self.rng.choice(self.signed.iter().filter(of).collect::<Vec<_>>()).map(|(_, bytes)| bytes.clone());
        let Some(mut bytes) = old else { return };
        if flip {
            bytes = flipped(&bytes, &mut self.rng);
        }
        let topic = Topic::Assignment(device);
        let retain = retain && self.broker.kind.retains;
        self.route(Message { topic, payload: Payload::Bytes(bytes), retain, token: None });
    }
}

/// The same bytes but for one bit.
pub(super) fn flipped(bytes: &[u8], rng: &mut Rng) -> Rc<[u8]> {
    let mut bytes = bytes.to_vec();
    let place = rng.usize(..bytes.len());
    bytes[place] ^= 1 << rng.u8(..8);
    bytes.into()
}
