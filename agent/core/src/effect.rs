//! What the core asks of the hands. Each may be asked again after a restart: doing it twice does no harm.

use protocol::{CommandResult, Profile, Report, StreamName, Verdict};
use std::collections::BTreeSet;
use trust::{Digest, Labelled, LogLevel};

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Get what describes the bundle onto the disk; ends in `BundleDescribed`, or in `BundleStored` when all of it
    /// is there already, or in `BundleRefused`.
    Fetch {
        /// The bundle.
        bundle: Digest,
        /// Its size in bytes, from the signed assignment.
        total_size: u64,
    },
    /// Get the rest of a bundle that was described; ends in `BundleStored` or `BundleRefused`.
    Admit {
        /// The bundle.
        bundle: Digest,
    },
    /// Stop getting it; what is there may stay.
    StopFetching {
        /// The bundle.
        bundle: Digest,
    },
    /// Read every byte of the bundle on disk; ends in `BundleExamined` or `BundleRefused`.
    Examine {
        /// The bundle.
        bundle: Digest,
    },
    /// Run the golden vectors; ends in `ProbePassed` or `ProbeFailed`.
    Probe {
        /// The bundle.
        bundle: Digest,
    },
    /// Check the bundle on disk again, load it, and let it answer; `fallback` stays loaded and
    /// answers whatever `bundle` cannot. Ends in `Served` or `ServeFailed`.
    Serve {
        /// The stream.
        stream: StreamName,
        /// What answers.
        bundle: Digest,
        /// What answers in its place when it fails.
        fallback: Option<Digest>,
    },
    /// Load the bundle beside what answers for the stream, let it be asked the same, and compare. Ends in `Compared` again
    /// and again, or in `ServeFailed`; the next `Serve` or `StopServing` of the stream ends it.
    Shadow {
        /// The stream.
        stream: StreamName,
        /// What nobody hears.
        bundle: Digest,
    },
    /// The stream answers no more.
    StopServing {
        /// The stream.
        stream: StreamName,
    },
    /// Remove the bundle from the disk: it is damaged or refused.
    Discard {
        /// The bundle.
        bundle: Digest,
    },
    /// Every bundle on disk but these may go.
    Keep {
        /// What must stay.
        bundles: BTreeSet<Digest>,
    },
    /// Listen for the root of this version, and no more for the one before it.
    AwaitRoot {
        /// The version after the one in use.
        version: u64,
    },
    /// Tell land who is here.
    SayHello {
        /// Boot counter.
        boot: u64,
        /// Grows within a boot.
        seq: u64,
        /// What a fresh answer must hold.
        nonce: String,
        /// What the agent runs on.
        profile: Profile,
    },
    /// Publish the state, signed and retained.
    PublishReport(Report),
    /// Publish a verdict, signed; ends in `VerdictDelivered`.
    DeliverVerdict(Verdict),
    /// Hold the answers that are remembered against what was right, and tell how many were.
    Judge {
        /// Of which stream.
        stream: String,
        /// What was right.
        labels: Vec<Labelled>,
        /// The result, if the stream is known.
        result: CommandResult,
    },
    /// Give what is kept of a stream's inputs.
    Give {
        /// Of which stream.
        stream: StreamName,
        /// Land's number of what was approved.
        request: u64,
        /// At most so many.
        count: usize,
        /// In at most so many bytes.
        bytes: usize,
        /// Who asked.
        by: String,
        /// Who approved.
        approved: String,
        /// The result, if any are kept.
        result: CommandResult,
    },
    /// Let a new process answer for a stream in the place of the one that does; ends in `Restarted`.
    Restart {
        /// The stream.
        stream: StreamName,
    },
    /// Log so much from now on.
    SetLog(Log),
    /// Measure and tell now.
    Measure,
    /// Publish a result with the device's diagnostics in it, signed.
    Diagnose(CommandResult),
    /// Publish what came of a command, signed.
    DeliverResult(CommandResult),
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// As the configuration says.
    Configured,
    /// Everything from this level on.
    Level(LogLevel),
}
