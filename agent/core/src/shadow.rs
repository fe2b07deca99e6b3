//! A release in the shadow of the one before it: it is asked the same, nobody hears it, and what differs is counted.
//!
//! Decides when it has been seen for long enough, and what follows. Nothing of it is in the ledger: a power cut begins it anew.
//! What makes two answers differ is for the hands.

use crate::agent::Agent;
use crate::life::Signed;
use crate::{Effect, Installed, Phase};
use protocol::{ShadowReport, StreamName};
use trust::{Code, Refusal};

impl Agent {
    /// A release that runs here goes on: into the shadow of what answers, where land asked for that; or on trial.
    pub(crate) fn go_on(&mut self, name: StreamName, target: Installed, signed: Box<Signed>, row_us: u64) {
        let Some(trial) = self.wanted(&name).map(|wanted| wanted.order.trial) else { return };
        if trial.shadow.is_none() || self.serving(&name).is_none() {
            return self.begin_trial(name, target, &signed, row_us);
        }
        self.price(target, &signed, row_us);
        let until = self.now.mono.saturating_add(trial.window_s.get().saturating_mul(1_000));
        let seen = ShadowReport::default();
        self.phases.insert(name.clone(), Phase::Shadowing { target, signed, row_us, seen, until });
        self.report_due = true;
        self.cast_shadow(&name);
    }

    /// What answers has changed, or begins to be compared: the shadow follows it. Without anything that answers there is
    /// nothing to compare with, and the trial begins.
    pub(crate) fn cast_shadow(&mut self, name: &StreamName) {
        let Some(Phase::Shadowing { target, .. }) = self.phases.get(name) else { return };
        match self.serving(name) {
            Some(_) => self.effects.push(Effect::Shadow { stream: name.clone(), bundle: target.bundle }),
            None => self.leave_shadow(name),
        }
    }

    fn leave_shadow(&mut self, name: &StreamName) {
        self.note_shadow(name);
        if let Some(Phase::Shadowing { target, signed, row_us, .. }) = self.phases.remove(name) {
            self.begin_trial(name.clone(), target, &signed, row_us);
        }
    }

    /// Decides when enough was compared, when it cannot end well any more, or when its time is over.
    pub(crate) fn weigh_shadow(&mut self, name: &StreamName) {
        let Some(Phase::Shadowing { seen, until, .. }) = self.phases.get(name) else { return };
        let (ShadowReport { compared, disagreed }, over) = (*seen, self.now.mono >= *until);
        let Some(terms) = self.wanted(name).and_then(|wanted| wanted.order.trial.shadow) else { return };
        let (answers, most) = (terms.answers.get(), terms.max_disagreement.get());
        let of = if over { compared } else { compared.max(answers) };
        if u128::from(disagreed) * 100 > u128::from(of) * u128::from(most) {
            let detail = format!(
                "in the shadow of what answers, {disagreed} of {compared} answers were others; of {of} {most} % are allowed"
            );
            self.note_shadow(name);
            self.revert(name, Refusal::new(Code::Probation, detail), (0, 0));
        } else if over || compared >= answers {
            self.leave_shadow(name);
        }
    }

    /// What it showed is said with its verdict.
    fn note_shadow(&mut self, name: &StreamName) {
        if let Some((target, seen)) = self.shadow(name) {
            self.compared.insert(name.clone(), (target.bundle, seen));
        }
    }

    /// What a release has shown in the shadow, while it is there.
    pub(crate) fn shadow(&self, name: &StreamName) -> Option<(Installed, ShadowReport)> {
        match self.phases.get(name) {
            Some(Phase::Shadowing { target, seen, .. }) => Some((*target, *seen)),
            _ => None,
        }
    }

    /// Memory that is taken by what stays loaded, and by what is in a shadow, MiB.
    pub(crate) fn ram_in_use(&self) -> u64 {
        let shadows = self.phases.keys().filter_map(|name| self.shadow(name));
        let costs = shadows.filter_map(|(target, _)| self.ledger.costs.get(&target.bundle));
        self.ledger.ram_in_use() + costs.map(|cost| cost.ram_mb).sum::<u64>()
    }
}
