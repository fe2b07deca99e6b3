//! What a device says to land: its birth, its answers to assignments and commands, its telemetry.
//!
//! It says what an agent says, signed with a key of its own. It believes land without a look at the signatures, fetches no
//! bundle and runs no model: the release that it is assigned is confirmed at once.

use super::signer::Signer;
use anyhow::Context;
use protocol::{
    BridgeTopic, ClockState, CommandResult, DeviceTopic, DocumentKind, FleetId, Generation, Hello, Kind,
    LATENCY_BUCKETS, Outcome, Presence, Profile, Report, Running, SPEC, Sandbox, SpoolState, Standing, StreamName,
    StreamReport, StreamTelemetry, Telemetry, Topics, Verdict, encode_cbor, encode_json,
};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use trust::{Assignment, Command, Envelope, MAX_DOCUMENT_BYTES, PayloadKind};

/// Each device has started once.
const BOOT: u64 = 1;

/// Something to be said.
pub(super) struct Word {
    /// Where.
    pub(super) topic: String,
    /// What.
    pub(super) bytes: Vec<u8>,
    /// Whether the broker keeps it.
    pub(super) retain: bool,
}

/// What land was heard to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// An assignment of a release.
    Release,
    /// A command.
    Command,
    /// Something else.
    Other,
}

/// A device that speaks.
pub(super) struct Voice {
    signer: Arc<Signer>,
    topics: Topics,
    fleet: FleetId,
    nonce: String,
    said: u64,
    verdicts: u64,
    generation: Option<Generation>,
    streams: Vec<StreamReport>,
}

/// A small board, as a device tells it.
pub(super) fn profile() -> Profile {
    Profile {
        board: "rpi4".into(),
        arch: "aarch64".into(),
        cores: 4,
        ram_mb: 4_096,
        models_mb: 2_048,
        metered: false,
        agent: "0.1.0".into(),
    }
}

impl Voice {
    /// A device that has said nothing yet.
    pub(super) fn new(signer: Arc<Signer>, fleet: &FleetId) -> Self {
        let nonce = format!("{:032x}", fastrand::u128(..));
        let (topics, fleet) = (Topics::new(fleet), fleet.clone());
        Self { signer, topics, fleet, nonce, said: 0, verdicts: 0, generation: None, streams: Vec::new() }
    }

    /// What it listens to.
    pub(super) fn filters(&self) -> [String; 2] {
        [self.topics.down_filter(&self.signer.id), self.topics.all_filter()]
    }

    /// Where its will is said, and what it is.
    pub(super) fn will(&self) -> Word {
        self.presence(false)
    }

    fn presence(&self, online: bool) -> Word {
        let topic = self.topics.upstream(&BridgeTopic::Presence(self.signer.id.clone()));
        Word { topic, bytes: encode_json(&Presence { boot: BOOT, online }), retain: true }
    }

    fn next(&mut self) -> u64 {
        self.said += 1;
        self.said
    }

    /// The first words after a connection.
    pub(super) fn birth(&mut self) -> anyhow::Result<[Word; 2]> {
        let hello = Hello {
            device: self.signer.id.clone(),
            boot: BOOT,
            seq: self.next(),
            key: self.signer.spki(),
            nonce: self.nonce.clone(),
            profile: profile(),
        };
        let topic = self.topics.upstream(&BridgeTopic::Hello(self.signer.id.clone()));
        let bytes = self.signer.frame(Kind::Hello, &encode_cbor(&hello))?;
        Ok([self.presence(true), Word { topic, bytes, retain: false }])
    }

    /// What it makes of something that land said, and what it says to it.
    pub(super) fn hear(&mut self, topic: &str, bytes: &[u8]) -> anyhow::Result<(Heard, Vec<Word>)> {
        let Some(DeviceTopic::Document(kind)) = self.topics.read_down(&self.signer.id, topic) else {
            return Ok((Heard::Other, Vec::new()));
        };
        match kind {
            DocumentKind::Assignment => {
                let payload = Envelope::parse(PayloadKind::Assignment, bytes, MAX_DOCUMENT_BYTES)?.payload;
                self.obey(&serde_json::from_slice(&payload)?)
            }
            DocumentKind::Command => {
                let payload = Envelope::parse(PayloadKind::Command, bytes, MAX_DOCUMENT_BYTES)?.payload;
                Ok((Heard::Command, vec![self.answer(&serde_json::from_slice(&payload)?)?]))
            }
            DocumentKind::Root | DocumentKind::Revocation | DocumentKind::Beacon | DocumentKind::Breakglass => {
                Ok((Heard::Other, Vec::new()))
            }
        }
    }

    /// A report of what it runs from now on, and a verdict for each release that is new.
    fn obey(&mut self, assignment: &Assignment) -> anyhow::Result<(Heard, Vec<Word>)> {
        let generation = Generation { role_epoch: assignment.role_epoch.get(), seq: assignment.seq.get() };
        if self.generation >= Some(generation) {
            return Ok((Heard::Other, Vec::new()));
        }
        self.generation = Some(generation);
        let before = std::mem::take(&mut self.streams);
        let mut verdicts = Vec::new();
        for wanted in &assignment.streams {
            let running = Running { release: wanted.release.get(), statement_sha256: wanted.statement_sha256.0 };
            let stream: StreamName = wanted.stream.parse()?;
            if !before.iter().any(|row| row.stream == stream && row.active == Some(running)) {
                self.verdicts += 1;
                verdicts.push(self.confirm(generation, stream.clone(), running)?);
            }
            self.streams.push(StreamReport {
                stream,
                active: Some(running),
                previous: None,
                trial: None,
                floor: 0,
                standing: Standing::Good,
                held: None,
                sandbox: Some(Sandbox { files: true, calls: true, memory: true }),
            });
        }
        let heard = if assignment.streams.is_empty() { Heard::Other } else { Heard::Release };
        // What it is comes before what it thinks of it.
        verdicts.insert(0, self.report()?);
        Ok((heard, verdicts))
    }

    fn report(&mut self) -> anyhow::Result<Word> {
        let report = Report {
            spec: SPEC,
            fleet: self.fleet.clone(),
            device_id: self.signer.id.clone(),
            boot: BOOT,
            seq: self.next(),
            generation: self.generation,
            nonce: self.nonce.clone(),
            root_version: 1,
            revocation: None,
            beacon: None,
            clock: ClockState::Fresh,
            streams: self.streams.clone(),
            last_refusals: Vec::new(),
            profile: profile(),
        };
        let topic = self.topics.upstream(&BridgeTopic::Report(self.signer.id.clone()));
        Ok(Word { topic, bytes: self.signer.document(PayloadKind::Report, encode_json(&report))?, retain: true })
    }

    fn confirm(&self, generation: Generation, stream: StreamName, running: Running) -> anyhow::Result<Word> {
        let verdict = Verdict {
            spec: SPEC,
            fleet: self.fleet.clone(),
            device_id: self.signer.id.clone(),
            seq: self.verdicts,
            generation,
            stream,
            release: running.release,
            statement_sha256: running.statement_sha256,
            outcome: Outcome::Confirmed,
            code: None,
            detail: None,
            answers: 0,
            errors: 0,
            shadow: None,
        };
        let topic = self.topics.upstream(&BridgeTopic::Verdict(self.signer.id.clone()));
        Ok(Word { topic, bytes: self.signer.document(PayloadKind::Verdict, encode_json(&verdict))?, retain: false })
    }

    fn answer(&self, command: &Command) -> anyhow::Result<Word> {
        let (fleet, device) = (self.fleet.clone(), self.signer.id.clone());
        let result = CommandResult::done(fleet, device, command.nonce.clone(), command.seq.get());
        let topic = self.topics.upstream(&BridgeTopic::Result(self.signer.id.clone()));
        Ok(Word { topic, bytes: self.signer.document(PayloadKind::Result, encode_json(&result))?, retain: false })
    }
}

/// What a model did in ten seconds, as its device measured it.
pub(super) struct Work<'a> {
    /// Its stream.
    pub(super) stream: &'a StreamName,
    /// Its release.
    pub(super) release: u64,
}

/// A device's telemetry with this number, signed.
pub(super) fn telemetry(signer: &Signer, run: u64, seq: u64, work: &Work<'_>) -> anyhow::Result<Vec<u8>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is wrong")?;
    let mut latency = [0; LATENCY_BUCKETS];
    (latency[4], latency[5], latency[6]) = (37 + seq % 7, 9, 2);
    let answers = latency.iter().sum();
    let row = StreamTelemetry {
        stream: work.stream.clone(),
        release: work.release,
        answers,
        errors: 0,
        latency,
        took_us: answers * 900,
        memory_kb: 18_500,
    };
    let telemetry = Telemetry {
        device: signer.id.clone(),
        boot: BOOT,
        run,
        seq,
        at: Some(u64::try_from(now.as_millis())?),
        uptime_s: seq * 10,
        span_s: 10,
        measured: seq,
        cpu_percent: 12.5,
        memory_used_mb: 812,
        memory_total_mb: 3_792,
        agent_memory_mb: 31,
        disk_free_mb: 11_204,
        temperature_c: Some(48.3),
        streams: vec![row],
        arriving: Vec::new(),
        spool: SpoolState { waiting: 1, bytes: 480, ..SpoolState::default() },
    };
    signer.frame(Kind::Telemetry, &encode_cbor(&telemetry))
}
