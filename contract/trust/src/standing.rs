//! What a revocation means for bundles that run already: only a signed word stops one.

use crate::root::{OnRevoked, Role};
use crate::{Digest, Severity, Trust};

/// A bundle that runs, or that stands behind one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held<'a> {
    /// Its statement.
    pub statement: Digest,
    /// Its stream.
    pub stream: &'a str,
    /// Its release.
    pub release: u64,
    /// The key ids of the publishers who signed it.
    pub signers: &'a [String],
}

/// How a bundle stands, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Nothing is said against it.
    Good,
    /// It goes on, and the report says what is said against it.
    Doubted,
    /// The previous good release takes over.
    Unwanted,
    /// It stops answering.
    Stopped,
}

/// What a device does with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// The active release goes on.
    Stay,
    /// The previous release takes over.
    FallBack,
    /// Nothing answers any more, and people are told: nothing good is left to fall back to.
    Safe,
    /// Nothing answers any more, as was ordered.
    Stop,
}

impl Trust {
    /// How a bundle stands.
    pub fn standing(&self, held: &Held<'_>) -> Standing {
        let Some(revocation) = &self.revocation else { return Standing::Good };
        let left = held.signers.iter().filter(|key| !revocation.key_void(key)).count() as u64;
        let by_keys = match self.root.policy.on_active_revoked {
            _ if left >= self.root.threshold(Role::Publisher) || left == held.signers.len() as u64 => Standing::Good,
            OnRevoked::Keep => Standing::Doubted,
            OnRevoked::Fallback => Standing::Unwanted,
        };
        let by_word = match revocation.severity(held.statement, held.stream, held.release) {
            None => Standing::Good,
            Some(Severity::Info | Severity::NoNew) => Standing::Doubted,
            Some(Severity::Fallback) => Standing::Unwanted,
            Some(Severity::Stop) => Standing::Stopped,
        };
        by_keys.max(by_word)
    }

    /// What a device does with a stream that runs `active`, with `previous` behind it. It never goes
    /// round in circles: what is unwanted itself is no way back.
    pub fn course(&self, active: &Held<'_>, previous: Option<&Held<'_>>) -> Course {
        let stands = |held: &Held<'_>| self.standing(held) < Standing::Unwanted;
        match self.standing(active) {
            Standing::Good | Standing::Doubted => Course::Stay,
            Standing::Stopped => Course::Stop,
            Standing::Unwanted if previous.is_some_and(stands) => Course::FallBack,
            Standing::Unwanted => Course::Safe,
        }
    }
}
