//! The configuration: what was said in the file becomes what is meant.
//!
//! Decides which keys there are, their defaults and their limits. Reads no other file: whether the
//! authority's certificate or the root can be read is found where they are used.

use crate::fault::Fault;
use crate::feed;
use crate::log::Format;
use crate::settings::{self, Origin, Settings};
use crate::worker::Privacy;
use agent_core::Metered;
use protocol::{DeviceId, FleetId, StreamName};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the configuration is looked for when nobody says where.
pub(crate) const DEFAULT_PATH: &str = "/etc/petrel/agent.toml";

const TELEMETRY_S: RangeInclusive<u64> = 1..=86_400;
const DRIFT_WINDOW_S: RangeInclusive<u64> = 1..=604_800;
const WINDOW: RangeInclusive<usize> = 1..=256;
/// Bytes a second: slower than the least is no rate at which a bundle ever arrives.
const FETCH_RATE: RangeInclusive<u64> = 1_024..=1 << 40;
const LOAD_S: RangeInclusive<u64> = 1..=3_600;
const MODELS_MB: RangeInclusive<u64> = 1..=1 << 20;
/// The most that the file of the spool may hold.
pub(crate) const MAX_SPOOL_BYTES: u64 = 64 << 20;
/// An input has at most an eighth of it.
const SAMPLE_BYTES: RangeInclusive<u64> = 4_096..=64 << 20;
const MAX_SAMPLE_COLUMNS: usize = 1_024;
const SPOOL_BYTES: RangeInclusive<u64> = 64 << 10..=MAX_SPOOL_BYTES;

/// A validated configuration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    /// The fleet that the root must be for.
    pub(crate) fleet: FleetId,
    /// This device.
    pub(crate) device: DeviceId,
    /// The firmware profile's name.
    pub(crate) board: String,
    /// What the board must be.
    pub(crate) profile: Option<board::Profile>,
    /// The broker.
    pub(crate) broker: Broker,
    /// Where land is, for newer certificates.
    pub(crate) bridge: Option<Address>,
    /// PEM file with the fleet's certificate authority.
    pub(crate) ca: PathBuf,
    /// The root of trust.
    pub(crate) root: PathBuf,
    /// The folder of everything that the agent keeps.
    pub(crate) state: PathBuf,
    /// The local API's address, on loopback.
    pub(crate) listen: SocketAddr,
    /// The same at a socket in the file system.
    pub(crate) socket: Option<PathBuf>,
    /// Between two telemetry messages.
    pub(crate) telemetry: Duration,
    /// How long a window of drift is.
    pub(crate) drift_window: Duration,
    /// The most that waits of it, in bytes.
    pub(crate) spool_bytes: u64,
    /// The most chunk subscriptions at a time.
    pub(crate) window: usize,
    /// The most bytes of bundles a second.
    pub(crate) fetch_rate: Option<u64>,
    /// Memory for all models together, MiB; three quarters of the board's when nobody says.
    pub(crate) models_mb: Option<u64>,
    /// What a link that costs by the byte may carry.
    pub(crate) metered: Option<Metered>,
    /// How long a model may take to load, and to run its golden vectors.
    pub(crate) load: Duration,
    /// Where bundles come from: the next when the one before gives nothing.
    pub(crate) sources: Vec<Source>,
    /// How the log is written.
    pub(crate) log: Format,
    /// What is logged, as `tracing` writes filters.
    pub(crate) log_filter: String,
    /// What is kept of inputs for people.
    pub(crate) privacy: Privacy,
    /// What a folder or a local broker brings, and which model answers it.
    pub(crate) feeds: Vec<feed::Meant>,
}

/// Where a bundle may come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Source {
    /// Chunks at the broker.
    Mqtt,
    /// Files at the bridge.
    Https,
}

/// `[metered]`
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawMetered {
    most: u64,
    #[serde(default)]
    over: Over,
}

/// `[samples]`
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawSamples {
    streams: Vec<StreamName>,
    bytes: u64,
    #[serde(default)]
    drop: Vec<String>,
    #[serde(default)]
    hash: Vec<String>,
}

/// What becomes of a bundle that costs more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Over {
    /// It waits for another way.
    #[default]
    Defer,
    /// Land hears that it is refused.
    Refuse,
}

/// An MQTT broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broker {
    /// Name or IPv4 address, as its certificate has it.
    pub(crate) host: String,
    /// TCP port.
    pub(crate) port: u16,
    /// Over TLS; a broker on this very device may do without.
    pub(crate) tls: bool,
}

/// Land's REST API, always over TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// Name or IP address, as its certificate has it.
    pub(crate) host: String,
    /// TCP port.
    pub(crate) port: u16,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    fleet: String,
    device: String,
    #[serde(default = "generic")]
    board: String,
    broker: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    bridge: Option<String>,
    ca: PathBuf,
    root: PathBuf,
    state: PathBuf,
    #[serde(default = "listen")]
    listen: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    socket: Option<PathBuf>,
    #[serde(default = "telemetry_s")]
    telemetry_s: u64,
    #[serde(default = "drift_window_s")]
    drift_window_s: u64,
    #[serde(default = "spool_bytes")]
    spool_bytes: u64,
    #[serde(default = "window")]
    window: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    fetch_rate: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    models_mb: Option<u64>,
    #[serde(default = "load_s")]
    load_s: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    metered: Option<RawMetered>,
    #[serde(skip_serializing_if = "Option::is_none")]
    samples: Option<RawSamples>,
    #[serde(default = "sources")]
    sources: Vec<Source>,
    #[serde(default)]
    log: Format,
    #[serde(default = "log_filter")]
    log_filter: String,
    #[serde(default)]
    feed: Vec<feed::Raw>,
}

fn generic() -> String {
    "generic".into()
}

fn listen() -> String {
    "127.0.0.1:8787".into()
}

fn telemetry_s() -> u64 {
    60
}

fn drift_window_s() -> u64 {
    3_600
}

fn spool_bytes() -> u64 {
    1 << 20
}

fn load_s() -> u64 {
    120
}

fn sources() -> Vec<Source> {
    vec![Source::Mqtt]
}

fn window() -> usize {
    32
}

fn log_filter() -> String {
    "info".into()
}

impl Config {
    /// Reads and validates the file, and what the environment says of it; relative paths are relative to its folder.
    ///
    /// # Errors
    /// A [`Fault`] that names the file, the key and the remedy.
    pub(crate) fn read(path: &Path) -> Result<Self, Fault> {
        Self::read_with(path, &[])
    }

    /// The same, with `KEY=VALUE`s above it all.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub(crate) fn read_with(path: &Path, set: &[String]) -> Result<Self, Fault> {
        let text = settings::text(path)?;
        let settings = Settings::gather(path, &text, std::env::vars_os(), set)?;
        // A fault in one file is shown in its place.
        if settings.is_one_file() {
            return Self::parse(path, &text);
        }
        let raw = Raw::deserialize(settings.table).map_err(|why| wrong_file(path, &why))?;
        Ok(Self { profile: settings.profile, ..Self::of(path, raw)? })
    }

    /// The same of a text that will be, or was, in the file.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, Fault> {
        Self::of(path, toml::from_str(text).map_err(|why| wrong_file(path, &why))?)
    }

    /// Each key that has a value, the value, and where it was said.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub(crate) fn explain(path: &Path, set: &[String]) -> Result<Vec<(String, toml::Value, Origin)>, Fault> {
        Self::read_with(path, set)?;
        let settings = Settings::gather(path, &settings::text(path)?, std::env::vars_os(), set)?;
        let whole = Raw::deserialize(settings.table.clone()).map_err(|why| wrong_file(path, &why))?;
        let whole = toml::Table::try_from(whole)
            .map_err(|why| Fault::new("the configuration cannot be written").because(why).remedy("please report it"))?;
        Ok(whole.into_iter().map(|(key, value)| (key.clone(), value, settings.origin(&key))).collect())
    }

    fn of(path: &Path, raw: Raw) -> Result<Self, Fault> {
        let wrong = |key: &str, why: String, remedy: &str| {
            Fault::new(format!("{}: `{key}` is wrong", path.display())).because(why).remedy(remedy)
        };
        let one_name = "use the name that land gave it";
        let folder = path.parent().unwrap_or(Path::new(""));
        let listen: SocketAddr = raw
            .listen
            .parse()
            .map_err(|e| wrong("listen", format!("`{}`: {e}", raw.listen), "write an address as 127.0.0.1:8787"))?;
        if !listen.ip().is_loopback() {
            let why = format!("{listen} can be reached from outside, and the local API asks nobody who they are");
            return Err(wrong("listen", why, "use 127.0.0.1 or [::1]; put a proxy in front to offer it to others"));
        }
        let range = |key: &str, value: u64, least: u64, most: u64| match value {
            value if (least..=most).contains(&value) => Ok(value),
            _ => Err(wrong(key, format!("{value} is not from {least} to {most}"), "choose a number in that range")),
        };
        range("telemetry_s", raw.telemetry_s, *TELEMETRY_S.start(), *TELEMETRY_S.end())?;
        range("drift_window_s", raw.drift_window_s, *DRIFT_WINDOW_S.start(), *DRIFT_WINDOW_S.end())?;
        range("spool_bytes", raw.spool_bytes, *SPOOL_BYTES.start(), *SPOOL_BYTES.end())?;
        range("window", raw.window as u64, *WINDOW.start() as u64, *WINDOW.end() as u64)?;
        let twice = raw.sources.len() == 2 && raw.sources[0] == raw.sources[1];
        if raw.sources.is_empty() || raw.sources.len() > 2 || twice {
            let why = "it names mqtt, https, or both in the order in which they are tried".to_owned();
            return Err(wrong("sources", why, "write [\"mqtt\"], [\"mqtt\", \"https\"] or [\"https\", \"mqtt\"]"));
        }
        if raw.sources.contains(&Source::Https) && raw.bridge.is_none() {
            let why = "https is among them, and `bridge` says nowhere where the bridge is".to_owned();
            return Err(wrong("sources", why, "set `bridge` to https://HOST:PORT, as join files do"));
        }
        if let Some(rate) = raw.fetch_rate {
            range("fetch_rate", rate, *FETCH_RATE.start(), *FETCH_RATE.end())?;
        }
        range("load_s", raw.load_s, *LOAD_S.start(), *LOAD_S.end())?;
        if let Some(most) = raw.models_mb {
            range("models_mb", most, *MODELS_MB.start(), *MODELS_MB.end())?;
        }
        if let Some(samples) = &raw.samples {
            range("samples.bytes", samples.bytes, *SAMPLE_BYTES.start(), *SAMPLE_BYTES.end())?;
            let columns = samples.drop.len() + samples.hash.len();
            if columns > MAX_SAMPLE_COLUMNS {
                let why = format!("it names {columns} columns, and at most {MAX_SAMPLE_COLUMNS} are allowed");
                return Err(wrong("samples", why, "keep no inputs of such a model: leave [samples] out"));
            }
            if let Some(both) = samples.drop.iter().find(|name| samples.hash.contains(name)) {
                let why = format!("`{both}` is among those that are dropped and among those that are hashed");
                return Err(wrong("samples", why, "say one of the two"));
            }
        }
        crate::log::check(&raw.log_filter)
            .map_err(|why| wrong("log_filter", why, "write a level (info) or targets (info,petrel_agent=debug)"))?;
        if raw.board.is_empty() || raw.board.len() > 63 {
            return Err(wrong("board", "it has 1 to 63 characters".into(), "use the name of a firmware profile"));
        }
        Ok(Self {
            fleet: raw.fleet.parse().map_err(|e| wrong("fleet", format!("{e}"), one_name))?,
            device: raw.device.parse().map_err(|e| wrong("device", format!("{e}"), one_name))?,
            board: raw.board,
            profile: None,
            broker: Broker::parse(&raw.broker).map_err(|why| {
                wrong(
                    "broker",
                    why,
                    "write mqtts://HOST:PORT, for example mqtts://bridge.example:8883; or mqtt://localhost:1883 for a broker on this device",
                )
            })?,
            bridge: raw.bridge.as_deref().map(Address::parse).transpose().map_err(|why| {
                wrong("bridge", why, "write https://HOST:PORT, for example https://bridge.example:8443")
            })?,
            ca: folder.join(raw.ca),
            root: folder.join(raw.root),
            state: folder.join(&raw.state),
            listen,
            socket: raw.socket.map(|socket| folder.join(socket)),
            telemetry: Duration::from_secs(raw.telemetry_s),
            drift_window: Duration::from_secs(raw.drift_window_s),
            spool_bytes: raw.spool_bytes,
            window: raw.window,
            fetch_rate: raw.fetch_rate,
            models_mb: raw.models_mb,
            load: Duration::from_secs(raw.load_s),
            metered: raw.metered.map(|m| Metered { most: m.most, refuses: m.over == Over::Refuse }),
            privacy: raw.samples.map_or_else(Privacy::default, |samples| Privacy {
                streams: samples.streams.into_iter().collect(),
                room: usize::try_from(samples.bytes).unwrap_or(usize::MAX),
                dropped: samples.drop.into_iter().collect(),
                hashed: samples.hash.into_iter().collect(),
            }),
            sources: raw.sources,
            log: raw.log,
            log_filter: raw.log_filter,
            feeds: feed::Meant::all(raw.feed, folder, &folder.join(&raw.state))
                .map_err(|(why, remedy)| wrong("feed", why, remedy))?,
        })
    }
}

fn wrong_file(path: &Path, why: &toml::de::Error) -> Fault {
    Fault::new(format!("the configuration {} is wrong", path.display()))
        .because(why.to_string().trim_end().to_owned())
        .remedy("correct the key that is named; `petrel-agent run --help` shows a whole file")
}

impl Address {
    /// `https://host:port`
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let rest = url.strip_prefix("https://").ok_or_else(|| format!("`{url}` does not begin with https://"))?;
        let rest = rest.trim_end_matches('/');
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port),
            _ => (rest, "443"),
        };
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(|| format!("`{port}` is no port"))?;
        let host = match host.strip_prefix('[') {
            Some(ip) => ip.strip_suffix(']').filter(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok()),
            None => Some(host).filter(|host| !host.is_empty() && host.bytes().all(of_a_name)),
        };
        let host = host.ok_or_else(|| format!("`{rest}` begins with no host name and no IP address"))?;
        Ok(Self { host: host.to_owned(), port })
    }
}

/// What stands in host names and IPv4 addresses.
fn of_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-')
}

/// Whether the bytes to this host never leave the device.
fn is_this_device(host: &str) -> bool {
    host == "localhost" || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
}

impl Broker {
    /// `mqtts://host:port`
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| format!("`{url}` is no URL"))?;
        let tls = scheme != "mqtt";
        let rest = rest.trim_end_matches('/');
        let (host, port) = rest.rsplit_once(':').unwrap_or((rest, if tls { "8883" } else { "1883" }));
        if host.is_empty() || !host.bytes().all(of_a_name) {
            return Err(format!("`{host}` is no host name and no IPv4 address"));
        }
        if !matches!(scheme, "mqtt" | "mqtts") || !tls && !is_this_device(host) {
            let why = "the agent speaks to a broker on another machine over TLS only";
            return Err(format!("`{scheme}` is not `mqtts`: {why}"));
        }
        match port.parse() {
            Ok(port) if port > 0 => Ok(Self { host: host.to_owned(), port, tls }),
            _ => Err(format!("`{port}` is no port")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::told;

    const GOOD: &str = r#"
        fleet = "plant-3"
        device = "press-7"
        broker = "mqtts://bridge.example:8884"
        ca = "ca.pem"
        root = "/etc/petrel/root.json"
        state = "state"
    "#;

    fn parse(text: &str) -> Result<Config, Fault> {
        Config::parse(Path::new("/etc/petrel/agent.toml"), text)
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let config = parse(GOOD).unwrap();
        assert_eq!(config.broker, Broker { host: "bridge.example".into(), port: 8884, tls: true });
        assert_eq!((config.board.as_str(), config.window), ("generic", 32));
        assert_eq!((config.telemetry.as_secs(), config.log), (60, Format::Human));
        assert_eq!(config.listen.to_string(), "127.0.0.1:8787");
    }

    #[test]
    fn relative_paths_are_relative_to_the_file() {
        let config = parse(GOOD).unwrap();
        assert_eq!(config.ca, Path::new("/etc/petrel/ca.pem"));
        assert_eq!(config.root, Path::new("/etc/petrel/root.json"));
        assert_eq!(config.state, Path::new("/etc/petrel/state"));
    }

    #[test]
    fn faults_name_the_file_the_key_and_a_remedy() {
        let cases = [
            ("colour = 1", "colour"),
            ("listen = \"0.0.0.0:8787\"", "listen"),
            ("listen = \"here\"", "listen"),
            ("telemetry_s = 0", "telemetry_s"),
            ("spool_bytes = 1000", "spool_bytes"),
            ("window = 0", "window"),
            ("bridge = \"http://bridge:1\"", "bridge"),
            ("window = 1000", "window"),
            ("fetch_rate = 100", "fetch_rate"),
            ("sources = []", "sources"),
            ("sources = [\"mqtt\", \"mqtt\"]", "sources"),
            ("sources = [\"https\"]", "bridge"),
            ("sources = [\"ftp\"]", "sources"),
            ("log = \"xml\"", "log"),
            ("log_filter = \"a=b=c\"", "log_filter"),
            ("board = \"\"", "board"),
            ("[[feed]]\nkind = \"folder\"", "model"),
            (
                "[[feed]]\nkind = \"mqtt\"\nmodel = \"a\"\nbroker = \"mqtt://localhost\"\nin = \"#/\"\nout = \"b\"",
                "feed",
            ),
        ];
        for (line, key) in cases {
            let fault = parse(&format!("{GOOD}\n{line}")).unwrap_err();
            let text = told(&fault);
            assert!(text.contains("agent.toml") && text.contains(key), "{line}: {text}");
            assert!(fault.advice().is_some(), "{line}");
        }
    }

    #[test]
    fn a_broker_on_another_machine_is_spoken_to_over_tls_only() {
        let cases = [
            ("mqtt://bridge:1883", "over TLS only"),
            ("mqtt://10.0.0.1:1883", "over TLS only"),
            ("mqtt://0.0.0.0:1883", "over TLS only"),
            ("mqtt://localhost.example:1883", "over TLS only"),
            ("mqtt://127.0.0.1.example", "over TLS only"),
            ("mqtt://localhost@bridge:1883", "no host"),
            ("mqtt://", "no host"),
            ("ws://localhost:1883", "over TLS only"),
            ("mqtt://localhost:0", "no port"),
            ("bridge:1883", "no URL"),
            ("mqtts://bridge:0", "no port"),
            ("mqtts://bridge:many", "no port"),
            ("mqtts://:8883", "no host"),
            ("mqtts://[::1]:8883", "no host"),
        ];
        for (url, expected) in cases {
            let fault = Broker::parse(url).unwrap_err();
            assert!(fault.contains(expected), "{url}: {fault}");
        }
        let read = |url: &str| Broker::parse(url).map(|b| (b.host, b.port, b.tls));
        assert_eq!(read("mqtts://bridge/"), Ok(("bridge".into(), 8883, true)));
        assert_eq!(read("mqtts://localhost"), Ok(("localhost".into(), 8883, true)));
        assert_eq!(read("mqtt://localhost"), Ok(("localhost".into(), 1883, false)));
        assert_eq!(read("mqtt://127.1.2.3:99/"), Ok(("127.1.2.3".into(), 99, false)));
    }

    #[test]
    fn an_address_of_land_is_read() {
        let read = |url: &str| Address::parse(url).map(|a| (a.host, a.port));
        assert_eq!(read("https://bridge.example:8443"), Ok(("bridge.example".into(), 8443)));
        assert_eq!(read("https://bridge.example/"), Ok(("bridge.example".into(), 443)));
        assert_eq!(read("https://[::1]:9"), Ok(("::1".into(), 9)));
        assert_eq!(read("https://10.0.0.1:8443"), Ok(("10.0.0.1".into(), 8443)));
        for bad in ["http://bridge:1", "bridge", "https://", "https://a b:1", "https://x:0", "https://x:many"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_missing_key_and_a_bad_name_are_told() {
        let without = GOOD.replace("device = \"press-7\"", "");
        assert!(told(&parse(&without).unwrap_err()).contains("device"));
        let bad = GOOD.replace("press-7", "Press 7");
        assert!(told(&parse(&bad).unwrap_err()).contains("`device` is wrong"));
    }
}
