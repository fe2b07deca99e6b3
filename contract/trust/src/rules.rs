//! The rules of an installation by name, and what came of asking them.

use crate::{Manifest, Refusal, Statement, Verified};
use std::fmt;

/// The rules of an installation, in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The root has not expired.
    RootValid,
    /// The newest root and revocation of which this device was told are at hand, and the floors known.
    UpToDate,
    /// The bridge answered in this boot, where the fleet asks for it.
    Fresh,
    /// The device is part of the fleet.
    DeviceInFleet,
    /// Enough distinct, unrevoked publishers signed.
    Signatures,
    /// They may sign for this stream, and the manifest is the signed one.
    ManifestInScope,
    /// Nobody took this bundle away.
    NotRevoked,
    /// It is what was assigned, or a person may bring it.
    Assigned,
    /// Now is the time that the assignment names, and the bundle has not expired.
    InTime,
    /// An older release was declared a rollback by somebody who may.
    RollbackDeclared,
    /// It is not below the floor.
    AboveFloor,
    /// The root is not older than the bundle asks for.
    RootForBundle,
    /// It fits the board.
    Hardware,
    /// The agent is not too old.
    Agent,
    /// There is room on the disk.
    Disk,
    /// Exactly the signed files are there.
    Files,
}

impl Rule {
    /// Every rule, in order.
    pub const ALL: [Rule; 16] = [
        Rule::RootValid,
        Rule::UpToDate,
        Rule::Fresh,
        Rule::DeviceInFleet,
        Rule::Signatures,
        Rule::ManifestInScope,
        Rule::NotRevoked,
        Rule::Assigned,
        Rule::InTime,
        Rule::RollbackDeclared,
        Rule::AboveFloor,
        Rule::RootForBundle,
        Rule::Hardware,
        Rule::Agent,
        Rule::Disk,
        Rule::Files,
    ];

    /// The rule as a person reads it.
    pub fn as_str(self) -> &'static str {
        match self {
            Rule::RootValid => "the root has not expired",
            Rule::UpToDate => "the newest root and revocation are at hand",
            Rule::Fresh => "the bridge answered in this boot, where the fleet asks for it",
            Rule::DeviceInFleet => "the device is part of the fleet",
            Rule::Signatures => "enough unrevoked publishers signed",
            Rule::ManifestInScope => "they may sign for this stream",
            Rule::NotRevoked => "the bundle was not taken away",
            Rule::Assigned => "it is what was assigned",
            Rule::InTime => "now is its time",
            Rule::RollbackDeclared => "an older release was declared a rollback",
            Rule::AboveFloor => "it is not below the floor",
            Rule::RootForBundle => "the root is new enough for it",
            Rule::Hardware => "it fits the board",
            Rule::Agent => "the agent is new enough for it",
            Rule::Disk => "there is room on the disk",
            Rule::Files => "exactly the signed files are there",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What came of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It holds.
    Passed,
    /// It does not.
    Refused(Refusal),
    /// It could not be asked, because of this.
    Unknown(&'static str),
}

/// A rule and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which rule.
    pub rule: Rule,
    /// What came of it.
    pub outcome: Outcome,
}

/// Every rule, and the bundle when its signatures and its manifest hold.
#[derive(Debug, Clone)]
pub struct Judgement {
    /// One for each rule, in order.
    pub findings: Vec<Finding>,
    /// What was signed.
    pub bundle: Option<(Verified<Statement>, Verified<Manifest>)>,
}

impl Judgement {
    /// The first refusal.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.findings.iter().find_map(|f| match &f.outcome {
            Outcome::Refused(refusal) => Some(refusal),
            Outcome::Passed | Outcome::Unknown(_) => None,
        })
    }

    /// Nothing was refused, and nothing was left unasked.
    pub fn installs(&self) -> bool {
        self.findings.iter().all(|f| f.outcome == Outcome::Passed)
    }

    pub(crate) fn note(&mut self, rule: Rule, result: Result<(), Refusal>) {
        let outcome = result.map_or_else(Outcome::Refused, |()| Outcome::Passed);
        self.findings.push(Finding { rule, outcome });
    }

    fn skip(&mut self, rule: Rule, why: &'static str) {
        self.findings.push(Finding { rule, outcome: Outcome::Unknown(why) });
    }

    /// Asks a rule about something that may not be known.
    pub(crate) fn ask<T>(
        &mut self,
        rule: Rule,
        known: Option<T>,
        why: &'static str,
        ask: impl FnOnce(T) -> Result<(), Refusal>,
    ) {
        match known {
            Some(known) => self.note(rule, ask(known)),
            None => self.skip(rule, why),
        }
    }
}
