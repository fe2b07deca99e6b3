//! The REST client behind the commands: the context that `petrel login` keeps, and one way to ask.

use crate::fault::Fault;
use crate::service::view::List;
use anyhow::Context as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::http::{Response, StatusCode};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

/// The longest answer that is read.
const MAX_ANSWER_BYTES: u64 = 64 << 20;
/// How long an answer may take to begin, and to arrive.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same for a bundle, which is unpacked and checked before the bridge answers.
const PUSH_PATIENCE: Duration = Duration::from_secs(600);

/// Where the bridge is and what lets us in.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// `https://host:port`
    pub(crate) url: String,
    /// The fleet's certificate authority, PEM.
    pub(crate) ca: String,
    /// The token.
    pub(crate) token: Token,
}

/// A secret that no log shows.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Token(pub(crate) String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Context {
    /// `$PETREL_CONTEXT`, or `petrel/context.toml` in the user's configuration folder.
    pub(crate) fn path() -> anyhow::Result<PathBuf> {
        if let Some(path) = std::env::var_os("PETREL_CONTEXT") {
            return Ok(path.into());
        }
        let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
        let home = std::env::home_dir().map(|home| home.join(".config"));
        let base = config.or(home).context("there is no home folder: set PETREL_CONTEXT to a file")?;
        Ok(base.join("petrel").join("context.toml"))
    }

    /// What `petrel login` kept.
    pub(crate) fn load() -> anyhow::Result<Self> {
        let path = Self::path()?;
        let text = fs::read_to_string(&path).map_err(|e| {
            Fault::new("you are not logged in to a bridge")
                .because(format!("cannot read {}: {e}", path.display()))
                .remedy("run: petrel login https://HOST:8443 --ca ca.pem --token-file admin.token")
        })?;
        let damaged = |e: toml::de::Error| {
            Fault::new(format!("{} is damaged", path.display()))
                .because(e.message().to_owned())
                .remedy("run `petrel login` again")
        };
        Ok(toml::from_str(&text).map_err(damaged)?)
    }

    /// Keeps it for the next commands, for its owner alone; written whole or not at all.
    pub(crate) fn save(&self, path: &Path) -> anyhow::Result<()> {
        let cannot = || format!("cannot write {}", path.display());
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(cannot)?;
        let part = path.with_extension("part");
        let _ = fs::remove_file(&part);
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&part).with_context(cannot)?;
        file.write_all(toml::to_string(self)?.as_bytes()).and_then(|()| file.sync_all()).with_context(cannot)?;
        fs::rename(&part, path).with_context(cannot)
    }
}

/// Asks the bridge.
pub(crate) struct Client {
    agent: Agent,
    context: Context,
}

/// What the bridge says went wrong.
#[derive(Debug, Deserialize)]
struct Problem {
    code: String,
    detail: String,
}

impl Client {
    /// With what `petrel login` kept.
    pub(crate) fn from_context() -> anyhow::Result<Self> {
        Self::new(Context::load()?)
    }

    /// With a context of one's own.
    pub(crate) fn new(context: Context) -> anyhow::Result<Self> {
        let ca = Certificate::from_pem(context.ca.as_bytes()).map_err(|e| {
            let fault = Fault::new("the certificate authority is no certificate in PEM").because(e);
            fault.remedy("run `petrel login` with the fleet's tls/ca.pem")
        })?;
        let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[ca])).build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .https_only(true)
            .proxy(None)
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_recv_response(Some(PATIENCE))
            .timeout_recv_body(Some(PATIENCE))
            .build();
        Ok(Self { agent: config.new_agent(), context })
    }

    /// `GET path`
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let request = self.agent.get(self.url(path)).header("authorization", self.bearer());
        self.read(request.call())?.context("the bridge's answer was empty")
    }

    /// `GET path`, a list.
    pub(crate) fn list<T: DeserializeOwned + utoipa::ToSchema>(&self, path: &str) -> anyhow::Result<Vec<T>> {
        let List { mut items, mut next } = self.get::<List<T>>(path)?;
        while let Some(last) = next {
            let sign = if path.contains('?') { '&' } else { '?' };
            let more = self.get::<List<T>>(&format!("{path}{sign}after={}", encoded(&last)))?;
            items.extend(more.items);
            next = more.next;
        }
        Ok(items)
    }

    /// `POST path` with a JSON body; `None` when the bridge answers without one.
    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> anyhow::Result<Option<T>> {
        let request = self.agent.post(self.url(path)).header("authorization", self.bearer());
        self.read(request.send_json(body))
    }

    /// `POST path` without a body; the answer is a list.
    pub(crate) fn post_list<T: DeserializeOwned + utoipa::ToSchema>(&self, path: &str) -> anyhow::Result<Vec<T>> {
        let request = self.agent.post(self.url(path)).header("authorization", self.bearer());
        Ok(self.read::<List<T>>(request.send_empty())?.context("the bridge's answer was empty")?.items)
    }

    /// `POST path` with a JSON document as it is.
    pub(crate) fn post_bytes<T: DeserializeOwned>(&self, path: &str, body: &[u8]) -> anyhow::Result<T> {
        let request = self.agent.post(self.url(path)).header("authorization", self.bearer());
        let request = request.header("content-type", "application/json");
        self.read(request.send(body))?.context("the bridge's answer was empty")
    }

    /// `PUT path` with bytes from a reader.
    pub(crate) fn put<T: DeserializeOwned>(&self, path: &str, body: &mut dyn Read, length: u64) -> anyhow::Result<T> {
        let request = self.agent.put(self.url(path)).config().timeout_recv_response(Some(PUSH_PATIENCE)).build();
        let request = request.header("authorization", self.bearer());
        let request =
            request.header("content-type", "application/octet-stream").header("content-length", length.to_string());
        self.read(request.send(ureq::SendBody::from_reader(body)))?.context("the bridge's answer was empty")
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/v1{path}", self.context.url.trim_end_matches('/'))
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.context.token.0)
    }

    fn read<T: DeserializeOwned>(&self, answer: Result<Response<Body>, ureq::Error>) -> anyhow::Result<Option<T>> {
        let mut answer = answer.map_err(|e| {
            Fault::new(format!("the bridge at {} does not answer", self.context.url)).because(e).remedy(
                "is it running, and is this its address and its certificate authority? `petrel login` sets both",
            )
        })?;
        let status = answer.status();
        let body = answer.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec();
        let body = body.context("the bridge's answer broke off")?;
        if status.is_success() {
            let empty = status == StatusCode::NO_CONTENT || body.is_empty();
            return if empty {
                Ok(None)
            } else {
                Ok(Some(serde_json::from_slice(&body).context("the bridge's answer is not understood")?))
            };
        }
        let fault = match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Fault::new(problem.detail).because(format!(
                "the bridge answered {} ({})",
                status.as_u16(),
                problem.code
            )),
            Err(_) => Fault::new(format!("the bridge answered {status}")),
        };
        Err(fault.remedy(advice(status)).into())
    }
}

/// What helps against an answer that is none.
fn advice(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "run `petrel login` with a token of this bridge",
        StatusCode::NOT_FOUND => {
            "see what there is: `petrel devices ls`, `petrel rollout ls`; `petrel push` brings a release"
        }
        status if status.is_client_error() => {
            "see where things stand: `petrel devices ls`, `petrel rollout ls`; `petrel verify` checks a bundle"
        }
        _ => "look at the bridge's log",
    }
}

/// A value of a query.
pub(crate) fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}
