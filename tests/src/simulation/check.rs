//! What must hold, whatever goes wrong: looked at after every step, and once more at rest.
//!
//! It sees disks, effects and what the worker serves. It does not know which faults there are, and
//! decides nothing; where a rule needs to know how good a release is, it asks the scenario.

use super::broker::{Kind, Message, Payload, Topic};
use super::device::{Device, Process};
use super::land::index;
use super::scenario::{DEVICES, Flaw, Scenario};
use super::world::World;
use agent_core::{Agent, Effect, Installed, Ledger, StreamLedger};
use bridge_core::{Bridge, Effect as LandEffect, Member, Phase, Record, Rollout};
use protocol::{DeviceId, Generation, Outcome, Report, Verdict};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use trust::{Digest, StreamAssignment};

/// Starts on trial after which a release is taken back, whoever is to blame.
const STARTS_ON_TRIAL: u64 = 3;
/// The most verdicts that wait on a device.
const MAX_OUTBOX: usize = 16;

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The rule.
    pub rule: &'static str,
    /// What was seen.
    pub detail: String,
}

/// Breaks `rule` unless `holds`.
pub(super) fn rule(holds: bool, rule: &'static str, detail: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation { rule, detail: detail() }) }
}

/// What was seen so far.
#[derive(Debug)]
pub(super) struct Checks {
    devices: Vec<Seen>,
    land: BTreeMap<DeviceId, bridge_core::Device>,
    rollouts: BTreeMap<u64, Rollout>,
    /// What each generation of a device said.
    said: BTreeMap<(DeviceId, u64), Vec<StreamAssignment>>,
    /// The generation with which a rollout assigned its release to a device.
    since: BTreeMap<(u64, DeviceId), u64>,
    steps: u64,
}

/// What was seen of a device.
#[derive(Debug, Default)]
struct Seen {
    /// What its disk says.
    disk: Rc<Ledger>,
    /// Every verdict that its disk ever held, by sequence.
    verdicts: BTreeMap<u64, Verdict>,
    /// Bundles that its hands found whole, and that passed the probe.
    described: BTreeSet<Digest>,
    examined: BTreeSet<Digest>,
    probed: BTreeSet<Digest>,
}

impl Seen {
    /// What the disk says should serve, and what in its place.
    fn serving(&self, name: &protocol::StreamName) -> Option<(Installed, Option<Installed>)> {
        self.disk.streams.get(name).and_then(serving)
    }
}

fn serving(stream: &StreamLedger) -> Option<(Installed, Option<Installed>)> {
    match (stream.trial, stream.active.filter(|_| !stream.silenced)) {
        (Some(trial), active) => Some((trial.candidate, active)),
        (None, Some(active)) => Some((active, None)),
        (None, None) => None,
    }
}

/// The newest assignment that a disk says was accepted.
fn accepted(ledger: &Ledger) -> Option<trust::Generation> {
    ledger.trust.as_ref().and_then(trust::Counters::assignment)
}

impl Checks {
    pub(super) fn new(names: &[DeviceId]) -> Self {
        Self {
            devices: names.iter().map(|_| Seen::default()).collect(),
            land: BTreeMap::new(),
            rollouts: BTreeMap::new(),
            said: BTreeMap::new(),
            since: BTreeMap::new(),
            steps: 0,
        }
    }

    /// Whether this step of land is looked at as a whole: of a large fleet, one in many.
    fn looks(&self) -> bool {
        self.steps.is_multiple_of(1.max(self.devices.len() / DEVICES) as u64)
    }

    /// The rollouts as land's disk knows them.
    pub(super) fn rollouts(&self) -> &BTreeMap<u64, Rollout> {
        &self.rollouts
    }

    pub(super) fn device_read(&self, device: usize, ledger: &Ledger) -> Result<(), Violation> {
        let seen = &self.devices[device];
        rule(*ledger == *seen.disk, "a ledger is read back as it was saved", || format!("d-{device:02}: {ledger:?}"))
    }

    pub(super) fn device_described(&mut self, device: usize, bundle: Digest) {
        self.devices[device].described.insert(bundle);
    }

    pub(super) fn device_examined(&mut self, device: usize, bundle: Digest) {
        self.devices[device].examined.insert(bundle);
    }

    pub(super) fn device_probed(&mut self, device: usize, bundle: Digest) {
        self.devices[device].probed.insert(bundle);
    }

    /// A device saved its ledger.
    pub(super) fn device_saved(
        &mut self,
        device: usize,
        now: Rc<Ledger>,
        scenario: &Scenario,
    ) -> Result<(), Violation> {
        let seen = &mut self.devices[device];
        let old = std::mem::replace(&mut seen.disk, now);
        let now = &seen.disk;
        let who = || format!("d-{device:02} from {old:?} to {now:?}");
        rule(now.boot >= old.boot, "boots are counted", who)?;
        if let Some(before) = &old.trust {
            let fell = now.trust.as_ref().map_or(vec!["all"], |now| now.behind(before));
            let what = || format!("{fell:?}: {}", who());
            rule(fell.is_empty(), "nothing that was believed is forgotten: no generation, no floor", what)?;
        }
        for stream in now.streams.values() {
            for installed in [stream.active, stream.trial.map(|t| t.candidate)].into_iter().flatten() {
                let known = seen.examined.contains(&installed.bundle) && seen.probed.contains(&installed.bundle);
                rule(known, "nothing is active or on trial that was not verified and probed", who)?;
            }
            if let Some(active) = stream.active {
                let flawed = [Flaw::Golden, Flaw::Unloadable, Flaw::Errors, Flaw::Crashes];
                let suits = !flawed.iter().any(|flaw| scenario.fails(device, active.bundle, *flaw));
                rule(suits, "a release that fails on a device is never confirmed there", who)?;
            }
        }
        rule(now.outbox.len() <= MAX_OUTBOX, "the outbox is bounded", who)?;
        let given: BTreeMap<u64, &Verdict> = now.outbox.iter().map(|v| (v.seq, v)).collect();
        for seq in old.verdicts_given + 1..=now.verdicts_given {
            let verdict = given.get(&seq).copied();
            rule(verdict.is_some_and(|v| agrees(v, now)), "a verdict is given with the ledger that says so", who)?;
            seen.verdicts.extend(verdict.map(|v| (seq, v.clone())));
        }
        Ok(())
    }

    /// A device's step was committed.
    pub(super) fn device_stepped(&mut self, device: usize, agent: &Agent, effects: &[Effect]) -> Result<(), Violation> {
        let seen = &self.devices[device];
        let remembered = *agent.ledger() == *seen.disk;
        let differs = || format!("d-{device:02} holds {:?}, its disk says {:?}", agent.ledger(), seen.disk);
        rule(remembered, "nothing is done before it is remembered", differs)?;
        // Streams that the step took away count as well: a world has two at most.
        let bound = 6 + 8 * seen.disk.streams.len().max(2) + seen.disk.outbox.len();
        rule(effects.len() <= bound, "the effects of a step are bounded", || format!("d-{device:02}: {effects:?}"))
    }

    /// A device carries out an effect.
    pub(super) fn device_does(&self, device: usize, effect: &Effect) -> Result<(), Violation> {
        let seen = &self.devices[device];
        let disk = &seen.disk;
        let holds = match effect {
            Effect::Serve { stream, bundle, fallback } => {
                let should = seen.serving(stream);
                should.map(|(m, f)| (m.bundle, f.map(|f| f.bundle))) == Some((*bundle, *fallback))
            }
            Effect::StopServing { stream } => seen.serving(stream).is_none(),
            Effect::Probe { bundle } => seen.examined.contains(bundle),
            Effect::Admit { bundle } => seen.described.contains(bundle),
            Effect::Fetch { bundle, .. } => {
                disk.streams.values().any(|s| s.wanted.as_ref().is_some_and(|w| w.target().bundle == *bundle))
            }
            Effect::DeliverVerdict(verdict) => seen.verdicts.get(&verdict.seq) == Some(verdict),
            Effect::PublishReport(report) => *report == reported(report, disk),
            Effect::SayHello { boot, .. } => *boot == disk.boot,
            Effect::Keep { bundles } => disk.streams.values().all(|s| needs(s).all(|n| bundles.contains(&n.bundle))),
            Effect::Discard { bundle } => {
                let in_use = |s: &StreamLedger| serving(s).is_some_and(|(main, _)| main.bundle == *bundle);
                !disk.streams.values().any(in_use)
            }
            Effect::StopFetching { .. } | Effect::Examine { .. } => true,
            // Nobody gives commands here, or asks for a shadow.
            Effect::Shadow { .. }
            | Effect::Judge { .. }
            | Effect::Give { .. }
            | Effect::Restart { .. }
            | Effect::SetLog(_)
            | Effect::Measure
            | Effect::Diagnose(_)
            | Effect::DeliverResult(_) => false,
            Effect::AwaitRoot { version } => {
                disk.trust.as_ref().is_some_and(|trust| trust.root_version() + 1 == *version)
            }
        };
        let differs = || format!("d-{device:02}: {effect:?}, its disk says {disk:?}");
        rule(holds, "what is said and done follows from what is on the disk", differs)
    }

    /// What the worker of a running device serves.
    pub(super) fn device_serves(&self, device: usize, process: Option<&Process>) -> Result<(), Violation> {
        let Some(process) = process else { return Ok(()) };
        let seen = &self.devices[device];
        for name in seen.disk.streams.keys().filter(|name| !process.loads.contains_key(*name)) {
            let should = seen.serving(name).map(|(main, _)| main.bundle);
            let serves = process.serving.get(name).map(|(main, _)| *main);
            let differs = || format!("d-{device:02} serves {serves:?} of {name}, its disk says {should:?}");
            rule(serves == should, "what should serve, serves", differs)?;
        }
        Ok(())
    }

    /// A deadline was met: the next one is later.
    /// What a broker would end the connection for.
    pub(super) fn broker_takes(&self, kind: Kind, message: &Message) -> Result<(), Violation> {
        let length = if let Payload::Bytes(bytes) = &message.payload { bytes.len() } else { 0 };
        let fits = length <= kind.bytes && (kind.retains || !message.retain);
        rule(fits, "a broker is given nothing that it cannot take", || format!("{message:?} to {kind:?}"))
    }

    pub(super) fn deadline_passed(&self, next: Option<u64>, met: u64) -> Result<(), Violation> {
        rule(next.is_none_or(|n| n > met), "a deadline that was met is over", || format!("{met}, and then {next:?}"))
    }

    /// Land saved rows.
    pub(super) fn land_saved(&mut self, records: &[Record]) -> Result<(), Violation> {
        let mut moved = BTreeSet::new();
        for record in records {
            match record {
                Record::Device(device) => {
                    let before = self.land.get(&device.id).map_or(0, |d| d.generation);
                    let grows = device.generation >= before;
                    rule(grows, "generations of assignments never go back", || format!("{before} before {device:?}"))?;
                    for desired in device.desired.values() {
                        let assigned = self.since.entry((desired.rollout, device.id.clone()));
                        assigned.or_insert(desired.since);
                    }
                    self.land.insert(device.id.clone(), (**device).clone());
                }
                Record::NoDevice { id } => drop(self.land.remove(id)),
                Record::Rollout(rollout) => drop(moved.insert(rollout.id)),
                Record::Member(member) => drop(moved.insert(member.rollout)),
                Record::NoMember { rollout, .. } => drop(moved.insert(*rollout)),
                Record::Release(_)
                | Record::NoRelease { .. }
                | Record::Document(_)
                | Record::Beacons { .. }
                | Record::Deed(_)
                | Record::Command(_)
                | Record::FanOut(_)
                | Record::NoFanOut { .. }
                | Record::Samples(_)
                | Record::NoSamples { .. }
                | Record::NoRollout { .. }
                | Record::PutBack { .. }
                | Record::Withdrawn(_)
                | Record::NotWithdrawn { .. } => {}
            }
        }
        let before: Vec<(u64, Option<Rollout>)> =
            moved.into_iter().map(|id| (id, self.looks().then(|| self.rollouts.get(&id).cloned()).flatten())).collect();
        for record in records {
            match record {
                Record::Rollout(rollout) => {
                    let members = self.rollouts.remove(&rollout.id).map(|r| r.members).unwrap_or_default();
                    self.rollouts.insert(rollout.id, Rollout { members, ..(**rollout).clone() });
                }
                Record::Member(member) => {
                    let rollout = self.rollouts.get_mut(&member.rollout);
                    rollout.map(|r| r.members.insert(member.device.clone(), (**member).clone()));
                }
                Record::NoMember { rollout, device } => {
                    self.rollouts.get_mut(rollout).map(|r| r.members.remove(device));
                }
                Record::NoRollout { rollout } => drop(self.rollouts.remove(rollout)),
                _ => {}
            }
        }
        for (id, before) in before {
            if self.looks() {
                self.rollout_moved(before.as_ref(), &self.rollouts[&id])?;
            }
        }
        Ok(())
    }

    /// What must hold of a rollout whenever it moved.
    fn rollout_moved(&self, before: Option<&Rollout>, rollout: &Rollout) -> Result<(), Violation> {
        let shown = || format!("{rollout:?}");
        let before_hit = before.map_or(0, Rollout::hit);
        if before.is_some_and(|b| !b.phase.is_under_way()) {
            rule(before_hit >= rollout.hit(), "a rollout that ended assigns its release to nobody new", shown)?;
        }
        let grown = rollout.hit().saturating_sub(before_hit);
        let paced = rollout.policy.at_once.is_none_or(|most| grown as u64 <= most);
        rule(paced, "no more devices begin than may be on their way at a time", shown)?;
        let failed = rollout.members.values().filter(|m| m.has_failed()).count() as u64;
        let (upto, goes_on) = match rollout.phase {
            Phase::Rolling { wave } | Phase::Soaking { wave, .. } => (wave, true),
            Phase::Reverting { wave, .. } | Phase::Stopped { wave, .. } => (wave, false),
            // Verdicts of those that were away come later.
            Phase::Completed => (rollout.waves() - 1, false),
            Phase::Draft | Phase::Approval { .. } | Phase::Paused { .. } => {
                return rule(false, "nobody asked for that", shown);
            }
        };
        let most = rollout.policy.gates.max_failed;
        rule(!goes_on || failed <= most, "no wave is open above the failures allowed", shown)?;
        let later = rollout.members.values().any(|m| m.wave > upto && m.is_hit());
        rule(!later, "one wave after the other", shown)?;
        let done = if rollout.phase == Phase::Completed { upto + 1 } else { upto };
        let over = || rollout.members.values().filter(|m| m.wave < done);
        // One that was away when its wave was under way begins when it comes.
        let in_time = |m: &&Member| m.there && m.assigned.is_some_and(|at| at < rollout.wave_started);
        let silent = over().filter(in_time).filter(|m| m.result.is_none()).count() as f64;
        let waits = |m: &Member| !m.is_hit() && rollout.policy.at_once.is_none();
        let answered = !over().any(waits) && silent <= rollout.policy.silence.max_unknown * rollout.hit() as f64;
        rule(answered, "a wave ends when all of its devices have answered, or are away", shown)?;
        for (device, result) in rollout.results() {
            let since = self.since.get(&(rollout.id, device.clone())).copied().unwrap_or(u64::MAX);
            let said = |v: &Verdict| {
                v.statement_sha256 == rollout.bundle.0 && v.generation.seq >= since && v.outcome == result.outcome
            };
            let known = self.devices[index(device)].verdicts.values().any(said);
            let more = || format!("{device}, since {since}: {result:?} in {rollout:?}");
            rule(known, "land believes no more than a device's disk says", more)?;
        }
        Ok(())
    }

    /// A step of land was committed.
    pub(super) fn land_stepped(&mut self, bridge: &Bridge, effects: &[LandEffect]) -> Result<(), Violation> {
        self.steps += 1;
        let bound = 2 * self.devices.len() + 2 * bridge.releases().len() + 2 + 6;
        rule(effects.len() <= bound, "the effects of a step are bounded", || format!("land: {effects:?}"))?;
        // All devices are many: one step in eight will do, since what was forgotten stays forgotten.
        let same = !self.looks() || *bridge.rollouts() == self.rollouts;
        let same = same && (!self.steps.is_multiple_of(8) || !self.looks() || *bridge.devices() == self.land);
        rule(same, "nothing is done before it is remembered", || {
            format!("land holds {:?}, its disk says {:?}", bridge.rollouts(), self.rollouts)
        })
    }

    /// Land carries out an effect.
    pub(super) fn land_does(&mut self, effect: &LandEffect) -> Result<(), Violation> {
        let LandEffect::PublishAssignment(draft) = effect else { return Ok(()) };
        let known = self.land.get(&draft.device).is_some_and(|d| d.generation == draft.seq);
        rule(known, "an assignment is on land's disk before it is said", || format!("{draft:?}"))?;
        let key = (draft.device.clone(), draft.seq);
        let first = self.said.entry(key).or_insert_with(|| draft.streams.clone());
        rule(*first == draft.streams, "a generation says one thing", || format!("{draft:?}, and before {first:?}"))?;
        let ended = |r: &&Rollout| matches!(r.phase, Phase::Reverting { .. } | Phase::Stopped { .. });
        for ended in self.rollouts.values().filter(ended) {
            let stopped = |s: &StreamAssignment| s.rollout_id.get() == ended.id && s.statement_sha256 == ended.bundle;
            let anew = draft.streams.iter().any(stopped);
            rule(!anew, "a stopped rollout assigns its release to nobody", || format!("{draft:?} by {ended:?}"))?;
        }
        Ok(())
    }

    /// Nothing is under way any more: everyone agrees.
    pub(super) fn at_rest(world: &World) -> Result<(), Violation> {
        let checks = &world.checks;
        let Some(bridge) = world.bridge().filter(|_| world.all_connected()) else {
            return rule(false, "everyone is back when nothing goes wrong any more", String::new);
        };
        for (device, name) in world.scenario.names.iter().enumerate() {
            let Some(row) = bridge.devices().get(name) else {
                return rule(false, "every device is known to land", || name.to_string());
            };
            checks.device_agrees(device, row, unlucky(&world.devices[device]))?;
            let process = world.devices[device].process.as_ref();
            let busy = process.is_none_or(|p| p.agent.phases().values().any(|p| p.target().is_some()));
            rule(!busy, "a device comes to rest", || format!("{name}: {:?}", process.map(|p| p.agent.phases())))?;
        }
        for rollout in bridge.rollouts().values() {
            checks.ended_rightly(world, rollout)?;
        }
        let chunks: Vec<_> = world.broker.retained.keys().filter(|t| matches!(t, Topic::Chunk(_))).collect();
        rule(chunks.is_empty(), "no chunk stays retained that nobody needs", || format!("{chunks:?}"))
    }

    /// What a device runs is what land wants, and land knows it.
    fn device_agrees(&self, device: usize, row: &bridge_core::Device, unlucky: bool) -> Result<(), Violation> {
        let seen = &self.devices[device];
        let both = || format!("{:?}\nland wants {:?}", seen.disk, row.desired);
        rule(seen.disk.outbox.is_empty(), "every verdict arrives", both)?;
        let newest = accepted(&seen.disk).map_or(0, |g| g.seq.get());
        rule(newest == row.generation, "every device has its newest assignment", both)?;
        for (name, stream) in &seen.disk.streams {
            let desired = row.desired.get(name);
            let wanted = desired.map(|d| Installed { release: d.release, bundle: d.bundle });
            // A device that cannot even go back says so, and then it is for people.
            let sent_back = desired.is_some_and(|d| self.rollouts[&d.rollout].bundle != d.bundle);
            let refused = stream.verdict.as_ref().is_some_and(|v| v.outcome != Outcome::Confirmed);
            let agrees = stream.active == wanted || (unlucky && sent_back && refused);
            rule(agrees, "what a device runs is what land wants", both)?;
        }
        let all = row.desired.keys().all(|name| seen.disk.streams.contains_key(name));
        rule(all, "what a device runs is what land wants", both)?;
        let two = row.alarm.as_ref().is_some_and(|alarm| alarm.what.starts_with("two agents"));
        rule(!two, "no device alone is taken for two", || format!("{:?}", row.alarm))?;
        let known = row.report.as_ref().is_some_and(|r| r.streams == reported(r, &seen.disk).streams);
        rule(known && row.online, "land knows what a device runs", || format!("{row:?}\nbut {:?}", seen.disk))
    }

    /// A rollout ended as its release deserves, or for a reason that is known.
    fn ended_rightly(&self, world: &World, rollout: &Rollout) -> Result<(), Violation> {
        let shown = || format!("{rollout:?}");
        let quality = &world.scenario.qualities[&rollout.bundle];
        let fails = |d: &DeviceId| quality.fails_on.contains(&index(d));
        let bad = rollout.members.keys().filter(|d| fails(d)).count() as u64;
        let most = rollout.policy.gates.max_failed;
        match &rollout.phase {
            // Those that were away when it ended are no reason to stop it.
            Phase::Completed => rule(bad <= most || world.scenario.impatient, "a bad release is stopped", shown),
            Phase::Stopped { reason, .. } => {
                let silent = reason.contains("nothing is heard") || reason.contains("no device of wave");
                let late = world.scenario.impatient && silent;
                let expected = |m: &Member| fails(&m.device) || unlucky(&world.devices[index(&m.device)]);
                let failed: Vec<&Member> = rollout.members.values().filter(|m| m.has_failed()).collect();
                let judged = quality.flaw == Flaw::Fades && bad > 0 && reason.starts_with("errors");
                let many = failed.len() as u64 > most || reason.contains("install_failed") || judged;
                rule(late || (many && failed.into_iter().all(expected)), "a good release is not stopped", shown)
            }
            Phase::Draft
            | Phase::Approval { .. }
            | Phase::Rolling { .. }
            | Phase::Soaking { .. }
            | Phase::Paused { .. }
            | Phase::Reverting { .. } => rule(false, "every rollout ends", shown),
        }
    }
}

/// Whether faults alone may have made a device take a good release back.
fn unlucky(device: &Device) -> bool {
    device.crashes >= STARTS_ON_TRIAL || device.rotted
}

/// Whether a ledger says what a verdict says.
fn agrees(verdict: &Verdict, ledger: &Ledger) -> bool {
    let stream = ledger.streams.get(&verdict.stream).cloned().unwrap_or_default();
    let is = |i: Option<Installed>| i.is_some_and(|i| i.bundle.0 == verdict.statement_sha256);
    match verdict.outcome {
        Outcome::Confirmed => is(stream.active),
        Outcome::Reverted | Outcome::Refused => !is(stream.active) && !is(stream.trial.map(|t| t.candidate)),
    }
}

/// The bundles that a stream must not lose.
fn needs(stream: &StreamLedger) -> impl Iterator<Item = Installed> {
    [stream.active, stream.previous, stream.trial.map(|t| t.candidate)].into_iter().flatten()
}

/// The report that a ledger makes of itself; what it does not hold is taken from `said`.
fn reported(said: &Report, ledger: &Ledger) -> Report {
    let running = |i: Installed| protocol::Running { release: i.release, statement_sha256: i.bundle.0 };
    let counted = |name: &protocol::StreamName| said.streams.iter().find(|s| s.stream == *name).and_then(|s| s.trial);
    let row = |(name, s): (&protocol::StreamName, &StreamLedger)| protocol::StreamReport {
        stream: name.clone(),
        active: s.active.map(running),
        previous: s.previous.map(running),
        trial: s.trial.map(|t| protocol::TrialReport {
            release: t.candidate.release,
            statement_sha256: t.candidate.bundle.0,
            answers: counted(name).map_or(0, |c| c.answers),
            errors: counted(name).map_or(0, |c| c.errors),
            shadow: None,
        }),
        floor: ledger.trust.as_ref().map_or(0, |trust| trust.floor(name.as_str())),
        standing: protocol::Standing::Good,
        sandbox: said.streams.iter().find(|row| row.stream == *name).and_then(|row| row.sandbox),
        held: said.streams.iter().find(|row| row.stream == *name).and_then(|row| row.held.clone()),
    };
    Report {
        boot: ledger.boot,
        generation: accepted(ledger).map(|g| Generation { role_epoch: g.role_epoch.get(), seq: g.seq.get() }),
        root_version: ledger.trust.as_ref().map_or(0, trust::Counters::root_version),
        streams: ledger.streams.iter().map(row).collect(),
        ..said.clone()
    }
}
