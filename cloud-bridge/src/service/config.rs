//! What the bridge is told: a file as it was said, checked into what is meant.

use super::caretaker::Retention;
use super::store::database::{Database, Server};
use crate::authority;
use crate::fault::Fault;
use crate::keyfile;
use bridge_core::NEED_RATE;
use protocol::{BRIDGE_NAME, FleetId, StreamName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};
use trust::{Root, Verified};

/// The configuration as it is written.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Said {
    fleet: FleetId,
    root: PathBuf,
    director_key: String,
    director_passphrase: Option<String>,
    beacon_key: String,
    beacon_passphrase: Option<String>,
    ca: PathBuf,
    tls_cert: PathBuf,
    tls_key: String,
    devices_cert: PathBuf,
    devices_key: String,
    client_cert: PathBuf,
    client_key: String,
    api_url: Option<String>,
    broker_url: Option<String>,
    crl: Option<PathBuf>,
    #[serde(default)]
    broker_reload: Vec<String>,
    data: PathBuf,
    database: Option<String>,
    database_password: Option<String>,
    #[serde(default = "default_listen")]
    listen: SocketAddr,
    broker: Option<String>,
    #[serde(default = "default_broker_listen")]
    broker_listen: SocketAddr,
    #[serde(default = "default_telemetry_days")]
    telemetry_days: NonZeroU32,
    #[serde(default = "default_months")]
    hourly_days: NonZeroU32,
    #[serde(default = "default_months")]
    drift_days: NonZeroU32,
    #[serde(default = "default_answer_days")]
    answer_days: NonZeroU32,
    audit_days: Option<NonZeroU32>,
    #[serde(default = "default_year")]
    bundle_days: NonZeroU32,
    #[serde(default = "default_year")]
    rollout_days: NonZeroU32,
    #[serde(default = "default_need_rate")]
    need_rate: NonZeroU64,
    publish_rate: Option<NonZeroU64>,
    #[serde(default, rename = "webhook")]
    webhooks: Vec<SaidWebhook>,
}

/// A webhook as it is written.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct SaidWebhook {
    name: StreamName,
    url: String,
    secret: String,
    #[serde(default)]
    events: Vec<String>,
    ca: Option<PathBuf>,
}

/// Somebody who is told of events.
#[derive(Debug, Clone)]
pub(crate) struct Webhook {
    /// Its name.
    pub(crate) name: String,
    /// Where events are sent.
    pub(crate) url: String,
    /// The file with the secret that signs them.
    pub(crate) secret: PathBuf,
    /// The kinds of events that it wants, or their first words; all when there are none.
    pub(crate) events: Vec<String>,
    /// The authority behind its certificate, PEM; else those that the system trusts.
    pub(crate) ca: Option<PathBuf>,
}

/// The list of withdrawn certificates in the data folder.
const CRL: &str = "devices.crl";

/// A URL without its path, its query and a password: there may be secrets in them.
pub(crate) fn origin(url: &str) -> String {
    let origin = url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
    match origin.rsplit_once('@') {
        Some((before, host)) => format!("{}//{host}", before.split("//").next().unwrap_or_default()),
        None => origin,
    }
}

/// Where the REST API listens unless told otherwise.
pub(crate) fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8443))
}

/// Where the broker inside listens unless told otherwise.
pub(crate) fn default_broker_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8883))
}

fn default_need_rate() -> NonZeroU64 {
    NEED_RATE
}

fn default_telemetry_days() -> NonZeroU32 {
    const { NonZeroU32::new(7).unwrap() }
}

fn default_months() -> NonZeroU32 {
    const { NonZeroU32::new(90).unwrap() }
}

fn default_answer_days() -> NonZeroU32 {
    const { NonZeroU32::new(30).unwrap() }
}

fn default_year() -> NonZeroU32 {
    const { NonZeroU32::new(365).unwrap() }
}

/// What the bridge runs with; every path is absolute or relative to the working directory.
#[derive(Debug, Clone)]
pub(crate) struct BridgeConfig {
    /// The fleet.
    pub(crate) fleet: FleetId,
    root: PathBuf,
    /// The director's private key.
    pub(crate) director_key: PathBuf,
    /// A file with the passphrase of that key, where it is encrypted.
    pub(crate) director_passphrase: Option<PathBuf>,
    /// The beacon's private key.
    pub(crate) beacon_key: PathBuf,
    /// A file with the passphrase of that key, where it is encrypted.
    pub(crate) beacon_passphrase: Option<PathBuf>,
    /// The fleet's certificate authority, PEM.
    pub(crate) ca: PathBuf,
    /// The server's certificate chain, PEM.
    pub(crate) tls_cert: PathBuf,
    /// The server's private key, PEM.
    pub(crate) tls_key: PathBuf,
    /// The certificate of the intermediate that signs devices, PEM.
    pub(crate) devices_cert: PathBuf,
    /// The intermediate's private key, PEM.
    pub(crate) devices_key: PathBuf,
    /// The bridge's certificate as a client of the broker, with its chain, PEM.
    pub(crate) client_cert: PathBuf,
    /// Its private key, PEM.
    pub(crate) client_key: PathBuf,
    /// What devices are told of where the REST API is, where it is not where it listens.
    pub(crate) api_url: Option<String>,
    /// What devices are told of where the broker is, where it is not where the bridge finds it.
    pub(crate) broker_url: Option<String>,
    /// The list of withdrawn certificates, for another broker.
    pub(crate) crl: PathBuf,
    /// The command that lets another broker read that list anew; nothing by default.
    pub(crate) broker_reload: Vec<String>,
    /// Where everything is kept, or all but the state.
    pub(crate) data: PathBuf,
    /// Where the state is kept.
    pub(crate) database: Database,
    /// Where the REST API listens.
    pub(crate) listen: SocketAddr,
    /// The broker.
    pub(crate) broker: BrokerChoice,
    /// How long things are kept.
    pub(crate) retention: Retention,
    /// Bytes a second that devices together are given again of what they ask for.
    pub(crate) need_rate: NonZeroU64,
    /// Bytes a second of bundles that are published at most; as many as go without it.
    pub(crate) publish_rate: Option<NonZeroU64>,
    /// Who is told of events.
    pub(crate) webhooks: Vec<Webhook>,
}

/// A key of the configuration, what it is, and who says so.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Explained {
    /// As it stands in the file.
    pub(crate) key: String,
    /// JSON; null when nothing is said.
    pub(crate) value: serde_json::Value,
    /// `file`, `flag` or `default`.
    pub(crate) from: &'static str,
}

/// Which broker carries the messages.
#[derive(Debug, Clone)]
pub(crate) enum BrokerChoice {
    /// The one in this process, listening here.
    Here(SocketAddr),
    /// Any MQTT 5 broker, `mqtts://host:port`.
    Elsewhere(String),
}

/// Where a new bridge listens, and what it tells devices.
#[derive(Debug)]
pub(crate) struct Doorsteps {
    /// The REST API.
    pub(crate) listen: SocketAddr,
    /// The broker inside.
    pub(crate) broker_listen: SocketAddr,
    /// The name by which devices find it, where that is not this machine's own.
    pub(crate) host: Option<String>,
}

impl Doorsteps {
    /// On loopback; or everywhere when others know the machine by a name.
    pub(crate) fn of(host: Option<&String>) -> Self {
        let (mut listen, mut broker_listen) = (default_listen(), default_broker_listen());
        if host.is_some() {
            listen.set_ip(Ipv4Addr::UNSPECIFIED.into());
            broker_listen.set_ip(Ipv4Addr::UNSPECIFIED.into());
        }
        Self { listen, broker_listen, host: host.cloned() }
    }
}

/// A configuration to begin with, for a file beside `root.json` and its folders `keys` and `tls`.
pub(crate) fn starter(fleet: &FleetId, data: &str, at: &Doorsteps) -> String {
    let Doorsteps { listen, broker_listen, host } = at;
    let told = match host {
        Some(host) => format!(
            "\n# What devices are told of where these are.\n\
             api_url = \"https://{host}:{}\"\nbroker_url = \"mqtts://{host}:{}\"\n",
            listen.port(),
            broker_listen.port()
        ),
        None => String::new(),
    };
    format!(
        "# Where things are, relative to this file. Every key is explained in docs/operations.md.\n\
         fleet = \"{fleet}\"\nroot = \"root.json\"\ndirector_key = \"keys/director.pem\"\n\
         beacon_key = \"keys/beacon.pem\"\nca = \"tls/ca.pem\"\n\
         tls_cert = \"tls/bridge.pem\"\ntls_key = \"tls/bridge.key\"\n\
         devices_cert = \"tls/devices.pem\"\ndevices_key = \"tls/devices.key\"\n\
         client_cert = \"tls/{BRIDGE_NAME}.pem\"\nclient_key = \"tls/{BRIDGE_NAME}.key\"\ndata = \"{data}\"\n\n\
         # The REST API, and the broker inside; `broker = \"mqtts://host:8883\"` names another one.\n\
         listen = \"{listen}\"\nbroker_listen = \"{broker_listen}\"\n{told}"
    )
}

impl BridgeConfig {
    /// Reads the file; relative paths in it are relative to its folder. `broker` overrides the file.
    ///
    /// # Errors
    /// When the file cannot be read, or says something that is not known.
    pub(crate) fn read(path: &Path, broker: Option<String>) -> anyhow::Result<Self> {
        Self::parse(path, &read(path)?, broker)
    }

    /// Every key that there is, by name. URLs are told without what may be secret in them.
    ///
    /// # Errors
    /// As [`BridgeConfig::read`].
    pub(crate) fn explain(path: &Path, broker: Option<String>) -> anyhow::Result<Vec<Explained>> {
        let text = read(path)?;
        Self::parse(path, &text, broker.clone())?;
        let (mut said, written): (Said, toml::Table) = (understand(path, &text)?, understand(path, &text)?);
        let flag = broker.is_some();
        said.broker = broker.or(said.broker).map(|url| origin(&url));
        said.webhooks.iter_mut().for_each(|webhook| webhook.url = origin(&webhook.url));
        said.crl.get_or_insert_with(|| said.data.join(CRL));
        let serde_json::Value::Object(keys) = serde_json::to_value(said)? else { return Ok(vec![]) };
        let explained = |(key, value): (String, serde_json::Value)| {
            let from = match key.as_str() {
                "broker" if flag => "flag",
                key if written.contains_key(key) => "file",
                _ => "default",
            };
            Explained { key, value, from }
        };
        Ok(keys.into_iter().map(explained).collect())
    }

    fn parse(path: &Path, text: &str, broker: Option<String>) -> anyhow::Result<Self> {
        let said: Said = understand(path, text)?;
        let base = path.parent().unwrap_or(Path::new(""));
        let broker = match broker.or(said.broker) {
            Some(url) => BrokerChoice::Elsewhere(url),
            None => BrokerChoice::Here(said.broker_listen),
        };
        let secret = |said: &str| keyfile::secret_path(base, said);
        let data = base.join(said.data);
        let database = match (said.database, said.database_password.as_deref().map(secret).transpose()?) {
            (Some(url), password) => Database::Server(Server::said(&url, base, password)?),
            (None, None) => Database::File(data.clone()),
            (None, Some(_)) => {
                let what = Fault::new("`database_password` is the password of no server");
                return Err(what.remedy("name the server: database = \"postgres://USER@HOST:5432/DATABASE\"").into());
            }
        };
        let webhook = |w: SaidWebhook| -> anyhow::Result<Webhook> {
            let ca = w.ca.map(|path| base.join(path));
            Ok(Webhook { name: w.name.to_string(), url: w.url, secret: secret(&w.secret)?, events: w.events, ca })
        };
        let webhooks: Vec<Webhook> = said.webhooks.into_iter().map(webhook).collect::<Result<_, _>>()?;
        let names: BTreeSet<&str> = webhooks.iter().map(|webhook| webhook.name.as_str()).collect();
        if names.len() < webhooks.len() {
            return Err(Fault::new("two webhooks have the same name")
                .remedy("give each [[webhook]] a `name` of its own")
                .into());
        }
        Ok(Self {
            fleet: said.fleet,
            root: base.join(said.root),
            director_key: secret(&said.director_key)?,
            director_passphrase: said.director_passphrase.as_deref().map(secret).transpose()?,
            beacon_key: secret(&said.beacon_key)?,
            beacon_passphrase: said.beacon_passphrase.as_deref().map(secret).transpose()?,
            ca: base.join(said.ca),
            tls_cert: base.join(said.tls_cert),
            tls_key: secret(&said.tls_key)?,
            devices_cert: base.join(said.devices_cert),
            devices_key: secret(&said.devices_key)?,
            client_cert: base.join(said.client_cert),
            client_key: secret(&said.client_key)?,
            api_url: said.api_url,
            broker_url: said.broker_url,
            crl: said.crl.map_or_else(|| data.join(CRL), |path| base.join(path)),
            broker_reload: said.broker_reload,
            data,
            database,
            listen: said.listen,
            broker,
            retention: Retention {
                telemetry: said.telemetry_days.get(),
                hours: said.hourly_days.get(),
                drift: said.drift_days.get(),
                answers: said.answer_days.get(),
                audit: said.audit_days.map(NonZeroU32::get),
                bundles: said.bundle_days.get(),
                rollouts: said.rollout_days.get(),
            },
            need_rate: said.need_rate,
            publish_rate: said.publish_rate,
            webhooks,
        })
    }

    /// Where the root of trust lies.
    pub(crate) fn root_path(&self) -> &Path {
        &self.root
    }

    /// The root of trust that the configuration names, with its bytes.
    ///
    /// # Errors
    /// When it cannot be read or believed, or is another fleet's.
    pub(crate) fn root(&self) -> anyhow::Result<(Verified<Root>, Vec<u8>)> {
        let root = authority::read_root(&self.root)?;
        if root.fleet != self.fleet.as_str() {
            let what =
                format!("{} is the root of fleet `{}`, not of `{}`", self.root.display(), root.fleet, self.fleet);
            return Err(Fault::new(what).remedy("give the root of this fleet, or change `fleet`").into());
        }
        Ok((root, authority::read_document(&self.root)?))
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    let unreadable = |e| {
        Fault::new(format!("cannot read the configuration {}", path.display()))
            .because(e)
            .remedy("`petrel root init` writes one: give its path with --config")
    };
    Ok(std::fs::read_to_string(path).map_err(unreadable)?)
}

fn understand<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> anyhow::Result<T> {
    let fault = |e: toml::de::Error| {
        Fault::new(format!("the configuration {} is not understood", path.display()))
            .because(e.to_string())
            .remedy("see docs/operations.md for the keys that it may have")
    };
    Ok(toml::from_str(text).map_err(fault)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_explained_with_who_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bridge.toml");
        let text = starter(&"plant-3".parse().unwrap(), "data", &Doorsteps::of(None));
        std::fs::write(&path, text + "drift_days = 7\n").unwrap();
        let explained = BridgeConfig::explain(&path, Some("mqtts://sea:8883".into())).unwrap();
        let of = |key: &str| {
            let found = explained.iter().find(|of| of.key == key).unwrap_or_else(|| panic!("{key}"));
            (found.value.to_string(), found.from)
        };
        assert_eq!(of("fleet"), ("\"plant-3\"".into(), "file"));
        assert_eq!(of("broker"), ("\"mqtts://sea:8883\"".into(), "flag"));
        assert_eq!(of("drift_days"), ("7".into(), "file"));
        assert_eq!(of("hourly_days"), ("90".into(), "default"));
        assert_eq!(of("audit_days"), ("null".into(), "default"));
        let of_flag = BridgeConfig::explain(&path, None).unwrap();
        assert!(of_flag.iter().any(|of| of.key == "broker" && of.from == "default"));
    }

    #[test]
    fn no_text_breaks_the_configuration() {
        let honest = starter(&"plant-3".parse().unwrap(), "data", &Doorsteps::of(None));
        let path = Path::new("/etc/petrel/bridge.toml");
        assert!(BridgeConfig::parse(path, &honest, None).is_ok());
        let mut dice = fastrand::Rng::with_seed(7);
        let words = ["=", "\"", "[[", "]", "\n", "-1", "1e999", "mqtts://", "\u{0}", "127.0.0.1:99999"];
        for _ in 0..4_000 {
            let mut bytes = honest.clone().into_bytes();
            for _ in 0..dice.usize(1..4) {
                let at = dice.usize(..=bytes.len());
                let end = (at + dice.usize(..12)).min(bytes.len());
                match dice.u8(..3) {
                    0 => drop(bytes.splice(at..end, dice.choice(words).unwrap().bytes())),
                    1 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
                    _ => bytes[at..end].iter_mut().for_each(|b| *b = dice.u8(..)),
                }
            }
            match BridgeConfig::parse(path, &String::from_utf8_lossy(&bytes), None) {
                Ok(config) => assert!(!config.fleet.as_str().is_empty()),
                Err(error) => {
                    assert!(error.downcast_ref::<Fault>().is_some_and(|fault| fault.advice().is_some()), "{error}");
                }
            }
        }
    }
}
