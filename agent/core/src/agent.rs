//! The device as a whole: its ledger, a phase for each stream, and one `step`.

use crate::admission::{self, MAX_TRIAL_BOOTS};
use crate::life::Turn;
use crate::step::Millis;
use crate::{Effect, Event, Installed, Ledger, Now, Phase, Step, StreamLedger, TrialLedger, Wanted};
use protocol::{
    ClockState, DeviceId, FleetId, Generation, Outcome, Profile, RefusalReport, Report, Running, SPEC, StreamName,
    StreamReport, TrialReport, Verdict,
};
use std::collections::{BTreeMap, BTreeSet};
use trust::{Assignment, Code, Digest, Intent, Manifest, Refusal, StreamAssignment, Verified};

/// The first pause before hello is said again to a land that does not answer; it doubles.
const FIRST_HELLO_PAUSE: Millis = 5_000;
/// The longest such pause.
const LONGEST_HELLO_PAUSE: Millis = 600_000;

/// The decisions of one device.
#[derive(Debug)]
pub struct Agent {
    fleet: FleetId,
    device: DeviceId,
    profile: Profile,
    root_version: u64,
    ledger: Ledger,
    phases: BTreeMap<StreamName, Phase>,
    refusals: BTreeMap<Code, RefusalReport>,
    connected: bool,
    /// While land has not answered: when hello is due again, and the pause after that.
    hello: Option<(Millis, Millis)>,
    said: u64,
    /// What the hands were told to keep; not told yet, since what a power cut left over must go.
    kept: Option<BTreeSet<Digest>>,
    // What the step under way has gathered.
    changed: bool,
    report_due: bool,
    effects: Vec<Effect>,
}

impl Agent {
    /// A device that wakes up with what it remembered. The step saves the new boot and serves what served before.
    pub fn restore(
        fleet: FleetId,
        device: DeviceId,
        profile: Profile,
        root_version: u64,
        ledger: Ledger,
    ) -> (Self, Step) {
        // A device that never took an assignment, or forgot it, removes nothing: it may need it again.
        let kept = ledger.generation.is_none().then(BTreeSet::new);
        let mut agent = Self {
            fleet,
            device,
            profile,
            root_version,
            ledger,
            phases: BTreeMap::new(),
            refusals: BTreeMap::new(),
            connected: false,
            hello: None,
            said: 0,
            kept,
            changed: true,
            report_due: false,
            effects: Vec::new(),
        };
        agent.ledger.boot += 1;
        let streams: Vec<StreamName> = agent.ledger.streams.keys().cloned().collect();
        for stream in &streams {
            agent.wake(stream);
        }
        let step = agent.finish();
        (agent, step)
    }

    /// What the device remembers.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
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
        self.phases.values().filter_map(Phase::deadline).chain(self.hello.map(|(due, _)| due)).min()
    }

    /// Takes one event and decides.
    pub fn step(&mut self, now: Now, event: Event) -> Step {
        match event {
            Event::Connected => self.connect(now),
            Event::Disconnected => {
                self.connected = false;
                self.hello = None;
            }
            Event::AssignmentArrived(assignment) => self.assign(now, &assignment),
            Event::DocumentRefused(refusal) => self.note(refusal),
            Event::VerdictDelivered { seq } => {
                let before = self.ledger.outbox.len();
                self.ledger.outbox.retain(|v| v.seq != seq);
                self.changed |= self.ledger.outbox.len() != before;
            }
            Event::DeadlineReached => self.reach_deadlines(now),
            Event::ServeFailed { ref stream, bundle, ref refusal } if self.is_active_alone(stream, bundle) => {
                self.lose_active(stream.clone(), refusal.clone());
            }
            Event::BundleStored { bundle }
            | Event::BundleVerified { bundle, .. }
            | Event::BundleRefused { bundle, .. }
            | Event::ProbePassed { bundle }
            | Event::ProbeFailed { bundle, .. }
            | Event::Served { bundle, .. }
            | Event::ServeFailed { bundle, .. }
            | Event::Observed { bundle, .. }
            | Event::Stumbled { bundle } => {
                let under_way = |p: &Phase| p.target().is_some_and(|t| t.bundle == bundle);
                if let Some(stream) = self.phases.iter().find(|(_, p)| under_way(p)).map(|(s, _)| s.clone()) {
                    self.turn(now, stream, event);
                }
            }
        }
        self.finish()
    }

    /// Ends a step: what changed is to be saved, what is due is said.
    fn finish(&mut self) -> Step {
        let pinned = self.ledger.pinned();
        if self.kept.as_ref() != Some(&pinned) {
            self.kept = Some(pinned.clone());
            self.effects.push(Effect::Keep { bundles: pinned });
        }
        if std::mem::take(&mut self.report_due) && self.connected {
            let report = self.report();
            self.effects.push(Effect::PublishReport(report));
        }
        let ledger = std::mem::take(&mut self.changed).then(|| self.ledger.clone());
        Step::new(ledger, std::mem::take(&mut self.effects))
    }

    fn connect(&mut self, now: Now) {
        self.connected = true;
        self.report_due = true;
        self.say_hello(now, FIRST_HELLO_PAUSE);
        self.effects.extend(self.ledger.outbox.iter().cloned().map(Effect::DeliverVerdict));
    }

    /// Hello is not retained: a device that land never answered says it again, or it would stay unknown
    /// when land was away as it came.
    fn say_hello(&mut self, now: Now, pause: Millis) {
        let seq = self.next_seq();
        self.effects.push(Effect::SayHello { boot: self.ledger.boot, seq, profile: self.profile.clone() });
        let unanswered = self.ledger.generation.is_none();
        self.hello = unanswered.then(|| (now.mono.saturating_add(pause), (pause * 2).min(LONGEST_HELLO_PAUSE)));
    }

    /// A stream after a start: a trial that has crashed the agent too often ends, what served serves.
    fn wake(&mut self, name: &StreamName) {
        let Some(stream) = self.ledger.streams.get_mut(name) else { return };
        let Some(trial) = &mut stream.trial else {
            self.serve(name);
            self.pursue(name);
            return;
        };
        trial.boots += 1;
        let (target, boots) = (trial.candidate, trial.boots);
        if boots > MAX_TRIAL_BOOTS {
            let detail = format!("the agent was started {boots} times during its trial");
            self.revert(name, Refusal::new(Code::Probation, detail), (0, 0));
        } else {
            self.phases.insert(name.clone(), Phase::Starting { target });
            self.serve(name);
        }
    }

    /// Takes an assignment, unless it is old.
    fn assign(&mut self, now: Now, assignment: &Verified<Assignment>) {
        let generation = Generation { role_epoch: assignment.role_epoch.get(), seq: assignment.seq.get() };
        match self.ledger.generation {
            Some(last) if generation == last => return self.answer_again(),
            Some(last) if generation < last => {
                let detail = format!("assignment {} came after {}", generation.seq, last.seq);
                return self.note(Refusal::new(Code::Replay, detail));
            }
            Some(_) | None => {}
        }
        let parsed: Result<BTreeMap<StreamName, &StreamAssignment>, _> =
            assignment.streams.iter().map(|s| s.stream.parse().map(|name| (name, s))).collect();
        let listed = match parsed {
            Ok(listed) => listed,
            Err(fault) => return self.note(Refusal::new(Code::Parse, format!("{fault}"))),
        };
        self.answer_again();
        self.ledger.generation = Some(generation);
        self.hello = None;
        self.changed = true;
        self.report_due = true;
        let known: Vec<StreamName> = self.ledger.streams.keys().cloned().collect();
        for name in known.iter().filter(|name| !listed.contains_key(name)) {
            self.retire(name);
        }
        for (name, order) in &listed {
            self.want(now, name, generation, order);
        }
    }

    /// Land speaks, perhaps after it was away: the verdicts that it may have missed are said again, also
    /// those that are on their way, since the broker may have had nobody to give them to.
    fn answer_again(&mut self) {
        if self.connected {
            let given = self.ledger.streams.values().filter_map(|s| s.verdict.clone());
            self.effects.extend(given.map(Effect::DeliverVerdict));
        }
    }

    /// Takes what an assignment says of one stream.
    fn want(&mut self, now: Now, name: &StreamName, generation: Generation, order: &StreamAssignment) {
        let stream = self.ledger.streams.entry(name.clone()).or_default();
        if order.intent == Intent::Hold {
            return;
        }
        let target = Installed { release: order.release.get(), bundle: order.statement_sha256 };
        let wanted = Wanted {
            generation,
            intent: order.intent,
            target,
            total_size: order.total_size.get(),
            rollout: order.rollout_id.get(),
            trial: order.trial,
        };
        let same = |w: &Wanted| w.target == target && w.rollout == wanted.rollout && w.intent == wanted.intent;
        if let Some(known) = stream.wanted.as_mut().filter(|w| same(w)) {
            // Another stream moved: what was decided of this one, a revert above all, stays decided.
            known.generation = generation;
            return;
        }
        let on_trial = stream.trial.map(|t| t.candidate);
        if on_trial.is_some_and(|c| c != target) {
            let refusal = Refusal::new(Code::Superseded, "a newer assignment came before its trial was over");
            let seen = self.counted(name);
            self.revert(name, refusal, seen);
        }
        let stream = self.ledger.streams.entry(name.clone()).or_default();
        stream.wanted = Some(wanted);
        stream.settled = false;
        stream.verdict = None;
        if stream.trial.is_none() {
            self.give_up(name);
            self.pursue(name);
        } else if let Some(Phase::OnTrial { .. }) = self.phases.get(name) {
            self.weigh(now, name);
        }
    }

    /// Begins the way to what is wanted, if there is any way to go.
    fn pursue(&mut self, name: &StreamName) {
        let Some(stream) = self.ledger.streams.get(name) else { return };
        let Some(wanted) = stream.wanted.clone().filter(|_| !stream.settled) else { return };
        if stream.active == Some(wanted.target) {
            return self.give_verdict(name, Outcome::Confirmed, None, (0, 0));
        }
        if let Err(refusal) = admission::order(stream, &wanted) {
            return self.refuse(name, refusal);
        }
        self.fetch(name, wanted.target, wanted.total_size, 0);
    }

    fn fetch(&mut self, name: &StreamName, target: Installed, total_size: u64, failures: u32) {
        self.phases.insert(name.clone(), Phase::Fetching { target, failures });
        self.effects.push(Effect::Fetch { bundle: target.bundle, total_size });
        self.report_due = true;
    }

    /// One event in the life of the release that a stream is on its way to.
    fn turn(&mut self, now: Now, name: StreamName, event: Event) {
        let Some(mut phase) = self.phases.remove(&name) else { return };
        let turn = phase.turn(event);
        let target = phase.target();
        self.phases.insert(name.clone(), phase.clone());
        let Some(target) = target else { return };
        let bundle = target.bundle;
        let failures = match &phase {
            Phase::Fetching { failures, .. } | Phase::Verifying { failures, .. } => *failures,
            _ => 0,
        };
        match turn {
            Turn::Stay => {}
            Turn::Stored => {
                self.phases.insert(name, Phase::Verifying { target, failures });
                self.effects.push(Effect::Verify { bundle });
            }
            Turn::Verified(manifest) => self.probe(name, target, failures, manifest),
            Turn::Passed(manifest) => self.begin_trial(name, target, &manifest),
            Turn::Began => {
                let window = self.wanted(&name).map_or(0, |w| w.trial.window_s.get());
                let until = now.mono.saturating_add(window.saturating_mul(1_000));
                self.phases.insert(name.clone(), Phase::OnTrial { target, answers: 0, errors: 0, until });
                self.report_due = true;
                self.weigh(now, &name);
            }
            Turn::Counted => self.weigh(now, &name),
            Turn::Refused(refusal) => match phase {
                Phase::Starting { .. } | Phase::OnTrial { .. } => {
                    let seen = self.counted(&name);
                    self.revert(&name, refusal, seen);
                }
                _ => self.refuse(&name, refusal),
            },
            Turn::Failed => {
                self.phases.insert(name, phase.pause(now.mono));
            }
        }
    }

    fn probe(&mut self, name: StreamName, target: Installed, failures: u32, manifest: Box<Verified<Manifest>>) {
        let Some(wanted) = self.wanted(&name) else { return };
        match admission::fit(&self.profile, &name, wanted, &manifest) {
            Ok(()) => {
                self.phases.insert(name, Phase::Probing { target, failures, manifest });
                self.effects.push(Effect::Probe { bundle: target.bundle });
            }
            Err(refusal) => self.refuse(&name, refusal),
        }
    }

    /// The trial is in the ledger before the candidate serves: a crash that it causes is counted.
    fn begin_trial(&mut self, name: StreamName, candidate: Installed, manifest: &Manifest) {
        let Some(stream) = self.ledger.streams.get_mut(&name) else { return };
        stream.trial = Some(TrialLedger { candidate, security_floor: manifest.security_floor.get(), boots: 0 });
        self.changed = true;
        self.phases.insert(name.clone(), Phase::Starting { target: candidate });
        self.serve(&name);
    }

    /// Decides a trial when its terms are met.
    fn weigh(&mut self, now: Now, name: &StreamName) {
        let Some(Phase::OnTrial { answers, errors, until, .. }) = self.phases.get(name) else { return };
        let (answers, errors, over) = (*answers, *errors, now.mono >= *until);
        let Some(terms) = self.wanted(name).map(|w| w.trial) else { return };
        if errors > terms.max_errors.get() {
            let detail = format!("{errors} of {} requests on trial had no usable answer", answers + errors);
            self.revert(name, Refusal::new(Code::Probation, detail), (answers, errors));
        } else if over || answers >= terms.min_answers.get() {
            self.confirm(name, (answers, errors));
        }
    }

    fn confirm(&mut self, name: &StreamName, seen: (u64, u64)) {
        let Some(stream) = self.ledger.streams.get_mut(name) else { return };
        let Some(trial) = stream.trial.take() else { return };
        stream.previous = stream.active.replace(trial.candidate).or(stream.previous);
        stream.floor = stream.floor.max(trial.security_floor);
        self.changed = true;
        self.phases.remove(name);
        self.give_verdict(name, Outcome::Confirmed, None, seen);
        self.serve(name);
    }

    /// Takes a release on trial back; what was confirmed before answers again.
    fn revert(&mut self, name: &StreamName, refusal: Refusal, seen: (u64, u64)) {
        let Some(stream) = self.ledger.streams.get_mut(name) else { return };
        stream.trial = None;
        self.changed = true;
        self.phases.remove(name);
        self.give_verdict(name, Outcome::Reverted, Some(refusal), seen);
        self.serve(name);
    }

    fn refuse(&mut self, name: &StreamName, refusal: Refusal) {
        self.give_up(name);
        self.note(refusal.clone());
        self.give_verdict(name, Outcome::Refused, Some(refusal), (0, 0));
    }

    /// Whether `bundle` is the confirmed release that should answer for `stream`.
    fn is_active_alone(&self, stream: &StreamName, bundle: Digest) -> bool {
        let serving = self.ledger.streams.get(stream).and_then(StreamLedger::serving);
        serving.is_some_and(|(main, _)| main.bundle == bundle) && !self.phases.get(stream).is_some_and(Phase::serves)
    }

    /// The confirmed release does not load any more: the one before it answers, and it is fetched anew.
    fn lose_active(&mut self, name: StreamName, refusal: Refusal) {
        let Some(stream) = self.ledger.streams.get_mut(&name) else { return };
        let Some(lost) = stream.active.take() else { return };
        stream.active = stream.previous.take();
        if stream.wanted.as_ref().is_some_and(|w| w.target == lost) {
            stream.settled = false;
        }
        self.changed = true;
        self.note(refusal);
        self.effects.push(Effect::Discard { bundle: lost.bundle });
        self.serve(&name);
        if !self.phases.contains_key(&name) {
            self.pursue(&name);
        }
    }

    /// Ends a stream. Its floor stays: or land could go below it by taking the stream away in between.
    fn retire(&mut self, name: &StreamName) {
        self.give_up(name);
        let Some(stream) = self.ledger.streams.remove(name) else { return };
        let floor = StreamLedger { floor: stream.floor, ..StreamLedger::default() };
        if stream != floor {
            self.effects.push(Effect::StopServing { stream: name.clone() });
        }
        if floor.floor > 0 {
            self.ledger.streams.insert(name.clone(), floor);
        }
    }

    /// Leaves the way to a bundle that is not on trial.
    fn give_up(&mut self, name: &StreamName) {
        if let Some(Phase::Fetching { target, .. }) = self.phases.remove(name) {
            self.effects.push(Effect::StopFetching { bundle: target.bundle });
        }
    }

    fn reach_deadlines(&mut self, now: Now) {
        if let Some((_, pause)) = self.hello.filter(|(due, _)| *due <= now.mono) {
            self.say_hello(now, pause);
        }
        let due = |p: &Phase| p.deadline().is_some_and(|d| d <= now.mono);
        let names: Vec<StreamName> = self.phases.iter().filter(|(_, p)| due(p)).map(|(n, _)| n.clone()).collect();
        for name in names {
            match self.phases.get(&name) {
                Some(Phase::Pausing { target, failures, .. }) => {
                    let (target, failures) = (*target, *failures);
                    let total_size = self.wanted(&name).map_or(0, |w| w.total_size);
                    self.fetch(&name, target, total_size, failures);
                }
                _ => self.weigh(now, &name),
            }
        }
    }

    fn serve(&mut self, name: &StreamName) {
        self.report_due = true;
        let serving = self.ledger.streams.get(name).and_then(StreamLedger::serving);
        let stream = name.clone();
        self.effects.push(match serving {
            Some((main, fallback)) => {
                Effect::Serve { stream, bundle: main.bundle, fallback: fallback.map(|f| f.bundle) }
            }
            None => Effect::StopServing { stream },
        });
    }

    fn give_verdict(&mut self, name: &StreamName, outcome: Outcome, refusal: Option<Refusal>, seen: (u64, u64)) {
        let Some(stream) = self.ledger.streams.get_mut(name) else { return };
        let Some(wanted) = &stream.wanted else { return };
        stream.settled = true;
        self.ledger.verdicts_given += 1;
        let verdict = Verdict {
            spec: SPEC,
            fleet: self.fleet.clone(),
            device_id: self.device.clone(),
            seq: self.ledger.verdicts_given,
            generation: wanted.generation,
            stream: name.clone(),
            release: wanted.target.release,
            statement_sha256: wanted.target.bundle.0,
            outcome,
            code: refusal.as_ref().map(|r| r.code.to_string()),
            detail: refusal.map(|r| r.detail),
            answers: seen.0,
            errors: seen.1,
        };
        stream.verdict = Some(verdict.clone());
        self.ledger.outbox.push(verdict.clone());
        self.changed = true;
        self.report_due = true;
        if self.connected {
            self.effects.push(Effect::DeliverVerdict(verdict));
        }
    }

    fn note(&mut self, refusal: Refusal) {
        let code = refusal.code.to_string();
        let row = self.refusals.entry(refusal.code).or_insert(RefusalReport { code, count: 0, detail: String::new() });
        row.count += 1;
        row.detail = refusal.detail.chars().take(200).collect();
        self.report_due = true;
    }

    fn wanted(&self, name: &StreamName) -> Option<&Wanted> {
        self.ledger.streams.get(name)?.wanted.as_ref()
    }

    fn counted(&self, name: &StreamName) -> (u64, u64) {
        match self.phases.get(name) {
            Some(Phase::OnTrial { answers, errors, .. }) => (*answers, *errors),
            _ => (0, 0),
        }
    }

    fn next_seq(&mut self) -> u64 {
        self.said += 1;
        self.said
    }

    /// The state as it is published.
    fn report(&mut self) -> Report {
        let seq = self.next_seq();
        let running = |i: Installed| Running { release: i.release, statement_sha256: i.bundle.0 };
        let streams = self.ledger.streams.iter().map(|(name, s)| {
            let (answers, errors) = self.counted(name);
            let trial = s.trial.map(|t| TrialReport {
                release: t.candidate.release,
                statement_sha256: t.candidate.bundle.0,
                answers,
                errors,
            });
            StreamReport {
                stream: name.clone(),
                active: s.active.map(running),
                previous: s.previous.map(running),
                trial,
                floor: s.floor,
            }
        });
        Report {
            spec: SPEC,
            fleet: self.fleet.clone(),
            device_id: self.device.clone(),
            boot: self.ledger.boot,
            seq,
            generation: self.ledger.generation,
            root_version: self.root_version,
            clock: if self.ledger.generation.is_some() { ClockState::Stale } else { ClockState::Unset },
            streams: streams.collect(),
            last_refusals: self.refusals.values().cloned().collect(),
            profile: self.profile.clone(),
        }
    }
}
