//! A device on a disk in memory: the real store, the real keeper, the real key and the real core.
//!
//! Decides what the driver would: the ledger is saved before any effect, and after a failure the core
//! begins again from the disk. Golden vectors are left out, since what runs here is no model; that a
//! bundle is checked before it serves is not.

use super::disk::Sim;
use super::land::{Flow, Land};
use crate::fetch::Action;
use crate::identity::{FileKey, Key};
use crate::keeper::{Arrival, Desk, Errand, Word};
use crate::store::{self, Bundles, Door, Store, ledger};
use crate::testing::{self, FLEET, root_bytes};
use agent_core::{Agent, Effect, Event, Ledger, Limits, Memory, Now, Phase, Step};
use protocol::{DocumentKind, Profile, Sandbox, StreamName, Verdict};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use trust::{Code, Digest, Refusal, Trust};

/// Where the device keeps everything.
pub(super) const STATE: &str = "/var/lib/petrel";
const SEED: &str = "000102030405060708090a0b0c0d0e0f";
/// More events than any flow has.
const MAX_EVENTS: usize = 2_000;
/// After so many setbacks the disk is healed: what is asked is that the device goes on then.
const MAX_SETBACKS: usize = 3;
/// A land that says the same so often is not heard.
const MAX_REPEATS: usize = 20;

/// What happened before a power cut, with the moment of each in the disk's journal.
#[derive(Debug, Clone, Default)]
pub(super) struct Past {
    /// The device's key id, once it was known.
    pub(super) key: Option<(usize, String)>,
    /// Ledgers: when saving began, when it was done.
    pub(super) ledgers: Vec<(usize, Option<usize>, Ledger)>,
    /// Verdicts that land has.
    pub(super) verdicts: Vec<(usize, Verdict)>,
    /// Wishes that land has said.
    pub(super) said: Vec<(usize, usize)>,
}

impl Past {
    /// What had happened when the disk was as at `moment` of its journal; it is the past of another one.
    pub(super) fn until(&self, moment: usize) -> Past {
        let by = |at: &usize| *at <= moment;
        let ledger = |(begun, done, ledger): &(usize, Option<usize>, Ledger)| {
            by(begun).then(|| (0, done.filter(by).map(|_| 0), ledger.clone()))
        };
        Past {
            key: self.key.clone().filter(|(at, _)| by(at)).map(|(_, id)| (0, id)),
            ledgers: self.ledgers.iter().filter_map(ledger).collect(),
            verdicts: self.verdicts.iter().filter(|(at, _)| by(at)).map(|(_, v)| (0, v.clone())).collect(),
            said: self.said.iter().filter(|(at, _)| by(at)).map(|(_, n)| (0, *n)).collect(),
        }
    }

    /// The newest slot is damaged: the one before it may be found as well.
    pub(super) fn forget_one(&mut self) {
        if let Some((_, done, _)) = self.ledgers.iter_mut().rfind(|(_, done, _)| done.is_some()) {
            *done = None;
        }
    }

    /// The ledgers that may be found: the last one that was saved, and those whose saving began later.
    pub(super) fn possible(&self) -> (bool, impl Iterator<Item = &Ledger>) {
        let last = self.ledgers.iter().rposition(|(_, done, _)| done.is_some());
        (last.is_none(), self.ledgers[last.unwrap_or(0)..].iter().map(|(.., ledger)| ledger))
    }
}

struct Mind {
    core: Agent,
    store: Store,
}

struct Hands {
    desk: Desk,
    bundles: Bundles,
    words: UnboundedReceiver<Word>,
}

/// A device, and what it and land remember of each other.
pub(super) struct Device {
    flow: &'static Flow,
    pub(super) disk: Sim,
    hands: Option<Hands>,
    mind: Option<Mind>,
    events: VecDeque<Event>,
    now: Now,
    setbacks: usize,
    repeats: usize,
    pub(super) served: Option<Digest>,
    /// Of its latest hello.
    nonce: String,
    /// Something that is stored is damaged: a document may be lost, and comes again.
    pub(super) damaged: bool,
    pub(super) past: Past,
}

/// A rule that was broken, or that the device does not come to rest.
pub(super) type Broken = String;

impl Device {
    pub(super) fn new(flow: &'static Flow, disk: Sim, past: Past) -> Self {
        let (events, now) = (VecDeque::new(), Now::default());
        Self {
            flow,
            disk,
            hands: None,
            mind: None,
            events,
            now,
            setbacks: 0,
            repeats: 0,
            served: None,
            nonce: String::new(),
            damaged: false,
            past,
        }
    }

    /// Starts, takes every wish from the one on that land said last, and comes to rest after each.
    pub(super) fn live(&mut self, wishes: usize) -> Result<(), Broken> {
        self.wake()?;
        let said = self.past.said.last().map_or(0, |(_, n)| n + 1);
        self.step(Event::Connected)?;
        self.rest(said)?;
        for n in said..wishes {
            self.say(n)?;
            self.rest(n + 1)?;
        }
        Ok(())
    }

    pub(super) fn ledger(&self) -> Option<&Ledger> {
        self.mind.as_ref().map(|mind| mind.core.ledger())
    }

    /// What the streams are on their way to.
    pub(super) fn phases(&self) -> Vec<Phase> {
        self.mind.iter().flat_map(|mind| mind.core.phases().values().cloned()).collect()
    }

    /// The bridge answers this boot's nonce.
    pub(super) fn hear_beacon(&mut self) -> Result<(), Broken> {
        let bytes = testing::beacon_bytes(&self.nonce);
        self.step(Event::DocumentArrived { kind: DocumentKind::Beacon, bytes })?;
        self.rest(0)
    }

    fn say(&mut self, n: usize) -> Result<(), Broken> {
        if self.past.said.last().is_none_or(|(_, said)| *said < n) {
            self.past.said.push((self.disk.moment(), n));
        }
        let (kind, bytes) = self.flow.document(Land::get(), n);
        self.step(Event::DocumentArrived { kind, bytes })
    }

    /// Lets everything happen until nothing more does; `said` wishes must have been taken then.
    fn rest(&mut self, said: usize) -> Result<(), Broken> {
        for _ in 0..MAX_EVENTS {
            if let Some(event) = self.events.pop_front() {
                self.step(event)?;
                continue;
            }
            let Some(mind) = &self.mind else {
                self.restore()?;
                self.step(Event::Connected)?;
                continue;
            };
            let core = &mind.core;
            let idle = |phase: &Phase| matches!(phase, Phase::Settled | Phase::Held { .. });
            let busy = !core.phases().values().all(idle) || !core.ledger().outbox.is_empty();
            if let Some(n) = (0..said).find(|n| !self.flow.is_taken(core.trust(), *n)) {
                self.repeats += 1;
                if self.repeats > MAX_REPEATS {
                    return Err(format!("it does not take wish {n}: {:?}", core.refusals().collect::<Vec<_>>()));
                }
                self.say(n)?;
            } else if !busy {
                return Ok(());
            } else if let Some(due) = core.deadline() {
                self.now.mono = self.now.mono.max(due);
                self.setback("it waits");
                self.step(Event::DeadlineReached)?;
            } else {
                return Err(format!("it is at rest on its way: {:?}", core.phases()));
            }
        }
        Err("it does not come to rest".into())
    }

    fn setback(&mut self, why: &str) {
        self.setbacks += 1;
        if self.setbacks >= MAX_SETBACKS {
            tracing::debug!("healed: {why}");
            self.disk.heal();
        }
    }

    /// As at the start of the program, again and again while something keeps it from starting.
    fn wake(&mut self) -> Result<(), Broken> {
        let mut last = String::new();
        for _ in 0..=MAX_SETBACKS {
            match self.start() {
                Ok(()) => return self.restore(),
                Err(why) => {
                    self.setback(&why);
                    last = why;
                }
            }
        }
        Err(format!("it does not start on a disk that is healed: {last}"))
    }

    fn start(&mut self) -> Result<(), String> {
        let state = Path::new(STATE);
        ledger::prepare(&self.disk, state).map_err(|error| error.to_string())?;
        let signer =
            FileKey::open_or_make(&self.disk, &state.join("device.key")).map_err(|fault| crate::fault::told(&fault))?;
        let id = signer.public().id().to_string();
        match &self.past.key {
            Some((_, known)) if *known != id => return Err("its key is another one".into()),
            Some(_) => {}
            None => self.past.key = Some((self.disk.moment(), id)),
        }
        let bundles = Bundles::open(self.door(), state).map_err(|error| error.to_string())?;
        let (say, words) = unbounded_channel();
        let desk = Desk::new(
            Arc::new(testing::trust()),
            bundles.clone(),
            agent_core::Flow::new(8, None, "swept"),
            say,
            Arc::default(),
        );
        self.hands = Some(Hands { desk, bundles, words });
        Ok(())
    }

    /// The core begins from the disk.
    fn restore(&mut self) -> Result<(), Broken> {
        let (device, root) = (testing::device(), root_bytes());
        for _ in 0..=MAX_SETBACKS {
            let (mut store, ledger) = match Store::open(self.door(), Path::new(STATE)) {
                Ok(opened) => opened,
                Err(error) => {
                    self.setback(&error.to_string());
                    continue;
                }
            };
            self.is_possible(&ledger)?;
            let trust = store.recall(&device, FLEET, &root, &ledger).map_err(|refusal| refusal.to_string())?;
            self.is_believed(&trust, &ledger)?;
            let (fleet, name) = (FLEET.parse().expect("a name"), device.id.parse().expect("a name"));
            let (core, step) = Agent::restore(fleet, name, profile(), LIMITS, SEED.into(), trust, ledger);
            match self.commit(step, &mut store) {
                Ok((effects, _)) => {
                    let believed = Errand::Believe(Arc::new(core.trust().clone()));
                    self.mind = Some(Mind { core, store });
                    self.run(believed)?;
                    effects.into_iter().try_for_each(|effect| self.carry_out(effect))?;
                    let Some(hands) = &mut self.hands else { continue };
                    hands.desk.run(Errand::Connected { retains: true });
                    return self.listen();
                }
                Err(error) => self.setback(&error.to_string()),
            }
        }
        Err("it does not begin on a disk that is healed".into())
    }

    fn door(&self) -> Door {
        Arc::new(self.disk.clone())
    }

    /// The ledger that was found must be the last one that was saved, or one that was being saved.
    fn is_possible(&self, found: &Ledger) -> Result<(), Broken> {
        let (new, mut possible) = self.past.possible();
        if new && *found == Ledger::default() || possible.any(|ledger| ledger == found) {
            return Ok(());
        }
        Err(format!("the ledger that was found is another one: {found:?}"))
    }

    /// The documents that the ledger names were on the disk before it.
    fn is_believed(&self, trust: &Trust, ledger: &Ledger) -> Result<(), Broken> {
        let root = ledger.trust.as_ref().map_or(1, |counters| counters.root_version());
        if !self.damaged && (trust.root().version.get() != root || trust.revocation_is_lost()) {
            return Err("a document that was believed is lost".into());
        }
        Ok(())
    }

    /// Saves what a step says; gives its effects, and whether a document was learned.
    fn commit(&mut self, step: Step, store: &mut Store) -> std::io::Result<(Vec<Effect>, bool)> {
        let mut learned = false;
        let effects = step.commit(|memory: &Memory| {
            learned = !memory.documents.is_empty();
            self.past.ledgers.push((self.disk.moment(), None, memory.ledger.clone()));
            store.save(memory)?;
            if let Some((_, done, _)) = self.past.ledgers.last_mut() {
                *done = Some(self.disk.moment());
            }
            Ok::<(), std::io::Error>(())
        })?;
        Ok((effects, learned))
    }

    fn step(&mut self, event: Event) -> Result<(), Broken> {
        let Some(mut mind) = self.mind.take() else { return Ok(()) };
        let step = mind.core.step(self.now, event);
        match self.commit(step, &mut mind.store) {
            Ok((effects, learned)) => {
                let believed = Errand::Believe(Arc::new(mind.core.trust().clone()));
                self.mind = Some(mind);
                if learned {
                    self.run(believed)?;
                }
                effects.into_iter().try_for_each(|effect| self.carry_out(effect))
            }
            Err(error) => {
                self.setback(&error.to_string());
                self.events.clear();
                self.run(Errand::Disconnected)?;
                self.run(Errand::StopAll)?;
                self.events.clear();
                Ok(())
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) -> Result<(), Broken> {
        match effect {
            Effect::Fetch { bundle, total_size } => self.run(Errand::Fetch { bundle, total_size, asks: true }),
            Effect::Admit { bundle } => self.run(Errand::Admit(bundle)),
            Effect::StopFetching { bundle } => self.run(Errand::StopFetching(bundle)),
            Effect::Examine { bundle } => self.run(Errand::Examine(bundle)),
            Effect::Discard { bundle } => self.run(Errand::SetAside(bundle)),
            Effect::Keep { bundles } => self.run(Errand::Keep(bundles)),
            Effect::Probe { bundle } => {
                self.events.push_back(match self.load(bundle)? {
                    Ok(()) => Event::ProbePassed { bundle, row_us: 1_000 },
                    Err(store::Fault::Refused(refusal)) => Event::ProbeFailed { bundle, refusal },
                    Err(store::Fault::Io { .. }) => Event::Stumbled { bundle },
                });
                Ok(())
            }
            Effect::Serve { stream, bundle, .. } => self.serve(stream, bundle),
            Effect::StopServing { .. } => {
                self.served = None;
                Ok(())
            }
            Effect::DeliverVerdict(verdict) => self.hear(verdict),
            // Land says again what was not taken.
            Effect::SayHello { nonce, .. } => {
                self.nonce = nonce;
                Ok(())
            }
            Effect::AwaitRoot { .. } | Effect::PublishReport(_) => Ok(()),
            // Nobody gives commands here, or asks for a shadow.
            Effect::Shadow { .. }
            | Effect::Judge { .. }
            | Effect::Give { .. }
            | Effect::Restart { .. }
            | Effect::SetLog(_)
            | Effect::Measure
            | Effect::Diagnose(_)
            | Effect::DeliverResult(_) => Ok(()),
        }
    }

    /// What the loader does, but for the engine.
    fn load(&self, bundle: Digest) -> Result<Result<(), store::Fault>, Broken> {
        let Some(hands) = &self.hands else { return Err("nobody has hands".into()) };
        let dir = hands.bundles.complete(bundle);
        let checked = store::known(&self.disk, &dir, bundle);
        if checked.is_ok() {
            self.whole(bundle).map_err(|why| format!("a bundle was believed that is not whole: {why}"))?;
        }
        Ok(checked.map(drop))
    }

    /// See [`whole`]. A signature that rots is noticed when the bundle is to be installed again; what is
    /// signed is looked at whenever it is loaded.
    pub(super) fn whole(&self, bundle: Digest) -> Result<(), String> {
        whole(&self.disk, bundle).or_else(|why| match self.damaged && why.starts_with(store::ENVELOPE) {
            true => Ok(()),
            false => Err(why),
        })
    }

    fn serve(&mut self, stream: StreamName, bundle: Digest) -> Result<(), Broken> {
        match self.load(bundle)? {
            Ok(()) => {
                self.served = Some(bundle);
                self.events.push_back(Event::Served { stream: stream.clone(), bundle, sandbox: Sandbox::default() });
                self.events.push_back(Event::Observed {
                    stream,
                    bundle,
                    answers: 1,
                    errors: 0,
                    took_us: 100,
                    resident: 0,
                });
            }
            Err(fault) => {
                let refusal = match fault {
                    store::Fault::Refused(refusal) => refusal,
                    unreadable @ store::Fault::Io { .. } => Refusal::new(Code::Missing, unreadable.to_string()),
                };
                self.events.push_back(Event::ServeFailed { stream, bundle, refusal });
            }
        }
        Ok(())
    }

    /// Land has a verdict, and believes it: the device must not say anything else under its number.
    fn hear(&mut self, verdict: Verdict) -> Result<(), Broken> {
        let seq = verdict.seq;
        if let Some((_, known)) = self.past.verdicts.iter().find(|(_, v)| v.seq == seq && *v != verdict) {
            return Err(format!("verdict {seq} was {known:?} and is {verdict:?}"));
        }
        self.past.verdicts.push((self.disk.moment(), verdict));
        self.events.push_back(Event::VerdictDelivered { seq });
        Ok(())
    }

    fn run(&mut self, errand: Errand) -> Result<(), Broken> {
        let Some(hands) = &mut self.hands else { return Err("nobody has hands".into()) };
        hands.desk.run(errand);
        self.listen()
    }

    /// What the keeper says is done: the broker has every chunk.
    fn listen(&mut self) -> Result<(), Broken> {
        let land = Land::get();
        let Some(hands) = &mut self.hands else { return Ok(()) };
        loop {
            hands.desk.tell();
            let Ok(word) = hands.words.try_recv() else { return Ok(()) };
            match word {
                Word::Event(event) => self.events.push_back(event),
                Word::Action(Action::AskDocuments(bundle)) => {
                    let parcel = land.parcel(bundle);
                    let envelope = Arrival::Envelope(bundle, parcel.fixture.envelope.clone());
                    hands.desk.run(Errand::Arrived(envelope));
                    hands.desk.run(Errand::Arrived(Arrival::Offer(bundle, parcel.offer.clone())));
                }
                Word::Action(Action::AskChunks(chunks)) => {
                    for chunk in chunks {
                        let bytes = land.parcels.iter().find_map(|parcel| parcel.chunks.get(&chunk));
                        let bytes = bytes.ok_or("a chunk was asked for that nobody has")?.clone();
                        hands.desk.run(Errand::Arrived(Arrival::Chunk { chunk, bytes, retained: true }));
                    }
                }
                Word::Action(_) => {}
            }
        }
    }
}

/// Whether a bundle in its place is what land made, byte for byte; asked of the disk and of no store.
pub(super) fn whole(disk: &Sim, bundle: Digest) -> Result<(), String> {
    let (files, place) = (disk.world().files(), format!("{STATE}/bundles/{bundle}/"));
    let expected = &Land::get().parcel(bundle).files;
    // The envelope last: a difference in it is told only when there is no other.
    let (envelope, content): (Vec<_>, Vec<_>) = expected.iter().partition(|(name, _)| *name == store::ENVELOPE);
    for (name, content) in content.into_iter().chain(envelope) {
        let found = files.get(&format!("{place}{name}")).ok_or_else(|| format!("{name} is not there"))?;
        if **found != *content {
            return Err(format!("{name} is not what was signed"));
        }
    }
    let count = files.keys().filter(|path| path.starts_with(&place)).count();
    if count == expected.len() { Ok(()) } else { Err(format!("{count} files instead of {}", expected.len())) }
}

/// All of the board's memory, and a link that costs nothing.
const LIMITS: Limits = Limits { models_mb: 64, metered: None };

fn profile() -> Profile {
    Profile {
        board: "generic".into(),
        arch: "x86_64".into(),
        cores: 1,
        ram_mb: 64,
        models_mb: 64,
        metered: false,
        agent: "0.1.0".into(),
    }
}
