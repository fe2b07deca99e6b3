//! What the core asks of the hands. Each may be asked again after a restart: doing it twice does no harm.

use crate::Withdrawn;
use protocol::DeviceId;
use trust::{Digest, StreamAssignment};

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Sign an assignment and publish it, retained.
    PublishAssignment(AssignmentDraft),
    /// Publish the envelope, the offer and every chunk, retained.
    PublishBundle {
        /// The bundle.
        bundle: Digest,
    },
    /// Publish some of it again, for devices that wait.
    PublishParts {
        /// The bundle.
        bundle: Digest,
        /// Its envelope and offer too.
        documents: bool,
        /// Chunk digests; those that are not of this bundle are left out.
        chunks: Vec<[u8; 32]>,
    },
    /// Clear its retained chunks: nobody needs them now.
    ClearChunks {
        /// The bundle.
        bundle: Digest,
    },
    /// Clear what is retained for a device and of it.
    ClearDevice {
        /// Which.
        device: DeviceId,
    },
    /// Let the broker know of every certificate that counts no more.
    PublishWithdrawn(Vec<Withdrawn>),
    /// End the session that a device may have.
    EndSession {
        /// Which.
        device: DeviceId,
    },
}

/// An assignment before it is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignmentDraft {
    /// For whom.
    pub device: DeviceId,
    /// Its generation within the director's epoch.
    pub seq: u64,
    /// All that it should run.
    pub streams: Vec<StreamAssignment>,
}
