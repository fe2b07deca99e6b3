//! One sample of every message, with every field set, and how each goes to the wire and back.
//!
//! The signature of frames is a fixed pattern: this crate carries signatures and does not know them.

use petrel_protocol::*;
use serde::{Serialize, de::DeserializeOwned};

/// The largest presence (see docs/protocol.md).
const MAX_PRESENCE_BYTES: usize = 256;
/// The largest signed document (see docs/protocol.md).
const MAX_DOCUMENT_BYTES: usize = 256 * 1024;

/// A message in its envelope of bytes.
pub(crate) trait Wire: Sized {
    /// Its golden file: `.hex` for frames, `.json` for the rest.
    const FILE: &'static str;
    /// The most bytes.
    const LIMIT: usize;
    /// Its bytes.
    fn encode(&self) -> Vec<u8>;
    /// It, from bytes.
    fn decode(bytes: &[u8]) -> Result<Self, CodecError>;
}

fn frame<T: Serialize>(message: &T, signature: &[u8; SIGNATURE_BYTES]) -> Vec<u8> {
    SignedFrame::join(signature, &encode_cbor(message))
}

fn unframe<T: DeserializeOwned>(kind: Kind, bytes: &[u8]) -> Result<T, CodecError> {
    let split = SignedFrame::split(kind, bytes)?;
    assert_eq!(split.signature.len(), SIGNATURE_BYTES);
    decode_cbor(split.body)
}

fn pattern() -> [u8; SIGNATURE_BYTES] {
    std::array::from_fn(|i| 0xa0 ^ i as u8)
}

macro_rules! framed {
    ($($type:ident $kind:ident $file:literal $limit:expr;)+) => {$(
        impl Wire for $type {
            const FILE: &'static str = $file;
            const LIMIT: usize = $limit;
            fn encode(&self) -> Vec<u8> {
                assert_eq!(Kind::$kind.max_bytes(), $limit);
                frame(self, &pattern())
            }
            fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
                unframe(Kind::$kind, bytes)
            }
        }
    )+};
}

macro_rules! json {
    ($($type:ident $file:literal $limit:expr;)+) => {$(
        impl Wire for $type {
            const FILE: &'static str = $file;
            const LIMIT: usize = $limit;
            fn encode(&self) -> Vec<u8> {
                encode_json(self)
            }
            fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
                decode_json(bytes, $limit)
            }
        }
    )+};
}

framed! {
    Hello Hello "hello.hex" 2 * 1024;
    Need Need "need.hex" 4 * 1024;
    Telemetry Telemetry "telemetry.hex" 16 * 1024;
    Drift Drift "drift.hex" 176 * 1024;
    Fetch Fetch "fetch.hex" 512;
}

json! {
    Presence "presence.json" MAX_PRESENCE_BYTES;
    Offer "offer.json" MAX_RETAINED_BYTES;
    Report "report.json" MAX_DOCUMENT_BYTES;
    Verdict "verdict.json" MAX_DOCUMENT_BYTES;
    CommandResult "result.json" MAX_RESULT_BYTES;
    JoinFile "join.json" JoinFile::MAX_BYTES;
    EnrolRequest "enrol.json" EnrolRequest::MAX_BYTES;
    RenewRequest "renew.json" RenewRequest::MAX_BYTES;
    ReturnRequest "re-enrol.json" ReturnRequest::MAX_BYTES;
    Enrolled "enrolled.json" Enrolled::MAX_BYTES;
    Problem "problem.json" Problem::MAX_BYTES;
}

/// 32 bytes that are easy to find.
pub(crate) fn digest(byte: u8) -> [u8; 32] {
    [byte; 32]
}

fn device() -> DeviceId {
    "rpi-1".parse().expect("a good name")
}

fn stream(name: &str) -> StreamName {
    name.parse().expect("a good name")
}

fn profile() -> Profile {
    Profile {
        board: "rpi4".into(),
        arch: "aarch64".into(),
        cores: 4,
        ram_mb: 3_792,
        models_mb: 3_792,
        metered: false,
        agent: "0.1.0".into(),
    }
}

fn nonce() -> String {
    "0123456789abcdef0123456789abcdef".into()
}

/// A hello with a key of the right length.
pub(crate) fn hello() -> Hello {
    Hello { device: device(), boot: 3, seq: 1, key: (0..91).collect(), nonce: nonce(), profile: profile() }
}

/// A need of two chunks.
pub(crate) fn need() -> Need {
    let chunks = [digest(0xc1), digest(0xc2)].concat();
    Need { device: device(), boot: 3, seq: 70_000, statement: digest(0xab), documents: true, chunks }
}

/// A telemetry of two streams, with numbers of every width.
pub(crate) fn telemetry() -> Telemetry {
    let row = |name, release, answers, errors| StreamTelemetry {
        stream: stream(name),
        release,
        answers,
        errors,
        latency: std::array::from_fn(|i| 3_u64.pow(i as u32)),
        took_us: answers * 480,
        memory_kb: 14_336,
    };
    Telemetry {
        device: device(),
        boot: 3,
        run: 0x1122_3344_5566_7788,
        seq: 12,
        at: Some(1_700_000_000_123),
        uptime_s: 86_400,
        span_s: 3_600,
        measured: 60,
        cpu_percent: 12.5,
        memory_used_mb: 900,
        memory_total_mb: 3_792,
        agent_memory_mb: 23,
        disk_free_mb: 20_000,
        temperature_c: Some(51.3),
        streams: vec![row("digits", 1_002_000, 5_000_000_000, 7), row("vib-2", 4, 0, 0)],
        arriving: vec![Arriving { statement: digest(0xab), arrived: 30_000_000, total: 104_857_600, rate: 2_000_000 }],
        spool: SpoolState { waiting: 719, bytes: 300_000, merged: 42_400, dropped: 5, damaged: 1 },
    }
}

/// What a model saw in two windows, with an alarm.
pub(crate) fn drift() -> Drift {
    let alarm = DriftAlarm {
        feature: "picture.brightness".into(),
        level: AlarmLevel::Page,
        cause: "population".into(),
        detail: "the population moved".into(),
        effect: 0.75,
        windows: 2,
    };
    let calibration =
        std::array::from_fn(|bin| Calibrated { count: 10, right: bin as u64, score: 1_000_000 * bin as u64 });
    let performance = Performance { calibration, values: 3, absolute: 1.5, squared: 0.75, unknown: 2 };
    Drift {
        device: device(),
        boot: 3,
        run: 0x1122_3344_5566_7788,
        seq: 13,
        at: Some(1_700_000_000_123),
        uptime_s: 86_400,
        span_s: 7_200,
        stream: stream("digits"),
        release: 1_002_000,
        statement: digest(0xab),
        windows: 2,
        summary: (0..40).collect(),
        alarms: vec![alarm],
        unsaid: 1,
        performance: Some(performance),
    }
}

/// A fetch of a bundle.
pub(crate) fn fetch() -> Fetch {
    Fetch { device: device(), statement: digest(0xab) }
}

/// A device that is there.
pub(crate) fn presence() -> Presence {
    Presence { boot: 3, online: true }
}

/// An offer of two chunks.
pub(crate) fn offer() -> Offer {
    Offer { spec: 1, index: vec![HexDigest(digest(0xd1)), HexDigest(digest(0xd2))] }
}

/// A report with one stream at rest, one on trial and one in the shadow.
pub(crate) fn report() -> Report {
    let running = |release, byte| Running { release, statement_sha256: digest(byte) };
    let trial = TrialReport { release: 5, statement_sha256: digest(0xe3), answers: 17, errors: 1, shadow: None };
    let shadow =
        TrialReport { answers: 0, errors: 0, shadow: Some(ShadowReport { compared: 90, disagreed: 2 }), ..trial };
    Report {
        spec: SPEC,
        fleet: "demo".parse().expect("a good name"),
        device_id: device(),
        boot: 3,
        seq: 9,
        generation: Some(Generation { role_epoch: 1, seq: 44 }),
        nonce: nonce(),
        root_version: 2,
        revocation: Some(Generation { role_epoch: 1, seq: 5 }),
        beacon: Some(Generation { role_epoch: 1, seq: 7_001 }),
        clock: ClockState::Fresh,
        streams: vec![
            StreamReport {
                stream: stream("digits"),
                active: Some(running(1_002_000, 0xe1)),
                previous: Some(running(1_001_000, 0xe2)),
                trial: None,
                floor: 1_000_000,
                standing: Standing::Doubted,
                held: Some("E_STALE".into()),
                sandbox: Some(Sandbox { files: true, calls: false, memory: true }),
            },
            StreamReport {
                stream: stream("vib-2"),
                active: None,
                previous: None,
                trial: Some(trial),
                floor: 0,
                standing: Standing::Good,
                held: None,
                sandbox: None,
            },
            StreamReport {
                stream: stream("vib-3"),
                active: Some(running(4, 0xe4)),
                previous: None,
                trial: Some(shadow),
                floor: 0,
                standing: Standing::Good,
                held: None,
                sandbox: None,
            },
        ],
        last_refusals: vec![RefusalReport {
            code: "E_SIG".into(),
            count: 2,
            first: 1_700_000_000,
            last: 1_700_000_060,
            document: Some(HexDigest(digest(0xf1))),
            detail: "a signature of the assignment does not verify".into(),
        }],
        profile: profile(),
    }
}

/// A release that was taken back.
pub(crate) fn verdict() -> Verdict {
    Verdict {
        spec: SPEC,
        fleet: "demo".parse().expect("a good name"),
        device_id: device(),
        seq: 8,
        generation: Generation { role_epoch: 1, seq: 44 },
        stream: stream("digits"),
        release: 1_002_000,
        statement_sha256: digest(0xe1),
        outcome: Outcome::Reverted,
        code: Some("E_PROBATION".into()),
        detail: Some("3 errors in 20 answers, at most 2 are allowed".into()),
        answers: 20,
        errors: 3,
        shadow: Some(ShadowReport { compared: 500, disagreed: 12 }),
    }
}

/// What came of a request for diagnostics; what a refusal says stands there too.
pub(crate) fn result() -> CommandResult {
    let from = "/etc/petrel/agent.toml".into();
    CommandResult {
        spec: SPEC,
        fleet: "demo".parse().expect("a good name"),
        device_id: device(),
        nonce: nonce(),
        seq: 12,
        outcome: CommandOutcome::Done,
        code: Some("E_EXPIRED".into()),
        detail: Some("the command expired at 2026-01-31T12:00:00Z".into()),
        diagnostics: Some(Diagnostics {
            status: "null".into(),
            config: vec![Setting { key: "window".into(), value: "8".into(), from }],
            log: vec!["INFO connected".into(), "cut".into()],
            log_left_out: 3,
        }),
        labels: Some(Joined { joined: 300, unknown: 1 }),
        samples: Some(kept()),
    }
}

/// One of each kind.
fn kept() -> Vec<Sample> {
    let cell = |name: &str, value: &str| Cell { name: name.into(), value: value.into() };
    let answer = |name: &str, value: &str| vec![cell(name, value)];
    let fields = vec![cell("age", "41"), cell("name", "hashed:0123456789abcdef")];
    let array = SampledArray { name: String::new(), shape: vec![1, 2], values: vec!["1.5".into(), "NaN".into()] };
    let sample = |input, id: Option<&str>, chosen, answer| Sample {
        at: 1_767_225_600_000,
        release: 1_002_000,
        id: id.map(str::to_owned),
        chosen,
        input,
        answer,
    };
    vec![
        sample(SampledInput::Fields(fields), Some("order-7"), Chosen::Drawn, answer("class", "yes")),
        sample(SampledInput::Image("iVBORw0KGgo=".into()), None, Chosen::Doubtful, answer("score", "0.5")),
        sample(SampledInput::Arrays(vec![array]), Some("8#2"), Chosen::Drawn, answer("y", "2")),
    ]
}

fn pem(what: &str) -> String {
    format!("-----BEGIN {what}-----\nMA==\n-----END {what}-----\n")
}

/// What `petrel devices token new` prints.
pub(crate) fn join() -> JoinFile {
    JoinFile {
        spec: SPEC,
        fleet: "demo".parse().expect("a good name"),
        device: device(),
        bridge: "https://bridge.example:8443".into(),
        broker: "mqtts://bridge.example:8883".into(),
        ca: pem("CERTIFICATE"),
        root: "the text of root.json".into(),
        token: JoinToken::new(&digest(0x5e)),
    }
}

/// The first word of a device.
pub(crate) fn enrol() -> EnrolRequest {
    let csr = pem("CERTIFICATE REQUEST");
    EnrolRequest { spec: SPEC, device: device(), token: JoinToken::new(&digest(0x5e)), csr, profile: profile() }
}

/// A request for a newer certificate.
pub(crate) fn renew() -> RenewRequest {
    RenewRequest { spec: SPEC, csr: pem("CERTIFICATE REQUEST") }
}

/// The same of a device that was away for too long.
pub(crate) fn re_enrol() -> ReturnRequest {
    ReturnRequest { spec: SPEC, device: device(), csr: pem("CERTIFICATE REQUEST"), signature: pattern() }
}

/// The answer to these.
pub(crate) fn enrolled() -> Enrolled {
    let chain = pem("CERTIFICATE").repeat(2);
    Enrolled { spec: SPEC, chain, from: 1_800_000_000, until: 1_807_776_000, pending: true }
}

/// A refusal of them.
pub(crate) fn problem() -> Problem {
    Problem { status: 401, code: "token_used".into(), detail: "this token was used by another key".into() }
}
