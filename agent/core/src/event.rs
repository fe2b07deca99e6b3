//! What the hands tell the core: always something that happened.

use protocol::StreamName;
use trust::{Assignment, Digest, Manifest, Refusal, Verified};

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The broker took our connection.
    Connected,
    /// The connection is gone.
    Disconnected,
    /// An assignment arrived and its signature, fleet and device were checked.
    AssignmentArrived(Verified<Assignment>),
    /// A document was refused at the door.
    DocumentRefused(Refusal),
    /// Every chunk of a bundle is on disk.
    BundleStored {
        /// The bundle.
        bundle: Digest,
    },
    /// The bundle on disk is complete and is exactly what its publishers signed.
    BundleVerified {
        /// The bundle.
        bundle: Digest,
        /// Its manifest: only the verifier can make one.
        manifest: Box<Verified<Manifest>>,
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
    /// The time of [`crate::Agent::deadline`] has come.
    DeadlineReached,
}
