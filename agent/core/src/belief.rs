//! What a device does with documents: each goes through its door of `trust`, and what was believed has
//! consequences for what runs and for what waits.
//!
//! Nothing here reads a signature: `trust` does. A refusal changes nothing.

use crate::agent::Agent;
use crate::step::Millis;
use crate::{Document, Effect, Installed, Phase};
use protocol::{DocumentKind, StreamName};
use std::collections::BTreeMap;
use trust::{Accepted, Assignment, Code, Course, Digest, Generation, Refusal, Verified};

/// An assignment that came too soon after others: the newest one waits for its time.
#[derive(Debug)]
pub(crate) struct Deferred {
    pub(crate) until: Millis,
    generation: Generation,
    bytes: Vec<u8>,
}

/// What answers for each stream, and what in its place.
type Serving = BTreeMap<StreamName, Option<(Installed, Option<Installed>)>>;

impl Agent {
    /// Takes a document, or notes why not. Brokers repeat themselves: what was just taken is not verified again.
    pub(crate) fn believe(&mut self, kind: DocumentKind, bytes: Vec<u8>) {
        let digest = Digest::of(&bytes);
        if self.taken.get(&kind) == Some(&digest) {
            if kind == DocumentKind::Assignment {
                self.answer_again();
            }
            return;
        }
        let taken = match kind {
            DocumentKind::Root => self.take_root(&bytes),
            DocumentKind::Revocation => self.take_revocation(&bytes),
            DocumentKind::Assignment => self.take_assignment(&bytes),
            DocumentKind::Beacon => self.take_beacon(&bytes),
            DocumentKind::Breakglass => self.take_breakglass(&bytes),
            DocumentKind::Command => self.take_command(&bytes),
        };
        match taken {
            Ok(()) => drop(self.taken.insert(kind, digest)),
            Err(refusal) => {
                // Land signed it for what this device lacks, perhaps: it is asked again when that came.
                self.missed |= kind == DocumentKind::Assignment;
                self.note_document(refusal, Some(digest));
            }
        }
    }

    fn take_root(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let before = self.all_serving();
        // What was missed is asked for anyway.
        let was_fresh = self.is_fresh() && !self.missed;
        if let Accepted::New(root) = self.trust.accept_root(bytes, self.now.mono)? {
            let digest = root.digest();
            self.keep(DocumentKind::Root, digest, bytes);
            self.await_root();
            self.follow(&before);
            if was_fresh && !self.is_fresh() {
                // The beacon has another key: what it said does not count any more.
                self.greet_now();
            }
        }
        Ok(())
    }

    fn take_revocation(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let before = self.all_serving();
        let lost = self.trust.revocation().is_none();
        let accepted = self.trust.accept_revocation(bytes, self.now.mono)?;
        if matches!(accepted, Accepted::New(_)) || lost {
            let digest = accepted.document().digest();
            self.keep(DocumentKind::Revocation, digest, bytes);
            self.follow(&before);
        }
        Ok(())
    }

    fn take_assignment(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let mut after = self.trust.clone();
        match after.accept_assignment(bytes, self.now.mono)? {
            Accepted::Again(_) => self.answer_again(),
            Accepted::New(assignment) => {
                if let Err(until) = self.assignments.take(self.now.mono) {
                    return Err(self.defer(until, &assignment, bytes));
                }
                self.trust = after;
                self.deferred = None;
                self.missed = false;
                self.learned();
                self.assign(&assignment);
            }
        }
        Ok(())
    }

    /// Keeps the newest of the assignments that came too fast.
    fn defer(&mut self, until: Millis, assignment: &Verified<Assignment>, bytes: &[u8]) -> Refusal {
        let generation = Generation { role_epoch: assignment.role_epoch, seq: assignment.seq };
        if self.deferred.as_ref().is_none_or(|d| d.generation < generation) {
            self.deferred = Some(Deferred { until, generation, bytes: bytes.to_vec() });
        }
        Refusal::new(Code::Rate, format!("assignment {} came too soon after others", assignment.seq))
    }

    /// The time has come for the assignment that waits.
    pub(crate) fn take_deferred(&mut self) {
        if let Some(deferred) = self.deferred.take_if(|d| d.until <= self.now.mono) {
            self.believe(DocumentKind::Assignment, deferred.bytes);
        }
    }

    fn take_beacon(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let was_fresh = self.is_fresh();
        let mut after = self.trust.clone();
        if let Accepted::New(beacon) = after.accept_beacon(bytes, self.now.mono)? {
            if self.beacons.take(self.now.mono).is_err() {
                return Err(Refusal::new(Code::Rate, format!("beacon {} came too soon after others", beacon.seq)));
            }
            self.trust = after;
            self.learned();
            if self.is_fresh() && (!was_fresh || beacon.nonce.is_some()) {
                self.rest_from_hello();
            }
            self.ask_again();
        }
        Ok(())
    }

    fn take_breakglass(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        match self.trust.accept_breakglass(bytes, self.now.mono) {
            Ok(_) => {
                self.learned();
                self.ask_again();
                Ok(())
            }
            // It is retained, and for others too: it comes at every connection.
            Err(refusal) if matches!(refusal.code, Code::Replay | Code::Device) => Ok(()),
            Err(refusal) => Err(refusal),
        }
    }

    /// What was believed is to be saved and reported.
    pub(crate) fn learned(&mut self) {
        self.ledger.trust = Some(self.trust.counters().clone());
        self.changed = true;
        self.report_due = true;
    }

    fn keep(&mut self, kind: DocumentKind, digest: Digest, bytes: &[u8]) {
        self.documents.push(Document { kind, digest, bytes: bytes.to_vec() });
        self.learned();
    }

    pub(crate) fn await_root(&mut self) {
        if self.connected {
            self.effects.push(Effect::AwaitRoot { version: self.trust.root().version.get() + 1 });
        }
    }

    fn all_serving(&self) -> Serving {
        self.ledger.streams.keys().map(|name| (name.clone(), self.serving(name))).collect()
    }

    /// What a new root or revocation means for what runs, and for what waits.
    fn follow(&mut self, before: &Serving) {
        let names: Vec<StreamName> = self.ledger.streams.keys().cloned().collect();
        for name in &names {
            let left = self.leave_revoked_trial(name);
            self.take_course(name);
            if !left && before.get(name) != Some(&self.serving(name)) {
                self.serve(name);
            }
        }
        self.ask_again();
        if std::mem::take(&mut self.missed) {
            self.greet_now();
        }
    }

    /// Takes a release back that was taken away while it is on trial; whether it did.
    fn leave_revoked_trial(&mut self, name: &StreamName) -> bool {
        let Some(stream) = self.ledger.streams.get(name).filter(|s| s.trial.is_some()) else { return false };
        let Some(order) = stream.wanted.as_ref().map(|w| &w.order) else { return false };
        let active = stream.active.map(|a| a.release);
        match self.trust.judge_order(order, active, self.now.mono) {
            Err(refusal) if refusal.code == Code::RevokedBundle => {
                let seen = self.counted(name);
                self.note(refusal.clone());
                self.revert(name, refusal, seen);
                true
            }
            // Whatever else has changed does not undo what was begun.
            Err(_) | Ok(()) => false,
        }
    }

    /// Follows what `trust` says of the active release of a stream.
    pub(crate) fn take_course(&mut self, name: &StreamName) {
        let Some(stream) = self.ledger.streams.get(name) else { return };
        let Some(active) = stream.active else { return };
        if self.trust.revocation_is_lost() {
            return;
        }
        let (held, previous) =
            (self.ledger.held(name, active), stream.previous.map(|previous| self.ledger.held(name, previous)));
        let course = self.trust.course(&held, previous.as_ref());
        let taken_away = |what: &str| {
            Refusal::new(Code::RevokedBundle, format!("release {} of {name} was taken away: {what}", active.release))
        };
        let told = match course {
            Course::Stay => None,
            Course::FallBack => Some(taken_away("the one before it answers")),
            Course::Safe => Some(taken_away("nothing good is left to fall back to, nothing answers")),
            Course::Stop => Some(taken_away("nothing answers")),
        };
        let Some(stream) = self.ledger.streams.get_mut(name) else { return };
        let silent = matches!(course, Course::Safe | Course::Stop);
        let news = course == Course::FallBack || silent && !stream.silenced;
        self.changed |= stream.silenced != silent || news;
        stream.silenced = silent;
        if course == Course::FallBack {
            stream.active = stream.previous.take();
        }
        if let Some(refusal) = told.filter(|_| news) {
            self.note(refusal);
        }
    }

    /// What waits is judged again, and what is on its way may have to be left.
    fn ask_again(&mut self) {
        let names: Vec<StreamName> = self.phases.keys().cloned().collect();
        for name in names {
            match self.phases.get(&name) {
                Some(Phase::Held { .. }) => {
                    self.phases.remove(&name);
                    self.pursue(&name);
                }
                Some(
                    Phase::Admitting { .. }
                    | Phase::Deferred { .. }
                    | Phase::Fetching { .. }
                    | Phase::Pausing { .. }
                    | Phase::Verifying { .. }
                    | Phase::Probing { .. }
                    | Phase::Shadowing { .. },
                ) => self.check_way(&name),
                Some(Phase::Settled | Phase::Starting { .. } | Phase::OnTrial { .. }) | None => {}
            }
        }
    }
}
