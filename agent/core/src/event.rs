//! What the hands tell the core: always something that happened.

use protocol::{DocumentKind, Sandbox, StreamName};
use trust::{Digest, Refusal, Resource};

/// A bundle as it lies on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// `bundle.dsse.json`.
    pub envelope: Vec<u8>,
    /// `manifest.json`.
    pub manifest: Vec<u8>,
    /// Every file but those that hold signatures, as it is there.
    pub files: Vec<Resource>,
    /// Bytes that the bundle takes and those that are free besides.
    pub room: u64,
}

/// What is known of a bundle before its bulk is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// `bundle.dsse.json`.
    pub envelope: Vec<u8>,
    /// `manifest.json`.
    pub manifest: Vec<u8>,
    /// Bytes that are to come over the link: what other bundles hold already is not among them.
    pub missing: u64,
    /// Bytes of it that are on the disk and those that are free besides.
    pub room: u64,
}

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The broker took our connection.
    Connected,
    /// The connection is gone.
    Disconnected,
    /// A document arrived. Whether it is believed is decided here.
    DocumentArrived {
        /// What its topic says that it is.
        kind: DocumentKind,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// Something that arrived was refused at the door.
    DocumentRefused(Refusal),
    /// What a bundle is and asks for is on disk: whether the rest may come is decided here.
    BundleDescribed {
        /// The bundle.
        bundle: Digest,
        /// What is known of it.
        described: Box<Described>,
    },
    /// Every chunk of a bundle is on disk.
    BundleStored {
        /// The bundle.
        bundle: Digest,
    },
    /// Every byte of the bundle on disk was read. Whether it may be installed is decided here.
    BundleExamined {
        /// The bundle.
        bundle: Digest,
        /// What lies there.
        found: Box<Found>,
    },
    /// The bundle cannot be had or is not what was signed.
    BundleRefused {
        /// The bundle.
        bundle: Digest,
        /// Why.
        refusal: Refusal,
    },
    /// The golden vectors agree on this processor.
    ProbePassed {
        /// The bundle.
        bundle: Digest,
        /// Microseconds that a row took, on average.
        row_us: u64,
    },
    /// The golden vectors disagree, or the engine cannot run the model.
    ProbeFailed {
        /// The bundle.
        bundle: Digest,
        /// Why.
        refusal: Refusal,
    },
    /// The bundle was checked again, loaded, and answers from now on.
    Served {
        /// The stream.
        stream: StreamName,
        /// The bundle.
        bundle: Digest,
        /// How its process is shut in.
        sandbox: Sandbox,
    },
    /// The process of a bundle ended by itself, or was ended because it gave no answer; another is started.
    ProcessFell {
        /// The stream.
        stream: StreamName,
        /// The bundle.
        bundle: Digest,
        /// How, in words.
        why: String,
    },
    /// The bundle could not be checked or loaded; what answered before goes on.
    ServeFailed {
        /// The stream.
        stream: StreamName,
        /// The bundle.
        bundle: Digest,
        /// Why.
        refusal: Refusal,
    },
    /// What a bundle did since the last such event; a batch an interval.
    Observed {
        /// The stream.
        stream: StreamName,
        /// The bundle that was asked.
        bundle: Digest,
        /// Answers that it gave.
        answers: u64,
        /// Requests that it could not answer.
        errors: u64,
        /// Microseconds that the answers took together.
        took_us: u64,
        /// Bytes of memory that its process holds now; 0 when nobody knows.
        resident: u64,
    },
    /// What a bundle in the shadow answered beside the one that does, since the last such event.
    Compared {
        /// The bundle in the shadow.
        bundle: Digest,
        /// Answers that were compared.
        compared: u64,
        /// Those of them that were others, or were none.
        disagreed: u64,
    },
    /// An effect on a bundle could not be carried out for a reason outside of it (a full disk, say).
    Stumbled {
        /// The bundle.
        bundle: Digest,
    },
    /// The broker has the verdict.
    VerdictDelivered {
        /// The verdict's sequence number.
        seq: u64,
    },
    /// A new process answers for a stream, as was asked; or why none does, and the one before goes on.
    Restarted {
        /// The stream.
        stream: StreamName,
        /// Why not, in words.
        outcome: Result<(), String>,
    },
    /// The time of [`crate::Agent::deadline`] has come.
    DeadlineReached,
}
