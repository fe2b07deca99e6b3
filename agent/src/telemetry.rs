//! Telemetry: how the board and its models are doing, once an interval.
//!
//! Decides what is measured, and that nothing counted is lost between two measurements. What becomes of a
//! measurement that cannot be sent is decided by the spool.

use crate::config::Config;
use crate::worker::{Counts, Observation, Seen};
use agent_core::Limits;
use protocol::{Arriving, DeviceId, MAX_STREAM_ROWS, Profile, SpoolState, StreamName, StreamTelemetry, Telemetry};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use sysinfo::{Components, MemoryRefreshKind, Pid, ProcessRefreshKind, ProcessesToUpdate, System};

const MIB: u64 = 1 << 20;

/// What is measured and what has added up.
#[derive(Debug)]
pub(crate) struct Gauge {
    state: PathBuf,
    /// What the system does not tell here is told as zero.
    system: Option<System>,
    components: Option<Components>,
    process: Option<Pid>,
    rows: BTreeMap<(StreamName, u64), (Counts, u64)>,
    /// Seconds from the start to the last measurement.
    until_s: u64,
    /// As it was measured last.
    disk_free_mb: u64,
}

/// Who speaks, and when.
#[derive(Debug)]
pub(crate) struct Speaker {
    /// The device.
    pub(crate) device: DeviceId,
    /// Boot counter.
    pub(crate) boot: u64,
    /// Drawn at the start.
    pub(crate) run: u64,
    /// Sequence number.
    pub(crate) seq: u64,
    /// Unix milliseconds, where the clock is set.
    pub(crate) at: Option<u64>,
    /// Seconds since the start.
    pub(crate) uptime_s: u64,
}

/// What this board is, and what the configuration says of it.
pub(crate) fn profile(config: &Config) -> Profile {
    Profile {
        board: config.board.clone(),
        arch: std::env::consts::ARCH.into(),
        cores: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
        ram_mb: board_memory_mb(),
        models_mb: limits(config).models_mb,
        metered: config.metered.is_some(),
        agent: env!("CARGO_PKG_VERSION").into(),
    }
}

/// What the device gives to models, and what its link may carry.
pub(crate) fn limits(config: &Config) -> Limits {
    let models_mb = config.models_mb.unwrap_or_else(|| board_memory_mb() / 4 * 3);
    Limits { models_mb, metered: config.metered }
}

/// Memory of the board in MiB; 0 where the system does not tell.
pub(crate) fn board_memory_mb() -> u64 {
    let Ok(mut system) = System::new() else { return 0 };
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    system.total_memory() / MIB
}

fn free_mb(dir: &Path) -> u64 {
    crate::store::host().free(dir).unwrap_or(0) / MIB
}

impl Gauge {
    /// Measures the board, and the disk under `state`.
    pub(crate) fn new(state: &Path) -> Self {
        let mut system = System::new().ok();
        // The load is measured between two looks.
        system.iter_mut().for_each(System::refresh_cpu_usage);
        Self {
            state: state.to_owned(),
            system,
            components: Components::new().ok(),
            process: sysinfo::get_current_pid().ok(),
            rows: BTreeMap::new(),
            until_s: 0,
            disk_free_mb: free_mb(state),
        }
    }

    /// What was free on the disk under the state when it was measured last.
    pub(crate) fn disk_free_mb(&self) -> u64 {
        self.disk_free_mb
    }

    /// Adds what was observed.
    pub(crate) fn add(&mut self, observation: &Observation) {
        let key = (observation.stream.clone(), observation.release);
        let (counts, resident) = self.rows.entry(key).or_default();
        counts.add(&observation.counts);
        *resident = observation.resident.max(*resident);
    }

    /// The next message; a release that serves and did nothing has a row of zeros.
    pub(crate) fn read(
        &mut self,
        speaker: Speaker,
        serving: &BTreeMap<StreamName, Seen>,
        arriving: Vec<Arriving>,
    ) -> Telemetry {
        let models = serving.values().filter_map(|seen| seen.process).map(Pid::from_u32);
        let processes: Vec<Pid> = self.process.into_iter().chain(models).collect();
        self.refresh(&processes);
        let since = std::mem::replace(&mut self.until_s, speaker.uptime_s);
        self.disk_free_mb = free_mb(&self.state);
        let system = self.system.as_ref();
        let own = processes.iter().filter_map(|pid| system?.process(*pid)).map(sysinfo::Process::memory).sum::<u64>();
        let sensors = self.components.iter().flat_map(|c| c.iter()).filter_map(sysinfo::Component::temperature);
        let hottest = sensors.filter(|t| t.is_finite()).reduce(f32::max);
        let load = system.map(System::global_cpu_usage).filter(|load| load.is_finite());
        Telemetry {
            device: speaker.device,
            boot: speaker.boot,
            run: speaker.run,
            seq: speaker.seq,
            at: speaker.at,
            uptime_s: speaker.uptime_s,
            span_s: speaker.uptime_s.saturating_sub(since),
            measured: 1,
            cpu_percent: load.map_or(0.0, |load| load.clamp(0.0, 100.0)),
            memory_used_mb: system.map_or(0, System::used_memory) / MIB,
            memory_total_mb: system.map_or(0, System::total_memory) / MIB,
            agent_memory_mb: own / MIB,
            disk_free_mb: self.disk_free_mb,
            temperature_c: hottest,
            streams: self.take_rows(serving),
            arriving,
            spool: SpoolState::default(),
        }
    }

    fn take_rows(&mut self, serving: &BTreeMap<StreamName, Seen>) -> Vec<StreamTelemetry> {
        let quiet = serving.iter().map(|(stream, seen)| (stream.clone(), seen.main));
        let keys: BTreeSet<(StreamName, u64)> = self.rows.keys().cloned().chain(quiet).collect();
        let row = |key: (StreamName, u64)| {
            let (counts, resident) = self.rows.remove(&key).unwrap_or_default();
            let (stream, release) = key;
            let (answers, errors, latency) = (counts.answers(), counts.errors, counts.latency);
            let (took_us, memory_kb) = (counts.took_us, resident >> 10);
            StreamTelemetry { stream, release, answers, errors, latency, took_us, memory_kb }
        };
        keys.into_iter().take(MAX_STREAM_ROWS).map(row).collect()
    }

    fn refresh(&mut self, processes: &[Pid]) {
        if let Some(system) = &mut self.system {
            system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
            system.refresh_cpu_usage();
            let memory = ProcessRefreshKind::nothing().with_memory();
            system.refresh_processes_specifics(ProcessesToUpdate::Some(processes), true, memory);
        }
        self.components.iter_mut().for_each(|components| components.refresh(true));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::{Kind, LATENCY_BUCKETS};
    use trust::Digest;

    fn speaker() -> Speaker {
        Speaker {
            device: "d".repeat(63).parse().unwrap(),
            boot: u64::MAX,
            run: u64::MAX,
            seq: 1,
            at: Some(u64::MAX),
            uptime_s: 5,
        }
    }

    fn observation(stream: &str, release: u64, errors: u64) -> Observation {
        let counts = Counts { errors, took_us: 0, latency: [1; LATENCY_BUCKETS] };
        Observation { stream: stream.parse().unwrap(), bundle: Digest([0; 32]), release, counts, resident: 0 }
    }

    #[test]
    fn counts_add_up_until_they_are_told_once() {
        let state = tempfile::tempdir().unwrap();
        let mut gauge = Gauge::new(state.path());
        gauge.add(&observation("digits", 1, 1));
        gauge.add(&observation("digits", 1, 2));
        gauge.add(&observation("digits", 2, 0));
        let serving = BTreeMap::from([("digits".parse().unwrap(), Seen { main: 2, ..Seen::default() })]);
        let told = gauge.read(speaker(), &serving, Vec::new());
        let rows: Vec<_> = told.streams.iter().map(|r| (r.release, r.answers, r.errors)).collect();
        assert_eq!(rows, [(1, 2 * LATENCY_BUCKETS as u64, 3), (2, LATENCY_BUCKETS as u64, 0)]);
        let rows: Vec<_> =
            gauge.read(speaker(), &serving, Vec::new()).streams.iter().map(|r| (r.release, r.answers)).collect();
        assert_eq!(rows, [(2, 0)], "a row of zeros for what serves");
        assert!(told.memory_total_mb > 0 && told.disk_free_mb > 0 && told.agent_memory_mb > 0);
    }

    #[test]
    fn however_many_rows_there_are_a_message_fits_and_the_rest_follows() {
        let state = tempfile::tempdir().unwrap();
        let signer = crate::identity::signer_in(state.path());
        let mut gauge = Gauge::new(state.path());
        for n in 0..100u64 {
            let mut row = observation(&format!("{n:063}"), u64::MAX, u64::MAX / 2);
            row.counts.latency = [u64::MAX / 32; LATENCY_BUCKETS];
            gauge.add(&row);
        }
        let mut sent = 0;
        for _ in 0..3 {
            let message = gauge.read(speaker(), &BTreeMap::new(), Vec::new());
            sent += message.streams.len();
            signer.frame(Kind::Telemetry, &message).unwrap();
        }
        assert_eq!(sent, 100);
    }
}
