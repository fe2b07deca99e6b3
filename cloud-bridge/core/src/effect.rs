//! What the core asks of the hands. Each may be asked again after a restart: doing it twice does no harm.

use crate::{Numbers, StoredDocument, UnixMillis, Withdrawn};
use protocol::DeviceId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use trust::{Digest, Request, Revocation, Root, StreamAssignment, Verified};

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Sign an assignment and publish it, retained.
    PublishAssignment(AssignmentDraft),
    /// Sign a command and publish it.
    PublishCommand(CommandDraft),
    /// Sign the time and publish it: retained when it is for everybody.
    PublishBeacon(BeaconDraft),
    /// Publish a document for everybody, retained.
    PublishDocument(StoredDocument),
    /// Sign and verify with these from now on.
    Adopt {
        /// The newest root.
        root: Box<Verified<Root>>,
        /// The newest revocation.
        revocation: Option<Box<Verified<Revocation>>>,
    },
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
    /// See whether the broker still retains these, and tell of each that it does not hold:
    /// [`crate::Event::BundleMissed`].
    LookForBundles {
        /// The bundles.
        bundles: BTreeSet<Digest>,
    },
    /// Clear its retained chunks: nobody needs them now.
    ClearChunks {
        /// The bundle.
        bundle: Digest,
        /// The bundles that stay: what they share with it is not cleared.
        stay: BTreeSet<Digest>,
    },
    /// Remove it from the library, and its documents from the broker.
    RemoveBundle {
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
    /// When it was decided.
    pub issued: UnixMillis,
    /// What it names besides the streams.
    pub numbers: Numbers,
    /// All that it should run.
    pub streams: Vec<StreamAssignment>,
}

/// A command before it is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandDraft {
    /// For whom.
    pub device: DeviceId,
    /// Its number among the commands for this device.
    pub seq: u64,
    /// When it was asked for.
    pub issued: UnixMillis,
    /// Until when it counts.
    pub deadline: UnixMillis,
    /// The nonce of the latest hello.
    pub nonce: String,
    /// When that was heard.
    pub heard: UnixMillis,
    /// The director's epoch is one of them.
    pub numbers: Numbers,
    /// What is asked.
    pub request: Request,
    /// The number of what was asked of many at once, where it is a part of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fan_out: Option<u64>,
}

/// A beacon before it is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BeaconDraft {
    /// For whom; `None` for everybody.
    pub to: Option<DeviceId>,
    /// Its number within the beacon's epoch.
    pub seq: u64,
    /// The nonce of the hello that it answers.
    pub nonce: Option<String>,
    /// The newest root and revocation.
    pub numbers: Numbers,
}
