//! A stream on its way from an assignment to a verdict: what is fetched, judged, tried, taken back.

use crate::agent::{Agent, Took};
use crate::life::{Signed, Turn};
use crate::step::Millis;
use crate::{Cost, Described, Effect, Event, Found, Installed, Phase, TrialLedger, Wanted, most_memory};
use protocol::{Generation, Outcome, StreamName};
use std::collections::BTreeMap;
use trust::{
    Assignment, Board, Code, Digest, Intent, Judgement, Offer, Refusal, Resource, Standing, StreamAssignment, U53,
    Verified,
};

/// Starts of the agent that a release may see while it is on trial: a power cut and a crash look alike.
pub const MAX_TRIAL_BOOTS: u64 = 3;

/// A confirmed release whose process fell so often within [`FALLS_MEMORY`] gives its place to the one before it.
const MAX_FALLS: usize = 5;
const FALLS_MEMORY: Millis = 600_000;
/// Falls for which a start counts that did not succeed: it may have taken minutes.
const FAILED_START: usize = 2;

impl Agent {
    /// A stream after a start: a trial that has crashed the agent too often ends, what served serves.
    pub(crate) fn wake(&mut self, name: &StreamName) {
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

    /// Does what a new assignment says.
    pub(crate) fn assign(&mut self, assignment: &Verified<Assignment>) {
        let generation = Generation { role_epoch: assignment.role_epoch.get(), seq: assignment.seq.get() };
        let parsed: Result<BTreeMap<StreamName, &StreamAssignment>, _> =
            assignment.streams.iter().map(|s| s.stream.parse().map(|name| (name, s))).collect();
        let listed = match parsed {
            Ok(listed) => listed,
            Err(fault) => return self.note(Refusal::new(Code::Parse, format!("{fault}"))),
        };
        self.answer_again();
        let known: Vec<StreamName> = self.ledger.streams.keys().cloned().collect();
        for name in known.iter().filter(|name| !listed.contains_key(name)) {
            self.retire(name);
        }
        for (name, order) in listed {
            self.want(&name, generation, order);
        }
    }

    /// Takes what an assignment says of one stream.
    fn want(&mut self, name: &StreamName, generation: Generation, order: &StreamAssignment) {
        let stream = self.ledger.streams.entry(name.clone()).or_default();
        if order.intent == Intent::Hold {
            return;
        }
        let wanted = Wanted { generation, order: order.clone() };
        let target = wanted.target();
        let same = |w: &Wanted| {
            w.target() == target && w.order.rollout_id == order.rollout_id && w.order.intent == order.intent
        };
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
            self.weigh(name);
        }
    }

    /// Begins the way to what is wanted, if there is any way to go.
    pub(crate) fn pursue(&mut self, name: &StreamName) {
        let Some(stream) = self.ledger.streams.get(name) else { return };
        let Some(wanted) = stream.wanted.clone().filter(|_| !stream.settled) else { return };
        let target = wanted.target();
        if stream.active == Some(target) && self.trust.standing(&self.ledger.held(name, target)) < Standing::Unwanted {
            return self.give_verdict(name, Outcome::Confirmed, None, (0, 0));
        }
        let active = stream.active.map(|a| a.release);
        match self.trust.judge_order(&wanted.order, active, self.now.mono) {
            Ok(()) => self.fetch(name, target, wanted.order.total_size.get(), 0),
            Err(refusal) => self.hold_or_refuse(name, target, refusal),
        }
    }

    /// News came while a release is on its way: it may have been taken away.
    pub(crate) fn check_way(&mut self, name: &StreamName) {
        let Some(stream) = self.ledger.streams.get(name) else { return };
        let Some(order) = stream.wanted.as_ref().map(|w| &w.order) else { return };
        let active = stream.active.map(|a| a.release);
        match self.trust.judge_order(order, active, self.now.mono) {
            Err(refusal) if !refusal.code.may_pass() => self.refuse(name, refusal),
            // What may pass is asked again before anything is installed.
            Err(_) | Ok(()) => {}
        }
    }

    /// What may pass keeps the release waiting; anything else refuses it.
    fn hold_or_refuse(&mut self, name: &StreamName, target: Installed, refusal: Refusal) {
        if !refusal.code.may_pass() {
            return self.refuse(name, refusal);
        }
        self.give_up(name);
        let begins = self.wanted(name).and_then(|w| w.order.not_before).filter(|_| refusal.code == Code::Early);
        let until = begins.map(|begins| {
            let seconds = begins.unix().saturating_sub(self.trust.clock().low(self.now.mono).unix());
            self.now.mono.saturating_add(u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000))
        });
        self.note(refusal.clone());
        self.phases.insert(name.clone(), Phase::Held { target, refusal, until });
    }

    pub(crate) fn fetch(&mut self, name: &StreamName, target: Installed, total_size: u64, failures: u32) {
        self.phases.insert(name.clone(), Phase::Admitting { target, failures });
        self.effects.push(Effect::Fetch { bundle: target.bundle, total_size });
        self.report_due = true;
    }

    /// One event in the life of the release that a stream is on its way to.
    pub(crate) fn turn(&mut self, name: StreamName, event: Event) {
        let Some(mut phase) = self.phases.remove(&name) else { return };
        let turn = phase.turn(event);
        let target = phase.target();
        self.phases.insert(name.clone(), phase.clone());
        let Some(target) = target else { return };
        let failures = match &phase {
            Phase::Admitting { failures, .. }
            | Phase::Fetching { failures, .. }
            | Phase::Verifying { failures, .. } => *failures,
            _ => 0,
        };
        match turn {
            Turn::Stay => {}
            Turn::Described(described) => self.admit(&name, target, failures, &described),
            Turn::Stored => {
                self.phases.insert(name, Phase::Verifying { target, failures });
                self.effects.push(Effect::Examine { bundle: target.bundle });
            }
            Turn::Examined(found) => self.judge(&name, target, failures, &found),
            Turn::Passed(signed, row_us) => self.go_on(name, target, signed, row_us),
            Turn::Compared => self.weigh_shadow(&name),
            Turn::Began => {
                let window = self.wanted(&name).map_or(0, |w| w.order.trial.window_s.get());
                let until = self.now.mono.saturating_add(window.saturating_mul(1_000));
                let (answers, errors, took_us, resident) = (0, 0, 0, 0);
                let on_trial = Phase::OnTrial { target, answers, errors, took_us, resident, until };
                self.phases.insert(name.clone(), on_trial);
                self.report_due = true;
                self.weigh(&name);
            }
            Turn::Counted => self.weigh(&name),
            Turn::Refused(refusal) => match phase {
                Phase::Shadowing { .. } | Phase::Starting { .. } | Phase::OnTrial { .. } => {
                    let seen = self.counted(&name);
                    self.revert(&name, refusal, seen);
                }
                _ => self.refuse(&name, refusal),
            },
            Turn::Failed => {
                self.phases.insert(name, phase.pause(self.now.mono));
            }
        }
    }

    /// Decides whether the bulk of a bundle may come: before that, only what describes it was fetched.
    fn admit(&mut self, name: &StreamName, target: Installed, failures: u32, described: &Described) {
        let Described { envelope, manifest, missing, room } = described;
        let Some(judgement) = self.judgement(name, envelope, manifest, None, *room) else { return };
        if let Some(refusal) = judgement.refusal() {
            return self.hold_or_refuse(name, target, refusal.clone());
        }
        match self.limits.too_dear(*missing) {
            None => {
                self.phases.insert(name.clone(), Phase::Fetching { target, failures });
                self.effects.push(Effect::Admit { bundle: target.bundle });
            }
            Some(refusal) if self.limits.refuses() => self.refuse(name, refusal),
            Some(refusal) => {
                self.note(refusal.clone());
                self.phases.insert(name.clone(), Phase::Deferred { target, refusal });
            }
        }
        self.report_due = true;
    }

    /// Asks every rule of an installation that can be asked of what is known.
    fn judgement(
        &self,
        name: &StreamName,
        envelope: &[u8],
        manifest: &[u8],
        files: Option<&[Resource]>,
        room: u64,
    ) -> Option<Judgement> {
        let board = Board {
            arch: self.profile.arch.clone(),
            class: self.profile.board.clone(),
            ram_mb: self.profile.ram_mb,
            models_mb: self.limits.models_mb,
            in_use_mb: self.ram_in_use(),
            agent: self.profile.agent.clone(),
        };
        let offer = Offer {
            envelope,
            manifest,
            order: Some(&self.wanted(name)?.order),
            active: self.ledger.streams.get(name).and_then(|s| s.active).map(|a| a.release),
            files,
            board: Some(&board),
            free_disk: Some(room),
        };
        Some(self.trust.judge(&offer, self.now.mono))
    }

    /// Asks every rule of an installation about what lies on the disk.
    fn judge(&mut self, name: &StreamName, target: Installed, failures: u32, found: &Found) {
        let Found { envelope, manifest, files, room } = found;
        let Some(judgement) = self.judgement(name, envelope, manifest, Some(files), *room) else { return };
        if let Some(refusal) = judgement.refusal() {
            return self.hold_or_refuse(name, target, refusal.clone());
        }
        // Nothing was refused, so what was signed is at hand and every rule was asked.
        let Some((statement, manifest)) = judgement.bundle else { return };
        let signed = Box::new(Signed { statement, manifest });
        self.phases.insert(name.clone(), Phase::Probing { target, failures, signed });
        self.effects.push(Effect::Probe { bundle: target.bundle });
    }

    /// What a release costs here, and who signed it, is remembered as long as it may run.
    pub(crate) fn price(&mut self, candidate: Installed, signed: &Signed, row_us: u64) {
        self.ledger.signers.insert(candidate.bundle, signed.statement.signers().to_vec());
        let ram_mb = signed.manifest.resources_budget.ram_mb.get();
        self.ledger.costs.insert(candidate.bundle, Cost { ram_mb, row_us });
        self.changed = true;
    }

    /// The trial is in the ledger before the candidate serves: a crash that it causes is counted.
    pub(crate) fn begin_trial(&mut self, name: StreamName, candidate: Installed, signed: &Signed, row_us: u64) {
        let Some(stream) = self.ledger.streams.get_mut(&name) else { return };
        stream.trial = Some(TrialLedger { candidate, security_floor: signed.manifest.security_floor, boots: 0 });
        self.price(candidate, signed, row_us);
        self.phases.insert(name.clone(), Phase::Starting { target: candidate });
        self.serve(&name);
    }

    /// Decides a trial when its terms are met.
    pub(crate) fn weigh(&mut self, name: &StreamName) {
        let Some(Phase::OnTrial { answers, errors, took_us, resident, until, .. }) = self.phases.get(name) else {
            return;
        };
        let (answers, errors, resident, over) = (*answers, *errors, *resident, self.now.mono >= *until);
        let took = Took { answers, took_us: *took_us };
        let Some(terms) = self.wanted(name).map(|w| w.order.trial) else { return };
        if errors > terms.max_errors.get() {
            let detail = format!("{errors} of {} requests on trial had no usable answer", answers + errors);
            self.revert(name, Refusal::new(Code::Probation, detail), (answers, errors));
        } else if let Some(detail) = terms.max_slowdown.and_then(|most| self.slower(name, took, most.get())) {
            self.revert(name, Refusal::new(Code::Probation, detail), (answers, errors));
        } else if let Some(detail) = self.larger(name, resident, terms.max_memory_percent) {
            self.revert(name, Refusal::new(Code::Probation, detail), (answers, errors));
        } else if over || answers >= terms.min_answers.get() {
            self.confirm(name, (answers, errors));
        }
    }

    /// Whether answers on trial take longer than so many percent of what they took the release before; in words.
    fn slower(&self, name: &StreamName, took: Took, most: u64) -> Option<String> {
        let before = self.ledger.streams.get(name)?.active?;
        let (now, usual) = (took.mean_us()?, self.usual.get(&before.bundle)?.mean_us()?);
        let percent = now.saturating_mul(100) / usual.max(1);
        (percent > most).then(|| {
            format!("an answer takes {now} us on average, {percent} % of the {usual} us of release {}; {most} % are allowed", before.release)
        })
    }

    /// Whether the process of the release on trial holds more than what its manifest promises lets it; in words.
    fn larger(&self, name: &StreamName, resident: u64, percent: Option<U53>) -> Option<String> {
        let candidate = self.ledger.streams.get(name)?.trial?.candidate;
        let ram_mb = self.ledger.costs.get(&candidate.bundle)?.ram_mb;
        let most = match percent {
            Some(percent) => (ram_mb << 20).saturating_mul(percent.get()) / 100,
            None => most_memory(ram_mb),
        };
        (resident > most).then(|| {
            let [resident, most] = [resident, most].map(|bytes| bytes >> 20);
            format!("its process holds {resident} MiB of memory; its manifest promises {ram_mb}, {most} are allowed")
        })
    }

    fn confirm(&mut self, name: &StreamName, seen: (u64, u64)) {
        let Some(stream) = self.ledger.streams.get(name) else { return };
        let (Some(trial), Some(wanted)) = (stream.trial, &stream.wanted) else { return };
        if let Err(refusal) = self.trust.confirm(name.as_str(), wanted.order.release, trial.security_floor) {
            return self.revert(name, refusal, seen);
        }
        let Some(stream) = self.ledger.streams.get_mut(name) else { return };
        stream.trial = None;
        stream.silenced = false;
        stream.previous = stream.active.replace(trial.candidate).or(stream.previous);
        if let Some(Phase::OnTrial { answers, took_us, .. }) = self.phases.get(name) {
            self.usual.entry(trial.candidate.bundle).or_default().add(*answers, *took_us);
        }
        self.learned();
        self.phases.remove(name);
        self.give_verdict(name, Outcome::Confirmed, None, seen);
        self.serve(name);
    }

    /// Takes a release on trial back; what was confirmed before answers again.
    pub(crate) fn revert(&mut self, name: &StreamName, refusal: Refusal, seen: (u64, u64)) {
        let Some(stream) = self.ledger.streams.get_mut(name) else { return };
        stream.trial = None;
        self.changed = true;
        self.phases.remove(name);
        self.give_verdict(name, Outcome::Reverted, Some(refusal), seen);
        self.serve(name);
    }

    pub(crate) fn refuse(&mut self, name: &StreamName, refusal: Refusal) {
        self.give_up(name);
        self.note(refusal.clone());
        self.give_verdict(name, Outcome::Refused, Some(refusal), (0, 0));
    }

    /// Whether `bundle` is the confirmed release of `stream`.
    pub(crate) fn is_active(&self, stream: &StreamName, bundle: Digest) -> bool {
        self.ledger.streams.get(stream).and_then(|s| s.active).is_some_and(|active| active.bundle == bundle)
    }

    /// Whether `bundle` is the confirmed release that should answer for `stream`.
    pub(crate) fn is_active_alone(&self, stream: &StreamName, bundle: Digest) -> bool {
        let serving = self.serving(stream);
        serving.is_some_and(|(main, _)| main.bundle == bundle) && !self.phases.get(stream).is_some_and(Phase::serves)
    }

    /// The process of a confirmed release fell, which counts as so many falls: one that falls again and again is a
    /// release that does not load.
    pub(crate) fn count_fall(&mut self, name: &StreamName, bundle: Digest, counts: usize, refusal: Refusal) {
        let now = self.now.mono;
        let falls = self.falls.entry(bundle).or_default();
        falls.retain(|at| now.saturating_sub(*at) < FALLS_MEMORY);
        falls.extend(std::iter::repeat_n(now, counts));
        if falls.len() >= MAX_FALLS && self.is_active_alone(name, bundle) {
            self.falls.remove(&bundle);
            return self.lose_active(name.clone(), refusal);
        }
        self.note(refusal);
    }

    /// A confirmed release did not come up. What is damaged gives its place at once; a process that ended, or was late, may
    /// have had no memory or a slow disk: it is started again, and counted.
    pub(crate) fn fail_to_serve(&mut self, name: StreamName, bundle: Digest, refusal: Refusal) {
        if refusal.code != Code::Model {
            return self.lose_active(name, refusal);
        }
        self.count_fall(&name, bundle, FAILED_START, refusal);
        if self.is_active_alone(&name, bundle) {
            self.serve(&name);
        }
    }

    /// The confirmed release does not load any more: the one before it answers, and it is fetched anew.
    pub(crate) fn lose_active(&mut self, name: StreamName, refusal: Refusal) {
        let Some(stream) = self.ledger.streams.get_mut(&name) else { return };
        let Some(lost) = stream.active.take() else { return };
        stream.active = stream.previous.take();
        if stream.wanted.as_ref().is_some_and(|w| w.target() == lost) {
            stream.settled = false;
        }
        self.changed = true;
        self.note(refusal);
        self.take_course(&name);
        self.effects.push(Effect::Discard { bundle: lost.bundle });
        self.serve(&name);
        if !self.phases.contains_key(&name) {
            self.pursue(&name);
        }
    }

    /// Ends a stream. Its floor stays with what was believed: or land could go below it by taking the
    /// stream away in between.
    fn retire(&mut self, name: &StreamName) {
        self.give_up(name);
        if self.ledger.streams.remove(name).is_some() {
            self.effects.push(Effect::StopServing { stream: name.clone() });
        }
    }

    /// Leaves the way to a bundle that is not on trial.
    pub(crate) fn give_up(&mut self, name: &StreamName) {
        match self.phases.remove(name) {
            Some(Phase::Admitting { target, .. } | Phase::Deferred { target, .. } | Phase::Fetching { target, .. }) => {
                self.effects.push(Effect::StopFetching { bundle: target.bundle });
            }
            Some(Phase::Shadowing { .. }) => self.serve(name),
            Some(
                Phase::Settled
                | Phase::Pausing { .. }
                | Phase::Held { .. }
                | Phase::Verifying { .. }
                | Phase::Probing { .. }
                | Phase::Starting { .. }
                | Phase::OnTrial { .. },
            )
            | None => {}
        }
    }

    /// What should answer now, and what answers when that fails. What was taken away answers no more.
    pub(crate) fn serving(&self, name: &StreamName) -> Option<(Installed, Option<Installed>)> {
        let stream = self.ledger.streams.get(name)?;
        let active = stream.active.filter(|_| !stream.silenced);
        match stream.trial {
            Some(trial) => Some((trial.candidate, active)),
            None => active.map(|active| (active, None)),
        }
    }

    pub(crate) fn serve(&mut self, name: &StreamName) {
        self.report_due = true;
        let stream = name.clone();
        self.effects.push(match self.serving(name) {
            Some((main, fallback)) => {
                Effect::Serve { stream, bundle: main.bundle, fallback: fallback.map(|f| f.bundle) }
            }
            None => Effect::StopServing { stream },
        });
        self.cast_shadow(name);
    }

    /// What is due for a stream whose phase has a deadline.
    pub(crate) fn reach(&mut self, name: &StreamName, now: Millis) {
        let Some(phase) = self.phases.get(name).filter(|p| p.deadline().is_some_and(|d| d <= now)) else { return };
        match phase {
            Phase::Pausing { target, failures, .. } => {
                let (target, failures) = (*target, *failures);
                let total_size = self.wanted(name).map_or(0, |w| w.order.total_size.get());
                self.fetch(name, target, total_size, failures);
            }
            Phase::Held { .. } => {
                self.phases.remove(name);
                self.pursue(name);
            }
            Phase::Shadowing { .. } => self.weigh_shadow(name),
            Phase::OnTrial { .. } => self.weigh(name),
            Phase::Settled
            | Phase::Admitting { .. }
            | Phase::Deferred { .. }
            | Phase::Fetching { .. }
            | Phase::Verifying { .. }
            | Phase::Probing { .. }
            | Phase::Starting { .. } => {}
        }
    }

    pub(crate) fn wanted(&self, name: &StreamName) -> Option<&Wanted> {
        self.ledger.streams.get(name)?.wanted.as_ref()
    }

    /// What a release has shown on trial: answers and errors.
    pub(crate) fn counted(&self, name: &StreamName) -> (u64, u64) {
        match self.phases.get(name) {
            Some(Phase::OnTrial { answers, errors, .. }) => (*answers, *errors),
            _ => (0, 0),
        }
    }
}
