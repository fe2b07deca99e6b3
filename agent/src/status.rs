//! The status: what a person beside the device wants to know, and the command that asks for it.
//!
//! Decides what is told. It is gathered by the driver and handed out by the local API.

use crate::config::Config;
use crate::fault::Fault;
use crate::feed::FeedStatus;
use crate::worker::Seen;
use agent_core::{Agent, Phase, StreamLedger};
use comfy_table::{Table, presets};
use drift::Level;
use protocol::{ClockState, DriftAlarm, Generation, RefusalReport, Sandbox, SpoolState, StreamName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// The file in the state folder with the address of the local API.
pub(crate) const ADDRESS_FILE: &str = "http.addr";
const NOT_RUNNING: &str = "start it with `petrel-agent run`, or look at its log";
const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_STATUS_BYTES: u64 = 1 << 20;
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The device at a glance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// The device.
    pub(crate) device: String,
    /// Its fleet.
    pub(crate) fleet: String,
    /// The firmware profile.
    pub(crate) board: String,
    /// The agent's version.
    pub(crate) agent: String,
    /// How often the agent was started.
    pub(crate) boot: u64,
    /// Seconds since it was.
    pub(crate) uptime_s: u64,
    /// The broker that it speaks to.
    pub(crate) broker: String,
    /// Whether there is a connection.
    pub(crate) connected: bool,
    /// The id of the device's key; empty when it has none.
    pub(crate) key_id: String,
    /// When its certificate ends, in seconds since 1970.
    pub(crate) certificate_until: Option<u64>,
    /// The root of trust in use.
    pub(crate) root_version: u64,
    /// The newest revocation.
    pub(crate) revocation: Option<Generation>,
    /// How well the time is known.
    pub(crate) clock: ClockState,
    /// The last assignment.
    pub(crate) generation: Option<Generation>,
    /// The local API.
    pub(crate) listen: SocketAddr,
    /// Verdicts that land does not have yet.
    pub(crate) outbox: usize,
    /// Telemetry that land does not have yet.
    pub(crate) spool: SpoolState,
    /// The streams.
    pub(crate) streams: Vec<StreamStatus>,
    /// What was refused since the start.
    pub(crate) refusals: Vec<RefusalReport>,
    /// What folders and local brokers bring; an agent before this one says nothing of it.
    #[serde(default)]
    pub(crate) feeds: Vec<FeedStatus>,
    /// What keeps it from deciding anything; models answer all the same.
    #[serde(default)]
    pub(crate) trouble: Option<String>,
    /// Free on the disk of the state folder, MiB, when it was last measured.
    #[serde(default)]
    pub(crate) disk_free_mb: u64,
}

/// A stream at a glance; releases by their number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StreamStatus {
    /// The stream.
    pub(crate) stream: StreamName,
    /// Where it is on its way.
    pub(crate) phase: String,
    /// The code of what keeps the wanted release waiting.
    pub(crate) held: Option<String>,
    /// The active release was taken away and does not answer.
    pub(crate) silenced: bool,
    /// What land wants.
    pub(crate) wanted: Option<u64>,
    /// What is confirmed.
    pub(crate) active: Option<u64>,
    /// What was before it.
    pub(crate) previous: Option<u64>,
    /// What is on trial.
    pub(crate) trial: Option<u64>,
    /// What answers.
    pub(crate) serving: Option<u64>,
    /// What answers when that fails.
    pub(crate) fallback: Option<u64>,
    /// The process of what answers, while there is one.
    pub(crate) process: Option<u32>,
    /// How that is shut in.
    pub(crate) sandbox: Option<Sandbox>,
    /// Answers since the start.
    pub(crate) answers: u64,
    /// Requests since the start that a model could not answer.
    pub(crate) errors: u64,
    /// What is arriving.
    pub(crate) progress: Option<Progress>,
    /// What the last window of drift saw, since the start.
    #[serde(default)]
    pub(crate) drift: Option<DriftStatus>,
    /// Inputs that are kept for people.
    #[serde(default)]
    pub(crate) samples: usize,
    /// Their bytes.
    #[serde(default)]
    pub(crate) sample_bytes: usize,
}

/// What a window saw that was not as when the model was trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct DriftStatus {
    /// `quiet`, `warn` or `page`: the loudest of its alarms.
    pub(crate) level: Level,
    /// The release that saw it.
    pub(crate) release: u64,
    /// Windows since the start.
    pub(crate) windows: u64,
    /// Rows of the last one.
    pub(crate) rows: u64,
    /// Seconds from the start of the agent to its end.
    pub(crate) uptime_s: u64,
    /// How the inputs vary is not known yet: it warns at most.
    pub(crate) learning: bool,
    /// What to look at, the loudest first.
    pub(crate) alarms: Vec<DriftAlarm>,
}

/// How far a bundle has arrived, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// On disk.
    pub(crate) arrived: u64,
    /// In all.
    pub(crate) total: u64,
    /// A second, lately.
    pub(crate) rate: u64,
}

impl StreamStatus {
    /// A stream as the core and the worker have it.
    pub(crate) fn of(
        core: &Agent,
        stream: &StreamName,
        ledger: &StreamLedger,
        serving: &BTreeMap<StreamName, Seen>,
    ) -> Self {
        let phase = core.phases().get(stream);
        let serving = serving.get(stream);
        Self {
            stream: stream.clone(),
            phase: phase.map_or("settled", Phase::name).to_owned(),
            held: phase.and_then(Phase::held_by).map(|refusal| refusal.code.to_string()),
            silenced: ledger.silenced,
            wanted: ledger.wanted.as_ref().map(|w| w.order.release.get()),
            active: ledger.active.map(|i| i.release),
            previous: ledger.previous.map(|i| i.release),
            trial: ledger.trial.map(|t| t.candidate.release),
            serving: serving.map(|seen| seen.main),
            fallback: serving.and_then(|seen| seen.fallback),
            process: serving.and_then(|seen| seen.process),
            sandbox: serving.map(|seen| seen.sandbox),
            answers: 0,
            errors: 0,
            progress: None,
            drift: None,
            samples: serving.map_or(0, |seen| seen.samples.0),
            sample_bytes: serving.map_or(0, |seen| seen.samples.1),
        }
    }

    /// Whether some release of it should answer.
    pub(crate) fn should_serve(&self) -> bool {
        self.active.is_some() && !self.silenced || self.trial.is_some()
    }
}

/// Asks the agent that uses the configured state folder.
///
/// # Errors
/// When it does not run or does not answer.
pub(crate) fn ask(config: &Path) -> Result<Status, Fault> {
    let config = Config::read(config)?;
    let url = format!("http://{}/status", address(&config)?);
    let silent = |why: ureq::Error| {
        Fault::new(format!("the agent of {} does not answer at {url}", config.device)).because(why).remedy(NOT_RUNNING)
    };
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).proxy(None).build().into();
    let mut response = agent.get(&url).call().map_err(silent)?;
    response.body_mut().with_config().limit(MAX_STATUS_BYTES).read_json().map_err(silent)
}

/// Tells what the running agent does, again whenever it changed, until nobody reads any more. An agent that cannot be
/// asked now is told of too: it may be on its way.
///
/// # Errors
/// When nothing can be printed.
pub(crate) fn watch(config: &Path, json: bool, print: fn(&str) -> anyhow::Result<bool>) -> anyhow::Result<()> {
    // What is wrong with the file stays wrong.
    Config::read(config)?;
    let clears = !json && std::io::stdout().is_terminal();
    let mut last = None;
    loop {
        let seen = ask(config);
        // Time passes always.
        let news = seen.as_ref().map(|status| Status { uptime_s: 0, ..status.clone() }).map_err(ToString::to_string);
        let told = match &seen {
            Ok(status) if json => serde_json::to_string(status)?,
            Err(why) if json => serde_json::json!({ "error": { "message": why.to_string() } }).to_string(),
            // From the top of an empty screen.
            Ok(status) if clears => format!("\x1b[H\x1b[2J{status}"),
            Ok(status) => format!("{status}\n"),
            Err(why) => format!("{why}; tried again every second"),
        };
        if (clears || last.as_ref() != Some(&news)) && !print(&told)? {
            return Ok(());
        }
        last = Some(news);
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Where the local API of the running agent is.
///
/// # Errors
/// When it does not run.
pub(crate) fn address(config: &Config) -> Result<String, Fault> {
    let path = config.state.join(ADDRESS_FILE);
    let address = std::fs::read_to_string(&path).map_err(|why| {
        Fault::new(format!("the agent of {} does not run", config.device))
            .because(format!("{}: {why}", path.display()))
            .remedy(NOT_RUNNING)
    })?;
    Ok(address.trim().to_owned())
}

impl Status {
    /// What runs, in one line.
    pub(crate) fn line(&self) -> String {
        let link = if self.connected { "connected" } else { "no connection" };
        let stream = |s: &StreamStatus| {
            let answers = match s.serving {
                Some(release) => format!("{} {release}", s.stream),
                None if s.should_serve() => format!("{} does not answer", s.stream),
                None => format!("{} has no release", s.stream),
            };
            if s.phase == "settled" { answers } else { format!("{answers} ({})", s.phase) }
        };
        let streams: Vec<String> = self.streams.iter().map(stream).collect();
        if streams.is_empty() { format!("{link}; no models") } else { format!("{link}; {}", streams.join(", ")) }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let link = if self.connected { "connected to" } else { "NOT connected to" };
        writeln!(f, "{} of fleet {} ({}, agent {})", self.device, self.fleet, self.board, self.agent)?;
        let until = self.certificate_until.and_then(|s| i64::try_from(s).ok()).and_then(trust::Time::from_unix);
        match until {
            Some(until) => writeln!(f, "key {}, certificate until {until}", self.key_id)?,
            None => writeln!(f, "NOT enrolled")?,
        }
        writeln!(f, "{link} {}, boot {}, up {}", self.broker, self.boot, duration(self.uptime_s))?;
        let generation = self.generation.map_or("no assignment yet".into(), |g| format!("assignment {}", g.seq));
        writeln!(
            f,
            "{generation}, root {}, {} verdicts unsent, API http://{}",
            self.root_version, self.outbox, self.listen
        )?;
        writeln!(
            f,
            "{}; {} MiB of the disk are free, the time is {}",
            telemetry(&self.spool),
            self.disk_free_mb,
            clock(self.clock)
        )?;
        if let Some(trouble) = &self.trouble {
            writeln!(f, "ONLY MODELS ANSWER, nothing else is done: {trouble}")?;
        }
        if !self.streams.is_empty() {
            let mut table = Table::new();
            table.load_style(presets::NOTHING);
            table
                .set_header(["STREAM", "PHASE", "SERVES", "ACTIVE", "TRIAL", "WANTED", "ANSWERS", "ERRORS", "ARRIVED"]);
            for s in &self.streams {
                let number = |release: Option<u64>| release.map_or("-".to_owned(), |n| n.to_string());
                let arrived = s.progress.map_or("-".to_owned(), |p| p.to_string());
                let (answers, errors) = (s.answers.to_string(), s.errors.to_string());
                let releases = [s.serving, s.active, s.trial, s.wanted].map(number);
                let row = [s.stream.to_string(), s.phase.clone()].into_iter().chain(releases);
                table.add_row(row.chain([answers, errors, arrived]));
            }
            writeln!(f, "\n{}", table.to_string().trim_end())?;
        }
        for s in &self.streams {
            if let Some(missing) = s.sandbox.and_then(missing) {
                writeln!(f, "{}: its process is NOT shut in by {missing}: this system cannot do that", s.stream)?;
            }
        }
        for s in &self.streams {
            if let Some(drift) = s.drift.as_ref().filter(|drift| !drift.alarms.is_empty()) {
                let ago = duration(self.uptime_s.saturating_sub(drift.uptime_s));
                let (stream, level) = (&s.stream, drift.level.to_string().to_uppercase());
                writeln!(f, "\n{stream}: drift, {level}, in the last window ({} rows, {ago} ago)", drift.rows)?;
                for alarm in &drift.alarms {
                    writeln!(f, "  {}: {}, by {:.2} deviations", alarm.feature, alarm.detail, alarm.effect)?;
                }
            }
        }
        for s in self.streams.iter().filter(|s| s.samples > 0) {
            let (stream, samples, kilobytes) = (&s.stream, s.samples, s.sample_bytes.div_ceil(1_000));
            writeln!(f, "{stream}: {samples} of its inputs are kept for people, {kilobytes} KB, in memory alone")?;
        }
        if !self.feeds.is_empty() {
            let mut table = Table::new();
            table.load_style(presets::NOTHING);
            table.set_header(["FEED", "FROM", "MODEL", "ANSWERED", "FAILED", "DROPPED"]);
            for f in &self.feeds {
                let counts = [f.answered, f.failed, f.dropped].map(|n| n.to_string());
                table.add_row([f.kind.clone(), f.from.clone(), f.model.clone()].into_iter().chain(counts));
            }
            writeln!(f, "\n{}", table.to_string().trim_end())?;
        }
        for FeedStatus { kind, from, trouble, .. } in &self.feeds {
            if let Some(trouble) = trouble {
                writeln!(f, "the feed of {kind} {from} cannot work: {trouble}")?;
            }
        }
        for refusal in &self.refusals {
            writeln!(f, "refused {} times, {}: {}", refusal.count, refusal.code, refusal.detail)?;
        }
        Ok(())
    }
}

/// The parts of a sandbox that are not there.
pub(crate) fn missing(sandbox: Sandbox) -> Option<String> {
    let Sandbox { files, calls, memory } = sandbox;
    let parts = [(files, "files (Landlock)"), (calls, "calls (seccomp)"), (memory, "memory")];
    let missing: Vec<&str> = parts.into_iter().filter(|(there, _)| !there).map(|(_, what)| what).collect();
    (!missing.is_empty()).then(|| missing.join(", "))
}

fn clock(state: ClockState) -> &'static str {
    match state {
        ClockState::Fresh => "fresh",
        ClockState::Stale => "stale",
        ClockState::Expired => "past the end of the root",
        ClockState::Unset => "not known",
    }
}

/// What waits of it, and what was lost.
fn telemetry(spool: &SpoolState) -> String {
    let SpoolState { waiting, bytes, merged, dropped, damaged } = spool;
    let mut told = format!("telemetry: {waiting} messages wait ({} KiB)", bytes.div_ceil(1_024));
    for (count, what) in [(merged, "merged"), (dropped, "DROPPED"), (damaged, "times lost on the disk")] {
        if *count > 0 {
            told += &format!(", {count} {what}");
        }
    }
    told
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { arrived, total, rate } = *self;
        write!(f, "{}%", u128::from(arrived) * 100 / u128::from(total.max(1)))?;
        match total.saturating_sub(arrived).checked_div(rate) {
            Some(left) => write!(f, ", {} KiB/s, {} left", rate / 1_024, duration(left)),
            None => f.write_str(", nothing comes"),
        }
    }
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_tells_how_far_how_fast_and_how_long() {
        let told = |arrived, rate| Progress { arrived, total: 100 << 20, rate }.to_string();
        assert_eq!(told(41 << 20, 2 << 20), "41%, 2048 KiB/s, 29 s left");
        assert_eq!(told(1 << 20, 1_024), "1%, 1 KiB/s, 28 h left");
        assert_eq!(told(99 << 20, 0), "99%, nothing comes");
    }

    #[test]
    fn the_spool_tells_of_its_losses() {
        let quiet = SpoolState { waiting: 2, bytes: 700, ..SpoolState::default() };
        assert_eq!(telemetry(&quiet), "telemetry: 2 messages wait (1 KiB)");
        let lossy = SpoolState { merged: 50, dropped: 4, damaged: 1, ..quiet };
        assert_eq!(
            telemetry(&lossy),
            "telemetry: 2 messages wait (1 KiB), 50 merged, 4 DROPPED, 1 times lost on the disk"
        );
    }
}
