//! The device as a whole: its ledger, what it believes, a phase for each stream, and one `step`.

use crate::belief::Deferred;
use crate::command::Commands;
use crate::pace::Pace;
use crate::step::Millis;
use crate::{Document, Effect, Event, Ledger, Limits, Memory, Now, Phase, Step};
use protocol::{
    ClockState, DeviceId, DocumentKind, FleetId, Profile, RefusalReport, Sandbox, ShadowReport, StreamName,
};
use std::collections::{BTreeMap, BTreeSet};
use trust::{Code, Digest, Refusal, Trust};

/// Fewer answers say nothing of how long one takes.
const LEAST_COMPARED: u64 = 10;
/// After so many answers those of before count half.
const MOST_USUAL: u64 = 10_000;

/// How long answers took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Took {
    pub(crate) answers: u64,
    pub(crate) took_us: u64,
}

impl Took {
    pub(crate) fn add(&mut self, answers: u64, took_us: u64) {
        if self.answers > MOST_USUAL {
            (self.answers, self.took_us) = (self.answers / 2, self.took_us / 2);
        }
        self.answers = self.answers.saturating_add(answers);
        self.took_us = self.took_us.saturating_add(took_us);
    }

    /// Microseconds of one, on average; nothing when there are too few to say.
    pub(crate) fn mean_us(self) -> Option<u64> {
        (self.answers >= LEAST_COMPARED).then(|| self.took_us / self.answers)
    }
}

/// The decisions of one device.
#[derive(Debug)]
pub struct Agent {
    pub(crate) fleet: FleetId,
    pub(crate) device: DeviceId,
    pub(crate) profile: Profile,
    pub(crate) limits: Limits,
    /// Drawn for this boot; the nonce of each hello follows from it.
    seed: String,
    /// The nonce of the latest hello.
    pub(crate) nonce: String,
    pub(crate) trust: Trust,
    pub(crate) ledger: Ledger,
    pub(crate) phases: BTreeMap<StreamName, Phase>,
    pub(crate) refusals: BTreeMap<Code, RefusalReport>,
    /// How the process of what answers is shut in.
    pub(crate) sandboxes: BTreeMap<StreamName, Sandbox>,
    /// When the processes of confirmed releases fell lately.
    pub(crate) falls: BTreeMap<Digest, Vec<Millis>>,
    /// What answers of confirmed releases take here, since the start.
    pub(crate) usual: BTreeMap<Digest, Took>,
    /// What the latest shadow of each stream showed, until the verdict on its bundle is given.
    pub(crate) compared: BTreeMap<StreamName, (Digest, ShadowReport)>,
    pub(crate) connected: bool,
    /// While connected: when hello is due again, and the pause after that.
    pub(crate) hello: Option<(Millis, Millis)>,
    pub(crate) assignments: Pace,
    pub(crate) beacons: Pace,
    pub(crate) commanded: Pace,
    pub(crate) commands: Commands,
    pub(crate) deferred: Option<Deferred>,
    /// The very bytes of each kind that were taken last, by their digest.
    pub(crate) taken: BTreeMap<DocumentKind, Digest>,
    /// An assignment was refused since the last one that was taken.
    pub(crate) missed: bool,
    pub(crate) said: u64,
    /// How well the time was known after the last step.
    clock: ClockState,
    /// What the hands were told to keep; not told yet, since what a power cut left over must go.
    kept: Option<BTreeSet<Digest>>,
    // What the step under way knows and has gathered.
    pub(crate) now: Now,
    pub(crate) changed: bool,
    pub(crate) report_due: bool,
    pub(crate) documents: Vec<Document>,
    pub(crate) effects: Vec<Effect>,
}

impl Agent {
    /// A device that wakes up with what it remembered and what it believes; `seed` was drawn for this
    /// boot and is no secret. The step saves the new boot and serves what served before.
    pub fn restore(
        fleet: FleetId,
        device: DeviceId,
        profile: Profile,
        limits: Limits,
        seed: String,
        trust: Trust,
        ledger: Ledger,
    ) -> (Self, Step) {
        // A device that never took an assignment, or forgot it, removes nothing: it may need it again.
        let kept = trust.counters().assignment().is_none().then(BTreeSet::new);
        let mut agent = Self {
            fleet,
            device,
            profile,
            limits,
            seed,
            nonce: String::new(),
            trust,
            ledger,
            phases: BTreeMap::new(),
            refusals: BTreeMap::new(),
            sandboxes: BTreeMap::new(),
            falls: BTreeMap::new(),
            usual: BTreeMap::new(),
            compared: BTreeMap::new(),
            connected: false,
            hello: None,
            assignments: Pace::new(),
            beacons: Pace::new(),
            commanded: Pace::new(),
            commands: Commands::default(),
            deferred: None,
            taken: BTreeMap::new(),
            missed: false,
            said: 0,
            clock: ClockState::Unset,
            kept,
            now: Now::default(),
            changed: true,
            report_due: false,
            documents: Vec::new(),
            effects: Vec::new(),
        };
        agent.ledger.boot += 1;
        agent.ledger.trust = Some(agent.trust.counters().clone());
        let streams: Vec<StreamName> = agent.ledger.streams.keys().cloned().collect();
        for stream in &streams {
            agent.take_course(stream);
            agent.wake(stream);
        }
        let step = agent.finish();
        (agent, step)
    }

    /// A nonce that no hello had before: an answer that a broker kept back for an earlier one proves nothing.
    pub(crate) fn renew_nonce(&mut self) {
        self.nonce = Digest::of(format!("{} {}", self.seed, self.said).as_bytes()).to_string();
        self.nonce.truncate(32);
        self.trust.expect_nonce(self.nonce.clone(), self.now.mono);
    }

    /// What the device remembers.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What the device believes.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The phase of each stream that is on its way somewhere.
    pub fn phases(&self) -> &BTreeMap<StreamName, Phase> {
        &self.phases
    }

    /// The refusals since the start, by code.
    pub fn refusals(&self) -> impl Iterator<Item = &RefusalReport> {
        self.refusals.values()
    }

    /// When [`Event::DeadlineReached`] is due, on the scale of [`Now::mono`].
    pub fn deadline(&self) -> Option<Millis> {
        let phases = self.phases.values().filter_map(Phase::deadline);
        let words = self.hello.map(|(due, _)| due).into_iter().chain(self.deferred.as_ref().map(|d| d.until));
        let words = words.chain(self.commands.log_until);
        phases.chain(words).chain(self.trust.clock_turns(self.now.mono)).min()
    }

    /// Takes one event and decides.
    pub fn step(&mut self, now: Now, event: Event) -> Step {
        self.now = now;
        match event {
            Event::Connected => self.connect(),
            Event::Disconnected => {
                self.connected = false;
                self.hello = None;
            }
            Event::DocumentArrived { kind, bytes } => self.believe(kind, bytes),
            Event::DocumentRefused(refusal) => self.note(refusal),
            Event::VerdictDelivered { seq } => {
                let before = self.ledger.outbox.len();
                self.ledger.outbox.retain(|v| v.seq != seq);
                self.changed |= self.ledger.outbox.len() != before;
            }
            Event::Restarted { ref stream, outcome } => self.end_restart(stream, outcome),
            Event::DeadlineReached => self.reach_deadlines(),
            Event::ServeFailed { ref stream, bundle, ref refusal } if self.is_active_alone(stream, bundle) => {
                self.fail_to_serve(stream.clone(), bundle, refusal.clone());
            }
            Event::ProcessFell { ref stream, bundle, ref why } if self.is_active(stream, bundle) => {
                self.count_fall(stream, bundle, 1, Refusal::new(Code::Model, why.clone()));
            }
            Event::BundleDescribed { bundle, .. }
            | Event::BundleStored { bundle }
            | Event::BundleExamined { bundle, .. }
            | Event::BundleRefused { bundle, .. }
            | Event::ProbePassed { bundle, .. }
            | Event::ProbeFailed { bundle, .. }
            | Event::Served { bundle, .. }
            | Event::ServeFailed { bundle, .. }
            | Event::Observed { bundle, .. }
            | Event::Compared { bundle, .. }
            | Event::ProcessFell { bundle, .. }
            | Event::Stumbled { bundle } => {
                if let Event::Served { stream, sandbox, .. } = &event {
                    self.report_due |= self.sandboxes.insert(stream.clone(), *sandbox) != Some(*sandbox);
                }
                if let Event::Observed { stream, answers, took_us, .. } = &event
                    && self.is_active_alone(stream, bundle)
                {
                    self.usual.entry(bundle).or_default().add(*answers, *took_us);
                }
                let under_way = |p: &Phase| p.target().is_some_and(|t| t.bundle == bundle);
                if let Some(stream) = self.phases.iter().find(|(_, p)| under_way(p)).map(|(s, _)| s.clone()) {
                    self.turn(stream, event);
                }
            }
        }
        self.finish()
    }

    /// Ends a step: what changed is to be saved, what is due is said.
    fn finish(&mut self) -> Step {
        let clock = self.clock();
        self.report_due |= std::mem::replace(&mut self.clock, clock) != clock;
        let pinned = self.ledger.pinned();
        if self.kept.as_ref() != Some(&pinned) {
            self.ledger.signers.retain(|bundle, _| pinned.contains(bundle));
            self.ledger.costs.retain(|bundle, _| pinned.contains(bundle));
            self.falls.retain(|bundle, _| pinned.contains(bundle));
            self.usual.retain(|bundle, _| pinned.contains(bundle));
            self.kept = Some(pinned.clone());
            self.effects.push(Effect::Keep { bundles: pinned });
        }
        if std::mem::take(&mut self.report_due) && self.connected {
            let report = self.report();
            self.effects.push(Effect::PublishReport(report));
        }
        let documents = std::mem::take(&mut self.documents);
        let memory = std::mem::take(&mut self.changed).then(|| Memory { documents, ledger: self.ledger.clone() });
        Step::new(memory, std::mem::take(&mut self.effects))
    }

    fn connect(&mut self) {
        self.connected = true;
        self.report_due = true;
        self.await_root();
        self.greet_now();
        self.effects.extend(self.ledger.outbox.iter().cloned().map(Effect::DeliverVerdict));
    }

    fn reach_deadlines(&mut self) {
        if let Some((_, pause)) = self.hello.filter(|(due, _)| *due <= self.now.mono) {
            self.say_hello(pause);
        }
        self.take_deferred();
        self.calm_log();
        let names: Vec<StreamName> = self.phases.keys().cloned().collect();
        for name in &names {
            self.reach(name, self.now.mono);
        }
    }
}
