//! What crosses the wire between a device and land: names, topics, messages and their bytes.
//!
//! This crate decides how things are *said*. It deliberately does not know what may be *believed*
//! (that is `trust`): signed documents pass through here as opaque bytes, digests as 32 raw bytes.
//! There is no network, no clock and no key here.

mod access;
mod chunk;
mod codec;
mod command;
mod enrol;
mod message;
mod name;
mod report;
mod sample;
mod topic;

pub use access::is_bridge;
pub use chunk::{CHUNK_BYTES, ChunkSpan, chunks_in, spans};
pub use codec::{CodecError, Kind, SIGNATURE_BYTES, SignedFrame, decode_cbor, decode_json, encode_cbor, encode_json};
pub use command::{CommandOutcome, CommandResult, Diagnostics, Joined, MAX_RESULT_BYTES, Setting};
pub use enrol::{
    BRIDGE_NAME, ENROL_PATH, EnrolRequest, Enrolled, Exchanged, JoinFile, JoinToken, MAX_ENROL_BYTES,
    MAX_ENROLLED_BYTES, MAX_JOIN_BYTES, Problem, RENEW_PATH, RETURN_PATH, RenewRequest, ReturnRequest,
};
pub use message::{
    AlarmLevel, Arriving, CALIBRATION_BINS, CONTENT_PATH, Calibrated, Drift, DriftAlarm, FETCH_SCHEME, Fetch, Hello,
    HexDigest, LATENCY_BOUNDS_US, LATENCY_BUCKETS, Need, Offer, Performance, Presence, Profile, SpoolState,
    StreamTelemetry, Telemetry,
};
pub use name::{DeviceId, FleetId, NameError, StreamName};
pub use report::{
    ClockState, Generation, Outcome, RefusalReport, Report, Running, SPEC, Sandbox, ShadowReport, Standing,
    StreamReport, TrialReport, Verdict,
};
pub use sample::{Cell, Chosen, Sample, SampledArray, SampledInput};
pub use topic::{BridgeTopic, DeviceTopic, DocumentKind, Topics};

/// The longest document that may be retained for everyone, in bytes (Azure Event Grid retains at most 64 KB).
pub const MAX_RETAINED_BYTES: usize = 48 * 1024;
/// The longest MQTT packet that either side accepts, in bytes.
pub const MAX_PACKET_BYTES: u32 = 256 * 1024;
/// The most chunks that one `need` may ask for.
pub const MAX_NEEDED_CHUNKS: usize = 64;
/// The most streams that a device runs.
pub const MAX_STREAMS: usize = 64;
/// The most rows of models in one telemetry: it fits whatever their names and counts.
pub const MAX_STREAM_ROWS: usize = 48;
/// The most rows of bundles on their way in one telemetry.
pub const MAX_ARRIVING_ROWS: usize = 8;
/// The longest summary of a window, in bytes: some four thousand features.
pub const MAX_SUMMARY_BYTES: usize = 160 * 1024;
/// The most alarms of one window.
pub const MAX_DRIFT_ALARMS: usize = 16;
