//! What a device says of itself: hello, report, verdicts, and what it refused.

use crate::agent::Agent;
use crate::step::Millis;
use crate::{Effect, Installed, Phase, StreamLedger};
use protocol::{
    ClockState, Generation, HexDigest, Outcome, RefusalReport, Report, Running, SPEC, Standing, StreamName,
    StreamReport, TrialReport, Verdict,
};
use trust::{Digest, Refusal};

/// The first pause before hello is said again to a land that does not answer; it doubles.
const FIRST_HELLO_PAUSE: Millis = 5_000;
/// The longest such pause.
const LONGEST_HELLO_PAUSE: Millis = 600_000;
/// How often land's fresh word is asked for: it counts for a day.
const FRESH_PAUSE: Millis = 6 * 3_600_000;

impl Agent {
    /// Says who is here, and begins anew to wait for the answer.
    pub(crate) fn greet_now(&mut self) {
        if self.connected {
            self.say_hello(FIRST_HELLO_PAUSE);
        }
    }

    /// Hello is not retained: a device that land never answered says it again, or it would stay unknown
    /// when land was away as it came.
    pub(crate) fn say_hello(&mut self, pause: Millis) {
        let seq = self.next_seq();
        self.renew_nonce();
        let (nonce, profile) = (self.nonce.clone(), self.profile.clone());
        self.effects.push(Effect::SayHello { boot: self.ledger.boot, seq, nonce, profile });
        self.hello = Some((self.now.mono.saturating_add(pause), (pause * 2).min(LONGEST_HELLO_PAUSE)));
    }

    /// Land answered afresh.
    pub(crate) fn rest_from_hello(&mut self) {
        self.hello = self.connected.then(|| (self.now.mono.saturating_add(FRESH_PAUSE), FIRST_HELLO_PAUSE));
    }

    /// Land speaks, perhaps after it was away: the verdicts that it may have missed are said again, also
    /// those that are on their way, since the broker may have had nobody to give them to.
    pub(crate) fn answer_again(&mut self) {
        if self.connected {
            let given = self.ledger.streams.values().filter_map(|s| s.verdict.clone());
            self.effects.extend(given.map(Effect::DeliverVerdict));
        }
    }

    pub(crate) fn give_verdict(
        &mut self,
        name: &StreamName,
        outcome: Outcome,
        refusal: Option<Refusal>,
        seen: (u64, u64),
    ) {
        let Some(stream) = self.ledger.streams.get_mut(name) else { return };
        let Some(wanted) = &stream.wanted else { return };
        let compared = self.compared.remove(name).filter(|(bundle, _)| *bundle == wanted.order.statement_sha256);
        stream.settled = true;
        self.ledger.verdicts_given += 1;
        let verdict = Verdict {
            spec: SPEC,
            fleet: self.fleet.clone(),
            device_id: self.device.clone(),
            seq: self.ledger.verdicts_given,
            generation: wanted.generation,
            stream: name.clone(),
            release: wanted.order.release.get(),
            statement_sha256: wanted.order.statement_sha256.0,
            outcome,
            code: refusal.as_ref().map(|r| r.code.to_string()),
            detail: refusal.map(|r| r.detail),
            answers: seen.0,
            errors: seen.1,
            shadow: compared.map(|(_, seen)| seen),
        };
        stream.verdict = Some(verdict.clone());
        self.ledger.outbox.push(verdict.clone());
        self.changed = true;
        self.report_due = true;
        if self.connected {
            self.effects.push(Effect::DeliverVerdict(verdict));
        }
    }

    pub(crate) fn note(&mut self, refusal: Refusal) {
        self.note_document(refusal, None);
    }

    /// Counts a refusal. A flood of them is not answered by a flood of reports: the first one is told, and
    /// then each time that their number has doubled.
    pub(crate) fn note_document(&mut self, refusal: Refusal, document: Option<Digest>) {
        let code = refusal.code.to_string();
        let at = u64::try_from(self.trust.clock().low(self.now.mono).unix()).unwrap_or(0);
        let first = RefusalReport { code, count: 0, first: at, last: at, document: None, detail: String::new() };
        let row = self.refusals.entry(refusal.code).or_insert(first);
        row.count += 1;
        row.last = at;
        row.document = document.map(|d| HexDigest(d.0));
        row.detail = refusal.detail.chars().take(200).collect();
        self.report_due |= row.count.is_power_of_two();
    }

    pub(crate) fn next_seq(&mut self) -> u64 {
        self.said += 1;
        self.said
    }

    /// Whether land has answered this boot's nonce lately.
    pub(crate) fn is_fresh(&self) -> bool {
        self.trust.clock().fresh(self.now.mono)
    }

    /// The state as it is published.
    pub(crate) fn report(&mut self) -> Report {
        let seq = self.next_seq();
        let streams = self.ledger.streams.iter().map(|(name, stream)| self.stream_report(name, stream)).collect();
        let counters = self.trust.counters();
        Report {
            spec: SPEC,
            fleet: self.fleet.clone(),
            device_id: self.device.clone(),
            boot: self.ledger.boot,
            seq,
            generation: counters.assignment().map(generation),
            nonce: self.nonce.clone(),
            root_version: self.trust.root().version.get(),
            revocation: counters.revocation().map(generation),
            beacon: counters.beacon().map(generation),
            clock: self.clock(),
            streams,
            last_refusals: self.refusals.values().cloned().collect(),
            profile: self.profile.clone(),
        }
    }

    /// How well the time is known.
    pub fn clock(&self) -> ClockState {
        match self.trust.clock_state(self.now.mono) {
            trust::ClockState::Unset => ClockState::Unset,
            trust::ClockState::Stale => ClockState::Stale,
            trust::ClockState::Fresh => ClockState::Fresh,
            trust::ClockState::Expired => ClockState::Expired,
        }
    }

    fn stream_report(&self, name: &StreamName, stream: &StreamLedger) -> StreamReport {
        let running = |i: Installed| Running { release: i.release, statement_sha256: i.bundle.0 };
        let (answers, errors) = self.counted(name);
        let trial = stream.trial.map(|t| TrialReport {
            release: t.candidate.release,
            statement_sha256: t.candidate.bundle.0,
            answers,
            errors,
            shadow: None,
        });
        let shadow = self.shadow(name).map(|(target, seen)| TrialReport {
            release: target.release,
            statement_sha256: target.bundle.0,
            answers: 0,
            errors: 0,
            shadow: Some(seen),
        });
        let standing = match stream.active.map(|active| self.trust.standing(&self.ledger.held(name, active))) {
            None | Some(trust::Standing::Good) => Standing::Good,
            Some(trust::Standing::Doubted) => Standing::Doubted,
            Some(trust::Standing::Unwanted) => Standing::Unwanted,
            Some(trust::Standing::Stopped) => Standing::Stopped,
        };
        StreamReport {
            stream: name.clone(),
            active: stream.active.map(running),
            previous: stream.previous.map(running),
            trial: trial.or(shadow),
            floor: self.trust.floor(name.as_str()),
            standing,
            sandbox: self.sandboxes.get(name).copied(),
            held: self.phases.get(name).and_then(Phase::held_by).map(|refusal| refusal.code.to_string()),
        }
    }
}

/// A generation as it is said on the wire.
fn generation(of: trust::Generation) -> Generation {
    Generation { role_epoch: of.role_epoch.get(), seq: of.seq.get() }
}
