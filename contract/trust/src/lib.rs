//! What may be believed: documents, the keyring they are checked against, and the refusals.
//!
//! A `verify_*` function checks one document by itself; [`Trust`] is all that one device believes, with
//! its counters. The page for people is `docs/trust.md`.
//!
//! Everything that a device or the bridge acts on passes through here once and leaves as
//! [`Verified`], which nothing else can make. This crate cannot sign, does no IO, reads no clock and
//! draws no random number. It does not know how bytes arrived.

mod assignment;
mod beacon;
mod breakglass;
mod chain;
mod checkpoint;
mod clock;
mod command;
mod counters;
mod device;
mod digest;
mod doors;
mod dsse;
mod judge;
mod manifest;
mod oms;
mod refusal;
mod revocation;
mod root;
mod rules;
mod standing;
mod statement;
mod strict;
mod trust;
mod verified;

pub use assignment::{Assignment, Intent, Shadow, StreamAssignment, Trial, verify_assignment};
pub use beacon::Beacon;
pub use breakglass::{Breakglass, Recipients, verify_breakglass};
pub use chain::{MAX_ROOT_STEPS, catch_up, next_root};
pub use checkpoint::{Checkpoint, verify_checkpoint};
pub use clock::{Clock, ClockState};
pub use command::{Command, Labelled, LogLevel, MAX_LABELS, MAX_LOG_LEVEL_S, MAX_SAMPLES, MAX_SAMPLES_BYTES, Request};
pub use counters::{Counters, Generation};
pub use device::{DeviceKey, verify_device_document};
pub use digest::Digest;
pub use dsse::{Envelope, PayloadKind, Signature, key_id, pae};
pub use judge::{Board, Offer};
pub use manifest::{
    Budget, FileRole, GoldenTerms, Hardware, ListedFile, Manifest, ManifestPort, Runtime, default_release,
    known_manifest, verify_manifest,
};
pub use oms::{ModelFile, model_signature, verify_model_signature};
pub use refusal::{Code, Refusal};
pub use revocation::{
    Releases, Revocation, RevokedBundle, RevokedDevice, RevokedFrom, RevokedKey, Severity, WhichBundle,
    next_revocation, verify_revocation,
};
pub use root::{Key, OnRevoked, Policy, Role, RoleKeys, Root, Scheme, Scope, verify_root};
pub use rules::{Finding, Judgement, Outcome, Rule};
pub use standing::{Course, Held, Standing};
pub use statement::{Resource, SIGNED_OUTSIDE, Statement, known_statement, statement_digest, verify_statement};
pub use strict::{Time, U53};
pub use trust::{Accepted, Device, Trust};
pub use verified::Verified;

/// The most bytes of a root document.
pub const MAX_ROOT_BYTES: usize = 64 * 1024;
/// The most bytes of any other document.
pub const MAX_DOCUMENT_BYTES: usize = 256 * 1024;
/// The most bytes of a document that a broker retains: revocation, beacon, breakglass, assignment.
pub const MAX_RETAINED_BYTES: usize = 48 * 1024;
/// The most bytes of a command.
pub const MAX_COMMAND_BYTES: usize = 48 * 1024;
/// The version of every document in this crate.
pub const SPEC: u64 = 1;
