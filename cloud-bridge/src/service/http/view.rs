//! What the API shows: the core's records as people and machines read them.

mod drift;
mod rollout;

pub(crate) use drift::{DriftAlarmView, DriftFeatureView, DriftGroupView, DriftView};
pub(crate) use rollout::{PlanView, PlannedWave, RolloutView, lacking};

use crate::service::arrivals::Arrivals;
use bridge_core::audit::Line;
use bridge_core::{Device, Release, Stay, StoredDocument, UnixMillis};
use protocol::{
    Arriving, ClockState, DocumentKind, Running, Sandbox, ShadowReport, SpoolState, Standing, StreamReport, Telemetry,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A list.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct List<T: ToSchema> {
    /// The rows.
    pub(crate) items: Vec<T>,
    /// There are more: ask again, `after` this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

impl<T: ToSchema> List<T> {
    /// All there is.
    pub(crate) fn of(items: Vec<T>) -> Self {
        Self { items, next: None }
    }
}

/// A part of the audit log.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct AuditView {
    /// Whose log it is: the first line holds this name.
    pub(crate) fleet: String,
    /// The last of the lines that are gone, where land keeps them for a time only: the first one that is left holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) base: Option<BaseView>,
    /// Lines, the oldest first.
    pub(crate) items: Vec<LineView>,
}

/// A line of the audit log that is gone.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
pub(crate) struct BaseView {
    /// Its number.
    pub(crate) seq: u64,
    /// Its digest, in hex.
    #[schema(value_type = String)]
    pub(crate) sha256: trust::Digest,
}

/// A line of the audit log.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct LineView {
    /// JSON as it was written: `seq`, `at` (milliseconds since 1970), `who`, `action`, `subject`, `outcome`, `request`.
    pub(crate) text: String,
    /// SHA-256, in hex, of the digest of the line before it and of `text`.
    #[schema(value_type = String)]
    pub(crate) sha256: trust::Digest,
}

impl LineView {
    /// The line.
    pub(crate) fn line(&self) -> Line {
        Line { text: self.text.clone(), sha256: self.sha256 }
    }
}

impl From<Line> for LineView {
    fn from(line: Line) -> Self {
        Self { text: line.text, sha256: line.sha256 }
    }
}

/// A device.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct DeviceView {
    /// Its name.
    pub(crate) id: String,
    /// `pending`, `approved`, `revoked` or `retired`.
    pub(crate) status: String,
    /// Whether the broker sees it.
    pub(crate) online: bool,
    /// Milliseconds since 1970.
    pub(crate) last_seen: u64,
    /// SHA-256 of its public key, to be compared with what `petrel-agent status` shows.
    pub(crate) key_id: String,
    /// When its certificate ends, in milliseconds since 1970.
    pub(crate) certificate_until: u64,
    /// What people say of it.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// The firmware profile's name.
    pub(crate) board: String,
    /// `x86_64`, `aarch64`, …
    pub(crate) arch: String,
    /// Memory of the board in MiB.
    pub(crate) ram_mb: u64,
    /// The part of it that is for models.
    pub(crate) models_mb: u64,
    /// Every byte over its link costs.
    pub(crate) metered: bool,
    /// Version of the agent.
    pub(crate) agent: String,
    /// The generation of its latest assignment.
    pub(crate) generation: u64,
    /// The generation that it reported.
    pub(crate) reported_generation: Option<u64>,
    /// How well it knows the time: `unset`, `stale`, `fresh`, or `expired` with its root.
    pub(crate) clock: Option<String>,
    /// The root that it believes.
    pub(crate) root_version: Option<u64>,
    /// The revocation that it believes.
    pub(crate) revocation: Option<u64>,
    /// What is wrong with its memory.
    pub(crate) alarm: Option<String>,
    /// What it should run and what it says it runs.
    pub(crate) streams: Vec<StreamView>,
    /// Refusals since its start, by code.
    pub(crate) refusals: Vec<RefusalView>,
}

/// One stream of a device.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct StreamView {
    /// Which.
    pub(crate) stream: String,
    /// The version that it should run.
    pub(crate) desired: Option<String>,
    /// The release that it confirmed.
    pub(crate) active: Option<u64>,
    /// The release before it.
    pub(crate) previous: Option<u64>,
    /// The release on trial, or in the shadow of the active one.
    pub(crate) trial: Option<u64>,
    /// What it has shown in the shadow, when that was told last.
    #[serde(default)]
    pub(crate) shadow: Option<ShadowView>,
    /// What it should run is what it runs.
    pub(crate) converged: bool,
    /// How the active release stands: `good`, `doubted`, or `unwanted` and `stopped`, which do not answer.
    pub(crate) standing: String,
    /// The code of what keeps the wanted release waiting; it may pass.
    pub(crate) held: Option<String>,
    /// How far the wanted release has arrived, where it is on its way.
    pub(crate) arriving: Option<ArrivingView>,
    /// How the process of what answers is shut in.
    pub(crate) sandbox: Option<SandboxView>,
}

/// What a release has shown in the shadow of the active one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ShadowView {
    /// Answers that were compared.
    pub(crate) compared: u64,
    /// Those of them that were others.
    pub(crate) disagreed: u64,
}

/// The parts of a sandbox that the device's system can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct SandboxView {
    /// It reads its bundle and no other file, and reaches no network.
    pub(crate) files: bool,
    /// It makes only the calls to the system that a model needs.
    pub(crate) calls: bool,
    /// Its memory has a limit.
    pub(crate) memory: bool,
}

/// How much of something has arrived.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ArrivingView {
    /// Devices that are getting it.
    pub(crate) devices: u64,
    /// Bytes that are there, on all of them.
    pub(crate) arrived: u64,
    /// Bytes in all.
    pub(crate) total: u64,
    /// Bytes a second, lately.
    pub(crate) rate: u64,
    /// Seconds until the last of them has it, if any gets more.
    pub(crate) left_s: Option<u64>,
}

impl ArrivingView {
    /// All of `rows` together, if there are any.
    fn together(rows: impl IntoIterator<Item = Arriving>) -> Option<Self> {
        let one = |row: Arriving| Self {
            devices: 1,
            arrived: row.arrived,
            total: row.total,
            rate: row.rate,
            left_s: row.total.saturating_sub(row.arrived).checked_div(row.rate),
        };
        rows.into_iter().map(one).reduce(|all, one| Self {
            devices: all.devices + 1,
            arrived: all.arrived.saturating_add(one.arrived),
            total: all.total.saturating_add(one.total),
            rate: all.rate.saturating_add(one.rate),
            left_s: all.left_s.max(one.left_s),
        })
    }
}

/// A refusal, counted.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct RefusalView {
    /// The stable code.
    pub(crate) code: String,
    /// How often.
    pub(crate) count: u64,
    /// The latest, in words.
    pub(crate) detail: String,
}

impl DeviceView {
    /// A device at `now`.
    pub(crate) fn new(device: &Device, arrivals: &Arrivals, now: UnixMillis) -> Self {
        let report = device.report.as_ref();
        let reported = report.map(|r| r.streams.as_slice()).unwrap_or_default();
        let mut names: Vec<_> = device.desired.keys().chain(reported.iter().map(|s| &s.stream)).collect();
        names.sort();
        names.dedup();
        let release = |r: Option<Running>| r.map(|r| r.release);
        let streams = names.into_iter().map(|name| {
            let said: Option<&StreamReport> = reported.iter().find(|s| s.stream == *name);
            let desired = device.desired.get(name);
            let active = device.active(name);
            StreamView {
                stream: name.to_string(),
                desired: desired.map(|d| d.version.clone()),
                active: active.map(|(release, _)| release),
                previous: said.and_then(|s| release(s.previous)),
                trial: said.and_then(|s| s.trial).map(|t| t.release),
                shadow: said
                    .and_then(|s| s.trial?.shadow)
                    .map(|ShadowReport { compared, disagreed }| ShadowView { compared, disagreed }),
                converged: desired.map(|d| d.bundle) == active.map(|(_, bundle)| bundle),
                standing: match said.map_or(Standing::Good, |s| s.standing) {
                    Standing::Good => "good",
                    Standing::Doubted => "doubted",
                    Standing::Unwanted => "unwanted",
                    Standing::Stopped => "stopped",
                }
                .into(),
                held: said.and_then(|s| s.held.as_deref()).map(plain),
                arriving: ArrivingView::together(desired.and_then(|d| arrivals.of(now, &device.id, d.bundle))),
                sandbox: said.and_then(|s| s.sandbox).map(|Sandbox { files, calls, memory }| SandboxView {
                    files,
                    calls,
                    memory,
                }),
            }
        });
        let refusals = report.map(|r| r.last_refusals.as_slice()).unwrap_or_default();
        Self {
            id: device.id.to_string(),
            status: device.status.to_string(),
            online: device.online,
            last_seen: device.last_seen,
            key_id: trust::key_id(&device.credential.key),
            certificate_until: device.credential.until,
            labels: device.labels.clone(),
            board: device.profile.board.clone(),
            arch: device.profile.arch.clone(),
            ram_mb: device.profile.ram_mb,
            models_mb: device.profile.models_mb,
            metered: device.profile.metered,
            agent: device.profile.agent.clone(),
            generation: device.generation,
            reported_generation: report.and_then(|r| r.generation).map(|g| g.seq),
            clock: report.map(|r| clock(r.clock).into()),
            root_version: report.map(|r| r.root_version),
            revocation: report.and_then(|r| r.revocation).map(|g| g.seq),
            alarm: device.alarm.as_ref().map(|alarm| alarm.what.clone()),
            streams: streams.collect(),
            refusals: refusals
                .iter()
                .map(|r| RefusalView { code: plain(&r.code), count: r.count, detail: plain(&r.detail) })
                .collect(),
        }
    }
}

fn clock(state: ClockState) -> &'static str {
    match state {
        ClockState::Unset => "unset",
        ClockState::Stale => "stale",
        ClockState::Fresh => "fresh",
        ClockState::Expired => "expired",
    }
}

/// A document that every device is told of.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct DocumentView {
    /// `root`, `revocation` or `breakglass`.
    pub(crate) kind: String,
    /// The version of a root or a revocation; 0 for a breakglass.
    pub(crate) number: u64,
    /// Whether it was not known before.
    pub(crate) new: bool,
    /// The digest of what was signed.
    pub(crate) sha256: String,
}

impl DocumentView {
    /// A kind as it is written.
    pub(crate) fn name(kind: DocumentKind) -> &'static str {
        match kind {
            DocumentKind::Root => "root",
            DocumentKind::Revocation => "revocation",
            DocumentKind::Assignment => "assignment",
            DocumentKind::Beacon => "beacon",
            DocumentKind::Breakglass => "breakglass",
            DocumentKind::Command => "command",
        }
    }
}

impl From<&StoredDocument> for DocumentView {
    fn from(stored: &StoredDocument) -> Self {
        let kind = Self::name(stored.document).to_owned();
        Self { kind, number: stored.number, new: false, sha256: stored.sha256.to_string() }
    }
}

/// Words of a device as a terminal may show them.
pub(super) fn plain(words: &str) -> String {
    words.chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A release.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct ReleaseView {
    /// The stream.
    pub(crate) stream: String,
    /// The version.
    pub(crate) version: String,
    /// The release number.
    pub(crate) release: u64,
    /// The bundle's statement digest.
    pub(crate) statement_sha256: String,
    /// Its size in bytes.
    pub(crate) total_size: u64,
    /// When it came, milliseconds since 1970.
    pub(crate) pushed: u64,
}

impl From<&Release> for ReleaseView {
    fn from(release: &Release) -> Self {
        Self {
            stream: release.stream.to_string(),
            version: release.version.clone(),
            release: release.release,
            statement_sha256: release.bundle.to_string(),
            total_size: release.total_size,
            pushed: release.pushed,
        }
    }
}

/// A release in the library.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct StockView {
    /// The stream.
    pub(crate) stream: String,
    /// The version.
    pub(crate) version: String,
    /// The release number.
    pub(crate) release: u64,
    /// The bundle's statement digest.
    pub(crate) statement_sha256: String,
    /// Its size in bytes.
    pub(crate) total_size: u64,
    /// When it came, milliseconds since 1970.
    pub(crate) pushed: u64,
    /// Why it stays; nothing when it may go, or is gone.
    pub(crate) stays: Option<String>,
}

impl StockView {
    /// A release, and why it stays.
    pub(crate) fn new(release: &Release, stay: Option<Stay>) -> Self {
        let ReleaseView { stream, version, release, statement_sha256, total_size, pushed } = release.into();
        let stays = stay.map(|stay| stay.to_string());
        Self { stream, version, release, statement_sha256, total_size, pushed, stays }
    }
}

/// One telemetry message.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct TelemetryView {
    /// When land took it, milliseconds since 1970.
    pub(crate) at: u64,
    /// When it was measured, by the device's own clock, where it has one.
    pub(crate) measured_at: Option<u64>,
    /// Seconds that it covers.
    pub(crate) span_s: u64,
    /// Measurements in it: of several, each measure is the worst.
    pub(crate) measured: u64,
    /// Load of all processors together, 0 to 100.
    pub(crate) cpu_percent: f32,
    /// Memory in use, MiB.
    pub(crate) memory_used_mb: u64,
    /// Memory of the board, MiB.
    pub(crate) memory_total_mb: u64,
    /// Memory of the agent, MiB.
    pub(crate) agent_memory_mb: u64,
    /// Free disk, MiB.
    pub(crate) disk_free_mb: u64,
    /// The hottest sensor, degrees Celsius.
    pub(crate) temperature_c: Option<f32>,
    /// A row for each stream.
    pub(crate) streams: Vec<StreamTelemetryView>,
    /// What waited on the device then.
    pub(crate) spool: SpoolView,
}

/// What waits on a device to be sent, and what was lost of it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct SpoolView {
    /// Messages behind this one.
    pub(crate) waiting: u64,
    /// The bytes of all.
    pub(crate) bytes: u64,
    /// Messages that were merged into a later one, ever.
    pub(crate) merged: u64,
    /// Measurements that there was no room for, ever.
    pub(crate) dropped: u64,
    /// Times that what lay on the disk could not be read.
    pub(crate) damaged: u64,
}

/// What one model did in an interval.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct StreamTelemetryView {
    /// Which stream.
    pub(crate) stream: String,
    /// Which release.
    pub(crate) release: u64,
    /// Answers given.
    pub(crate) answers: u64,
    /// Requests without a usable answer.
    pub(crate) errors: u64,
    /// Counts by latency bucket; the bounds are in docs/protocol.md.
    pub(crate) latency: Vec<u64>,
}

impl TelemetryView {
    /// A message that was taken `at`.
    pub(crate) fn new(at: u64, telemetry: &Telemetry) -> Self {
        let streams = telemetry.streams.iter().map(|s| StreamTelemetryView {
            stream: s.stream.to_string(),
            release: s.release,
            answers: s.answers,
            errors: s.errors,
            latency: s.latency.to_vec(),
        });
        let SpoolState { waiting, bytes, merged, dropped, damaged } = telemetry.spool;
        Self {
            at,
            measured_at: telemetry.at,
            span_s: telemetry.span_s,
            measured: telemetry.measured,
            cpu_percent: telemetry.cpu_percent,
            memory_used_mb: telemetry.memory_used_mb,
            memory_total_mb: telemetry.memory_total_mb,
            agent_memory_mb: telemetry.agent_memory_mb,
            disk_free_mb: telemetry.disk_free_mb,
            temperature_c: telemetry.temperature_c,
            streams: streams.collect(),
            spool: SpoolView { waiting, bytes, merged, dropped, damaged },
        }
    }
}

/// The bridge in a few numbers.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct StatusView {
    /// Version of the bridge.
    pub(crate) version: String,
    /// Approved devices.
    pub(crate) devices: u64,
    /// Those that the broker sees.
    pub(crate) online: u64,
    /// Devices that wait for approval.
    pub(crate) pending: u64,
    /// Devices that are told nothing since land was put back from a copy: they were not heard, or have what it has forgotten.
    #[serde(default)]
    pub(crate) forgotten: u64,
    /// Releases.
    pub(crate) releases: u64,
    /// Rollouts under way.
    pub(crate) rolling: u64,
    /// Messages since the start of the bridge that were not believed, by reason.
    #[serde(default)]
    pub(crate) disbelieved: BTreeMap<String, u64>,
    /// Parts of bundles since the start of the bridge that devices asked for again, by what became of them.
    #[serde(default)]
    pub(crate) needed: BTreeMap<String, u64>,
    /// Messages of devices that wait to be taken.
    #[serde(default)]
    pub(crate) waiting: u64,
    /// How long the latest message waited until it was on the disk, in milliseconds.
    #[serde(default)]
    pub(crate) lag_ms: u64,
    /// Bytes of the database.
    #[serde(default)]
    pub(crate) database_bytes: u64,
    /// Bytes of the bundles.
    #[serde(default)]
    pub(crate) bundles_bytes: u64,
    /// Bytes that are free where the data is.
    #[serde(default)]
    pub(crate) disk_free_bytes: u64,
    /// Since when each message of telemetry is there, in milliseconds since 1970.
    #[serde(default)]
    pub(crate) telemetry_since: Option<u64>,
    /// Since when telemetry is there by the hour.
    #[serde(default)]
    pub(crate) hours_since: Option<u64>,
    /// Lines of the audit log.
    #[serde(default)]
    pub(crate) audit_lines: u64,
    /// When `root` and the certificates end, by the key of the configuration that names each, in milliseconds since 1970.
    #[serde(default)]
    pub(crate) ends: BTreeMap<String, u64>,
}
