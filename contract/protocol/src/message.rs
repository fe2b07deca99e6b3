//! What a device says in passing (hello, need, telemetry, presence) and what land offers.
//!
//! Each message carries the device's boot counter and a sequence number: land takes each once, and
//! an older one never after a newer one. Presence is unsigned, since the broker speaks it as a will.

use crate::report::known_spec;
use crate::{DeviceId, StreamName};
use serde::{Deserialize, Deserializer, Serialize, de::Error};

/// The first word after a connection: who is there, with which key, on what hardware.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// Who speaks.
    pub device: DeviceId,
    /// Boot counter, kept on the device's disk.
    pub boot: u64,
    /// Grows with every message of this kind within a boot.
    pub seq: u64,
    /// The device's public key: P-256, SubjectPublicKeyInfo, DER.
    #[serde(with = "bytes")]
    pub key: Vec<u8>,
    /// Another for each hello, 32 hex digits: only an answer that holds it is fresh.
    pub nonce: String,
    /// What it runs on.
    pub profile: Profile,
}

/// The hardware and software under a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The firmware profile's name.
    pub board: String,
    /// `x86_64`, `aarch64`, …
    pub arch: String,
    /// Processors.
    pub cores: u32,
    /// Memory of the board in MiB.
    pub ram_mb: u64,
    /// The part of it that is for models.
    pub models_mb: u64,
    /// Every byte over its link costs money or hours.
    pub metered: bool,
    /// Version of the agent.
    pub agent: String,
}

/// Chunks of one bundle that did not arrive in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Need {
    /// Who asks.
    pub device: DeviceId,
    /// Boot counter.
    pub boot: u64,
    /// Grows with every message of this kind within a boot.
    pub seq: u64,
    /// The bundle's statement digest.
    #[serde(with = "bytes32")]
    pub statement: [u8; 32],
    /// The envelope and the offer are missing too.
    pub documents: bool,
    /// Chunk digests, at most [`crate::MAX_NEEDED_CHUNKS`], 32 bytes each, one after the other.
    #[serde(with = "bytes")]
    pub chunks: Vec<u8>,
}

impl Need {
    /// The digests asked for; `None` when they are cut short or too many.
    pub fn digests(&self) -> Option<Vec<[u8; 32]>> {
        let (digests, rest) = self.chunks.as_chunks::<32>();
        (rest.is_empty() && digests.len() <= crate::MAX_NEEDED_CHUNKS).then(|| digests.to_vec())
    }
}

/// Who fetches which bundle over HTTPS: a frame of it, in base64url without padding, follows [`FETCH_SCHEME`] in the
/// request's `Authorization`. It is good for as long as the device should run the bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fetch {
    /// Who asks.
    pub device: DeviceId,
    /// The bundle's statement digest.
    #[serde(with = "bytes32")]
    pub statement: [u8; 32],
}

/// The scheme of `Authorization` before the frame of a [`Fetch`].
pub const FETCH_SCHEME: &str = "PetrelDevice";
/// Where the bridge gives a bundle's files: `/<statement digest>/<file>` follows.
pub const CONTENT_PATH: &str = "/api/v1/content";

/// Upper bounds of the latency buckets in microseconds; the last bucket is open.
pub const LATENCY_BOUNDS_US: [u64; 15] =
    [50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 5_000_000];
/// The number of latency buckets.
pub const LATENCY_BUCKETS: usize = LATENCY_BOUNDS_US.len() + 1;

/// How a device and its models are doing, once an interval. What waited to be sent may be merged with its
/// neighbours: counts are added then, and each measure is the worst of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// Who speaks.
    pub device: DeviceId,
    /// Boot counter.
    pub boot: u64,
    /// Drawn by chance at each boot. A device that lost its memory counts its boots anew: by this its
    /// messages are still known from those that it sent before.
    pub run: u64,
    /// Grows with every message of this kind within a boot.
    pub seq: u64,
    /// Unix milliseconds by the device's own clock, where it has one.
    pub at: Option<u64>,
    /// Seconds since the agent started.
    pub uptime_s: u64,
    /// Seconds that it covers, up to `uptime_s`.
    pub span_s: u64,
    /// Measurements that it holds.
    pub measured: u64,
    /// Load of all processors together, 0 to 100.
    #[serde(deserialize_with = "finite")]
    pub cpu_percent: f32,
    /// Memory in use on the board, MiB.
    pub memory_used_mb: u64,
    /// Memory of the board, MiB.
    pub memory_total_mb: u64,
    /// Memory of the agent and of the processes of its models, MiB.
    pub agent_memory_mb: u64,
    /// Free space where the agent keeps its state, MiB.
    pub disk_free_mb: u64,
    /// The hottest sensor in degrees Celsius, where there is one.
    #[serde(default, deserialize_with = "finite")]
    pub temperature_c: Option<f32>,
    /// A row for each stream that serves.
    pub streams: Vec<StreamTelemetry>,
    /// A row for each bundle on its way.
    pub arriving: Vec<Arriving>,
    /// What waits on the device, as this is sent.
    pub spool: SpoolState,
}

impl Telemetry {
    /// Whether an older one can be a part of this: there is a limit to the rows of a message.
    pub fn has_room_for(&self, older: &Self) -> bool {
        let is_new = |row: &&StreamTelemetry| !self.streams.iter().any(|other| row.is_of(other));
        self.streams.len() + older.streams.iter().filter(is_new).count() <= crate::MAX_STREAM_ROWS
    }

    /// Adds an older one of the same device: counts add up, of each measure the worst is kept, and what was on its way then is
    /// of no use now.
    pub fn absorb(&mut self, older: &Self) {
        self.span_s = self.span_s.saturating_add(older.span_s);
        self.measured = self.measured.saturating_add(older.measured);
        self.cpu_percent = self.cpu_percent.max(older.cpu_percent);
        self.memory_used_mb = self.memory_used_mb.max(older.memory_used_mb);
        self.agent_memory_mb = self.agent_memory_mb.max(older.agent_memory_mb);
        self.disk_free_mb = self.disk_free_mb.min(older.disk_free_mb);
        self.temperature_c = self.temperature_c.into_iter().chain(older.temperature_c).reduce(f32::max);
        self.arriving.clear();
        for row in &older.streams {
            match self.streams.iter_mut().find(|other| row.is_of(other)) {
                Some(sum) => {
                    sum.answers = sum.answers.saturating_add(row.answers);
                    sum.errors = sum.errors.saturating_add(row.errors);
                    sum.took_us = sum.took_us.saturating_add(row.took_us);
                    sum.memory_kb = sum.memory_kb.max(row.memory_kb);
                    sum.latency.iter_mut().zip(row.latency).for_each(|(sum, n)| *sum = sum.saturating_add(n));
                }
                None => self.streams.push(row.clone()),
            }
        }
        self.streams.shrink_to_fit();
    }
}

/// How far a bundle has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arriving {
    /// The bundle's statement digest.
    #[serde(with = "bytes32")]
    pub statement: [u8; 32],
    /// Bytes on the device's disk.
    pub arrived: u64,
    /// Bytes in all.
    pub total: u64,
    /// Bytes a second, lately.
    pub rate: u64,
}

/// What waits on a device to be sent, and what was lost of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpoolState {
    /// Messages that wait.
    pub waiting: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages that were merged into a later one, ever.
    pub merged: u64,
    /// Measurements that there was no room for, ever.
    pub dropped: u64,
    /// Times that what lay on the disk could not be read.
    pub damaged: u64,
}

/// What one model did since the previous telemetry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamTelemetry {
    /// Which stream.
    pub stream: StreamName,
    /// Which release of it.
    pub release: u64,
    /// Answers given.
    pub answers: u64,
    /// Requests that the model could not answer.
    pub errors: u64,
    /// Counts by [`LATENCY_BOUNDS_US`].
    pub latency: [u64; LATENCY_BUCKETS],
    /// What the answers took together, in microseconds: buckets are too wide to tell a fifth more.
    #[serde(default)]
    pub took_us: u64,
    /// The most memory that the model's process held, in KiB; 0 where nobody knows.
    #[serde(default)]
    pub memory_kb: u64,
}

impl StreamTelemetry {
    fn is_of(&self, other: &Self) -> bool {
        self.stream == other.stream && self.release == other.release
    }
}

/// What a device's model saw in one window, or in several that waited and were merged: counts against the bundle's training
/// baseline, and what the device itself makes of them. It alone knows how much its inputs vary from window to window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drift {
    /// Who speaks.
    pub device: DeviceId,
    /// Boot counter.
    pub boot: u64,
    /// Drawn by chance at each boot, as in [`Telemetry`], whose numbers these are.
    pub run: u64,
    /// Grows with every message of this kind within a boot.
    pub seq: u64,
    /// Unix milliseconds at the end of the window by the device's own clock, where it has one.
    pub at: Option<u64>,
    /// Seconds since the agent started, at the end of the window.
    pub uptime_s: u64,
    /// Seconds that it covers, up to `uptime_s`.
    pub span_s: u64,
    /// Which stream.
    pub stream: StreamName,
    /// Which release of it.
    pub release: u64,
    /// The bundle's statement digest: whose baseline it is.
    #[serde(with = "bytes32")]
    pub statement: [u8; 32],
    /// Windows that became this message.
    pub windows: u64,
    /// The counts, as `docs/drift.md` writes them; at most [`crate::MAX_SUMMARY_BYTES`].
    #[serde(with = "bytes")]
    pub summary: Vec<u8>,
    /// What the device would have somebody look at, the loudest first; at most [`crate::MAX_DRIFT_ALARMS`].
    pub alarms: Vec<DriftAlarm>,
    /// Alarms that there was no room for.
    pub unsaid: u64,
    /// How right the answers were of which the truth came to be known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub performance: Option<Performance>,
}

/// The bins of confidence by which calibration is told.
pub const CALIBRATION_BINS: usize = 10;

/// How right answers were, of which the truth came to be known meanwhile: of classes, or of values.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Performance {
    /// Answers whose class is known to be right or wrong, by confidence: [`CALIBRATION_BINS`] of equal width.
    pub calibration: [Calibrated; CALIBRATION_BINS],
    /// Answers whose value could be held against the true one.
    pub values: u64,
    /// The sum of their errors, without sign.
    #[serde(deserialize_with = "finite64")]
    pub absolute: f64,
    /// The sum of the squares of their errors.
    #[serde(deserialize_with = "finite64")]
    pub squared: f64,
    /// Truths of answers that are not remembered.
    pub unknown: u64,
}

/// Answers of about one confidence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibrated {
    /// How many.
    pub count: u64,
    /// Those that were right.
    pub right: u64,
    /// The sum of their confidences, in millionths.
    pub score: u64,
}

impl Performance {
    /// Answers whose class is known to be right or wrong, and those that were right.
    pub fn classes(&self) -> (u64, u64) {
        let sum = |of: fn(&Calibrated) -> u64| self.calibration.iter().map(of).fold(0, u64::saturating_add);
        (sum(|bin| bin.count), sum(|bin| bin.right))
    }

    /// Adds what was seen elsewhere or later.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.calibration.iter_mut().zip(&other.calibration) {
            mine.count = mine.count.saturating_add(theirs.count);
            mine.right = mine.right.saturating_add(theirs.right);
            mine.score = mine.score.saturating_add(theirs.score);
        }
        self.values = self.values.saturating_add(other.values);
        // What is too much for a number stays the largest one.
        self.absolute = (self.absolute + other.absolute).min(f64::MAX);
        self.squared = (self.squared + other.squared).min(f64::MAX);
        self.unknown = self.unknown.saturating_add(other.unknown);
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A feature that is not as it was when the model was trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriftAlarm {
    /// Its name in the baseline.
    pub feature: String,
    /// How loud.
    pub level: AlarmLevel,
    /// What to look at first: `missing`, `stuck`, `unit_change`, `saturated`, `out_of_range` or `population`.
    pub cause: String,
    /// The same in words.
    pub detail: String,
    /// Standard deviations by which it surely differs.
    #[serde(deserialize_with = "finite")]
    pub effect: f32,
    /// Windows in which it did.
    pub windows: u64,
}

/// How loud an alarm is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlarmLevel {
    /// Something to look at when there is time.
    Warn,
    /// Somebody should look now.
    Page,
}

/// Whether a device is connected. Retained; its will says `online: false`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Presence {
    /// Boot counter.
    pub boot: u64,
    /// Connected or gone.
    pub online: bool,
}

/// An unsigned hint of where a bundle's bytes are: a lie in it can only waste time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// Version of this document: 1.
    #[serde(deserialize_with = "known_spec")]
    pub spec: u64,
    /// The chunk digests of `chunks.bin`, hex, in order.
    pub index: Vec<HexDigest>,
}

/// 32 bytes that JSON shows as lower-case hex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HexDigest(#[serde(with = "hex")] pub [u8; 32]);

/// Refuses what CBOR can say and JSON, which land passes it on in, cannot: NaN and the infinities.
fn finite<'de, D: Deserializer<'de>, T: Deserialize<'de> + Copy + Into<Option<f32>>>(d: D) -> Result<T, D::Error> {
    let measure = T::deserialize(d)?;
    if measure.into().is_none_or(f32::is_finite) { Ok(measure) } else { Err(D::Error::custom("a measure is finite")) }
}

fn finite64<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    let measure = f64::deserialize(d)?;
    if measure.is_finite() && measure >= 0.0 { Ok(measure) } else { Err(D::Error::custom("a sum of errors is finite")) }
}

mod bytes {
    use serde::{Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }
        }
        d.deserialize_byte_buf(Visitor)
    }
}

mod bytes32 {
    use serde::{Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 32], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<[u8; 32], D::Error> {
        super::bytes::deserialize(d)?.try_into().map_err(|_| D::Error::custom("a digest has 32 bytes"))
    }
}
