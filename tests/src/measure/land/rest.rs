//! The bridge's API, as people's and devices' programs use it.
//!
//! Decides how it is asked, and that whoever asks too often waits until he may ask again.

use crate::fleet::Fleet;
use anyhow::ensure;
use serde_json::Value;
use std::thread::park_timeout;
use std::time::{Duration, Instant};
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// The bridge counts how often somebody asks in windows of a minute.
const WINDOW: Duration = Duration::from_secs(90);
/// How often it is tried.
const AGAIN: Duration = Duration::from_millis(500);

/// Somebody who asks the bridge.
#[derive(Clone)]
pub(super) struct Rest {
    agent: Agent,
    api: String,
    token: String,
}

impl Rest {
    /// With the token in a file.
    pub(super) fn new(fleet: &Fleet, token: &str) -> anyhow::Result<Self> {
        let ca = Certificate::from_pem(&fleet.desk.read("fleet/tls/ca.pem")?)?;
        let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[ca])).build();
        let config = Agent::config_builder().tls_config(tls).http_status_as_error(false).proxy(None).build();
        let token = String::from_utf8(fleet.desk.read(token)?)?.trim().to_owned();
        Ok(Self { agent: config.new_agent(), api: fleet.api().to_owned(), token })
    }

    /// `POST`, which must succeed.
    pub(super) fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let end = Instant::now() + WINDOW;
        loop {
            let request = self.agent.post(format!("{}{path}", self.api)).header("authorization", self.bearer());
            let mut answer = request.send_json(body)?;
            let (status, text) = (answer.status().as_u16(), answer.body_mut().read_to_string()?);
            if status == 429 && Instant::now() < end {
                park_timeout(AGAIN);
                continue;
            }
            ensure!((200..300).contains(&status), "{path} was answered with {status}: {text}");
            return Ok(if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? });
        }
    }

    /// A number of `/metrics`.
    pub(super) fn metric(&self, name: &str) -> anyhow::Result<u64> {
        let request = self.agent.get(format!("{}/metrics", self.api)).header("authorization", self.bearer());
        let page = request.call()?.body_mut().read_to_string()?;
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        anyhow::Context::with_context(value, || format!("there is no {name}"))
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }
}
