//! The door out: answers and effects leave a step only after the records that they rest on are saved.

use crate::audit::Deed;
use crate::{
    CommandDraft, Device, Effect, FanOut, Member, Rejection, Release, Rollout, SampleRequest, StoredDocument, Withdrawn,
};
use protocol::{DeviceId, DocumentKind, StreamName};
use serde::{Deserialize, Serialize};
use trust::Digest;

/// Milliseconds since 1970.
pub type UnixMillis = u64;

/// The time at a step. Land has a clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since 1970.
    pub unix: UnixMillis,
}

/// One row of what the bridge remembers; it replaces the row of the same kind and key. Deeds are added to
/// the audit log and replace nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Record {
    /// A device.
    Device(Box<Device>),
    /// A device that was never let in: its row goes.
    NoDevice {
        /// Which.
        id: DeviceId,
    },
    /// A release.
    Release(Box<Release>),
    /// A release that was removed: its row goes.
    NoRelease {
        /// Its bundle.
        bundle: Digest,
    },
    /// A rollout, without its members.
    Rollout(Box<Rollout>),
    /// A rollout that ended long ago: its row goes.
    NoRollout {
        /// Its number.
        rollout: u64,
    },
    /// A device of a rollout.
    Member(Box<Member>),
    /// A device that is none of it any more: its row goes.
    NoMember {
        /// Which rollout.
        rollout: u64,
        /// Which device.
        device: DeviceId,
    },
    /// A request for inputs that devices keep.
    Samples(Box<SampleRequest>),
    /// One that is over for long: its row goes.
    NoSamples {
        /// Its number.
        request: u64,
    },
    /// What the bridge itself decided, for the audit log.
    Deed(Box<Deed>),
    /// A command, for whoever keeps what came of it.
    Command(Box<CommandDraft>),
    /// What was asked of many devices at once.
    FanOut(Box<FanOut>),
    /// One of long ago: its row goes.
    NoFanOut {
        /// Its number.
        fan_out: u64,
    },
    /// A document for everybody.
    Document(Box<StoredDocument>),
    /// Numbers of beacons below this may be in use.
    Beacons {
        /// The first number that is not.
        reserved: u64,
    },
    /// Land was put back from a copy: whoever enrols may know numbers from before.
    PutBack {
        /// When it was, the last time.
        at: UnixMillis,
    },
    /// A certificate that counts no more.
    Withdrawn(Withdrawn),
    /// One whose end has come by itself: its row goes.
    NotWithdrawn {
        /// Its serial number.
        serial: String,
    },
}

/// What a person's request came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Done.
    Done,
    /// A rollout began.
    Started {
        /// Its number.
        rollout: u64,
    },
    /// A command was given.
    Commanded {
        /// Its number among those for the device.
        seq: u64,
        /// What is signed; nothing of one that was given before.
        draft: Option<Box<CommandDraft>>,
    },
    /// Many devices were asked.
    FannedOut {
        /// The number of that.
        fan_out: u64,
    },
    /// A request for inputs waits for approval.
    Wanted {
        /// Its number.
        request: u64,
    },
    /// The document is kept and published from now on.
    Taken {
        /// What it is.
        kind: DocumentKind,
        /// The version of a root or a revocation; 0 for a breakglass.
        number: u64,
        /// Whether it was not known already.
        new: bool,
    },
    /// These releases were removed.
    Forgotten {
        /// Which.
        releases: Vec<Release>,
    },
    /// The release is known from now on.
    Known {
        /// Which stream.
        stream: StreamName,
        /// Its bundle.
        bundle: Digest,
    },
}

/// The outcome of one event: records to save, then what to say and do.
#[must_use = "the effects of a step leave it only through commit"]
#[derive(Debug)]
pub struct Step {
    pub(crate) records: Vec<Record>,
    pub(crate) effects: Vec<Effect>,
    pub(crate) answer: Result<Answer, Rejection>,
}

/// What may be said and done, now that it is remembered.
#[derive(Debug)]
pub struct Committed {
    /// In their order.
    pub effects: Vec<Effect>,
    /// To whoever asked; `Done` for news from devices.
    pub answer: Result<Answer, Rejection>,
}

impl Step {
    /// With what the audit log says of who asked for it: of what is refused too, and before what it led to.
    pub fn asked_by(mut self, deed: impl FnOnce(&Result<Answer, Rejection>) -> Deed) -> Self {
        self.records.insert(0, Record::Deed(Box::new(deed(&self.answer))));
        self
    }

    /// Saves the records of several steps together, and then hands out the answer and the effects of each.
    ///
    /// # Errors
    /// The error of `save`; the bridge must be restored from its records then.
    pub fn commit_all<E>(
        steps: impl IntoIterator<Item = Self>,
        save: impl FnOnce(&[Record]) -> Result<(), E>,
    ) -> Result<Vec<Committed>, E> {
        let mut records = Vec::new();
        let committed = steps.into_iter().map(|step| {
            records.extend(step.records);
            Committed { effects: step.effects, answer: step.answer }
        });
        let committed = committed.collect();
        save(&records)?;
        Ok(committed)
    }

    /// Saves the records, if there are any, and then hands out answer and effects.
    ///
    /// # Errors
    /// The error of `save`; the bridge must be restored from its records then.
    pub fn commit<E>(self, save: impl FnOnce(&[Record]) -> Result<(), E>) -> Result<Committed, E> {
        if !self.records.is_empty() {
            save(&self.records)?;
        }
        Ok(Committed { effects: self.effects, answer: self.answer })
    }
}
